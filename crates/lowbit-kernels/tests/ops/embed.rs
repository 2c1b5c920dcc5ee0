use crate::{WIDTHS, assert_close, assert_same_everywhere, cpu, f64s, noise};
use lowbit_kernels::ops;

fn ids(len: usize, entries: u32) -> Vec<u32> {
    (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761) / 7 % entries).collect()
}

#[test]
fn rows_are_gathered_and_scattered() {
    let cpu = cpu();
    for width in WIDTHS {
        for (count, entries) in [(0, 5), (1, 1), (7, 3), (400, 11)] {
            let (table, ids) = (noise(entries * width, 1), ids(count, entries as u32));
            let (mut y, dy) = (vec![f32::NAN; count * width], noise(count * width, 2));
            ops::gather(&cpu, &table, width, &ids, &mut y);
            for (row, &id) in y.chunks_exact(width).zip(&ids) {
                assert_eq!(row, &table[id as usize * width..][..width]);
            }
            let (mut dtable, mut want) = (table.clone(), table);
            ops::scatter_add(&cpu, &dy, width, &ids, &mut dtable);
            for (row, &id) in dy.chunks_exact(width).zip(&ids) {
                want[id as usize * width..].iter_mut().zip(row).for_each(|(sum, dy)| *sum += dy);
            }
            assert_eq!(dtable, want, "{count} rows of {width}");
        }
    }
}

#[test]
fn means_match() {
    let cpu = cpu();
    for width in WIDTHS {
        for lengths in [&[1][..], &[1, 2, 7, 1], &[300, 5]] {
            let mut starts = vec![0];
            lengths.iter().for_each(|len| starts.push(starts[starts.len() - 1] + len));
            let rows = starts[lengths.len()];
            let (x, dy, start) = (noise(rows * width, 1), noise(lengths.len() * width, 2), noise(rows * width, 3));
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], start.clone());
            ops::pool_mean(&cpu, &x, width, &starts, &mut y);
            ops::pool_mean_backward(&cpu, &dy, width, &starts, &mut dx);
            let (mut want, mut want_dx) = (vec![0.0; dy.len()], f64s(&start));
            for (i, &len) in lengths.iter().enumerate() {
                for at in starts[i] * width..starts[i + 1] * width {
                    want[i * width + at % width] += x[at] as f64 / len as f64;
                    want_dx[at] += dy[i * width + at % width] as f64 / len as f64;
                }
            }
            assert_close(&y, &want, 2e-6, "mean");
            assert_close(&dx, &want_dx, 1e-6, "gradient of mean");
        }
    }
}

#[test]
#[should_panic(expected = "no sequence is empty")]
fn empty_sequences_are_refused() {
    ops::pool_mean(&cpu(), &[1.0, 2.0], 1, &[0, 1, 1, 2], &mut [0.0; 3]);
}

#[test]
fn same_bits_everywhere() {
    let width = 130;
    let (x, ids) = (noise(400 * width, 1), ids(400, 37));
    let starts = [0, 1, 60, 61, 300, 400];
    assert_same_everywhere("embed", |cpu| {
        let (mut dtable, mut y, mut dx) = (vec![0.5; 37 * width], vec![0.0; 5 * width], vec![0.5; x.len()]);
        ops::scatter_add(cpu, &x, width, &ids, &mut dtable);
        ops::pool_mean(cpu, &x, width, &starts, &mut y);
        ops::pool_mean_backward(cpu, &x[..5 * width], width, &starts, &mut dx);
        vec![dtable, y, dx]
    });
}
