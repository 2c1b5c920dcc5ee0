//! Factors: the power of two that each row of a panel is multiplied with last, where rows of a matrix leave the range in which f16
//! scales are precise. 16 of f32 end the scales of each panel of such a matrix.

use super::{Packed, StoredPart, floats, size};
use crate::Bytes;
use crate::simd::LANES;

/// Bytes of the factors of a panel.
pub(super) const FACTORS: usize = LANES * 4;

/// The factors that end the scales of a panel, which are `bytes` long without; `None` where it has none.
pub(super) fn of(panel: &[u8], bytes: usize) -> Option<[f32; LANES]> {
    let mut stored = floats(&panel[bytes..]);
    let first = stored.next()?;
    let mut factors = [first; LANES];
    factors[1..].iter_mut().zip(stored).for_each(|(factor, stored)| *factor = stored);
    Some(factors)
}

/// Bytes of the scales of a panel, `bytes` without factors: with factors where `panels` of them, at hand, have `found` bytes.
pub(super) fn panel_bytes(bytes: usize, panels: usize, found: usize) -> usize {
    let with = bytes.saturating_add(FACTORS);
    if panels > 0 && found == size(&[panels, with]) { with } else { bytes }
}

/// Codes and scales of a matrix, `codes` and `scales` bytes of each panel, with factors where the parts at hand have such, whatever
/// their number of rows.
pub(super) fn parts(rows: usize, codes: usize, scales: usize, found: &[Bytes]) -> Vec<StoredPart> {
    let panels = rows.div_ceil(LANES);
    let scales = match found {
        [all, with] => panel_bytes(scales, all.len() / codes.max(1), with.len()),
        _ => scales,
    };
    vec![StoredPart::codes(size(&[panels, codes])), StoredPart::scales(size(&[panels, scales]))]
}

/// A matrix whose panels have `bytes` bytes in a part, and factors, without factors if all are 1.
pub(super) fn settle(mut packed: Packed, part: usize, bytes: usize) -> Packed {
    let panels = || packed.parts[part].chunks_exact(bytes + FACTORS);
    let with = packed.rows > 0 && packed.parts[part].len() == packed.rows.div_ceil(LANES) * (bytes + FACTORS);
    if with && panels().all(|panel| of(panel, bytes) == Some([1.0; LANES])) {
        let scales = panels().flat_map(|panel| &panel[..bytes]).copied().collect::<Vec<u8>>();
        packed.parts[part] = Bytes::new(scales);
    }
    packed
}

/// Multiplies outputs, `[tokens, rows]`, with the factors of their rows.
pub(super) fn multiply(rows: usize, y: &mut [f32], factors: impl Fn(usize) -> Option<[f32; LANES]>) {
    for panel in 0..rows.div_ceil(LANES) {
        let Some(factors) = factors(panel) else { return };
        for y in y.chunks_exact_mut(rows) {
            y[panel * LANES..].iter_mut().zip(factors).for_each(|(y, factor)| *y *= factor);
        }
    }
}
