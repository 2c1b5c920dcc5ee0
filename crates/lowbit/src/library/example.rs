//! What a classifier or a regression is asked about.

use super::Error;
use lowbit_model::Inputs;
use std::borrow::Cow;

/// A text, or a row of numbers: what [`Model::classify`](crate::Model::classify) and [`Model::predict`](crate::Model::predict) take.
/// Strings and slices, vectors and arrays of f32 become one.
#[derive(Clone, Debug, PartialEq)]
pub enum Example<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// Numbers as in the data, `[features]`, which the model scales as its training data were; NaN where one is unknown. Pixels
    /// of an image are its numbers, row by row.
    Features(Cow<'a, [f32]>),
}

/// Rows of one kind and width.
pub(super) fn inputs<'a>(examples: impl IntoIterator<Item = impl Into<Example<'a>>>) -> Result<Inputs, Error> {
    let (mut texts, mut values, mut width) = (Vec::new(), Vec::new(), None);
    for (row, example) in examples.into_iter().enumerate() {
        match example.into() {
            Example::Text(text) => texts.push(text.into_owned()),
            Example::Features(row_values) => {
                let first = *width.get_or_insert(row_values.len());
                if row_values.len() != first {
                    let len = row_values.len();
                    let text = format!("row {row} has {len} numbers, and the first row {first}; give [rows, features]");
                    return Err(Error::Request(text));
                }
                values.extend_from_slice(&row_values);
            }
        }
    }
    match width {
        None => Ok(Inputs::Texts(texts)),
        Some(width) if texts.is_empty() && width > 0 => Ok(Inputs::Features { width, values }),
        Some(0) => Err(Error::Request("rows of 0 numbers; give [rows, features]".into())),
        Some(_) => Err(Error::Request("texts and rows of numbers in one call; give one kind".into())),
    }
}

macro_rules! texts {
    ($($text:ty),+) => {
        $(impl<'a> From<$text> for Example<'a> {
            fn from(text: $text) -> Self {
                Example::Text(text.into())
            }
        })+
    };
}

texts!(&'a str, &'a String, String, Cow<'a, str>);

impl<'a> From<&&'a str> for Example<'a> {
    fn from(text: &&'a str) -> Self {
        Example::Text((*text).into())
    }
}

macro_rules! features {
    ($($row:ty),+) => {
        $(impl<'a> From<$row> for Example<'a> {
            fn from(row: $row) -> Self {
                Example::Features(row.into())
            }
        })+
    };
}

features!(&'a [f32], &'a Vec<f32>, Vec<f32>, Cow<'a, [f32]>);

impl<'a, const N: usize> From<&'a [f32; N]> for Example<'a> {
    fn from(row: &'a [f32; N]) -> Self {
        Example::Features(Cow::Borrowed(row))
    }
}

impl<const N: usize> From<[f32; N]> for Example<'_> {
    fn from(row: [f32; N]) -> Self {
        Example::Features(Cow::Owned(row.to_vec()))
    }
}
