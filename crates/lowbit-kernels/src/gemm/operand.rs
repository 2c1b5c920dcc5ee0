//! What a matrix product takes: matrices in memory, and windows of images.

use crate::Windows;

/// A matrix view: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance of consecutive rows.
    pub row_stride: usize,
    /// Distance of consecutive columns.
    pub col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Row-major `[rows, cols]`.
    pub fn new(data: &'a [f32], cols: usize) -> Self {
        Mat { data, row_stride: cols, col_stride: 1 }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Mat { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    pub(super) fn check(&self, rows: usize, cols: usize, name: &str) {
        let end = |count: usize, stride: usize| count.saturating_sub(1).checked_mul(stride);
        let last = end(rows, self.row_stride).zip(end(cols, self.col_stride)).and_then(|(r, c)| r.checked_add(c));
        let inside = last.is_some_and(|last| last < self.data.len());
        assert!(rows == 0 || cols == 0 || inside, "{name} is shorter than [{rows}, {cols}]");
    }
}

/// An operand of a product: stored, or the windows of images.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// A matrix in memory.
    Matrix(Mat<'a>),
    /// Windows of images, a row each, which are copied as they are packed.
    Windows(Windows<'a>),
}

impl<'a> From<Mat<'a>> for Operand<'a> {
    fn from(matrix: Mat<'a>) -> Self {
        Operand::Matrix(matrix)
    }
}

impl<'a> From<Windows<'a>> for Operand<'a> {
    fn from(windows: Windows<'a>) -> Self {
        match windows.stored() {
            Some(values) => Operand::Matrix(Mat::new(values, windows.columns())),
            None => Operand::Windows(windows),
        }
    }
}

impl Operand<'_> {
    pub(super) fn check(&self, rows: usize, cols: usize, name: &str) {
        match self {
            Operand::Matrix(matrix) => matrix.check(rows, cols, name),
            Operand::Windows(windows) => {
                assert_eq!((windows.len(), windows.columns()), (rows, cols), "{name} is [windows, columns]");
            }
        }
    }
}
