use crate::{assert_close, assert_same_everywhere, cpu, f64s, noise};
use half::f16;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::{self, AttentionShape, CacheKind, CacheRows, Cached};

const SHAPES: [(usize, usize, usize); 5] = [(1, 1, 2), (4, 2, 8), (4, 2, 18), (6, 2, 64), (3, 3, 40)];
/// `(past, new)` of sequences of one call.
const CALLS: [&[(usize, usize)]; 6] = [
    &[(0, 1)],
    &[(255, 1), (3, 1), (700, 1), (0, 1)],
    &[(254, 8)],
    &[(10, 3), (300, 2)],
    &[(37, 50)],
    &[(0, 9), (4, 1), (0, 8)],
];

fn shape((heads, kv_heads, head_dim): (usize, usize, usize)) -> AttentionShape {
    AttentionShape::new(heads, kv_heads, head_dim, true)
}

/// What is left of numbers, `[tokens, heads * head_dim]`, that went through a cache.
fn rounded(kind: CacheKind, head_dim: usize, x: &[f32]) -> Vec<f32> {
    match kind {
        CacheKind::F32 => x.to_vec(),
        CacheKind::F16 => x.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
        CacheKind::Int8 => {
            let head = |x: &[f32]| {
                let top = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let code = |x: &f32| (x * (127.0 / top)).round_ties_even();
                x.iter().map(|x| code(x) * (top / 127.0)).collect::<Vec<_>>()
            };
            x.chunks_exact(head_dim).flat_map(head).collect()
        }
    }
}

/// Queries, and keys and values of each sequence.
struct Case {
    shape: AttentionShape,
    call: &'static [(usize, usize)],
    q: Vec<f32>,
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
}

impl Case {
    fn all() -> impl Iterator<Item = Case> {
        SHAPES.into_iter().flat_map(|s| CALLS.into_iter().map(move |call| Case::new(shape(s), call)))
    }

    fn new(shape: AttentionShape, call: &'static [(usize, usize)]) -> Self {
        let rows: usize = call.iter().map(|(_, new)| new).sum();
        let q = noise(rows * shape.heads * shape.head_dim, 1).iter().map(|q| 3.0 * q).collect();
        let kv = |seed: u64| {
            let one = |(i, (past, new)): (usize, &(usize, usize))| {
                noise((past + new) * shape.kv_heads * shape.head_dim, seed + 10 * i as u64)
            };
            call.iter().enumerate().map(one).collect()
        };
        Case { shape, call, q, k: kv(2), v: kv(3) }
    }

    fn caches(&self, kind: CacheKind) -> Vec<[CacheRows; 2]> {
        let fill = |x: &Vec<f32>| {
            let mut rows = CacheRows::new(kind, self.shape.kv_heads, self.shape.head_dim);
            rows.push(x);
            rows
        };
        self.k.iter().zip(&self.v).map(|(k, v)| [fill(k), fill(v)]).collect()
    }

    fn run(&self, cpu: &Cpu, kind: CacheKind) -> Vec<f32> {
        let caches = self.caches(kind);
        let mut out = vec![f32::NAN; self.q.len()];
        let cached = |i: usize| Cached { keys: &caches[i][0], values: &caches[i][1], new: self.call[i].1 };
        ops::attention_caches(cpu, self.shape, &self.q, self.call.len(), &cached, &mut out);
        out
    }

    /// One sequence after the other, in f32, from numbers rounded beforehand.
    fn plain(&self, cpu: &Cpu, kind: CacheKind) -> Vec<f32> {
        let (mut out, width) = (Vec::new(), self.shape.heads * self.shape.head_dim);
        for (i, (past, new)) in self.call.iter().enumerate() {
            let [k, v] = [&self.k[i], &self.v[i]].map(|x| rounded(kind, self.shape.head_dim, x));
            let mut y = vec![f32::NAN; new * width];
            ops::attention_cached(cpu, self.shape, &self.q[out.len()..][..y.len()], &k, &v, *past, &mut y);
            out.extend(y);
        }
        out
    }
}

#[test]
fn caches_give_the_bits_of_the_f32_path_on_what_they_hold() {
    let cpu = cpu();
    for case in Case::all() {
        for (name, kind) in CacheKind::ALL {
            let what = format!("{name} {:?} {:?}", case.shape, case.call);
            let (found, plain) = (case.run(&cpu, kind), case.plain(&cpu, kind));
            match kind {
                // Scales are multiplied with sums, not with each number.
                CacheKind::Int8 => assert_close(&found, &f64s(&plain), 1e-5, &what),
                _ => assert_eq!(found, plain, "{what}"),
            }
        }
    }
}

#[test]
fn narrow_caches_stay_close() {
    let cpu = cpu();
    for case in Case::all() {
        let exact = f64s(&case.run(&cpu, CacheKind::F32));
        assert_close(&case.run(&cpu, CacheKind::F16), &exact, 2e-3, "f16");
        assert_close(&case.run(&cpu, CacheKind::Int8), &exact, 3e-2, "int8");
    }
}

#[test]
fn several_tokens_at_once_have_the_bits_of_one_by_one() {
    let cpu = cpu();
    for (past, new) in [(0, 8), (250, 8), (511, 4), (37, 2), (0, 9), (0, 300), (240, 40), (600, 131)] {
        for (_, kind) in CacheKind::ALL {
            for window in [None, Some(3), Some(100), Some(270)] {
                let shape = AttentionShape { window, ..shape((6, 2, 40)) };
                let (q, k, v) = (noise(new * 240, 1), noise((past + new) * 80, 2), noise((past + new) * 80, 3));
                let run = |tokens: std::ops::Range<usize>| {
                    let [keys, values] = [&k, &v].map(|x| {
                        let mut rows = CacheRows::new(kind, 2, 40);
                        rows.push(&x[..(past + tokens.end) * 80]);
                        rows
                    });
                    let (mut out, new) = (vec![f32::NAN; tokens.len() * 240], tokens.len());
                    let cached = |_| Cached { keys: &keys, values: &values, new };
                    ops::attention_caches(&cpu, shape, &q[tokens.start * 240..tokens.end * 240], 1, &cached, &mut out);
                    out
                };
                let single: Vec<f32> = (0..new).flat_map(|t| run(t..t + 1)).collect();
                assert_eq!(run(0..new), single, "{kind:?} {past} + {new}, window {window:?}");
            }
        }
    }
}

#[test]
fn caches_give_the_same_bits_everywhere() {
    for call in [CALLS[1], CALLS[3], CALLS[5]] {
        let case = Case::new(shape((6, 2, 40)), call);
        assert_same_everywhere("cached attention", |cpu| CacheKind::ALL.map(|(_, kind)| case.run(cpu, kind)).to_vec());
    }
}

#[test]
fn stored_rows_come_back() {
    // More than one block.
    let (all, kept) = (600, 515);
    let x = noise(all * 3 * 10, 5);
    for (name, kind) in CacheKind::ALL {
        assert_eq!(kind.name(), name);
        let written = |rows: &CacheRows, count: usize| {
            let mut bytes = Vec::new();
            rows.write(count, &mut bytes);
            assert_eq!(bytes.len(), count * kind.row_bytes(3, 10));
            bytes
        };
        let mut rows = CacheRows::new(kind, 3, 10);
        rows.reserve(7);
        rows.push(&x);
        assert_eq!((rows.rows(), rows.bytes()), (all, all * kind.row_bytes(3, 10)));
        if kind == CacheKind::F32 {
            assert_eq!(written(&rows, all), x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        }
        let mut bytes = written(&rows, kept);
        let mut back = CacheRows::new(kind, 3, 10);
        assert!(back.read(kept, &bytes));
        rows.truncate(kept);
        rows.push(&x[..30]);
        back.push(&x[..30]);
        assert_eq!(written(&back, kept + 1), written(&rows, kept + 1), "{name}");
        assert!(!back.read(4, &bytes) && !back.read(usize::MAX, &bytes), "{name}: a wrong length is refused");
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&[0xff; 4]);
        assert!(!back.read(kept, &bytes), "{name}: a number that is none is refused");
        assert_eq!(back.rows(), kept + 1);
    }
}

#[test]
fn halves_keep_what_leaves_their_range() {
    let cpu = cpu();
    for case in Case::all() {
        for factor in [1e6, 1e30, 1e-7, 1e-30] {
            let scaled = |x: &[Vec<f32>]| -> Vec<Vec<f32>> {
                // The last head, of large ones only some tokens.
                let (dim, width) = (case.shape.head_dim, case.shape.kv_heads * case.shape.head_dim);
                let change =
                    |(i, v): (usize, &f32)| match i % width >= width - dim && (factor < 1.0 || i / width % 3 != 0) {
                        true => v * factor,
                        false => *v,
                    };
                x.iter().map(|x| x.iter().enumerate().map(change).collect()).collect()
            };
            let (q, k) = (case.q.clone(), case.k.clone());
            let large = Case { shape: case.shape, call: case.call, q, k, v: scaled(&case.v) };
            let (found, exact) = (large.run(&cpu, CacheKind::F16), large.run(&cpu, CacheKind::F32));
            let heads = found.chunks(case.shape.head_dim).zip(exact.chunks(case.shape.head_dim)).enumerate();
            for (i, (found, exact)) in heads {
                let last = i % case.shape.heads >= case.shape.heads - case.shape.heads / case.shape.kv_heads;
                let size = if last { factor } else { 1.0 };
                let close = found.iter().zip(exact).all(|(a, b)| (a - b).abs() <= 2e-3 * size);
                assert!(close, "{factor} {:?} {:?}: {found:?} {exact:?}", case.shape, case.call);
            }
        }
    }
}

#[test]
fn memory_comes_in_blocks_and_goes_with_the_rows() {
    for (name, kind) in CacheKind::ALL {
        let (mut rows, block) = (CacheRows::new(kind, 3, 10), 256 * kind.row_bytes(3, 10));
        assert_eq!(rows.allocated(), 0, "{name}");
        let mut blocks = Vec::new();
        for _ in 0..6 {
            rows.push(&noise(100 * 30, 1));
            blocks.push(rows.allocated() / block);
        }
        assert_eq!((blocks, rows.allocated() % block), (vec![1, 1, 2, 2, 2, 3], 0), "{name}");
        rows.truncate(200);
        assert_eq!(rows.allocated(), 2 * block, "{name}: one to spare");
        rows.truncate(0);
        assert_eq!(rows.allocated(), block, "{name}");
    }
}

#[test]
fn factors_of_halves_come_back() {
    let mut rows = CacheRows::new(CacheKind::F16, 2, 3);
    rows.push(&noise(6 * 300, 1));
    let (mut bytes, mut factors) = (Vec::new(), Vec::new());
    rows.write_factors(300, &mut factors);
    assert!(factors.is_empty(), "no number left the range of halves");
    rows.push(&[1.0, 2.0, 3.0, 3e6, -1e6, 0.5]);
    rows.push(&[0.0; 6]);
    rows.write(302, &mut bytes);
    rows.write_factors(302, &mut factors);
    assert_eq!(factors.len(), rows.factor_bytes(302));
    let factor = |i: usize| f32::from_le_bytes(factors[4 * i..4 * i + 4].try_into().unwrap());
    assert_eq!([599, 600, 601, 602].map(factor), [1.0, 1.0, 2f32.powi(21), 1.0]);
    let mut back = CacheRows::new(CacheKind::F16, 2, 3);
    assert!(back.read(302, &bytes) && back.read_factors(&factors));
    let (mut again, mut again_factors) = (Vec::new(), Vec::new());
    back.write(302, &mut again);
    back.write_factors(302, &mut again_factors);
    assert_eq!((again, again_factors), (bytes.clone(), factors.clone()));
    // What is written over a token is told by its own numbers.
    back.truncate(300);
    back.push(&[1.0; 6]);
    again_factors = Vec::new();
    back.write_factors(301, &mut again_factors);
    assert!(again_factors.is_empty());
    assert!(!back.read_factors(&factors), "a wrong length is refused");
    factors[0..4].copy_from_slice(&0f32.to_le_bytes());
    assert!(back.read(302, &bytes) && !back.read_factors(&factors), "a factor of 0 is refused");
    assert!(!CacheRows::new(CacheKind::Int8, 2, 3).read_factors(&[]));
}

#[test]
fn values_that_are_not_finite_are_not_lost() {
    let cpu = cpu();
    for kind in CacheKind::ALL.map(|(_, kind)| kind) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = Case::new(shape((4, 2, 8)), CALLS[3]);
            case.v[0][12 * 16 + 3] = bad;
            // A score of minus infinity is a weight of 0, rightly.
            case.k[1][301 * 16 + 3] = f32::NAN;
            let found = case.run(&cpu, kind);
            // The last token of the first sequence sees the value, that of the second the key.
            for token in [2, 4] {
                let head = &found[token * 32..][..16];
                assert!(head.iter().any(|v| !v.is_finite()), "{kind:?} {bad} token {token}: {head:?}");
            }
        }
    }
}
