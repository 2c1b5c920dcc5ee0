//! 2:4 sparse integers: of every four consecutive columns of a row at most two weights are kept, `w = (code - 128) * scale`
//! with a scale per row; all others are 0 (arXiv 2104.08378).
//!
//! A quad of 16 rows takes 40 bytes: the two codes of each row, then the positions of each as four bits, of which two are set,
//! lowest row first. Kernels expand it to the quad of `int8_channel`.

use super::quantizer::{self, ScaleRule};
use super::spec::{Scales, Spec};
use super::tiles::{self, Epilogue, FloatPanels, Folds, Groups, Layout, OperandKind, Quads, finish_rows, fold};
use super::view::RowScales;
use super::ways::{self, Entry, Job, Way};
use super::{
    AHEAD, Format, Packed, QuantizeOptions, ROUNDED, StoredPart, check_finite, check_scalable, check_scales, codec,
    floats, size, stream_grain, vain_scale,
};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Activations, Bytes, Cpu, Error, Int8Activations, Isa, Op, Products};
use std::ops::Range;

/// The format.
#[derive(Debug)]
pub(super) struct Sparse {
    spec: Spec,
}

/// 8 bits with a scale per row.
pub(super) static INT8_2OF4: Sparse = Sparse { spec: Spec::integers("int8_2of4", 5.0, 256, Scales::Row) };

/// The code that means 0.
const ZERO: u8 = 128;
/// Bytes of the codes of a quad of 16 rows.
const CODES: usize = 2 * LANES;
/// Bytes of a quad of 16 rows.
const QUAD: usize = CODES + 8;
/// Most columns whose sums stay inside 32 bits.
const MOST_COLUMNS: usize = i32::MAX as usize / (128 * 127);

/// The two largest magnitudes of four, ascending; of equal ones the first.
fn largest(quad: [f32; 4]) -> [usize; 2] {
    let mut order = [0, 1, 2, 3];
    order.sort_by(|a, b| quad[*b].abs().total_cmp(&quad[*a].abs()));
    [order[0].min(order[1]), order[0].max(order[1])]
}

/// Four weights, those beyond a row being 0.
fn padded(quad: &[f32]) -> [f32; 4] {
    std::array::from_fn(|i| quad.get(i).copied().unwrap_or(0.0))
}

/// The positions of all rows of a quad, four bits each.
fn positions(quad: &[u8]) -> u64 {
    u64::from_le_bytes(*quad[CODES..].first_chunk().expect("a quad ends with its positions"))
}

/// Whether each four bits have two set.
fn keeps_two(positions: u64) -> bool {
    const ONES: u64 = 0x1111_1111_1111_1111;
    let pairs = (positions & (5 * ONES)) + ((positions >> 1) & (5 * ONES));
    (pairs & (3 * ONES)) + ((pairs >> 2) & (3 * ONES)) == 2 * ONES
}

impl Format for Sparse {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn parts(&self, rows: usize, cols: usize, _: &[Bytes]) -> Vec<StoredPart> {
        let codes = size(&[rows.div_ceil(LANES), cols.div_ceil(4), QUAD]);
        vec![StoredPart::codes(codes), StoredPart::scales(size(&[rows, 4]))]
    }

    fn quantize_rows(&'static self, w: &[f32], rows: usize, cols: usize, _: &QuantizeOptions) -> Result<Packed, Error> {
        check_finite(w, rows, cols)?;
        check_scalable(w, cols, self.spec.name, ROUNDED)?;
        let mut out = vec![0u8; rows.div_ceil(LANES) * cols.div_ceil(4) * QUAD];
        for quad in out.chunks_exact_mut(QUAD) {
            quad[..CODES].fill(ZERO);
            quad[CODES..].fill(0x33);
        }
        let (mut codes, mut scales) = (vec![ZERO; cols], Vec::with_capacity(rows));
        for (row, w) in w.chunks_exact(cols).enumerate() {
            // The largest weight of a row is kept, so that its scale is that of the whole row.
            scales.extend(quantizer::scales(ScaleRule::Absmax, None, w, cols, ZERO, &mut codes));
            let quads = out[row / LANES * cols.div_ceil(4) * QUAD..].chunks_exact_mut(QUAD);
            for ((w, codes), quad) in w.chunks(4).zip(codes.chunks(4)).zip(quads) {
                let (lane, kept) = (row % LANES, largest(padded(w)));
                for (i, col) in kept.into_iter().enumerate() {
                    quad[2 * lane + i] = codes.get(col).copied().unwrap_or(ZERO);
                }
                let (shift, bits) = (lane % 2 * 4, 1 << kept[0] | 1 << kept[1]);
                let byte = &mut quad[CODES + lane / 2];
                *byte = *byte & !(15 << shift) | bits << shift;
            }
        }
        Packed::from_parts(self, rows, cols, vec![Bytes::new(out), Bytes::from_f32(&scales)])
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        let (view, lane) = (View::new(p), row % LANES);
        let scale = view.scales.row(row);
        for (out, quad) in out.chunks_mut(4).zip(view.panel(row / LANES).chunks_exact(QUAD)) {
            let mut kept = quad[2 * lane..][..2].iter();
            for (i, out) in out.iter_mut().enumerate() {
                let code = match positions(quad) >> (4 * lane + i) & 1 {
                    1 => *kept.next().expect("two of four"),
                    _ => ZERO,
                };
                *out = (i32::from(code) - i32::from(ZERO)) as f32 * scale;
            }
        }
    }

    fn ways(&self) -> Vec<Way> {
        let tables = [table("int8"), table("int8_block")];
        tables.iter().flatten().map(|entry| entry.way).chain([ways::F32_PANELS]).collect()
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Activations, y: &mut [f32]) {
        let view = View::new(p);
        match x {
            Activations::Int8(q) if q.block.is_some() || p.cols <= MOST_COLUMNS => view.product(cpu, q, y),
            _ => tiles::product_f32(cpu, &view, p.rows, p.cols, &x.floats(), y),
        }
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        let (name, view) = (self.spec.name, View::new(p));
        if let Some(at) = p.parts[0].chunks_exact(QUAD).position(|quad| !keeps_two(positions(quad))) {
            let (quads, positions) = (p.cols.div_ceil(4), positions(&p.parts[0][at * QUAD..]));
            let (panel, quad) = (at / quads, at % quads);
            let text = format!("{name}: positions {positions:#x} of quad {quad} of panel {panel} are not two of four");
            return Err(Error::Corrupt(text));
        }
        check_scales(name, "scale", floats(&p.parts[1]))?;
        let has_codes = |row: usize| {
            let codes = |quad: &[u8]| quad[row % LANES * 2..][..2] != [ZERO; 2];
            view.panel(row / LANES).chunks_exact(QUAD).any(codes)
        };
        let scales: Vec<f32> = floats(&p.parts[1]).collect();
        let mut vain = (0..p.rows).filter(|row| scales[*row] == 0.0 && has_codes(*row));
        vain.next().map_or(Ok(()), |row| Err(vain_scale(name, row)))
    }
}

/// A way to multiply 8-bit activations.
type Run<'a> = fn(&Cpu, &View<'a>, Groups, &mut [f32]);

/// The ways of 8-bit activations of one kind.
fn table<'a>(activations: &'static str) -> [Entry<Run<'a>>; 2] {
    let (name, strips) = match activations {
        "int8" => ("sparse_gemv", ways::INT8_STRIPS),
        _ => ("sparse_block_gemv", ways::BLOCK_STRIPS),
    };
    [
        Entry::new(strips, |cpu, view, x, y| tiles::product(cpu, view, view.p.rows, x, y, &|_, _| {})),
        Entry::new(Way::one(name, activations, "one stream of what is kept"), |cpu, view, x, y| view.gemv(cpu, x, y)),
    ]
}

/// A packed matrix.
struct View<'a> {
    p: &'a Packed,
    scales: RowScales<'a>,
    /// Quads of a panel.
    quads: usize,
}

impl<'a> View<'a> {
    fn new(p: &'a Packed) -> Self {
        View { p, scales: RowScales { scales: &p.parts[1], shared: false }, quads: p.cols.div_ceil(4) }
    }

    fn panel(&self, panel: usize) -> &[u8] {
        &self.p.parts[0][panel * self.quads * QUAD..][..self.quads * QUAD]
    }

    fn product(&self, cpu: &Cpu, q: &Int8Activations, y: &mut [f32]) {
        assert_eq!(q.cols, self.p.cols, "activations are [tokens, cols]");
        let job =
            Job { isa: cpu.isa, tokens: q.tokens, weights: self.p.rows * self.p.cols, grouped: q.block.is_some() };
        let ways = table(if q.block.is_some() { "int8_block" } else { "int8" });
        (ways::choose(&ways, cpu, job).run)(cpu, self, Groups::int8(q, Folds::of_rows(q, ZERO.into())), y);
    }

    fn gemv(&self, cpu: &Cpu, x: Groups, y: &mut [f32]) {
        let panels = self.p.rows.div_ceil(LANES);
        let grain = stream_grain(self.quads * QUAD, panels);
        let out = SharedMut::new(y);
        cpu.pool.run(panels.div_ceil(grain), &|task| {
            let panels = task * grain..((task + 1) * grain).min(panels);
            cpu.isa.run(SparseGemv { view: self, x, panels, out: &out });
        });
    }
}

/// The quad of `int8_channel` that 40 bytes stand for.
#[inline(always)]
fn expand<S: Simd>(s: S, quad: &[u8]) -> S::I {
    let codes = quad.first_chunk::<CODES>().expect("the codes of a quad");
    s.expand_pairs(codes, positions(quad), s.splat_i(i32::from_le_bytes([ZERO; 4])))
}

/// One token times a range of panels.
struct SparseGemv<'a> {
    view: &'a View<'a>,
    x: Groups<'a>,
    panels: Range<usize>,
    out: &'a SharedMut<'a, f32>,
}

impl Op for SparseGemv<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::Int8;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for panel in self.panels.clone() {
            let scales = s.load_part(&self.view.scales.panel(panel), 0.0);
            let value = match &self.x.folds {
                Some(folds) => s.mul(self.blocks(s, panel, folds), s.mul(s.splat(self.x.scale[0]), scales)),
                None => {
                    let sums = self.sums::<S, 4>(s, self.view.panel(panel), self.x.x.single());
                    finish_rows(s, sums, ZERO.into(), self.x.totals[0], self.x.scale[0], scales)
                }
            };
            let first = panel * LANES;
            // SAFETY: the task owns the outputs of its panels.
            s.store_part(unsafe { self.out.slice(first..(first + LANES).min(self.view.p.rows)) }, value);
        }
    }
}

impl SparseGemv<'_> {
    /// The total of the blocks of a panel.
    #[inline(always)]
    fn blocks<S: Simd>(&self, s: S, panel: usize, folds: &Folds) -> S::F {
        let x = self.x.x.single().chunks(folds.columns());
        let mut total = s.splat(0.0);
        for (f, (quads, x)) in self.view.panel(panel).chunks(folds.quads * QUAD).zip(x).enumerate() {
            let exact = s.add_i(self.sums::<S, 2>(s, quads, x), s.splat_i(folds.start(0, f)));
            total = fold(s, total, s.to_f(exact), s.splat(folds.ratio(0, f)));
        }
        total
    }

    /// The sum of the products of some quads, in `U` chains of additions.
    #[inline(always)]
    fn sums<S: Simd, const U: usize>(&self, s: S, quads: &[u8], x: &[u8]) -> S::I {
        let mut acc = [s.splat_i(0); U];
        let quad = |quad: &[u8], x: &[u8], acc: S::I| {
            s.prefetch(quad.as_ptr().wrapping_add(AHEAD));
            let x = i32::from_le_bytes(*x.first_chunk().expect("four activations"));
            s.dot(acc, expand(s, quad), s.splat_i(x))
        };
        let (mut many, mut xs) = (quads.chunks_exact(U * QUAD), x.chunks_exact(U * 4));
        for (quads, x) in (&mut many).zip(&mut xs) {
            for u in 0..U {
                acc[u] = quad(&quads[u * QUAD..][..QUAD], &x[u * 4..][..4], acc[u]);
            }
        }
        let done = quads.len() / (U * QUAD) * U * 4;
        for (quads, x) in many.remainder().chunks_exact(QUAD).zip(x[done..].chunks_exact(4)) {
            acc[0] = quad(quads, x, acc[0]);
        }
        let mut sum = acc[0];
        for more in &acc[1..] {
            sum = s.add_i(sum, *more);
        }
        sum
    }
}

impl Quads for View<'_> {
    fn layout(&self) -> Layout {
        Layout { kind: OperandKind::Int, length: self.quads, quads: 1, group: None }
    }

    fn decode(&self, isa: Isa, panel: usize, units: Range<usize>, out: &mut [u8]) {
        isa.run(Decode { quads: &self.panel(panel)[units.start * QUAD..units.end * QUAD], out });
    }

    fn epilogue(&self, panel: usize) -> Epilogue {
        Epilogue::Rows { zero: ZERO.into(), scales: self.scales.panel(panel) }
    }
}

impl FloatPanels for View<'_> {
    fn columns(&self, isa: Isa, panel: usize, out: &mut [f32]) {
        isa.run(Columns { quads: self.panel(panel), cols: self.p.cols, out });
    }
}

/// Quads to memory.
struct Decode<'a> {
    quads: &'a [u8],
    out: &'a mut [u8],
}

impl Op for Decode<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (quad, out) in self.quads.chunks_exact(QUAD).zip(self.out.as_chunks_mut::<64>().0) {
            // SAFETY: 64 bytes.
            unsafe { s.store_i(out.as_mut_ptr(), expand(s, quad)) };
        }
    }
}

/// Weights of one panel as f32 without their scales, `[cols][16]`.
struct Columns<'a> {
    quads: &'a [u8],
    cols: usize,
    out: &'a mut [f32],
}

impl Op for Columns<'_> {
    type Out = ();
    const PRODUCTS: Products = Products::None;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let zero = s.splat_i(ZERO.into());
        let columns = self.out[..self.cols * LANES].chunks_mut(4 * LANES);
        for (quad, out) in self.quads.chunks_exact(QUAD).zip(columns) {
            for (codes, out) in codec::bytes(s, expand(s, quad)).into_iter().zip(out.chunks_exact_mut(LANES)) {
                s.store_part(out, s.to_f(s.sub_i(codes, zero)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_four_are_the_largest_and_the_first_of_equals() {
        for (quad, kept) in [
            ([1.0, -4.0, 2.0, 3.0], [1, 3]),
            ([0.0, 0.0, 0.0, 0.0], [0, 1]),
            ([5.0, 5.0, 5.0, -5.0], [0, 1]),
            ([0.0, 0.0, 0.0, 1.0], [0, 3]),
        ] {
            assert_eq!(largest(quad), kept, "{quad:?}");
        }
        for bits in 0..16u64 {
            for lane in 0..16 {
                let positions = 0x3333_3333_3333_3333 & !(15 << (4 * lane)) | bits << (4 * lane);
                assert_eq!(keeps_two(positions), bits.count_ones() == 2, "{bits:04b} of lane {lane}");
            }
        }
    }
}
