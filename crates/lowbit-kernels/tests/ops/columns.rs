//! Batch normalization: statistics of columns, and operations with numbers of each column.

use super::*;
use lowbit_kernels::ops;

#[test]
fn columns_are_those_of_the_definition() {
    for (width, rows) in WIDTHS.into_iter().flat_map(|width| [1, 2, 7, 700].map(|rows| (width, rows))) {
        let [x, dy, old] = [1, 2, 3].map(|seed| noise(rows * width, seed + rows as u64));
        let [a, b, c, d] = [4, 5, 6, 7].map(|seed| noise(width, seed));
        let all = |cpu: &Cpu| {
            let [mean, variance] = ops::column_moments(cpu, &x, width);
            let [sums, along] = ops::column_gradients(cpu, &x, &mean, &dy);
            let (mut scaled, mut mixed) = (vec![0.0; x.len()], old.clone());
            ops::scale_columns(cpu, &x, [&a, &b], &mut scaled);
            ops::mix_columns(cpu, &x, &dy, [&a, &b, &c, &d], &mut mixed);
            vec![mean, variance, sums, along, scaled, mixed]
        };
        assert_same_everywhere("columns", all);
        let [mean, variance, sums, along, scaled, mixed] = all(&cpu()).try_into().expect("six buffers");
        let (wide, dy) = (f64s(&x), f64s(&dy));
        for column in 0..width {
            let at = || (0..rows).map(|row| row * width + column);
            let expected_mean = at().map(|i| wide[i]).sum::<f64>() / rows as f64;
            let apart = |i: usize| wide[i] - expected_mean;
            let expected_variance = at().map(|i| apart(i) * apart(i)).sum::<f64>() / rows as f64;
            assert_close(&[mean[column], variance[column]], &[expected_mean, expected_variance], 1e-5, "moments");
            let expected = [at().map(|i| dy[i]).sum(), at().map(|i| dy[i] * apart(i)).sum()];
            assert_close(&[sums[column], along[column]], &expected, 1e-4, "gradients");
            for i in at() {
                let [a, b, c, d] = [&a, &b, &c, &d].map(|all| f64::from(all[column]));
                let expected = [a * wide[i] + b, f64::from(old[i]) + a * (dy[i] - c) + b * (wide[i] - d)];
                assert_close(&[scaled[i], mixed[i]], &expected, 1e-6, "outputs");
            }
        }
    }
}
