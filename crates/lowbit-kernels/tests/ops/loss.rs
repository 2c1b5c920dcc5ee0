use crate::{ROWS, WIDTHS, assert_close, assert_same_everywhere, cpu, f64s, gradient, noise};
use lowbit_kernels::ops;

fn softmax(x: &[f64]) -> Vec<f64> {
    let top = x.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = x.iter().map(|x| (x - top).exp()).sum();
    x.iter().map(|x| (x - top).exp() / sum).collect()
}

/// Sum over rows of the cross-entropy with targets smoothed as in PyTorch.
fn oracle(logits: &[f64], classes: usize, targets: &[u32], smoothing: f64) -> f64 {
    let rows = logits.chunks_exact(classes).zip(targets).filter(|(_, target)| **target != u32::MAX);
    let losses = rows.map(|(x, &target)| {
        let p = softmax(x);
        let weight = |i| (1.0 - smoothing) * (i == target as usize) as u8 as f64 + smoothing / classes as f64;
        (0..classes).map(|i| -weight(i) * p[i].ln()).sum::<f64>()
    });
    losses.sum()
}

fn targets(rows: usize, classes: usize) -> Vec<u32> {
    (0..rows).map(|i| if i % 3 == 1 { u32::MAX } else { (i * 31 % classes) as u32 }).collect()
}

#[test]
fn cross_entropy_matches() {
    let cpu = cpu();
    for (rows, classes) in ROWS.iter().flat_map(|&rows| WIDTHS.map(|classes| (rows, classes))) {
        for smoothing in [0.0f32, 0.1] {
            let logits: Vec<f32> = noise(rows * classes, 1).iter().map(|x| 5.0 * x).collect();
            let targets = targets(rows, classes);
            let mut dlogits = vec![f32::NAN; logits.len()];
            let loss = ops::cross_entropy(&cpu, &logits, classes, &targets, smoothing, Some((&mut dlogits, 0.5)));
            let alone = ops::cross_entropy(&cpu, &logits, classes, &targets, smoothing, None);
            let logits = f64s(&logits);
            let want = oracle(&logits, classes, &targets, smoothing as f64);
            assert_eq!(loss, alone);
            assert!((loss - want).abs() < 2e-6 * (1.0 + want), "{rows} x {classes}: {loss}, not {want}");
            if rows * classes < 500 {
                let slopes = gradient(&logits, |x| 0.5 * oracle(x, classes, &targets, smoothing as f64));
                assert_close(&dlogits, &slopes, 1e-6, &format!("{rows} x {classes}"));
            }
        }
    }
}

#[test]
fn softmax_matches() {
    let cpu = cpu();
    for (rows, width) in ROWS.iter().flat_map(|&rows| WIDTHS.map(|width| (rows, width))) {
        let mut x: Vec<f32> = noise(rows * width, 1).iter().map(|x| 200.0 * x).collect();
        let want: Vec<f64> = f64s(&x).chunks_exact(width).flat_map(softmax).collect();
        ops::softmax(&cpu, &mut x, width);
        assert_close(&x, &want, 1e-6, &format!("{rows} x {width}"));
    }
}

#[test]
fn bad_numbers_show_in_the_loss() {
    let mut logits = noise(20, 1);
    logits[17] = f32::NAN;
    assert!(ops::cross_entropy(&cpu(), &logits, 20, &[3], 0.0, None).is_nan());
}

#[test]
fn same_bits_everywhere() {
    for (rows, classes) in [(7, 17), (500, 130)] {
        let (logits, targets) = (noise(rows * classes, 1), targets(rows, classes));
        assert_same_everywhere("loss", |cpu| {
            let (mut d, mut p) = (vec![0.0; logits.len()], logits.clone());
            let loss = ops::cross_entropy(cpu, &logits, classes, &targets, 0.1, Some((&mut d, 0.3))).to_bits();
            ops::softmax(cpu, &mut p, classes);
            vec![d, p, vec![f32::from_bits(loss as u32), f32::from_bits((loss >> 32) as u32)]]
        });
    }
}
