//! Classifiers without a network: the floor that a network has to beat.

use crate::quickstart;
use crate::read::Rows;
use std::collections::HashMap;

/// Answers of one baseline to the rows of `test`, after learning from `train`, whose labels are below `classes`.
pub type Baseline = fn(train: &Rows, test: &Rows, classes: usize) -> Vec<u16>;

/// Every baseline with its name and one line of explanation.
pub static BASELINES: &[(&str, &str, Baseline)] = &[
    ("majority", "always the most frequent class of the training rows", majority),
    ("naive-bayes-words", "multinomial naive Bayes over words", |train, test, classes| {
        NaiveBayes::fit(train, classes, 1).answers(test)
    }),
    (
        "naive-bayes-bigrams",
        "multinomial naive Bayes over words and pairs of adjacent words",
        |train, test, classes| NaiveBayes::fit(train, classes, 2).answers(test),
    ),
];

/// The most frequent class of `train`, the first among equals, for every row of `test`.
pub fn majority(train: &Rows, test: &Rows, classes: usize) -> Vec<u16> {
    let counts = train.counts(classes);
    let most = (0..classes).rev().max_by_key(|&class| counts[class]).unwrap_or(0);
    vec![most as u16; test.len()]
}

/// The Bayes-optimal answers to rows of the generated task, class 0 for a text that its grammar cannot generate: not a
/// baseline but the ceiling.
pub fn bayes_optimal(test: &Rows) -> Vec<u16> {
    test.texts.iter().map(|text| quickstart::answer(text).unwrap_or(0)).collect()
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
        for (text, &label) in rows.texts.iter().zip(&rows.labels) {
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
        rows.texts.iter().map(|text| self.answer(text)).collect()
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
        Rows {
            texts: rows.iter().map(|(text, _)| text.to_string()).collect(),
            labels: rows.iter().map(|(_, label)| *label).collect(),
        }
    }

    #[test]
    fn majority_takes_the_first_among_equals() {
        let test = rows(&[("x", 0), ("y", 0)]);
        assert_eq!(majority(&rows(&[("a", 2), ("b", 1), ("c", 2)]), &test, 3), [2, 2]);
        assert_eq!(majority(&rows(&[("a", 2), ("b", 1)]), &test, 3), [1, 1]);
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
}
