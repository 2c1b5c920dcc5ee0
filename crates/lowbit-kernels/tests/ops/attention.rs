use crate::{assert_close, assert_same_everywhere, cpu, dot, f64s, gradient, noise};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::{self, AttentionShape};

/// Whether the query at a position sees the key at another.
fn sees(shape: AttentionShape, query: usize, key: usize) -> bool {
    (!shape.causal || key <= query) && shape.window.is_none_or(|window| query.abs_diff(key) < window)
}

/// Attention of queries at positions `past..` to keys from position 0, and the logsumexp of the scores.
fn oracle(shape: AttentionShape, q: &[f64], k: &[f64], v: &[f64], past: usize) -> (Vec<f64>, Vec<f64>) {
    let AttentionShape { heads, kv_heads, head_dim, scale, .. } = shape;
    let (queries, keys) = (q.len() / (heads * head_dim), k.len() / (kv_heads * head_dim));
    let (mut out, mut logsumexp) = (vec![0.0; q.len()], vec![0.0; queries * heads]);
    for (i, head) in (0..queries).flat_map(|i| (0..heads).map(move |head| (i, head))) {
        let at = (i * heads + head) * head_dim;
        let row = |x: &[f64], j: usize| {
            let at = (j * kv_heads + head / (heads / kv_heads)) * head_dim;
            x[at..at + head_dim].to_vec()
        };
        let seen: Vec<usize> = (0..keys).filter(|&j| sees(shape, past + i, j)).collect();
        let scores: Vec<f64> = seen.iter().map(|&j| dot(&q[at..at + head_dim], &row(k, j)) * scale as f64).collect();
        let top = scores.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        for (&j, score) in seen.iter().zip(&scores) {
            let p = (score - top).exp() / sum;
            row(v, j).iter().enumerate().for_each(|(d, v)| out[at + d] += p * v);
        }
        logsumexp[i * heads + head] = top + sum.ln();
    }
    (out, logsumexp)
}

/// The same for sequences laid end to end.
fn ragged(shape: AttentionShape, starts: &[usize], q: &[f64], k: &[f64], v: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let (mut out, mut logsumexp) = (vec![], vec![]);
    for w in starts.windows(2) {
        let (rows, kv_rows) = (w[0] * width..w[1] * width, w[0] * kv_width..w[1] * kv_width);
        let (o, l) = oracle(shape, &q[rows], &k[kv_rows.clone()], &v[kv_rows], 0);
        out.extend(o);
        logsumexp.extend(l);
    }
    (out, logsumexp)
}

struct Case {
    shape: AttentionShape,
    starts: Vec<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new(shape: AttentionShape, lengths: &[usize]) -> Self {
        let mut starts = vec![0];
        lengths.iter().for_each(|len| starts.push(starts[starts.len() - 1] + len));
        let tokens = starts[lengths.len()];
        let (width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let louder = |x: Vec<f32>| x.into_iter().map(|x| 3.0 * x).collect();
        let (q, k) = (louder(noise(tokens * width, 1)), louder(noise(tokens * kv_width, 2)));
        Case { shape, starts, q, k, v: noise(tokens * kv_width, 3) }
    }

    fn forward(&self, cpu: &Cpu) -> (Vec<f32>, Vec<f32>) {
        let mut out = vec![f32::NAN; self.q.len()];
        let mut logsumexp = vec![f32::NAN; self.q.len() / self.shape.head_dim];
        ops::attention(cpu, self.shape, &self.starts, &self.q, &self.k, &self.v, &mut out, &mut logsumexp);
        (out, logsumexp)
    }

    /// Gradients of `q`, `k` and `v` added to buffers that hold 0.25.
    fn backward(&self, cpu: &Cpu, dout: &[f32]) -> [Vec<f32>; 3] {
        let (out, logsumexp) = self.forward(cpu);
        let mut d = [self.q.len(), self.k.len(), self.v.len()].map(|len| vec![0.25; len]);
        let [dq, dk, dv] = &mut d;
        let Case { shape, starts, q, k, v } = self;
        ops::attention_backward(cpu, *shape, starts, q, k, v, &out, &logsumexp, dout, dq, dk, dv);
        d
    }
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize, causal: bool) -> AttentionShape {
    AttentionShape::new(heads, kv_heads, head_dim, causal)
}

/// Both kinds of mask, without a window and with narrow and wide ones.
fn masks(heads: usize, kv_heads: usize, head_dim: usize) -> impl Iterator<Item = AttentionShape> {
    let shapes = [false, true].map(|causal| shape(heads, kv_heads, head_dim, causal));
    let windows = [None, Some(1), Some(5), Some(64), Some(90), Some(300)];
    shapes.into_iter().flat_map(move |shape| windows.map(|window| AttentionShape { window, ..shape }))
}

#[test]
fn attention_matches() {
    let cpu = cpu();
    let lengths: [&[usize]; 5] = [&[1], &[1, 5, 16, 17], &[31, 1, 33], &[64, 65, 63], &[130, 2, 200]];
    for (heads, kv_heads, head_dim) in
        [(1, 1, 2), (3, 3, 16), (4, 2, 18), (2, 1, 48), (6, 2, 64), (2, 2, 80), (1, 1, 128)]
    {
        for lengths in lengths {
            for shape in masks(heads, kv_heads, head_dim) {
                let case = Case::new(shape, lengths);
                let (out, logsumexp) = case.forward(&cpu);
                let (q, k, v) = (f64s(&case.q), f64s(&case.k), f64s(&case.v));
                let (want, want_logsumexp) = ragged(case.shape, &case.starts, &q, &k, &v);
                let what = format!("{:?} of {lengths:?}", case.shape);
                assert_close(&out, &want, 5e-6, &what);
                assert_close(&logsumexp, &want_logsumexp, 2e-6, &what);
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let mut case = Case::new(shape(1, 1, 16, true), &[70]);
    case.q.iter_mut().for_each(|q| *q *= 300.0);
    let (out, logsumexp) = case.forward(&cpu());
    let (want, want_logsumexp) = ragged(case.shape, &case.starts, &f64s(&case.q), &f64s(&case.k), &f64s(&case.v));
    assert_close(&out, &want, 2e-3, "out");
    assert_close(&logsumexp, &want_logsumexp, 1e-6, "logsumexp");
}

#[test]
fn the_future_is_not_seen() {
    let case = Case::new(shape(2, 1, 32, true), &[100]);
    let mut changed = Case::new(case.shape, &[100]);
    for x in [&mut changed.k[60 * 32..], &mut changed.v[60 * 32..]] {
        x.fill(1e18);
    }
    let (a, b) = (case.forward(&cpu()), changed.forward(&cpu()));
    assert_eq!(a.0[..60 * 64], b.0[..60 * 64]);
    assert_eq!(a.1[..60 * 2], b.1[..60 * 2]);
    assert_ne!(a.0[60 * 64..], b.0[60 * 64..]);
}

#[test]
fn what_lies_before_the_window_is_not_seen() {
    let narrow = AttentionShape { window: Some(30), ..shape(2, 1, 32, true) };
    let (case, mut changed) = (Case::new(narrow, &[400]), Case::new(narrow, &[400]));
    for x in [&mut changed.k[..300 * 32], &mut changed.v[..300 * 32]] {
        x.fill(1e18);
    }
    let (a, b) = (case.forward(&cpu()), changed.forward(&cpu()));
    assert_eq!(a.0[329 * 64..], b.0[329 * 64..]);
    assert_ne!(a.0[328 * 64..329 * 64], b.0[328 * 64..329 * 64]);
    for new in [1, 8, 60] {
        let past = 400 - new;
        let run = |case: &Case| {
            let mut out = vec![f32::NAN; new * 64];
            ops::attention_cached(&cpu(), narrow, &case.q[past * 64..], &case.k, &case.v, past, &mut out);
            out
        };
        assert_eq!(run(&case), run(&changed), "{new}");
    }
}

#[test]
fn gradients_match_central_differences() {
    let cpu = cpu();
    for (heads, kv_heads, head_dim, lengths) in
        [(1, 1, 2, &[1, 5][..]), (2, 1, 4, &[3, 7]), (2, 2, 18, &[6]), (1, 1, 16, &[20]), (2, 1, 2, &[35])]
    {
        for shape in masks(heads, kv_heads, head_dim) {
            let case = Case::new(AttentionShape { scale: 0.4, ..shape }, lengths);
            let dout = noise(case.q.len(), 4);
            let (q, k, v, weights) = (f64s(&case.q), f64s(&case.k), f64s(&case.v), f64s(&dout));
            let loss = |q: &[f64], k: &[f64], v: &[f64]| dot(&ragged(case.shape, &case.starts, q, k, v).0, &weights);
            let want = [
                gradient(&q, |q| loss(q, &k, &v)),
                gradient(&k, |k| loss(&q, k, &v)),
                gradient(&v, |v| loss(&q, &k, v)),
            ];
            let got = case.backward(&cpu, &dout);
            for (name, (got, want)) in ["dq", "dk", "dv"].iter().zip(got.iter().zip(want)) {
                let want: Vec<f64> = want.iter().map(|want| want + 0.25).collect();
                assert_close(got, &want, 1e-5, &format!("{name} of {:?} of {lengths:?}", case.shape));
            }
        }
    }
}

/// The gradient in f64 with all probabilities in memory.
fn gradients(shape: AttentionShape, q: &[f64], k: &[f64], v: &[f64], dout: &[f64]) -> [Vec<f64>; 3] {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let (out, logsumexp) = oracle(shape, q, k, v, 0);
    let tokens = logsumexp.len() / heads;
    let mut d = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
    let scale = shape.scale as f64;
    for (i, head) in (0..tokens).flat_map(|i| (0..heads).map(move |head| (i, head))) {
        let at = (i * heads + head) * head_dim;
        let row = at..at + head_dim;
        let delta = dot(&out[row.clone()], &dout[row.clone()]);
        for j in (0..tokens).filter(|&j| sees(shape, i, j)) {
            let key = (j * kv_heads + head / (heads / kv_heads)) * head_dim;
            let keys = key..key + head_dim;
            let p = (dot(&q[row.clone()], &k[keys.clone()]) * scale - logsumexp[i * heads + head]).exp();
            let slope = p * (dot(&dout[row.clone()], &v[keys]) - delta) * scale;
            for x in 0..head_dim {
                d[0][at + x] += slope * k[key + x];
                d[1][key + x] += slope * q[at + x];
                d[2][key + x] += p * dout[at + x];
            }
        }
    }
    d
}

#[test]
fn gradients_match_on_many_tiles() {
    let cpu = cpu();
    for (heads, kv_heads, head_dim, len) in [(2, 1, 64, 150), (1, 1, 80, 129), (2, 2, 32, 64), (4, 1, 34, 97)] {
        for shape in masks(heads, kv_heads, head_dim) {
            let case = Case::new(shape, &[len]);
            let dout = noise(case.q.len(), 4);
            let want = gradients(case.shape, &f64s(&case.q), &f64s(&case.k), &f64s(&case.v), &f64s(&dout));
            for (got, want) in case.backward(&cpu, &dout).iter().zip(want) {
                let want: Vec<f64> = want.iter().map(|want| want + 0.25).collect();
                assert_close(got, &want, 1e-5, &format!("{:?} of {len}", case.shape));
            }
        }
    }
}

#[test]
fn cached_attention_matches() {
    let cpu = cpu();
    for (heads, kv_heads, head_dim) in [(1, 1, 2), (4, 2, 18), (6, 2, 64), (3, 3, 40)] {
        for (past, new) in
            [(0, 1), (1, 1), (15, 1), (255, 1), (256, 1), (600, 1), (10, 3), (254, 8), (0, 9), (37, 50), (300, 129)]
        {
            for shape in masks(heads, kv_heads, head_dim) {
                let q: Vec<f32> = noise(new * heads * head_dim, 1).iter().map(|q| 3.0 * q).collect();
                let (k, v) =
                    (noise((past + new) * kv_heads * head_dim, 2), noise((past + new) * kv_heads * head_dim, 3));
                let mut out = vec![f32::NAN; q.len()];
                ops::attention_cached(&cpu, shape, &q, &k, &v, past, &mut out);
                let (want, _) = oracle(shape, &f64s(&q), &f64s(&k), &f64s(&v), past);
                assert_close(&out, &want, 5e-6, &format!("{shape:?}, {past} + {new}"));
            }
        }
    }
}

#[test]
fn rope_rotates_pairs() {
    let cpu = cpu();
    for (heads, head_dim) in [(1, 2), (3, 6), (2, 16), (1, 34), (2, 64), (1, 80), (2, 128)] {
        for theta in [1e4f32, 5e5] {
            let positions = [0, 1, 2, 63, 1000, 4095, 65_535];
            let x = noise(positions.len() * heads * head_dim, 1);
            let mut y = x.clone();
            let frequencies = ops::Frequencies::of_base(theta, head_dim);
            ops::rope(&cpu, &mut y, heads, &frequencies, &positions, false);
            let (half, x64) = (head_dim / 2, f64s(&x));
            let want: Vec<f64> = (0..x.len())
                .map(|at| {
                    let (position, i) = (positions[at / (heads * head_dim)], at % head_dim);
                    let angle = position as f64 * (theta as f64).powf(-2.0 * (i % half) as f64 / head_dim as f64);
                    let (sin, cos) = angle.sin_cos();
                    if i < half { x64[at] * cos - x64[at + half] * sin } else { x64[at] * cos + x64[at - half] * sin }
                })
                .collect();
            assert_close(&y, &want, 1e-6, &format!("{heads} heads of {head_dim}"));
            ops::rope(&cpu, &mut y, heads, &frequencies, &positions, true);
            assert_close(&y, &x64, 1e-6, "and back");
        }
    }
}

#[test]
fn rope_turns_by_any_frequencies_and_scales() {
    let (cpu, heads, table, scale) = (cpu(), 2, [1.0, 0.037, 2e-5], 1.25f32);
    let (head_dim, positions) = (2 * table.len(), [0, 3, 40_000]);
    let frequencies = ops::Frequencies::new(&table, scale);
    let x = noise(positions.len() * heads * head_dim, 1);
    let (mut y, x64) = (x.clone(), f64s(&x));
    ops::rope(&cpu, &mut y, heads, &frequencies, &positions, false);
    let want: Vec<f64> = (0..x.len())
        .map(|at| {
            let (position, i, half) = (positions[at / (heads * head_dim)], at % head_dim, table.len());
            let (sin, cos) = (position as f64 * table[i % half]).sin_cos();
            let turned =
                if i < half { x64[at] * cos - x64[at + half] * sin } else { x64[at] * cos + x64[at - half] * sin };
            turned * scale as f64
        })
        .collect();
    assert_close(&y, &want, 1e-6, "turned");
    ops::rope(&cpu, &mut y, heads, &frequencies, &positions, true);
    let squared: Vec<f64> = x64.iter().map(|v| v * (scale as f64).powi(2)).collect();
    assert_close(&y, &squared, 1e-6, "the gradient of a rotation is the rotation back under the same scale");
}

#[test]
fn same_bits_everywhere() {
    for (heads, kv_heads, head_dim, lengths) in [(4, 2, 18, &[1, 40, 17][..]), (4, 2, 48, &[130, 70, 40])] {
        for (causal, window) in [(false, None), (true, None), (false, Some(20)), (true, Some(20))] {
            let shape = AttentionShape { window, ..shape(heads, kv_heads, head_dim, causal) };
            let case = Case::new(shape, lengths);
            let dout = noise(case.q.len(), 4);
            assert_same_everywhere("attention", |cpu| {
                let (out, logsumexp) = case.forward(cpu);
                let mut buffers = vec![out, logsumexp];
                buffers.extend(case.backward(cpu, &dout));
                let tokens = case.starts[lengths.len()];
                for new in [1, 5, 20] {
                    let mut out = vec![0.0; new * heads * head_dim];
                    let past = tokens - new;
                    ops::attention_cached(cpu, case.shape, &case.q[..out.len()], &case.k, &case.v, past, &mut out);
                    buffers.push(out);
                }
                let mut rotated = case.q.clone();
                let positions: Vec<u32> = (0..tokens as u32).map(|i| 77 * i).collect();
                ops::rope(cpu, &mut rotated, heads, &ops::Frequencies::of_base(1e4, head_dim), &positions, false);
                buffers.push(rotated);
                buffers
            });
        }
    }
}
