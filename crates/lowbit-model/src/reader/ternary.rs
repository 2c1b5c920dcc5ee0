//! Matrices that are ternary already: their one scale is kept as it is, where quantizing would make a new one of the mean.

use lowbit_kernels::{Error, Format, Packed, Pool};
use std::ops::Range;

/// The `s` of weights that are all -s, 0 or s; 0 where all are 0.
pub(crate) fn scale_of(weights: &[f32]) -> Option<f32> {
    let scale = weights.iter().find(|w| **w != 0.0).map_or(0.0, |w| w.abs());
    weights.iter().all(|w| *w == 0.0 || w.abs() == scale).then_some(scale)
}

/// Stores `scale * signs`, `[rows, cols]`, of which only the sign of each element of `signs` counts, in a ternary format.
/// Nothing is rounded.
///
/// # Errors
/// When the scale or a sign is NaN or infinite.
pub(crate) fn pack(
    signs: Vec<f32>,
    scale: f32,
    rows: usize,
    cols: usize,
    format: &'static dyn Format,
) -> Result<Packed, Error> {
    if let Some(at) = signs.iter().position(|w| !w.is_finite()) {
        return Err(Error::NonFinite { row: at / cols, col: at % cols });
    }
    let codes: Vec<u8> = signs.iter().map(|w| 1 + (*w > 0.0) as u8 - (*w < 0.0) as u8).collect();
    pack_codes(&codes, scale, rows, cols, format)
}

/// [`pack`] of codes 0, 1 and 2, which stand for -1, 0 and 1.
///
/// # Errors
/// When the scale is NaN or infinite, or a code is 3.
pub(crate) fn pack_codes(
    codes: &[u8],
    scale: f32,
    rows: usize,
    cols: usize,
    format: &'static dyn Format,
) -> Result<Packed, Error> {
    format.pack_ternary(codes, scale, rows, cols).expect("a ternary format stores ternary codes")
}

/// A matrix of one ternary format in another, if it has a single scale, made on the threads of a pool; `None` where that
/// cannot be had without loss.
///
/// # Errors
/// Never for a valid matrix.
pub(crate) fn recode(packed: &Packed, format: &'static dyn Format, pool: &Pool) -> Result<Option<Packed>, Error> {
    if !packed.format().spec().is_ternary() || !format.spec().is_ternary() {
        return Ok(None);
    }
    if packed.format().name() == format.name() {
        return Ok(Some(packed.clone()));
    }
    let Some(scale) = packed.format().ternary_scale(packed) else { return Ok(None) };
    let make =
        |rows: Range<usize>| pack(packed.dequantize_rows(rows.clone()), scale, rows.len(), packed.cols(), format);
    Packed::from_row_ranges(format, packed.rows(), packed.cols(), pool, make).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_kernels::format::{FORMATS, find};

    #[test]
    fn every_ternary_format_keeps_codes_and_scale() {
        let (rows, cols, scale) = (21, 70, 0.37);
        let weights: Vec<f32> = (0..rows * cols).map(|i| [0.0, scale, 0.0, -scale, 0.0][i * i % 7 % 5]).collect();
        assert_eq!(scale_of(&weights), Some(scale));
        for format in FORMATS {
            let packs = format.pack_ternary(&[0, 1, 2, 1], 1.0, 2, 2).is_some();
            assert_eq!(packs, format.spec().is_ternary(), "{}", format.name());
        }
        let formats = FORMATS.iter().filter(|f| f.spec().is_ternary());
        let mut stored = Vec::new();
        for format in formats {
            let packed = pack(weights.clone(), scale, rows, cols, *format).unwrap();
            assert_eq!(packed.dequantize(), weights, "{}", format.name());
            stored.push(packed);
        }
        assert!(stored.len() >= 4);
        let pool = Pool::new(2);
        for from in &stored {
            for to in &stored {
                let again = recode(from, to.format(), &pool).unwrap().expect("one scale");
                assert_eq!(again.dequantize(), weights);
            }
        }
        let own =
            find("ternary_channel").unwrap().quantize(&[1.0, -1.0, 2.0, -2.0], 2, 2, &Default::default()).unwrap();
        assert!(recode(&own, find("ternary").unwrap(), &pool).unwrap().is_none(), "rows with scales of their own");
        assert_eq!(scale_of(&[0.5, -0.5, 0.25]), None);
        assert_eq!(scale_of(&[0.0; 3]), Some(0.0));
        assert!(pack_codes(&[3], 1.0, 1, 1, stored[0].format()).is_err());
        assert!(pack(vec![1.0], f32::NAN, 1, 1, stored[0].format()).is_err());
        assert!(pack(vec![f32::NAN], 1.0, 1, 1, stored[0].format()).is_err());
    }
}
