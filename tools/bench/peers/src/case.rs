//! What is multiplied: integers that every side stores and multiplies exactly.

use std::fmt;
use std::str::FromStr;

/// `y = x * W^T`, `x` `[tokens, cols]`, `W` `[rows, cols]`.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub rows: usize,
    pub cols: usize,
    pub tokens: usize,
}

impl FromStr for Shape {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let sides: Result<Vec<usize>, ()> =
            text.split('x').map(|s| s.parse().ok().filter(|n| *n > 0).ok_or(())).collect();
        match sides?[..] {
            [rows, cols, tokens] => Ok(Shape { rows, cols, tokens }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}, {}", self.rows, self.cols, self.tokens)
    }
}

/// A product on some threads.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub shape: Shape,
    pub threads: usize,
    /// Bytes that the copies of a matrix hold together where one token is multiplied.
    pub bytes: usize,
}

impl Case {
    /// Copies of a matrix of so many bytes: one token reads its weights from memory, more tokens reuse them.
    pub fn copies(&self, bytes: usize) -> usize {
        if self.shape.tokens == 1 { self.bytes.div_ceil(bytes) } else { 1 }
    }
}

/// A reproducible sequence of numbers.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// Weights -127..=127, `[rows, cols]`, each row having a 127: its scale by absmax is 1.
pub fn int8_weights(shape: Shape) -> Vec<i8> {
    let mut random = Lcg(7);
    let mut weights: Vec<i8> = (0..shape.rows * shape.cols).map(|_| (random.below(255) as i16 - 127) as i8).collect();
    weights.iter_mut().step_by(shape.cols).for_each(|w| *w = 127);
    weights
}

/// Weights -1, 0 and 1, `[rows, cols]`.
pub fn ternary_weights(shape: Shape) -> Vec<i8> {
    let mut random = Lcg(11);
    (0..shape.rows * shape.cols).map(|_| random.below(3) as i8 - 1).collect()
}

/// Activations 0..=127, `[tokens, cols]`, each token having a 127: exact in signed and unsigned bytes, with scale 1.
pub fn activations(shape: Shape) -> Vec<u8> {
    let mut random = Lcg(3);
    let mut x: Vec<u8> = (0..shape.tokens * shape.cols).map(|_| random.below(128) as u8).collect();
    x.iter_mut().step_by(shape.cols).for_each(|x| *x = 127);
    x
}
