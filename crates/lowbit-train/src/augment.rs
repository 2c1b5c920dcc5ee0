//! Changed images in training: moved a little and mirrored, so that a network sees each image in many ways.

use crate::Error;
use lowbit_base::SplitMix64;
use serde::{Deserialize, Serialize};

/// How images of training are changed; those that are scored never are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Pixels by which an image moves at most, up or down and to either side; what comes in is the mean of all pixels, 0.
    pub crop: usize,
    /// Whether every other image is mirrored, left for right.
    pub flip: bool,
}

impl Augment {
    /// Sees that images of a network, `[height, width, channels]`, can be changed so.
    ///
    /// # Errors
    /// Of kind usage, naming what is wrong.
    pub(crate) fn check(&self, image: Option<[usize; 3]>) -> Result<(), Error> {
        let Some([height, width, _]) = image else {
            return Err(Error::usage("train: `augment` changes images, and this network reads none; leave it out"));
        };
        if self.crop >= height.min(width) {
            let text = format!("train: `augment.crop` is {}; it must be below {}", self.crop, height.min(width));
            return Err(Error::usage(format!("{text}, a side of the image")));
        }
        Ok(())
    }

    /// Changes an image `[height, width, channels]` as a seed tells; `before` takes what it was.
    pub(crate) fn apply(&self, [height, width, channels]: [usize; 3], x: &mut [f32], seed: u64, before: &mut Vec<f32>) {
        let mut random = SplitMix64::new(seed);
        let mut moved = || random.below(2 * self.crop as u64 + 1) as usize;
        let (down, right) = (moved(), moved());
        let mirrored = self.flip && random.below(2) == 1;
        before.clear();
        before.extend_from_slice(x);
        for (i, pixel) in x.chunks_exact_mut(channels).enumerate() {
            let (row, column) = (i / width, i % width);
            let column = if mirrored { width - 1 - column } else { column };
            let from = (row + down).checked_sub(self.crop).zip((column + right).checked_sub(self.crop));
            match from.filter(|(row, column)| *row < height && *column < width) {
                Some((row, column)) => pixel.copy_from_slice(&before[(row * width + column) * channels..][..channels]),
                None => pixel.fill(0.0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_move_and_are_mirrored_as_the_seed_tells() {
        let shape = [5, 4, 2];
        let image: Vec<f32> = (1..=40u8).map(f32::from).collect();
        let augment = Augment { crop: 1, flip: true };
        let (mut seen, mut before) = (std::collections::BTreeSet::new(), Vec::new());
        for seed in 0..400 {
            let (mut first, mut second) = (image.clone(), image.clone());
            augment.apply(shape, &mut first, seed, &mut before);
            augment.apply(shape, &mut second, seed, &mut before);
            assert_eq!(first, second);
            // The middle of the result tells where it came from; channels stay together.
            let at = |row: usize, column: usize| first[(row * 4 + column) * 2];
            let step = at(2, 2) - at(2, 1);
            assert!(step.abs() == 2.0 && first.chunks_exact(2).all(|p| p[1] == p[0] + f32::from(p[0] != 0.0)));
            seen.insert((at(2, 1) as i32, step as i32));
        }
        assert_eq!(seen.len(), 18, "nine places, mirrored or not: {seen:?}");
        let mut same = image.clone();
        Augment::default().apply(shape, &mut same, 3, &mut before);
        assert_eq!(same, image);
        assert!(augment.check(None).is_err() && augment.check(Some([1, 9, 1])).is_err());
        assert!(augment.check(Some(shape)).is_ok());
    }
}
