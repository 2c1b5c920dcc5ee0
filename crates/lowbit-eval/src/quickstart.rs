//! The generated task: short ledger sentences from a probabilistic grammar whose posterior is known exactly.
//!
//! A shop and a customer exchange goods or money, which gives four classes: `delivery` (shop gives goods), `return`
//! (customer gives goods), `payment` (customer gives money), `refund` (shop gives money). *What* changes hands is a matter of
//! vocabulary. *Who* gives is a matter of order: the same two people occur in "the clerk sent the baker a parcel" and "the
//! baker sent the clerk a parcel", and passive sentences turn the order round. A closing remark hints at the class. All
//! weights are integers, so that sampling is the same on every platform, and words of the wrong kind occur with small
//! probability, so that even the exact posterior errs on about 7 sentences in 100.

use crate::read::Rows;
use crate::record::{How, Measure};
use crate::stats;
use lowbit_base::SplitMix64;
use std::sync::OnceLock;

/// Class names in label order; every class is equally probable.
pub const CLASSES: [&str; 4] = ["delivery", "return", "payment", "refund"];

/// Weight of each class's choosing one phrase of a group.
type Weights = [u64; 4];

/// The phrases (separated by `|`) that one kind of place in a sentence can take, in groups of equal weight.
struct Slot {
    name: &'static str,
    groups: &'static [(Weights, &'static str)],
}

const STAFF: &str = "clerk|cashier|manager|dealer|agent|grocer|seller|supplier";
const CUSTOMERS: &str = "baker|farmer|teacher|student|widow|nurse|painter|tailor";

//                  delivery, return, payment, refund
static SLOTS: &[Slot] = &[
    Slot { name: "giver", groups: &[([20, 1, 1, 20], STAFF), ([1, 20, 20, 1], CUSTOMERS)] },
    Slot { name: "taker", groups: &[([1, 20, 20, 1], STAFF), ([20, 1, 1, 20], CUSTOMERS)] },
    Slot {
        name: "thing",
        groups: &[
            ([40, 40, 1, 1], "parcel|lamp|kettle|jacket|clock|chair|blanket|mirror|bicycle|carpet"),
            ([1, 1, 40, 40], "cheque|deposit|banknote|transfer|coin|fee|sum|loan|wage|tip"),
            ([4, 4, 4, 4], "note|card|paper"),
        ],
    },
    Slot {
        name: "remark",
        groups: &[
            ([3, 1, 3, 1], "as agreed|as planned|on time|with great pleasure|in good order"),
            ([1, 3, 1, 3], "because of a mistake|after a complaint|with an apology|far too late|in bad shape"),
            ([2, 2, 2, 2], "without a word|in the morning|before noon|near the old bridge|at the front door"),
        ],
    },
    Slot { name: "gave", groups: &[([1; 4], "gave|sent|handed|brought|mailed|offered|passed|lent")] },
    Slot { name: "given", groups: &[([1; 4], "given|sent|handed|brought|mailed|offered|passed|lent")] },
    Slot { name: "got", groups: &[([1; 4], "got|received|accepted|collected|took|fetched")] },
    Slot { name: "went", groups: &[([1; 4], "went|travelled|moved|passed")] },
    Slot {
        name: "look",
        groups: &[([1; 4], "small|large|second|final|single|promised|missing|marked|dirty|splendid")],
    },
    Slot {
        name: "when",
        groups: &[([1; 4], "yesterday|today|last week|last night|on monday|on friday|in april|in winter|at once")],
    },
    Slot { name: "tempered", groups: &[([1; 4], "young|old|cheerful|tired|polite|local|clever|quiet")] },
    Slot { name: "source", groups: &[([1; 4], "the ledger|the diary|my cousin|the letter|our neighbour|the report")] },
];

/// Weight and shape of each kind of sentence: words, and slots in braces.
static TEMPLATES: &[(u64, &str)] = &[
    (2, "{when} the {giver} {gave} the {taker} a {thing}"),
    (4, "{when} the {giver} {gave} the {taker} a {look} {thing} {remark}"),
    (3, "the {tempered} {giver} {gave} the {tempered} {taker} a {thing} {remark}"),
    (3, "{when} the {taker} was {given} a {look} {thing} by the {giver} {remark}"),
    (3, "a {look} {thing} {went} from the {giver} to the {taker} {when} {remark}"),
    (3, "the {tempered} {taker} {got} a {look} {thing} from the {giver} {remark}"),
    (2, "{source} says that the {giver} {gave} a {look} {thing} to the {tempered} {taker} {when} {remark}"),
    (2, "{source} says that a {thing} was {given} to the {tempered} {taker} by the {tempered} {giver} {when}"),
];

/// One phrase of a slot.
struct Phrase {
    words: Vec<&'static str>,
    weights: Weights,
}

/// The phrases of a slot and the sums of their weights.
struct Choice {
    phrases: Vec<Phrase>,
    total: Weights,
}

enum TemplatePart {
    Word(&'static str),
    Slot(usize),
}

/// The two tables above, parsed.
struct Grammar {
    /// In the order of [`SLOTS`].
    choices: Vec<Choice>,
    /// Weight and parts of each template.
    templates: Vec<(u64, Vec<TemplatePart>)>,
    /// Sum of the templates' weights.
    total: u64,
}

fn grammar() -> &'static Grammar {
    static GRAMMAR: OnceLock<Grammar> = OnceLock::new();
    GRAMMAR.get_or_init(|| {
        let parse = |(weight, shape): &(u64, &'static str)| (*weight, shape.split(' ').map(part).collect());
        Grammar {
            choices: SLOTS.iter().map(choice).collect(),
            templates: TEMPLATES.iter().map(parse).collect(),
            total: TEMPLATES.iter().map(|(weight, _)| weight).sum(),
        }
    })
}

fn part(token: &'static str) -> TemplatePart {
    match token.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
        None => TemplatePart::Word(token),
        Some(name) => TemplatePart::Slot(
            SLOTS.iter().position(|slot| slot.name == name).expect("every brace of the table names a slot"),
        ),
    }
}

fn choice(slot: &Slot) -> Choice {
    let mut phrases = Vec::new();
    for (weights, texts) in slot.groups {
        let phrase = |text: &'static str| Phrase { words: text.split(' ').collect(), weights: *weights };
        phrases.extend(texts.split('|').map(phrase));
    }
    let total = [0, 1, 2, 3].map(|class| phrases.iter().map(|phrase| phrase.weights[class]).sum());
    Choice { phrases, total }
}

/// The element at which a running sum of weights passes a uniform draw below `total`, the sum of all weights.
fn draw<'a, T>(items: &'a [T], weight: impl Fn(&T) -> u64, total: u64, rng: &mut SplitMix64) -> &'a T {
    let mut left = rng.below(total);
    let found = items.iter().find(|item| {
        let weight = weight(item);
        let here = left < weight;
        left = left.saturating_sub(weight);
        here
    });
    found.expect("the draw is below the sum of the weights")
}

impl Grammar {
    fn sentence(&self, class: usize, rng: &mut SplitMix64) -> String {
        let (_, parts) = draw(&self.templates, |template| template.0, self.total, rng);
        let mut words = Vec::new();
        for part in parts {
            match *part {
                TemplatePart::Word(word) => words.push(word),
                TemplatePart::Slot(slot) => {
                    let Choice { phrases, total } = &self.choices[slot];
                    words.extend(&draw(phrases, |phrase| phrase.weights[class], total[class], rng).words);
                }
            }
        }
        words.join(" ")
    }

    /// Probability of `words` given each class when they are derived from `parts`: the sum over all derivations.
    fn derive(&self, parts: &[TemplatePart], words: &[&str]) -> [f64; 4] {
        let Some((first, rest)) = parts.split_first() else {
            return [f64::from(u8::from(words.is_empty())); 4];
        };
        let mut sum = [0.0; 4];
        match *first {
            TemplatePart::Word(word) if words.first() == Some(&word) => sum = self.derive(rest, &words[1..]),
            TemplatePart::Word(_) => {}
            TemplatePart::Slot(slot) => {
                let Choice { phrases, total } = &self.choices[slot];
                for phrase in phrases.iter().filter(|phrase| words.starts_with(&phrase.words)) {
                    let tail = self.derive(rest, &words[phrase.words.len()..]);
                    for class in 0..4 {
                        sum[class] += phrase.weights[class] as f64 / total[class] as f64 * tail[class];
                    }
                }
            }
        }
        sum
    }

    /// Probability of the text given each class.
    fn likelihood(&self, text: &str) -> [f64; 4] {
        let words: Vec<&str> = text.split(' ').collect();
        let mut likelihood = [0.0; 4];
        for (weight, parts) in &self.templates {
            let derived = self.derive(parts, &words);
            (0..4).for_each(|class| likelihood[class] += *weight as f64 / self.total as f64 * derived[class]);
        }
        likelihood
    }
}

/// `n` sentences with their classes, the same for the same seed on every platform.
pub fn generate(seed: u64, n: usize) -> Rows {
    let mut rng = SplitMix64::new(seed);
    let mut row = || {
        let class = rng.below(4);
        (grammar().sentence(class as usize, &mut rng), class as u16)
    };
    let (texts, labels) = (0..n).map(|_| row()).unzip();
    Rows::of_texts(texts, labels)
}

/// Probability of each class given the text, exactly, from the grammar alone; `None` for a text it cannot generate.
pub fn posterior(text: &str) -> Option<[f64; 4]> {
    let likelihood = grammar().likelihood(text);
    let evidence: f64 = likelihood.iter().sum();
    (evidence > 0.0).then(|| likelihood.map(|p| p / evidence))
}

/// The Bayes-optimal answer: the class of the largest posterior, the first among equals; `None` as in [`posterior`].
pub fn answer(text: &str) -> Option<u16> {
    let posterior = posterior(text)?;
    (0..4u16).rev().max_by(|&a, &b| posterior[usize::from(a)].total_cmp(&posterior[usize::from(b)]))
}

/// Accuracy that no classifier exceeds in expectation: the mean of the largest posterior over `n` sentences of `seed`, with
/// its 95 % interval; a fraction, estimated.
pub fn ceiling(seed: u64, n: usize) -> Measure {
    let rows = generate(seed, n);
    let best = |text: &String| posterior(text).map_or(0.0, |p| p.into_iter().fold(0.0, f64::max));
    let largest: Vec<f64> = rows.texts().iter().map(best).collect();
    let (value, lo, hi) = stats::mean_interval(&largest).unwrap_or((0.0, 0.0, 1.0));
    Measure { value, unit: "fraction".into(), n: n as u64, lo: Some(lo), hi: Some(hi), how: How::Estimated }
}

/// Accuracy of the Bayes-optimal answers on these very rows, a fraction; 0 without rows.
pub fn bayes_accuracy(rows: &Rows) -> f64 {
    let hits = rows.texts().iter().zip(rows.labels()).filter(|(text, label)| answer(text) == Some(**label)).count();
    hits as f64 / rows.texts().len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline;

    #[test]
    fn posterior_is_a_distribution() {
        let rows = generate(5, 2000);
        for text in rows.texts() {
            let posterior = posterior(text).unwrap();
            assert!((posterior.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{text}");
            assert!(posterior.iter().all(|p| (0.0..=1.0).contains(p)), "{text}");
        }
        assert_eq!(posterior("the moon is a balloon"), None);
        assert_eq!(posterior(""), None);
        assert_eq!(answer("yesterday the clerk gave"), None);
    }

    #[test]
    fn posterior_by_hand() {
        // Template and neutral words cancel. Weights: giver 20 1 1 20, taker 20 1 1 20, thing 40 40 1 1, remark 3 1 3 1, each
        // over a sum that is equal in all classes.
        let got = posterior("yesterday the clerk sent the baker a small lamp as agreed").unwrap();
        let joint = [20.0 * 20.0 * 40.0 * 3.0, 40.0, 3.0, 20.0 * 20.0];
        let sum: f64 = joint.iter().sum();
        for class in 0..4 {
            assert!((got[class] - joint[class] / sum).abs() < 1e-12, "{got:?}");
        }
    }

    #[test]
    fn order_decides() {
        let by = |text: &str| CLASSES[usize::from(answer(text).unwrap())];
        assert_eq!(by("today the clerk sent the baker a lamp"), "delivery");
        assert_eq!(by("today the baker sent the clerk a lamp"), "return");
        assert_eq!(by("today the baker sent the clerk a cheque"), "payment");
        assert_eq!(by("today the clerk sent the baker a cheque"), "refund");
        assert_eq!(by("today the clerk was sent a small cheque by the baker on time"), "payment");
    }

    /// Where the posterior says p, the class occurs in a share p of the sentences.
    #[test]
    fn posterior_is_calibrated() {
        const BINS: usize = 20;
        let rows = generate(77, 60_000);
        let mut bins = [(0.0, 0.0, 0.0); BINS]; // sum of p, sum of p (1 - p), hits
        for (text, &label) in rows.texts().iter().zip(rows.labels()) {
            for (class, p) in posterior(text).unwrap().into_iter().enumerate() {
                let bin = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
                bin.0 += p;
                bin.1 += p * (1.0 - p);
                bin.2 += f64::from(u8::from(class == usize::from(label)));
            }
        }
        let filled = bins.iter().filter(|bin| bin.1 > 10.0).count();
        assert!(filled >= 8, "{bins:?}");
        for (expected, variance, hits) in bins {
            assert!((hits - expected).abs() <= 4.0 * variance.sqrt() + 1e-9, "{expected} {hits}");
        }
    }

    #[test]
    fn bayes_accuracy_is_near_093() {
        let ceiling = ceiling(3, 50_000);
        let (lo, hi) = (ceiling.lo.unwrap(), ceiling.hi.unwrap());
        assert!(lo > 0.92 && hi < 0.94 && hi - lo < 0.004, "{ceiling:?}");
        // The same quantity counted: 20,000 other sentences, standard error 0.0018.
        let counted = bayes_accuracy(&generate(4, 20_000));
        assert!((counted - ceiling.value).abs() < 0.007, "{counted}");
    }

    #[test]
    fn deterministic() {
        assert_eq!(generate(9, 50).texts(), &generate(9, 60).texts()[..50]);
        assert_ne!(generate(9, 50), generate(10, 50));
        assert_eq!(generate(1, 1000).sha256(), "547956093a53a10f4b637d7fe88368df04f3f01fdebe70c203246f84d3be010a");
    }

    #[test]
    fn sentences_have_8_to_20_words_and_classes_are_even() {
        let rows = generate(1, 8000);
        let lengths: Vec<usize> = rows.texts().iter().map(|text| text.split(' ').count()).collect();
        assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&8), Some(&20)));
        // Standard deviation of a count is 39.
        assert!(rows.counts(4).iter().all(|&count| count.abs_diff(2000) < 160));
    }

    #[test]
    fn bags_of_words_stay_below_the_ceiling() {
        let (train, test) = (generate(1, 8000), generate(2, 4000));
        let accuracy = |answers: &[u16]| {
            answers.iter().zip(test.labels()).filter(|(a, b)| a == b).count() as f64 / test.len() as f64
        };
        let best = accuracy(&baseline::bayes_optimal(&test));
        let words = accuracy(&baseline::NaiveBayes::fit(&train, 4, 1).answers(&test));
        let pairs = accuracy(&baseline::NaiveBayes::fit(&train, 4, 2).answers(&test));
        assert_eq!(best, bayes_accuracy(&test));
        assert!((0.55..0.70).contains(&words), "{words}");
        assert!(pairs > words + 0.1 && pairs < best - 0.04, "{pairs} {best}");
    }
}
