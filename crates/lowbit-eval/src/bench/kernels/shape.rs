//! What is multiplied: one matrix, or the matrices of a layer one after another; and heads of an attention.

use crate::error::Error;

/// Rows or columns of a matrix at most.
const MAX_SIDE: usize = 1 << 16;
/// Weights of a matrix at most: 1 GiB of f32.
const MAX_WEIGHTS: usize = 1 << 28;
/// Heads of an attention at most, and features of a head.
const MAX_HEADS: usize = 1024;

/// Matrices that are multiplied one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightShape {
    /// `ROWSxCOLS`, or a name of [`LAYERS`].
    pub name: String,
    /// `(rows, cols)` of each: output and input features.
    pub matrices: Vec<(usize, usize)>,
}

/// Layers that have a name: query, key, value, output, gate, up, down.
pub static LAYERS: &[(&str, &[(usize, usize)])] = &[(
    "bitnet-2b-layer",
    &[(2560, 2560), (640, 2560), (640, 2560), (2560, 2560), (6912, 2560), (6912, 2560), (2560, 6912)],
)];

impl WeightShape {
    /// The shape of a text.
    ///
    /// # Errors
    /// Usage, when it is neither `ROWSxCOLS` nor the name of a layer.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let named = LAYERS.iter().find(|(name, _)| *name == text).map(|(_, matrices)| matrices.to_vec());
        let one = || Some(vec![sides(text, MAX_SIDE).filter(|(rows, cols)| rows * cols <= MAX_WEIGHTS)?]);
        let matrices = named.or_else(one).ok_or_else(|| {
            let layers: Vec<_> = LAYERS.iter().map(|(name, _)| *name).collect();
            Error::usage(format!(
                "--shape `{text}` is not ROWSxCOLS, like 768x768, with sides from 1 to {MAX_SIDE} and at most \
                 {MAX_WEIGHTS} weights, nor a layer: {}",
                layers.join(", ")
            ))
        })?;
        Ok(WeightShape { name: text.into(), matrices })
    }

    /// Weights of all matrices.
    pub fn weights(&self) -> usize {
        self.matrices.iter().map(|(rows, cols)| rows * cols).sum()
    }

    /// The sides, where it is one matrix.
    pub fn sides(&self) -> Option<(usize, usize)> {
        match self.matrices[..] {
            [sides] => Some(sides),
            _ => None,
        }
    }
}

/// Heads of an attention, every query head with keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Number of heads.
    pub count: usize,
    /// Features of a head.
    pub width: usize,
}

impl Heads {
    /// The heads of `HEADSxWIDTH`.
    ///
    /// # Errors
    /// Usage, when the text is not of this form.
    pub fn parse(text: &str) -> Result<Self, Error> {
        sides(text, MAX_HEADS).map(|(count, width)| Heads { count, width }).ok_or_else(|| {
            Error::usage(format!("--attention `{text}` is not HEADSxWIDTH, like 20x128, both from 1 to {MAX_HEADS}"))
        })
    }

    /// `HEADSxWIDTH`.
    pub fn name(&self) -> String {
        format!("{}x{}", self.count, self.width)
    }
}

/// Two numbers with an `x` between them.
fn sides(text: &str, most: usize) -> Option<(usize, usize)> {
    let side = |s: &str| s.parse().ok().filter(|n| (1..=most).contains(n));
    let (first, second) = text.split_once('x')?;
    Some((side(first)?, side(second)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_and_layers_have_a_shape() {
        let one = WeightShape::parse("768x3072").unwrap();
        assert_eq!((one.sides(), one.weights()), (Some((768, 3072)), 768 * 3072));
        let layer = WeightShape::parse("bitnet-2b-layer").unwrap();
        assert_eq!((layer.sides(), layer.matrices.len(), layer.weights()), (None, 7, 69_468_160));
        for (name, matrices) in LAYERS {
            assert_eq!(WeightShape::parse(name).unwrap().matrices, *matrices);
        }
        assert_eq!(Heads::parse("20x128").unwrap(), Heads { count: 20, width: 128 });
        for bad in ["", "20", "20x", "0x128", "20x0", "20x128x2", "20x4096", "-1x5"] {
            let failure = Heads::parse(bad).unwrap_err();
            assert!(failure.message.contains("HEADSxWIDTH"), "{failure}");
        }
    }
}
