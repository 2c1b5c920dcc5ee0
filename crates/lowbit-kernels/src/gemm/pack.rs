//! The right operand of a matrix product, packed into panels of 16 columns.

use super::Mat;
use super::element::{self, Element};
use crate::simd::{LANES, Simd};
use crate::{Cpu, Op, Products, Windows};
use std::marker::PhantomData;
use std::ops::Range;

/// Packs `B`, `[k, n]`, into panels `[n / 16][count(k)][16]`, missing columns 0.
pub(super) fn pack_panels<E: Element>(cpu: &Cpu, k: usize, n: usize, b: Mat, packed: &mut [f32]) {
    let (panels, depth) = (n.div_ceil(LANES), E::count(k));
    let grain = (1 << 15) / (k * LANES) + 1;
    cpu.pool.for_rows(panels, grain, [(&mut packed[..panels * depth * LANES], depth * LANES)], |range, [part]| {
        for (panel, out) in range.zip(part.chunks_exact_mut(depth * LANES)) {
            cpu.isa.run(PackPanel::<E> { k, n, b, first: panel * LANES, out, element: PhantomData });
        }
    });
}

/// Packs one panel of `B`.
struct PackPanel<'a, E> {
    k: usize,
    n: usize,
    b: Mat<'a>,
    /// Its first column.
    first: usize,
    out: &'a mut [f32],
    element: PhantomData<E>,
}

impl<E: Element> Op for PackPanel<'_, E> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, _: S) {
        let PackPanel { k, n, b, first, out, .. } = self;
        let width = LANES.min(n - first);
        let rows = out.chunks_exact_mut(LANES).enumerate().map(|(l, out)| (l * E::VALUES, out));
        if b.col_stride == 1 && width == LANES {
            let row = |l: usize| if l < k { &b.data[l * b.row_stride + first..][..LANES] } else { &[] };
            for (l, out) in rows {
                E::pack_across(row(l), if E::VALUES == 1 { &[] } else { row(l + 1) }, out);
            }
        } else if b.row_stride == 1 && width == LANES {
            element::transpose::<E>(std::array::from_fn(|j| &b.data[(first + j) * b.col_stride..][..k]), out);
        } else {
            let at =
                |l: usize, j: usize| if l < k { b.data[l * b.row_stride + (first + j) * b.col_stride] } else { 0.0 };
            for (l, out) in rows {
                out.fill(0.0);
                for (j, out) in out[..width].iter_mut().enumerate() {
                    *out = E::pack([at(l, j), if E::VALUES == 1 { 0.0 } else { at(l + 1, j) }]);
                }
            }
        }
    }
}

/// Packs at most 16 columns of windows as a panel, missing columns 0.
#[inline(always)]
pub(super) fn pack_columns<E: Element>(windows: Windows, columns: Range<usize>, out: &mut [f32]) {
    if windows.is_one_pixel(&columns) && E::VALUES == 1 && columns.len() == LANES {
        let out = out.as_chunks_mut::<LANES>().0;
        return windows.for_columns(columns, |row, values| match <&[f32; LANES]>::try_from(values) {
            Ok(values) => E::pack_across(values, &[], &mut out[row]),
            Err(_) => out[row] = [0.0; LANES],
        });
    }
    let mut values = [[0.0; LANES]; 2];
    for (row, out) in (0..windows.len()).step_by(E::VALUES).zip(out.as_chunks_mut::<LANES>().0) {
        let rows = row..(row + E::VALUES).min(windows.len());
        for (row, values) in rows.clone().zip(&mut values) {
            windows.copy(row, columns.clone(), &mut values[..columns.len()]);
        }
        E::pack_across(&values[0], if rows.len() == 2 { &values[1] } else { &[] }, out);
    }
}
