use crate::{assert_close, assert_same_everywhere, cpu, f64s, noise};
use lowbit_kernels::ops::{self, AdamW};

const ADAMW: AdamW =
    AdamW { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 0.5 };

#[test]
fn adamw_follows_its_definition() {
    let cpu = cpu();
    for len in [0, 1, 15, 17, 1000] {
        let mut w = noise(len, 1);
        let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
        let (mut w64, mut m64, mut v64) = (f64s(&w), vec![0.0; len], vec![0.0; len]);
        for step in 1..=20 {
            let g = noise(len, 100 + step);
            ops::adamw(&cpu, &mut w, &g, &mut m, &mut v, AdamW { step, ..ADAMW });
            for i in 0..len {
                let g = g[i] as f64 * 0.5;
                w64[i] *= 1.0 - 0.01 * 0.1;
                m64[i] = 0.9 * m64[i] + 0.1 * g;
                v64[i] = 0.99 * v64[i] + 0.01 * g * g;
                let (first, second) = (1.0 - 0.9f64.powi(step as i32), 1.0 - 0.99f64.powi(step as i32));
                w64[i] -= 0.01 / first * m64[i] / ((v64[i] / second).sqrt() + 1e-8);
            }
        }
        assert_close(&w, &w64, 2e-6, "w");
        assert_close(&m, &m64, 1e-6, "m");
        assert_close(&v, &v64, 1e-6, "v");
    }
}

#[test]
fn sgd_follows_its_definition() {
    let cpu = cpu();
    for len in [0, 1, 17, 1000] {
        let (mut w, mut buffer) = (noise(len, 1), vec![0.0; len]);
        let (mut w64, mut buffer64) = (f64s(&w), vec![0.0; len]);
        for step in 1..=20 {
            let g = noise(len, 100 + step);
            ops::sgd(&cpu, &mut w, &g, &mut buffer, 0.1, 0.9, 0.01, 0.5);
            for i in 0..len {
                buffer64[i] = 0.9 * buffer64[i] + 0.5 * g[i] as f64 + 0.01 * w64[i];
                w64[i] -= 0.1 * buffer64[i];
            }
        }
        assert_close(&w, &w64, 5e-6, "w");
        assert_close(&buffer, &buffer64, 5e-6, "buffer");
    }
}

/// Which elements of ones survive.
fn mask(len: usize, p: f32, seed: u64) -> Vec<bool> {
    let mut y = vec![f32::NAN; len];
    ops::dropout(&cpu(), &vec![1.0; len], p, seed, &mut y);
    let scale = 1.0 / (1.0 - p);
    assert!(y.iter().all(|&y| y == 0.0 || y == scale), "survivors are scaled");
    y.iter().map(|&y| y != 0.0).collect()
}

/// Asserts that `count` of `n` lies within 5 standard deviations of `n * p`.
fn assert_share(count: usize, n: usize, p: f64, what: &str) {
    let (mean, deviation) = (n as f64 * p, (n as f64 * p * (1.0 - p)).sqrt());
    assert!((count as f64 - mean).abs() <= 5.0 * deviation, "{what}: {count} of {n} at {p}");
}

#[test]
fn dropout_is_independent_of_its_neighbours() {
    const N: usize = 200_000;
    for p in [0.1f32, 0.5, 0.75] {
        let (keep, both) = (1.0 - p as f64, (1.0 - p as f64).powi(2));
        for seed in [0, 1, 2, u64::MAX, 1 << 32] {
            let mask = mask(N, p, seed);
            assert_share(mask.iter().filter(|&&kept| kept).count(), N, keep, "share");
            for lag in [1, 2, 15, 16, 17, 31, 32, 33, 64, 256, 1024, 4096, 65_536] {
                let pairs = (0..N - lag).filter(|&i| mask[i] && mask[i + lag]).count();
                assert_share(pairs, N - lag, both, &format!("pairs {lag} apart"));
            }
            for lane in 0..64 {
                let kept = mask.iter().skip(lane).step_by(64).filter(|&&kept| kept).count();
                assert_share(kept, N / 64, keep, &format!("place {lane} of 64"));
            }
        }
        let (a, b) = (mask(N, p, 10), mask(N, p, 11));
        assert_share((0..N).filter(|&i| a[i] && b[i]).count(), N, both, "next seed");
    }
}

#[test]
fn dropout_depends_on_seed_and_index_alone() {
    let whole = mask(70_000, 0.3, 42);
    for len in [1, 15, 31, 32, 33, 47, 65, 16_384, 16_400, 40_000] {
        assert_eq!(mask(len, 0.3, 42), whole[..len]);
    }
    assert_ne!(mask(1000, 0.3, 43), whole[..1000]);
    assert!(mask(1000, 0.0, 1).iter().all(|&kept| kept));
    let mut y = [1.0; 100];
    ops::dropout(&cpu(), &[f32::MAX; 100], 1.0, 1, &mut y);
    assert_eq!(y, [0.0; 100]);
}

#[test]
fn same_bits_everywhere() {
    for len in [33, 40_001] {
        let (w, g, m) = (noise(len, 1), noise(len, 2), noise(len, 3));
        assert_same_everywhere("optim", |cpu| {
            let mut buffers =
                [w.clone(), m.clone(), m.iter().map(|m| m * m).collect(), w.clone(), m.clone(), g.clone()];
            let [w, m, v, w2, buffer, y] = &mut buffers;
            ops::adamw(cpu, w, &g, m, v, AdamW { step: 7, ..ADAMW });
            ops::sgd(cpu, w2, &g, buffer, 0.1, 0.9, 0.01, 0.5);
            ops::dropout(cpu, &g, 0.2, 99, y);
            buffers.to_vec()
        });
    }
}
