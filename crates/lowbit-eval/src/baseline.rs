//! Answers without a network: the floor that a network has to beat.

use crate::quickstart;
use crate::read::{Rows, Targets};
use crate::task::Answers;
use lowbit_model::Inputs;
use lowbit_model::input::Scaling;
use std::collections::HashMap;

/// Answers of one baseline to the rows of `test`, after learning from `train`, whose labels are below `classes`; `None` where
/// the rows are not of its kind.
pub type Baseline = fn(train: &Rows, test: &Rows, classes: usize) -> Option<Answers>;

/// Every baseline with its name and one line of explanation.
pub static BASELINES: &[(&str, &str, Baseline)] = &[
    ("majority", "always the most frequent class of the training rows", majority),
    ("naive-bayes-words", "multinomial naive Bayes over words", |train, test, classes| {
        naive_bayes(train, test, classes, 1)
    }),
    (
        "naive-bayes-bigrams",
        "multinomial naive Bayes over words and pairs of adjacent words",
        |train, test, classes| naive_bayes(train, test, classes, 2),
    ),
    ("nearest-centroid", "the class whose mean of all features lies nearest", nearest_centroid),
    ("mean", "always the mean of the training rows", mean),
    ("linear", "linear least squares over standardized features", linear),
];

/// The most frequent class of `train`, the first among equals, for every row of `test`.
pub fn majority(train: &Rows, test: &Rows, classes: usize) -> Option<Answers> {
    let Targets::Classes(_) = train.targets else { return None };
    let counts = train.counts(classes);
    let most = (0..classes).rev().max_by_key(|&class| counts[class]).unwrap_or(0);
    Some(Answers::Classes(vec![most as u16; test.len()]))
}

fn naive_bayes(train: &Rows, test: &Rows, classes: usize, order: usize) -> Option<Answers> {
    let (Inputs::Texts(_) | Inputs::Pairs { .. }, Targets::Classes(_)) = (&train.inputs, &train.targets) else {
        return None;
    };
    Some(Answers::Classes(NaiveBayes::fit(train, classes, order).answers(test)))
}

/// The mean of the training rows for every row of `test`.
pub fn mean(train: &Rows, test: &Rows, _: usize) -> Option<Answers> {
    let mean = crate::stats::mean(train.values())?;
    Some(Answers::Values(vec![mean; test.len()]))
}

/// The class whose training rows have the nearest mean, by Euclidean distance over raw features, an unknown one counting 0.
pub fn nearest_centroid(train: &Rows, test: &Rows, classes: usize) -> Option<Answers> {
    let (Inputs::Features { width, .. }, Targets::Classes(labels)) = (&train.inputs, &train.targets) else {
        return None;
    };
    let known = |rows: &Rows, row: usize| -> Vec<f64> {
        rows.inputs.features(row).iter().map(|v| if v.is_nan() { 0.0 } else { f64::from(*v) }).collect()
    };
    let (mut sums, counts) = (vec![vec![0.0; *width]; classes], train.counts(classes));
    for (row, &label) in labels.iter().enumerate() {
        sums[usize::from(label)].iter_mut().zip(known(train, row)).for_each(|(sum, v)| *sum += v);
    }
    for (sum, n) in sums.iter_mut().zip(&counts) {
        sum.iter_mut().for_each(|v| *v /= (*n).max(1) as f64);
    }
    let nearest = |row: usize| {
        let x = known(test, row);
        let distance = |class: &usize| sums[*class].iter().zip(&x).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        let seen = (0..classes).filter(|class| counts[*class] > 0).map(|class| (distance(&class), class));
        seen.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0, |(_, class)| class as u16)
    };
    Some(Answers::Classes((0..test.len()).map(nearest).collect()))
}

/// Features up to which the normal equations are solved.
const LINEAR_FEATURES: usize = 512;

/// Linear least squares with an intercept; features are standardized by the training rows, an unknown one is their mean.
pub fn linear(train: &Rows, test: &Rows, _: usize) -> Option<Answers> {
    let (Inputs::Features { width, .. }, Targets::Values(targets)) = (&train.inputs, &train.targets) else {
        return None;
    };
    let scaling = Scaling::of(&train.inputs);
    if *width > LINEAR_FEATURES {
        return None;
    }
    let center = crate::stats::mean(targets)?;
    let n = *width;
    let (mut products, mut moments) = (vec![0.0; n * n], vec![0.0; n]); // X^T X, X^T y
    for (row, target) in targets.iter().enumerate() {
        let x: Vec<f64> = scaling.scaled(train.inputs.features(row)).map(f64::from).collect();
        for i in 0..n {
            moments[i] += x[i] * (target - center);
            (0..=i).for_each(|j| products[i * n + j] += x[i] * x[j]);
        }
    }
    // Features that depend on each other linearly still have a solution.
    (0..n).for_each(|i| products[i * n + i] += 1e-9 * targets.len() as f64);
    let weights = cholesky_solve(&mut products, moments, n);
    let predict = |row: usize| {
        let x = scaling.scaled(test.inputs.features(row));
        center + x.zip(&weights).map(|(x, w)| f64::from(x) * w).sum::<f64>()
    };
    Some(Answers::Values((0..test.len()).map(predict).collect()))
}

/// Solves `A x = b` for a symmetric positive definite `A`, `[n, n]`, whose lower half is overwritten by its factor.
fn cholesky_solve(a: &mut [f64], mut b: Vec<f64>, n: usize) -> Vec<f64> {
    for i in 0..n {
        for j in 0..=i {
            let sum = a[i * n + j] - (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum::<f64>();
            a[i * n + j] = if i == j { sum.max(f64::MIN_POSITIVE).sqrt() } else { sum / a[j * n + j] };
        }
    }
    for i in 0..n {
        b[i] = (b[i] - (0..i).map(|k| a[i * n + k] * b[k]).sum::<f64>()) / a[i * n + i];
    }
    for i in (0..n).rev() {
        b[i] = (b[i] - (i + 1..n).map(|k| a[k * n + i] * b[k]).sum::<f64>()) / a[i * n + i];
    }
    b
}

/// The Bayes-optimal answers to rows of the generated task, class 0 for a text that its grammar cannot generate: not a
/// baseline but the ceiling.
pub fn bayes_optimal(test: &Rows) -> Vec<u16> {
    test.texts().iter().map(|text| quickstart::answer(text).unwrap_or(0)).collect()
}

/// Multinomial naive Bayes over lowercased word n-grams with Laplace smoothing (add one).
#[derive(Clone, Debug)]
pub struct NaiveBayes {
    order: usize,
    /// Index of each n-gram seen in training.
    grams: HashMap<String, usize>,
    /// ln P(gram | class), `[grams, classes]`.
    log_likelihood: Vec<f64>,
    /// ln P(class), `[classes]`; minus infinity for a class without rows.
    log_prior: Vec<f64>,
}

impl NaiveBayes {
    /// Learns from rows whose labels are below `classes`, with n-grams of 1 to `order` words.
    pub fn fit(rows: &Rows, classes: usize, order: usize) -> Self {
        let mut grams = HashMap::new();
        let mut counts: Vec<u32> = Vec::new(); // [grams, classes]
        for (text, &label) in rows.texts().iter().zip(rows.labels()) {
            each_gram(text, order, |gram| {
                let index = match grams.get(gram) {
                    Some(&index) => index,
                    None => {
                        counts.resize(counts.len() + classes, 0);
                        grams.insert(gram.to_string(), grams.len());
                        grams.len() - 1
                    }
                };
                counts[index * classes + usize::from(label)] += 1;
            });
        }
        let total = |class: usize| counts.iter().skip(class).step_by(classes).map(|&c| f64::from(c)).sum::<f64>();
        let log_total: Vec<f64> = (0..classes).map(|class| (total(class) + grams.len() as f64).ln()).collect();
        let smoothed = |(i, &count): (usize, &u32)| (f64::from(count) + 1.0).ln() - log_total[i % classes];
        let log_likelihood = counts.iter().enumerate().map(smoothed).collect();
        let log_prior = rows.counts(classes).iter().map(|&n| (n as f64 / rows.len().max(1) as f64).ln()).collect();
        NaiveBayes { order, grams, log_likelihood, log_prior }
    }

    /// The most probable class, the first among equals; n-grams not seen in training are passed over.
    pub fn answer(&self, text: &str) -> u16 {
        let classes = self.log_prior.len();
        let mut score = self.log_prior.clone();
        each_gram(text, self.order, |gram| {
            if let Some(&index) = self.grams.get(gram) {
                let row = &self.log_likelihood[index * classes..][..classes];
                score.iter_mut().zip(row).for_each(|(sum, term)| *sum += term);
            }
        });
        (0..classes).rev().max_by(|&a, &b| score[a].total_cmp(&score[b])).unwrap_or(0) as u16
    }

    /// [`NaiveBayes::answer`] for every row.
    pub fn answers(&self, rows: &Rows) -> Vec<u16> {
        rows.texts().iter().map(|text| self.answer(text)).collect()
    }
}

/// Calls `f` with every n-gram of 1 to `order` words; a word is a run of letters and digits, lowercased.
fn each_gram(text: &str, order: usize, mut f: impl FnMut(&str)) {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    for n in 1..=order {
        words.windows(n).for_each(|window| f(&window.join(" ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, u16)]) -> Rows {
        let (texts, labels) = rows.iter().map(|(text, label)| (text.to_string(), *label)).unzip();
        Rows::of_texts(texts, labels)
    }

    #[test]
    fn majority_takes_the_first_among_equals() {
        let test = rows(&[("x", 0), ("y", 0)]);
        let answers = |train: &[(&str, u16)]| majority(&rows(train), &test, 3);
        assert_eq!(answers(&[("a", 2), ("b", 1), ("c", 2)]), Some(Answers::Classes(vec![2, 2])));
        assert_eq!(answers(&[("a", 2), ("b", 1)]), Some(Answers::Classes(vec![1, 1])));
    }

    #[test]
    fn grams_are_lowercased_words_and_pairs() {
        let mut grams = Vec::new();
        each_gram("The CAT, the-cat! Ünï 7", 2, |gram| grams.push(gram.to_string()));
        assert_eq!(
            grams,
            ["the", "cat", "the", "cat", "ünï", "7", "the cat", "cat the", "the cat", "cat ünï", "ünï 7"]
        );
    }

    #[test]
    fn as_scikit_learn() {
        // v = CountVectorizer(ngram_range=(1, 2)); m = MultinomialNB(alpha=1).fit(v.fit_transform(texts), labels)
        // m.feature_log_prob_[:, v.vocabulary_["good film"]], m.class_log_prior_, m.predict(v.transform(test))
        let train = rows(&[
            ("good film", 1),
            ("very good film indeed", 1),
            ("bad film", 0),
            ("not good very bad", 0),
            ("bad bad plot", 0),
        ]);
        let model = NaiveBayes::fit(&train, 2, 2);
        let index = model.grams["good film"];
        let expected = [-3.4339872044851463, -2.1594842493533726, -0.5108256237659905, -0.916290731874155];
        for (got, expected) in model.log_likelihood[2 * index..][..2].iter().chain(&model.log_prior).zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
        let test = rows(&[("good plot", 0), ("very bad film", 0), ("film", 0), ("unseen words", 0)]);
        assert_eq!(model.answers(&test), [0, 0, 1, 0]);
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        train: Vec<[f32; 3]>,
        test: Vec<[f32; 3]>,
        targets: Vec<f64>,
        expected: Vec<f64>,
        linear: Vec<f64>,
        classes: Vec<u16>,
        nearest: Vec<u16>,
    }

    /// `LinearRegression` and `NearestCentroid` of scikit-learn, by `tools/golden/regression.py`.
    #[test]
    fn numbers_as_scikit_learn() {
        let golden: Golden = serde_json::from_str(include_str!("../tests/golden/regression.json")).unwrap();
        let features = |rows: &[[f32; 3]]| Inputs::Features { width: 3, values: rows.concat() };
        let values = |rows: &[[f32; 3]], values: &[f64]| Rows {
            inputs: features(rows),
            targets: Targets::Values(values.to_vec()),
            ..Rows::default()
        };
        let (train, test) = (values(&golden.train, &golden.targets), values(&golden.test, &golden.expected));
        let Some(Answers::Values(found)) = linear(&train, &test, 0) else { panic!("numbers have a linear baseline") };
        for (found, expected) in found.iter().zip(&golden.linear) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        let center = crate::stats::mean(&golden.targets).unwrap();
        assert_eq!(mean(&train, &test, 0), Some(Answers::Values(vec![center; 12])));
        assert_eq!((majority(&train, &test, 3), nearest_centroid(&train, &test, 3)), (None, None));
        let classed = Rows { targets: Targets::Classes(golden.classes), ..train };
        assert_eq!(nearest_centroid(&classed, &test, 3), Some(Answers::Classes(golden.nearest)));
        assert_eq!((linear(&classed, &test, 3), naive_bayes(&classed, &test, 3, 1)), (None, None));
    }
}
