//! Ternary weights at 2 bits or at 1.6: which is read faster depends on memory and CPU, so it is measured.

use super::product::copy;
use super::values;
use crate::error::Error;
use crate::stats;
use lowbit_kernels::{Activations, Cpu, Int8Activations, Packed, QuantizeOptions, format};
use serde::Serialize;
use std::hint::black_box;
use std::time::Instant;

/// Rows and columns of the matrix that is read.
const SIDE: usize = 2048;
/// Packed bytes of all copies of it in one format: more than the last-level cache.
const BYTES: usize = 96 << 20;
/// Times all copies are read; the formats take turns.
const ROUNDS: usize = 5;
/// The formats, each with the recipe that stores the body of a model so.
const WAYS: [(&str, &str); 2] = [("ternary", "bitnet"), ("ternary_b3", "bitnet_b3")];

/// One way to store ternary weights, and how fast it is read for one token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// Name of the format.
    pub format: &'static str,
    /// Name of the recipe.
    pub recipe: &'static str,
    /// Bits per weight.
    pub bits: f64,
    /// 10^9 weights multiplied per second, median.
    pub gweights_per_second: f64,
}

/// Both ways, the faster one first (about a quarter of a second).
///
/// # Errors
/// When a format cannot store the weights.
pub fn ways(cpu: &Cpu) -> Result<Vec<Way>, Error> {
    let weights = values(SIDE * SIDE, 7);
    let stored = WAYS.map(|(name, _)| -> Result<Vec<Packed>, Error> {
        let packed = format::find(name)?.quantize(&weights, SIDE, SIDE, &QuantizeOptions::default())?;
        Ok((0..BYTES.div_ceil(packed.bytes())).map(|_| copy(&packed)).collect())
    });
    let stored = stored.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (mut x, mut y) = (Int8Activations::default(), vec![0.0; SIDE]);
    x.quantize(cpu, &values(SIDE, 3), SIDE);
    let mut seconds = [const { Vec::new() }; WAYS.len()];
    for _ in 0..ROUNDS {
        for (copies, seconds) in stored.iter().zip(&mut seconds) {
            let start = Instant::now();
            for packed in copies {
                packed.matmul(cpu, Activations::Int8(&x), &mut y);
                black_box(&y);
            }
            seconds.push(start.elapsed().as_secs_f64() / copies.len() as f64);
        }
    }
    let way = |(((format, recipe), copies), seconds): ((_, &Vec<Packed>), Vec<f64>)| Way {
        format,
        recipe,
        bits: copies[0].bytes() as f64 * 8.0 / (SIDE * SIDE) as f64,
        gweights_per_second: (SIDE * SIDE) as f64 / stats::median(&seconds).unwrap_or(f64::NAN) / 1e9,
    };
    let mut ways: Vec<Way> = WAYS.into_iter().zip(&stored).zip(seconds).map(way).collect();
    ways.sort_by(|a, b| b.gweights_per_second.total_cmp(&a.gweights_per_second));
    Ok(ways)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_measured_and_the_faster_is_first() {
        let ways = ways(&Cpu::new(None, Some(2)).unwrap()).unwrap();
        assert_eq!(ways.len(), 2);
        assert!(ways[0].gweights_per_second >= ways[1].gweights_per_second && ways[1].gweights_per_second > 0.0);
        for way in &ways {
            let recipe = lowbit_model::recipe::find(way.recipe).unwrap();
            assert_eq!(recipe.body, way.format);
            let bits = if way.format == "ternary" { 2.0..2.01 } else { 1.6..1.7 };
            assert!(bits.contains(&way.bits), "{way:?}");
        }
    }
}
