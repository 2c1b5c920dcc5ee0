//! Quantities recognised by the words that name them.

use super::figure::Dimension;

/// A quantity that reports are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantity {
    /// Share of right answers.
    Accuracy,
    /// F1 score.
    F1,
    /// Share of answers of a class that are right.
    Precision,
    /// Share of the rows of a class that are found.
    Recall,
    /// Difference of a score between two sets.
    Drop,
    /// Difference of two columns.
    Difference,
    /// Squared or absolute error, loss.
    Loss,
    /// 2 to the bits per symbol.
    Perplexity,
    /// Bits per byte or character.
    Entropy,
    /// Times smaller.
    Compression,
    /// Share of memory that is saved.
    Reduction,
    /// Bytes.
    Memory,
    /// Number of parameters.
    Parameters,
    /// Seconds.
    Time,
    /// Times faster.
    Speedup,
    /// One time as a share of another.
    Overhead,
    /// Tokens or samples per second.
    Throughput,
    /// Watts.
    Power,
    /// Joules.
    Energy,
    /// Tokens per joule.
    Efficiency,
    /// Dollars.
    Cost,
    /// Name of a device.
    Device,
}

use Quantity::*;

/// Words in the title of a column, and what they name; the first that fits wins.
const TITLES: &[(&str, Quantity)] = &[
    ("tokens/watt", Efficiency),
    ("tokens/j", Efficiency),
    ("tokens per watt", Efficiency),
    ("tokens per joule", Efficiency),
    ("times smaller", Compression),
    ("times faster", Speedup),
    ("compression ratio", Compression),
    ("compression", Compression),
    ("reduction", Reduction),
    ("saving", Reduction),
    ("speedup", Speedup),
    ("speed-up", Speedup),
    ("overhead", Overhead),
    ("bpc", Entropy),
    ("bpb", Entropy),
    ("bits per byte", Entropy),
    ("bits per char", Entropy),
    ("bits per symbol", Entropy),
    ("bits/byte", Entropy),
    ("bits/char", Entropy),
    ("perplexity", Perplexity),
    ("ppl", Perplexity),
    ("accuracy", Accuracy),
    ("f1", F1),
    ("precision", Precision),
    ("recall", Recall),
    ("drop", Drop),
    ("difference", Difference),
    ("delta", Difference),
    ("throughput", Throughput),
    ("tokens/s", Throughput),
    ("tok/s", Throughput),
    ("samples/s", Throughput),
    ("prefill", Throughput),
    ("decode", Throughput),
    ("cost", Cost),
    ("price", Cost),
    ("power", Power),
    ("energy", Energy),
    ("parameter", Parameters),
    ("params", Parameters),
    ("mse", Loss),
    ("loss", Loss),
    ("hardware", Device),
    ("device", Device),
    ("cpu type", Device),
    ("gpu type", Device),
    ("memory", Memory),
    ("latency", Time),
    ("time", Time),
    ("speed", Speedup),
];

/// Words of a sentence that name a quantity, beyond those of titles.
const WORDS: &[(&str, Quantity)] = &[
    ("memory", Memory),
    ("footprint", Memory),
    ("latency", Time),
    ("inference", Time),
    ("training", Time),
    ("accuracy", Accuracy),
    ("drop", Drop),
    ("energy", Energy),
    ("power", Power),
    ("compression", Compression),
    ("perplexity", Perplexity),
    ("throughput", Throughput),
];

fn named(title: &str) -> Option<Quantity> {
    TITLES.iter().find(|(word, _)| title.contains(word)).map(|(_, quantity)| *quantity)
}

/// The quantity of a column from its title, the unit of its numbers, and the heading above.
pub(crate) fn of_column(title: &str, dimension: Option<Dimension>, heading: &str) -> Option<Quantity> {
    let (title, heading) = (title.to_lowercase(), heading.to_lowercase());
    let found = named(&title);
    let by_unit = dimension.and_then(|dimension| match dimension {
        Dimension::Bytes => Some(Memory),
        Dimension::Seconds => Some(Time),
        Dimension::Watts => Some(Power),
        Dimension::Joules => Some(Energy),
        Dimension::Rate => Some(Throughput),
        Dimension::Dollars => Some(Cost),
        Dimension::Count => Some(Parameters),
        _ => None,
    });
    match (found, by_unit, dimension) {
        // A share or a factor is none of what is shared or multiplied.
        (Some(Memory), _, Some(Dimension::Percent)) => Some(Reduction),
        // A unit tells more than a title: a decode in ms is a time.
        (Some(_), Some(unit), _) if unit != Parameters => Some(unit),
        (Some(found), _, _) => Some(found),
        (None, Some(unit), _) => Some(unit),
        (None, None, Some(Dimension::Percent)) if heading.contains("f1") => Some(F1),
        (None, None, Some(Dimension::Percent)) if heading.contains("accuracy") => Some(Accuracy),
        (None, None, _) => None,
    }
}

/// The quantities that a sentence names, in order.
pub(crate) fn in_sentence(lower: &str) -> Vec<Quantity> {
    let mut found: Vec<(usize, Quantity)> = Vec::new();
    for (word, quantity) in TITLES.iter().chain(WORDS).filter(|(word, _)| !["time", "speed", "delta"].contains(word)) {
        let Some(at) = lower.find(word) else { continue };
        let inside = lower[..at].chars().next_back().is_some_and(char::is_alphanumeric);
        if !inside && !found.iter().any(|(_, q)| q == quantity) {
            found.push((at, *quantity));
        }
    }
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, quantity)| quantity).collect()
}

impl Quantity {
    /// Whether more of it is better.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Accuracy | F1 | Precision | Recall | Compression | Reduction | Speedup | Throughput | Efficiency)
    }

    /// Scores of answers, which are shares of rows.
    pub(crate) fn is_quality(self) -> bool {
        matches!(self, Accuracy | F1 | Precision | Recall)
    }

    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Accuracy => "accuracy",
            F1 => "F1",
            Precision => "precision",
            Recall => "recall",
            Drop => "drop",
            Difference => "difference",
            Loss => "loss",
            Perplexity => "perplexity",
            Entropy => "bits per character",
            Compression => "compression ratio",
            Reduction => "reduction",
            Memory => "memory",
            Parameters => "parameters",
            Time => "time",
            Speedup => "speed-up",
            Overhead => "overhead",
            Throughput => "throughput",
            Power => "power",
            Energy => "energy",
            Efficiency => "tokens per joule",
            Cost => "cost",
            Device => "device",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_and_units_name_quantities() {
        let of = |title, dimension| of_column(title, dimension, "");
        assert_eq!(of("Latency (ms)", Some(Dimension::Seconds)), Some(Time));
        assert_eq!(of("Regular (MB)", Some(Dimension::Bytes)), Some(Memory));
        assert_eq!(of("Memory", Some(Dimension::Percent)), Some(Reduction));
        assert_eq!(of("Memory Reduction", Some(Dimension::Percent)), Some(Reduction));
        assert_eq!(of("Tokens/Watt", Some(Dimension::Plain)), Some(Efficiency));
        assert_eq!(of_column("Regular", Some(Dimension::Percent), "Classification Accuracy"), Some(Accuracy));
        assert_eq!(of_column("World", Some(Dimension::Percent), "Per-Class F1-Scores"), Some(F1));
        assert_eq!(of("Relative Cost", None), Some(Cost));
        assert_eq!(of("Batch Size", Some(Dimension::Plain)), None);
    }

    #[test]
    fn sentences_name_quantities_in_order() {
        assert_eq!(in_sentence("better accuracy and lower memory"), [Accuracy, Memory]);
        assert_eq!(in_sentence("if accuracy is critical"), [Accuracy]);
    }
}
