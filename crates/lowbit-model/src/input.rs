//! What a model is asked about: rows of texts, of numbers, or of bytes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Position, from 0.
    Index(usize),
    /// Name in the header, the object or the schema.
    Name(String),
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Column::Index(index) => write!(f, "{index}"),
            Column::Name(name) => write!(f, "`{name}`"),
        }
    }
}

/// The columns of a table that a model was trained on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputColumns {
    /// Columns of the input, in their order.
    pub columns: Vec<Column>,
    /// Whether the first line of the file named the columns.
    #[serde(default)]
    pub header: bool,
    /// What stands between the texts of several columns; one space when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
}

impl InputColumns {
    /// Whether all columns are named.
    pub fn has_names(&self) -> bool {
        self.columns.iter().all(|column| matches!(column, Column::Name(_)))
    }
}

/// Rows of one kind. As JSON a list of texts, or an object; an unknown number is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Inputs {
    /// Texts, `[rows]`.
    Texts(Vec<String>),
    /// Pairs of texts, `[rows]`.
    Pairs {
        /// Both texts with what stands between them, for all that reads one text.
        texts: Vec<String>,
        /// Bytes of each at which the first text ends and the second begins.
        cuts: Vec<[usize; 2]>,
    },
    /// Numbers as in the data, `[rows, width]`; NaN where one is unknown. Pixels of an image are its numbers, row by row.
    Features {
        /// Numbers of a row.
        width: usize,
        /// All numbers.
        #[serde(with = "nullable")]
        values: Vec<f32>,
    },
    /// Contents of whole files, `[rows]`; not part of any request.
    #[serde(skip)]
    Bytes(Vec<Vec<u8>>),
}

impl Default for Inputs {
    fn default() -> Self {
        Inputs::Texts(Vec::new())
    }
}

impl Inputs {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Inputs::Texts(texts) | Inputs::Pairs { texts, .. } => texts.len(),
            Inputs::Features { width, values } => values.len() / width.max(&1),
            Inputs::Bytes(contents) => contents.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The texts; none where the rows are numbers or bytes.
    pub fn texts(&self) -> &[String] {
        match self {
            Inputs::Texts(texts) | Inputs::Pairs { texts, .. } => texts,
            Inputs::Features { .. } | Inputs::Bytes(_) => &[],
        }
    }

    /// The two texts of a row; none where a row is no pair.
    pub fn pair(&self, row: usize) -> Option<[&str; 2]> {
        let Inputs::Pairs { texts, cuts } = self else { return None };
        let (text, [end, start]) = (texts.get(row)?, *cuts.get(row)?);
        Some([text.get(..end)?, text.get(start..)?])
    }

    /// Adds a pair of texts; what is no list of pairs, and empty, becomes one.
    ///
    /// # Panics
    /// When rows of another kind are there.
    pub fn push_pair(&mut self, [first, second]: [&str; 2], separator: &str) {
        if self.is_empty() {
            *self = Inputs::Pairs { texts: Vec::new(), cuts: Vec::new() };
        }
        let Inputs::Pairs { texts, cuts } = self else { panic!("rows of another kind") };
        cuts.push([first.len(), first.len() + separator.len()]);
        texts.push([first, separator, second].concat());
    }

    /// Numbers of a row; 0 where the rows are no numbers.
    pub fn width(&self) -> usize {
        match self {
            Inputs::Texts(_) | Inputs::Pairs { .. } | Inputs::Bytes(_) => 0,
            Inputs::Features { width, .. } => *width,
        }
    }

    /// The numbers of one row, `[width]`; none where the rows are no numbers.
    pub fn features(&self, row: usize) -> &[f32] {
        match self {
            Inputs::Texts(_) | Inputs::Pairs { .. } | Inputs::Bytes(_) => &[],
            Inputs::Features { width, values } => &values[row * width..][..*width],
        }
    }

    /// The rows of these numbers, in their order.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn select(&self, rows: &[usize]) -> Inputs {
        match self {
            Inputs::Texts(texts) => Inputs::Texts(rows.iter().map(|row| texts[*row].clone()).collect()),
            Inputs::Features { width, .. } => {
                let values = rows.iter().flat_map(|row| self.features(*row)).copied().collect();
                Inputs::Features { width: *width, values }
            }
            Inputs::Pairs { texts, cuts } => Inputs::Pairs {
                texts: rows.iter().map(|row| texts[*row].clone()).collect(),
                cuts: rows.iter().map(|row| cuts[*row]).collect(),
            },
            Inputs::Bytes(contents) => Inputs::Bytes(rows.iter().map(|row| contents[*row].clone()).collect()),
        }
    }

    /// Adds the rows of others of the same kind.
    ///
    /// # Panics
    /// When they are of another kind or width, and there are rows.
    pub fn append(&mut self, others: Inputs) {
        if self.is_empty() {
            *self = others;
            return;
        }
        match (self, others) {
            (Inputs::Texts(texts), Inputs::Texts(more)) => texts.extend(more),
            (Inputs::Pairs { texts, cuts }, Inputs::Pairs { texts: more, cuts: theirs }) => {
                texts.extend(more);
                cuts.extend(theirs);
            }
            (Inputs::Features { width, values }, Inputs::Features { width: other, values: more })
                if *width == other =>
            {
                values.extend(more);
            }
            (Inputs::Bytes(contents), Inputs::Bytes(more)) => contents.extend(more),
            _ => panic!("rows of another kind"),
        }
    }

    /// Keeps the first `n` rows.
    pub fn truncate(&mut self, n: usize) {
        match self {
            Inputs::Texts(texts) => texts.truncate(n),
            Inputs::Pairs { texts, cuts } => {
                texts.truncate(n);
                cuts.truncate(n);
            }
            Inputs::Features { width, values } => values.truncate(n * *width),
            Inputs::Bytes(contents) => contents.truncate(n),
        }
    }
}

/// NaN as null.
mod nullable {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
        values.iter().map(|v| (!v.is_nan()).then_some(*v)).collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
        let values = Vec::<Option<f32>>::deserialize(from)?;
        Ok(values.into_iter().map(|v| v.unwrap_or(f32::NAN)).collect())
    }
}

/// Mean and spread of numbers, by which they are brought to mean 0 and variance 1 before a network sees them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Mean of each number over the training rows.
    pub mean: Vec<f32>,
    /// Standard deviation of each, or 1 where it does not vary.
    pub deviation: Vec<f32>,
}

impl Scaling {
    /// That of the numbers of all rows; unknown ones are left out.
    pub fn of(inputs: &Inputs) -> Self {
        let width = inputs.width();
        let rows = |column: usize| (0..inputs.len()).map(move |row| inputs.features(row)[column]);
        (0..width).map(|column| moments(rows(column).filter(|v| !v.is_nan()).map(f64::from))).collect()
    }

    /// One mean and one deviation for all numbers, as pixels have them: a pixel that hardly varies is not blown up.
    pub fn shared(inputs: &Inputs) -> Self {
        let all = (0..inputs.len()).flat_map(|row| inputs.features(row)).filter(|v| !v.is_nan());
        let one = moments(all.map(|v| f64::from(*v)));
        (0..inputs.width()).map(|_| one).collect()
    }

    /// The same for so many numbers, whose places it is given for once; as it is, where that does not come out even.
    pub(crate) fn repeated(self, width: usize) -> Self {
        let own = self.width();
        match own > 0 && own < width && width.is_multiple_of(own) && self.deviation.len() == own {
            true => Scaling { mean: self.mean.repeat(width / own), deviation: self.deviation.repeat(width / own) },
            false => self,
        }
    }

    /// That of the first so many numbers, where all others repeat it.
    pub(crate) fn once(&self, width: usize) -> Self {
        let first = |all: &[f32]| all[..width.min(all.len())].to_vec();
        let once = Scaling { mean: first(&self.mean), deviation: first(&self.deviation) };
        if once.clone().repeated(self.width()) == *self { once } else { self.clone() }
    }

    /// That of one number.
    pub fn of_values(values: &[f64]) -> Self {
        [moments(values.iter().copied())].into_iter().collect()
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// A row with mean 0 and variance 1; an unknown number becomes 0, the mean.
    pub fn scaled<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let scale = self.mean.iter().zip(&self.deviation);
        row.iter().zip(scale).map(|(v, (mean, deviation))| if v.is_nan() { 0.0 } else { (v - mean) / deviation })
    }

    /// The number whose scaled form is `value`, in a column.
    pub fn restored(&self, column: usize, value: f32) -> f64 {
        f64::from(value) * f64::from(self.deviation[column]) + f64::from(self.mean[column])
    }

    /// Whether there are as many deviations as means, all finite, and no deviation of 0 or less.
    pub fn is_sound(&self) -> bool {
        let finite = self.mean.iter().chain(&self.deviation).all(|v| v.is_finite());
        finite && self.mean.len() == self.deviation.len() && self.deviation.iter().all(|v| *v > 0.0)
    }
}

impl FromIterator<(f64, f64)> for Scaling {
    /// From mean and standard deviation of each column.
    fn from_iter<T: IntoIterator<Item = (f64, f64)>>(columns: T) -> Self {
        let (mean, deviation) = columns.into_iter().map(|(mean, deviation)| (mean as f32, deviation as f32)).unzip();
        Scaling { mean, deviation }
    }
}

/// Mean and standard deviation (n in the denominator); 1 where that is 0 or beyond f32.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let deviation = variance.sqrt() as f32;
    (mean, if deviation.is_normal() { f64::from(deviation) } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardized_as_numpy() {
        // x = np.array([[1, 5], [3, 5], [np.nan, 5], [8, 5]]); np.nanmean(x, 0), np.nanstd(x, 0)
        let inputs = Inputs::Features { width: 2, values: vec![1.0, 5.0, 3.0, 5.0, f32::NAN, 5.0, 8.0, 5.0] };
        let scaling = Scaling::of(&inputs);
        assert_eq!(scaling.mean, [4.0, 5.0]);
        assert_eq!(scaling.deviation, [2.943_920_3, 1.0]);
        assert_eq!(scaling.scaled(inputs.features(2)).collect::<Vec<_>>(), [0.0, 0.0]);
        let first: Vec<f32> = scaling.scaled(inputs.features(0)).collect();
        assert!((scaling.restored(0, first[0]) - 1.0).abs() < 1e-6);
        let one = Scaling::shared(&inputs);
        assert_eq!((one.mean[0], one.mean[1], one.deviation[0]), (one.mean[1], 32.0 / 7.0, one.deviation[1]));
        assert!(scaling.is_sound() && !Scaling { mean: vec![0.0], deviation: vec![0.0] }.is_sound());
    }

    #[test]
    fn json_keeps_unknown_numbers() {
        let inputs = Inputs::Features { width: 2, values: vec![1.5, f32::NAN] };
        let text = serde_json::to_string(&inputs).expect("JSON");
        assert_eq!(text, r#"{"width":2,"values":[1.5,null]}"#);
        let Inputs::Features { width: 2, values } = serde_json::from_str(&text).expect("the same") else {
            panic!("{text}")
        };
        assert!(values[0] == 1.5 && values[1].is_nan());
        let texts = Inputs::Texts(vec!["a".into()]);
        assert_eq!(serde_json::from_str::<Inputs>(r#"["a"]"#).expect("texts"), texts);
    }

    #[test]
    fn rows_are_chosen_and_cut() {
        let mut features = Inputs::Features { width: 2, values: (0..8u8).map(f32::from).collect() };
        assert_eq!(features.select(&[3, 0]), Inputs::Features { width: 2, values: vec![6.0, 7.0, 0.0, 1.0] });
        features.truncate(1);
        assert_eq!((features.len(), features.features(0)), (1, &[0.0, 1.0][..]));
    }
}
