//! Masters whose ternary codes follow another rule than that of the formats (a scale of `mean|W|`, codes -1, 0 and 1), as they were trained to.

use lowbit_kernels::format::Scales;
use lowbit_kernels::{Error, Format, Packed, QuantizeOptions};
use serde::{Deserialize, Serialize};

/// The scale where all weights are 0.
const EPS: f32 = 1e-5;
/// The smallest scale, whose inverse is finite.
const SMALLEST: f32 = 4.0 * f32::MIN_POSITIVE;

/// The rule by which a body matrix becomes ternary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rounding {
    /// Whether codes are -1 and 1 alone (arXiv 2310.11453); weights of 0 become 1.
    pub binary: bool,
    /// Whether the scale is `median|W|`, the lower of the two middle values, in place of the mean (arXiv 2407.09527).
    pub median: bool,
}

impl Rounding {
    /// A matrix `[rows, cols]` in a ternary format; none where the format has scales that this rule has not: medians are of whole
    /// matrices.
    ///
    /// # Errors
    /// When a weight is NaN or infinite.
    pub(crate) fn pack(
        self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        format: &'static dyn Format,
    ) -> Result<Option<Packed>, Error> {
        if let Some(at) = weights.iter().position(|w| !w.is_finite()) {
            return Err(Error::NonFinite { row: at / cols, col: at % cols });
        }
        let span = match format.spec().scales {
            Scales::Tensor | Scales::None => weights.len(),
            _ if self.median => return Ok(None),
            Scales::Row => cols,
            Scales::Group(columns) => return self.groups(weights, rows, cols, columns, format).map(Some),
        };
        if span == weights.len() {
            let scale = self.scale(weights);
            let codes: Vec<u8> = weights.iter().map(|w| self.code(*w, scale)).collect();
            return format.pack_ternary(&codes, scale, rows, cols).transpose();
        }
        self.groups(weights, rows, cols, span, format).map(Some)
    }

    /// Spans of so many columns of a row, each with a scale of its own: what is -s and s has the mean s.
    fn groups(
        self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        span: usize,
        format: &'static dyn Format,
    ) -> Result<Packed, Error> {
        let mut rounded = Vec::with_capacity(weights.len());
        for span in weights.chunks_exact(cols).flat_map(|row| row.chunks(span)) {
            let scale = self.scale(span);
            rounded.extend(span.iter().map(|w| scale * (f32::from(self.code(*w, scale)) - 1.0)));
        }
        format.quantize(&rounded, rows, cols, &QuantizeOptions::default())
    }

    /// The scale of weights that share one.
    fn scale(self, weights: &[f32]) -> f32 {
        let scale = match self.median {
            true => {
                let mut sizes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
                *sizes.select_nth_unstable_by((weights.len() - 1) / 2, f32::total_cmp).1
            }
            false => (weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / weights.len() as f64) as f32,
        };
        if scale == 0.0 { EPS } else { scale.max(SMALLEST) }
    }

    /// 0, 1 or 2 for -1, 0 or 1.
    fn code(self, weight: f32, scale: f32) -> u8 {
        match self.binary {
            true => 2 * u8::from(weight >= 0.0),
            false => ((weight * (1.0 / scale)).round_ties_even().clamp(-1.0, 1.0) + 1.0) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_kernels::format::find;

    #[test]
    fn weights_follow_their_rule() {
        let weights = [0.9, -0.1, 0.0, -2.0, 0.3, 0.2];
        let packed = |binary, median, format: &str| {
            let rounding = Rounding { binary, median };
            rounding.pack(&weights, 2, 3, find(format).unwrap()).unwrap().map(|packed| packed.dequantize())
        };
        let m = 3.5 / 6.0;
        for format in ["ternary", "ternary_b3"] {
            let near = |found: Option<Vec<f32>>, expected: [f32; 6]| {
                let found = found.expect("packed");
                assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{format}: {found:?}");
            };
            near(packed(true, false, format), [m, -m, m, -m, m, m]);
            near(packed(true, true, format), [0.2, -0.2, 0.2, -0.2, 0.2, 0.2]);
            // 0.1 / 0.2 is a half, which becomes 0.
            near(packed(false, true, format), [0.2, 0.0, 0.0, -0.2, 0.2, 0.2]);
        }
        let rows = packed(true, false, "ternary_channel").unwrap();
        let (a, b) = (1.0 / 3.0, 2.5 / 3.0);
        let expected = [a, -a, a, -b, b, b];
        assert!(rows.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6), "{rows:?}");
        assert_eq!(packed(false, true, "ternary_channel"), None);
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let refused =
            Rounding { binary: true, median: false }.pack(&[1.0, 2.0, 3.0, f32::NAN], 2, 2, find("ternary").unwrap());
        assert_eq!(refused.err(), Some(Error::NonFinite { row: 1, col: 1 }));
    }
}
