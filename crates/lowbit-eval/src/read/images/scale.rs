//! Scaling by the triangle filter, whose width grows as an image shrinks: Pillow's `Image.resize(.., BILINEAR)`.

use super::ImageSize;
use super::decode::Image;

/// Weights of the pixels that one output takes: where they begin, and their shares.
type Taps = (usize, Vec<f64>);

/// The pixels of an image, scaled: first along rows, then along columns, each rounded to 8 bits.
pub(super) fn scaled(image: Image, size: ImageSize) -> Vec<u8> {
    let channels = image.channels;
    let mut pixels = image.pixels;
    if image.width != size.width {
        let taps = taps(image.width, size.width);
        pixels = along(&pixels, [image.height, image.width, channels], &taps);
    }
    if image.height != size.height {
        let taps = taps(image.height, size.height);
        // [height, width * channels] as one row of wide pixels.
        pixels = along(&pixels, [1, image.height, size.width * channels], &taps);
    }
    pixels
}

/// `[outer, inputs, inner]` to `[outer, outputs, inner]`.
fn along(pixels: &[u8], [outer, inputs, inner]: [usize; 3], taps: &[Taps]) -> Vec<u8> {
    let mut out = Vec::with_capacity(outer * taps.len() * inner);
    for row in pixels.chunks_exact(inputs * inner).take(outer) {
        for (first, weights) in taps {
            for at in 0..inner {
                let value = |(i, weight): (usize, &f64)| weight * f64::from(row[(first + i) * inner + at]);
                let sum: f64 = weights.iter().enumerate().map(value).sum();
                out.push((sum + 0.5).clamp(0.0, 255.0) as u8);
            }
        }
    }
    out
}

fn taps(inputs: usize, outputs: usize) -> Vec<Taps> {
    let scale = inputs as f64 / outputs as f64;
    let support = scale.max(1.0);
    let of = |output: usize| {
        let center = (output as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(inputs);
        let weight = |i: usize| (1.0 - ((i as f64 - center + 0.5) / support).abs()).max(0.0);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        (first, weights.into_iter().map(|weight| weight / sum).collect())
    };
    (0..outputs).map(of).collect()
}
