//! The formats whose codes GPTQ can choose, and how they are packed.

use super::gptq::{Codes, Grid, gptq};
use super::hessian::{Factor, Order};
use super::masters::Rows;
use super::reach::Reach;
use super::refine::refine;
use crate::Error;
use lowbit_kernels::format::{Grouped, Holds, Scales, SpanScales};
use lowbit_kernels::{Bytes, Cpu, Format, Packed};

/// Weights that are rounded at once: their floats are in memory.
pub(super) const AT_ONCE: usize = 1 << 24;
/// Steps of the search for the scale of ternary weights.
const STEPS: usize = 12;

/// What is known of the inputs of a matrix.
pub(super) struct Known<'a> {
    /// By which columns are rounded.
    pub factor: &'a Factor,
    /// Codes and scales are learned under this Hessian, `[cols, cols]`, where there is one.
    pub hessian: Option<&'a [f32]>,
}

/// Rounds a matrix of so many rows in a format by GPTQ, some rows at a time where these know nothing of each other; none where the format
/// has no codes with scale and offset.
///
/// # Errors
/// One of reading weights, or what `fault` makes of one of [`Format::quantize`].
pub(super) fn round(
    format: &'static dyn Format,
    cpu: &Cpu,
    (weights, rows): (&Rows, usize),
    known: &Known,
    fault: &dyn Fn(lowbit_kernels::Error) -> Error,
) -> Option<Result<Packed, Error>> {
    let spec = format.spec();
    Some(match (format.grouped(), spec.is_ternary(), spec.scales) {
        (Some(grouped), ..) => round_groups(grouped, cpu, (weights, rows), known, fault),
        (None, true, Scales::Tensor | Scales::Row) => {
            weights.get(0..rows).and_then(|weights| round_ternary(format, cpu, &weights, known).map_err(fault))
        }
        _ => return None,
    })
}

fn round_groups(
    grouped: &'static dyn Grouped,
    cpu: &Cpu,
    (weights, rows): (&Rows, usize),
    known: &Known,
    fault: &dyn Fn(lowbit_kernels::Error) -> Error,
) -> Result<Packed, Error> {
    let cols = known.factor.cols();
    // What is learned has the reach of all rows.
    let step = if known.hessian.is_some() { rows } else { (AT_ONCE / cols).max(1) };
    let mut all = Codes { codes: Vec::with_capacity(rows * cols), scales: Vec::new() };
    for first in (0..rows).step_by(step.max(1)) {
        cpu.stop.check()?;
        let weights = weights.get(first..(first + step).min(rows))?;
        let factors = weights.chunks_exact(cols).map(|row| grouped.factor(row)).collect();
        let mut grid = Groups { grouped, factors, reach: Reach::default() };
        let mut codes = gptq(cpu, &grid, &weights, known.factor, Order::Activations);
        if let Some(hessian) = known.hessian {
            grid.reach = Reach::of(&codes.scales);
            refine(cpu, &grid, hessian, &weights, &mut codes);
        }
        all.codes.append(&mut codes.codes);
        all.scales.append(&mut codes.scales);
    }
    grouped.pack(rows, cols, &all.codes, &all.scales).map_err(fault)
}

fn round_ternary(
    format: &'static dyn Format,
    cpu: &Cpu,
    weights: &[f32],
    known: &Known,
) -> Result<Packed, lowbit_kernels::Error> {
    let factor = known.factor;
    let (cols, rows) = (factor.cols(), weights.len() / factor.cols());
    let by_row = format.spec().scales == Scales::Row;
    let scales = match by_row {
        true => weights.chunks_exact(cols).map(|row| ternary_scale(row, &factor.costs)).collect(),
        false => vec![ternary_scale(weights, &factor.costs); rows],
    };
    let grid = Ternary { scales: &scales, cols, by_row };
    let mut codes = gptq(cpu, &grid, weights, factor, Order::Activations);
    if let Some(hessian) = known.hessian {
        refine(cpu, &grid, hessian, weights, &mut codes);
    }
    let scales: Vec<f32> = codes.scales.iter().map(|[(scale, _)]| *scale).collect();
    pack_ternary(format, &codes.codes, &scales, [rows, cols])
}

/// Whether [`round`] has codes for a format.
pub(super) fn takes(format: &'static dyn Format) -> bool {
    let spec = format.spec();
    format.grouped().is_some() || spec.is_ternary() && matches!(spec.scales, Scales::Tensor | Scales::Row)
}

/// A format of integers in groups.
struct Groups {
    grouped: &'static dyn Grouped,
    /// Of each row.
    factors: Vec<f32>,
    /// Of the small integers of groups, where scales may change.
    reach: Reach,
}

impl Grid for Groups {
    type Scales = SpanScales;

    fn span(&self) -> usize {
        self.grouped.span()
    }

    fn columns(&self) -> usize {
        self.grouped.columns()
    }

    fn most(&self) -> u8 {
        self.grouped.most()
    }

    fn choose(&self, row: usize, weights: &[f32], costs: &[f32]) -> SpanScales {
        let factor = self.factors[row];
        if factor == 1.0 {
            return self.grouped.choose(weights, Some(costs));
        }
        let scaled: Vec<f32> = weights.iter().map(|w| w / factor).collect();
        self.grouped.choose(&scaled, Some(costs)).times(factor)
    }

    fn groups(scales: &SpanScales) -> &[(f32, f32)] {
        &scales.groups
    }

    fn zero(&self) -> Option<f32> {
        self.grouped.zero().map(f32::from)
    }

    fn near(&self, scales: &SpanScales, group: usize, wished: (f32, f32)) -> Option<SpanScales> {
        let found = self.reach.with_group(self.grouped, scales, group, wished);
        let (scale, offset) = found.groups[group];
        (scale.is_finite() && offset.is_finite()).then_some(found)
    }
}

/// Ternary weights with a scale for each row.
struct Ternary<'a> {
    scales: &'a [f32],
    cols: usize,
    /// Whether each row has a scale of its own.
    by_row: bool,
}

impl Grid for Ternary<'_> {
    type Scales = [(f32, f32); 1];

    fn span(&self) -> usize {
        self.cols
    }

    fn columns(&self) -> usize {
        self.cols
    }

    fn most(&self) -> u8 {
        2
    }

    fn choose(&self, row: usize, _: &[f32], _: &[f32]) -> Self::Scales {
        [(self.scales[row], -self.scales[row])]
    }

    fn groups(scales: &Self::Scales) -> &[(f32, f32)] {
        scales
    }

    fn zero(&self) -> Option<f32> {
        Some(1.0)
    }

    fn near(&self, _: &Self::Scales, _: usize, (scale, _): (f32, f32)) -> Option<Self::Scales> {
        self.by_row.then_some([(scale, -scale)])
    }
}

/// The scale of ternary weights, whole rows, with a small sum of `cost * (w - scale * code)^2`: codes by rounding and the best scale
/// for them in turn, from the mean magnitude on (arXiv 2402.17764).
fn ternary_scale(weights: &[f32], costs: &[f32]) -> f32 {
    let mut scale = weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / weights.len().max(1) as f64;
    for _ in 0..STEPS {
        let (mut dot, mut square) = (0.0, 0.0);
        for (w, cost) in weights.iter().zip(costs.iter().cycle()) {
            if f64::from(w.abs()) > scale / 2.0 {
                dot += f64::from(*cost) * f64::from(w.abs());
                square += f64::from(*cost);
            }
        }
        scale = if square > 0.0 { dot / square } else { scale };
    }
    scale as f32
}

fn pack_ternary(
    format: &'static dyn Format,
    codes: &[u8],
    scales: &[f32],
    [rows, cols]: [usize; 2],
) -> Result<Packed, lowbit_kernels::Error> {
    let first = scales.first().copied().unwrap_or(0.0);
    let packed = format.pack_ternary(codes, first, rows, cols).expect("a ternary format")?;
    if format.spec().scales != Scales::Row {
        return Ok(packed);
    }
    let stored = format.parts(rows, cols, packed.parts());
    let part = |(part, bytes): (&lowbit_kernels::StoredPart, &Bytes)| match part.holds {
        Holds::Scales => Bytes::from_f32(scales),
        Holds::Codes | Holds::Other => bytes.clone(),
    };
    Packed::from_parts(format, rows, cols, stored.iter().zip(packed.parts()).map(part).collect())
}
