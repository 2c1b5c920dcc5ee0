//! One matrix in every format: bytes, and how far its products are from those of the floats.
//!
//! `cargo run --release -p lowbit --example quantize`

use lowbit::base::SplitMix64;

fn main() -> Result<(), lowbit::Error> {
    let (rows, cols) = (256, 512);
    let mut random = SplitMix64::new(1);
    let mut noise = |len: usize| -> Vec<f32> { (0..len).map(|_| random.unit() as f32 - 0.5).collect() };
    let (weights, x) = (noise(rows * cols), noise(cols));
    let exact = lowbit::quantize("f32", &weights, rows, cols)?.matmul(&x)?;
    let size: f32 = exact.iter().map(|y| y * y).sum::<f32>().sqrt();
    for format in lowbit::kernels::FORMATS {
        let w = lowbit::quantize(format.name(), &weights, rows, cols)?;
        let y = w.matmul(&x)?;
        let far: f32 = y.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        println!("{:20} {:7} bytes, error of a product {:.5}", w.format(), w.bytes(), far / size);
    }
    Ok(())
}
