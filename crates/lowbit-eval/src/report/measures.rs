//! The measures a report knows: name, unit, how it is printed and what it means. A new measure is one line of [`MEASURES`].

use super::number::{self, Scale};

/// How the values of a measure are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A fraction, printed in percent.
    Percent,
    /// Seconds, in a unit chosen per measure family.
    Seconds,
    /// Bytes, likewise.
    Bytes,
    /// Joules, likewise.
    Joules,
    /// A rate per second.
    Rate,
    /// A number with about three digits.
    Plain,
    /// A number with this many decimals.
    Fixed(usize),
}

/// One known measure.
#[derive(Debug)]
pub(crate) struct Known {
    /// Name in records; a trailing `/` stands for every name that starts so.
    pub(crate) name: &'static str,
    /// Column title.
    pub(crate) title: &'static str,
    /// Units a record may state for it.
    pub(crate) units: &'static [&'static str],
    /// How it is printed.
    pub(crate) style: Style,
    /// Definition and method, for the notes.
    pub(crate) about: &'static str,
}

macro_rules! measures {
    ($($name:literal $title:literal [$($unit:literal)+] $style:expr, $about:literal;)+) => {
        &[$(Known {
            name: $name, title: $title, units: &[$($unit),+], style: $style, about: $about,
        }),+]
    };
}

/// Every known measure.
pub(crate) const MEASURES: &[Known] = measures! {
    "accuracy" "Accuracy" ["fraction"] Style::Percent,
        "Correct answers divided by test rows, with the Wilson 95 % interval.";
    "accuracy/" "Accuracy" ["fraction"] Style::Percent,
        "Accuracy of one part of the test rows, with the Wilson 95 % interval.";
    "accuracy_tokens/" "Accuracy, tokens" ["fraction"] Style::Percent,
        "Accuracy of the test rows whose texts have so many tokens before they are cut, with the Wilson 95 % interval; a text that \
         is longer than a network reads is cut.";
    "cross_lingual_drop" "Drop across parts" ["ratio"] Style::Percent,
        "Accuracy of the part that networks are trained on minus the mean accuracy of the other parts, with the normal 95 % \
         interval of differences paired by row.";
    "accuracy_normalized" "Normalized accuracy" ["fraction"] Style::Percent,
        "Accuracy where the answer is the choice with the highest log-likelihood per byte of its text, with the Wilson 95 % interval.";
    "exact_match" "Exact match" ["fraction"] Style::Percent,
        "Share of rows whose generated text is the right one after the normalization of the task, with the Wilson 95 % interval.";
    "f1_macro" "Macro F1" ["fraction"] Style::Percent,
        "Plain mean of the F1 score, each the harmonic mean of precision and recall, over the classes that occur, with its 95 % \
         interval by a bootstrap of the rows.";
    "precision_macro" "Macro precision" ["fraction"] Style::Percent, "Plain mean of precision over the classes that occur.";
    "recall_macro" "Macro recall" ["fraction"] Style::Percent, "Plain mean of recall over the classes that occur.";
    "f1/" "F1" ["fraction"] Style::Percent, "F1 score of one class against all others.";
    "kl_divergence" "Mean KL divergence" ["nats"] Style::Plain,
        "Mean over the test rows, or the tokens of a text, of the Kullback-Leibler divergence of the answer's distribution from the reference's, with its \
         normal 95 % interval; 0 where both give every answer the same probability.";
    "kl_divergence_p999" "p99.9 KL divergence" ["nats"] Style::Plain,
        "The divergence that 99.9 % of the answers stay below, with the interval of its rank where there are rows enough.";
    "kl_divergence_max" "Maximum KL divergence" ["nats"] Style::Plain, "The divergence of the answer that differs most.";
    "same_top" "Same top answer" ["fraction"] Style::Percent,
        "Share of rows or tokens whose most probable answer is that of the reference, right or wrong, with the Wilson 95 % interval.";
    "rms_probability_difference" "RMS difference, right answer" ["fraction"] Style::Percent,
        "Root mean square difference from the reference of the probability of the right answer, with its 95 % interval by the \
         delta method.";
    "rms_top_probability_difference" "RMS difference, top answer" ["fraction"] Style::Percent,
        "The same of the answer that the reference finds most probable.";
    "bits_per_byte" "Bits per byte" ["bits"] Style::Fixed(4),
        "Negative log2 probability of the text divided by its bytes, with its normal 95 % interval over blocks.";
    "nats_per_token" "Nats per token" ["nats"] Style::Fixed(4),
        "Mean loss of a predicted token, minus the natural logarithm of its probability.";
    "text_bytes_per_token" "Text bytes per token" ["ratio"] Style::Plain,
        "Bytes of the text divided by the tokens that were predicted.";
    "perplexity" "Perplexity" ["count" "ratio"] Style::Plain, "exp of the mean loss per predicted symbol.";
    "next_byte_accuracy" "Next-byte accuracy" ["fraction"] Style::Percent,
        "Share of bytes for which the most probable next byte is the true one.";
    "target_probability" "Target probability" ["fraction"] Style::Percent,
        "Mean probability given to the true next byte.";
    "calibration_error" "Calibration error" ["fraction"] Style::Percent,
        "Expected calibration error of the most probable byte: the mean distance of its probability from how often it is right, \
         over 15 classes of probability of one width, each with the weight of its bytes.";
    "continuation_accuracy/" "Continuation accuracy, bytes" ["fraction"] Style::Percent,
        "Share of right bytes among so many that a model writes by itself, each the most probable one, after half a window of the \
         text; at up to 64 places spread evenly over it, with the normal 95 % interval over places.";
    "continuation_nats/" "Continuation, bytes" ["nats"] Style::Plain,
        "Minus the log-likelihood of so many bytes of the text in a row, the mean over runs that lie end to end, with its normal \
         95 % interval.";
    "compressed_bytes" "Compressed" ["bytes"] Style::Bytes, "Size of the file that was written, the model not counted.";
    "coded_bytes" "Compressed, by probabilities" ["bytes"] Style::Bytes,
        "What the probabilities behind that file add up to.";
    "file_ratio" "Ratio, file" ["ratio"] Style::Plain, "Bytes of the text divided by those of the file that was written.";
    "file_ratio_with_model" "Ratio, file and model" ["ratio"] Style::Plain,
        "The same with the weights of the model counted to the file.";
    "scoring_throughput" "Scoring" ["per_second"] Style::Rate, "Bytes of a text scored per second, windows that overlap included.";
    "int8_limit_share" "Share of the int8 limit" ["fraction"] Style::Percent,
        "Bytes compressed per second, as a share of what the measured peak of int8 products allows for the products of one token a byte.";
    "decompression_int8_limit_share" "The same, decompression" ["fraction"] Style::Percent, "The same of bytes restored per second.";
    "decompression_throughput" "Decompression" ["per_second"] Style::Rate,
        "Bytes restored per second, timed on its own; they are compared with those that were compressed.";
    "compression_ratio" "Compression ratio" ["ratio" "count"] Style::Plain, "8 divided by bits per byte.";
    "r2" "Explained variance" ["ratio"] Style::Percent,
        "R2, the share of the variance of the targets that is explained: one minus the mean squared error over the variance, \
         with its 95 % interval by the delta method. Always answering the mean of the test rows explains nothing.";
    "mse" "Mean squared error" ["squared_target"] Style::Plain,
        "Mean squared difference, in squared units of the target, with its normal 95 % interval.";
    "mae" "Mean absolute error" ["target"] Style::Plain,
        "Mean absolute difference, in units of the target, with its normal 95 % interval.";
    "latency_p50" "Median latency" ["seconds"] Style::Seconds,
        "Wall-clock time of one example alone (batch 1), tokenization included, median over all timed runs; variants \
         take turns, so that a disturbance of the machine hits all of them.";
    "latency_p90" "p90 latency" ["seconds"] Style::Seconds, "The time that 90 % of the runs stay below.";
    "latency_p99" "p99 latency" ["seconds"] Style::Seconds, "The time that 99 % of the runs stay below.";
    "latency_tokens/" "Median latency, tokens" ["seconds"] Style::Seconds,
        "Median latency of one example alone, of test rows that have so many tokens for the first variant, in the same turns.";
    "throughput" "Throughput" ["per_second"] Style::Rate, "Examples per second, timed on its own.";
    "throughput/" "Throughput, batch" ["per_second"] Style::Rate,
        "Examples per second at the batch size named, timed on its own and not derived from latency.";
    "weight_bytes" "Weights" ["bytes"] Style::Bytes,
        "Bytes of all stored tensors: codes, scales, biases, embeddings. 1 kB is a thousand bytes, 1 MB a million.";
    "loaded_bytes" "Weights in memory" ["bytes"] Style::Bytes,
        "Bytes of all parameters as they lie in memory: codes, scales, tables, norms.";
    "limit_share" "Share of the limit" ["ratio"] Style::Percent,
        "Tokens decoded per second, as a share of what the memory bandwidth measured between the runs would allow.";
    "decode_energy_joules" "Energy per token" ["joules"] Style::Joules,
        "Energy of the CPU packages divided by the tokens decoded meanwhile, idle power included, by their own counters (RAPL).";
    "decode_watts" "Power, W" ["watts"] Style::Plain,
        "That energy divided by the seconds of the same runs.";
    "sparsity" "Sparsity" ["fraction"] Style::Percent, "Share of the weights of body matrices that are 0 after magnitude pruning.";
    "bytes_per_token" "Bytes per token" ["bytes"] Style::Bytes, "Weight bytes read to produce one token.";
    "peak_rss_bytes" "Peak memory" ["bytes"] Style::Bytes,
        "Largest resident set of the process while it answered, as the operating system reports it.";
    "load_seconds" "Load time" ["seconds"] Style::Seconds, "From opening the model file to the first answer.";
    "cold_start_seconds" "Cold start" ["seconds"] Style::Seconds,
        "From starting a process to its end after one answer: program, model file, first pass.";
    "program_bytes" "Program" ["bytes"] Style::Bytes, "Size of the file of the program that answers.";
    "ledger/" "Inference," ["bytes"] Style::Bytes,
        "Memory of one part of answering one example, counted from the shapes of the network.";
    "train_ledger/" "Training," ["bytes"] Style::Bytes,
        "Memory of one part of a training step, counted from the shapes of the network and the settings of its training.";
    "quantize_seconds" "Quantization time" ["seconds"] Style::Seconds, "Wall-clock time of rounding all weights, calibration included.";
    "output_error" "Output error" ["fraction"] Style::Percent,
        "Mean over the matrices of the squared error of outputs on calibration tokens, as a share of their squares.";
    "train_seconds" "Training time" ["seconds"] Style::Seconds, "Wall-clock time of training.";
    "train_peak_rss_bytes" "Peak memory of training" ["bytes"] Style::Bytes,
        "Largest resident set of the process while it trained, with rows and program; absent where training was resumed.";
    "train_energy_joules" "Energy of training" ["joules"] Style::Joules,
        "Energy drawn by the CPU packages while it trained; absent where there is no readable counter, or training was resumed.";
    "energy_joules" "Energy per example" ["joules"] Style::Joules, "Energy drawn per example.";
    "ttft_seconds" "Time to first token" ["seconds"] Style::Seconds, "From the prompt to the first token.";
    "ttft_p90_seconds" "p90 time to first token" ["seconds"] Style::Seconds, "The time that 90 % of the requests to a server wait for their first token at most.";
    "ttft_p99_seconds" "p99 time to first token" ["seconds"] Style::Seconds, "The same of 99 %.";
    "tpot_seconds" "Time per token" ["seconds"] Style::Seconds,
        "Median over the requests to a server of the time from the first token to the last, divided by the tokens after the first.";
    "tpot_p90_seconds" "p90 time per token" ["seconds"] Style::Seconds, "The time per token that 90 % of the requests keep.";
    "tpot_p99_seconds" "p99 time per token" ["seconds"] Style::Seconds, "The same of 99 %.";
    "itl_seconds" "Inter-token latency" ["seconds"] Style::Seconds, "Median time between two pieces of an answer of a server.";
    "itl_p90_seconds" "p90 inter-token latency" ["seconds"] Style::Seconds, "The time between two pieces that 90 % keep.";
    "itl_p99_seconds" "p99 inter-token latency" ["seconds"] Style::Seconds, "The same of 99 %.";
    "e2el_seconds" "Request latency" ["seconds"] Style::Seconds, "Median time from a request to a server to the last token.";
    "e2el_p90_seconds" "p90 request latency" ["seconds"] Style::Seconds, "The time that 90 % of the requests keep.";
    "e2el_p99_seconds" "p99 request latency" ["seconds"] Style::Seconds, "The same of 99 %.";
    "request_throughput" "Requests" ["per_second"] Style::Rate, "Requests that a server answers per second.";
    "total_tokens_per_second" "Tokens, prompts too" ["per_second"] Style::Rate, "Tokens of prompts and answers per second.";
    "goodput" "Goodput" ["per_second"] Style::Rate, "Requests per second that a server answers within the stated times.";
    "failed_requests" "Failed requests" ["count"] Style::Plain, "Requests that a server did not answer.";
    "decode_tokens_per_second" "Decode, tokens/s" ["per_second"] Style::Rate, "Tokens generated per second.";
    "prefill_tokens_per_second" "Prefill, tokens/s" ["per_second"] Style::Rate, "Prompt tokens read per second.";
};

/// Unit words of the record contract; a measure outside [`MEASURES`] must use one of them.
pub(crate) const UNITS: &[&str] = &[
    "seconds",
    "bytes",
    "joules",
    "fraction",
    "per_second",
    "bits",
    "nats",
    "count",
    "ratio",
    "watts",
    "target",
    "squared_target",
];

/// The entry for a measure's name, by its full name or by the part up to the slash.
pub(crate) fn known(name: &str) -> Option<&'static Known> {
    MEASURES.iter().find(|k| k.name == name).or_else(|| {
        let family = &name[..=name.find('/')?];
        MEASURES.iter().find(|k| k.name == family)
    })
}

/// Style for a measure that is in no list, from its unit.
pub(crate) fn style_of(name: &str, unit: &str) -> Style {
    match (known(name), unit) {
        (Some(known), _) => known.style,
        (None, "fraction") => Style::Percent,
        (None, "seconds") => Style::Seconds,
        (None, "bytes") => Style::Bytes,
        (None, "joules") => Style::Joules,
        (None, "per_second") => Style::Rate,
        (None, _) => Style::Plain,
    }
}

/// Column title of any measure.
pub(crate) fn title(name: &str) -> String {
    match (known(name), name.split_once('/')) {
        (Some(known), Some((_, rest))) => format!("{} {rest}", known.title),
        (Some(known), None) => known.title.to_string(),
        (None, _) => name.replace('_', " "),
    }
}

/// Units shared by the columns of one task.
#[derive(Clone, Debug)]
pub(crate) struct Scales {
    /// Weights.
    pub(crate) weights: Scale,
    /// Peak memory and other byte counts.
    pub(crate) memory: Scale,
    /// Latencies.
    pub(crate) latency: Scale,
    /// Load times.
    pub(crate) load: Scale,
    /// Energies.
    pub(crate) energy: Scale,
}

impl Scales {
    /// The value of measure `name` as text.
    pub(crate) fn text(&self, name: &str, style: Style, value: f64) -> String {
        match style {
            Style::Percent => number::percent(value),
            Style::Seconds if name == "load_seconds" => self.load.text(value),
            Style::Seconds if name.starts_with("latency") => self.latency.text(value),
            Style::Seconds => duration(value),
            Style::Bytes if name == "weight_bytes" => self.weights.text(value),
            Style::Bytes if name == "peak_rss_bytes" => self.memory.text(value),
            Style::Bytes => Scale::bytes([value]).text(value),
            Style::Joules => self.energy.text(value),
            Style::Rate if value >= 100.0 => number::count(value),
            Style::Rate | Style::Plain => number::plain(value),
            Style::Fixed(decimals) => number::fixed(value, decimals),
        }
    }
}

/// A stretch of time that may be anything from nanoseconds to hours.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 7200.0 => format!("{} h", number::fixed(s / 3600.0, 1)),
        s if s >= 120.0 => format!("{} min", number::fixed(s / 60.0, 1)),
        s => Scale::seconds([s]).text(s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_under_its_own_name_and_uses_unit_words() {
        for entry in MEASURES {
            assert_eq!(known(entry.name).unwrap().name, entry.name);
            assert!(entry.units.iter().all(|u| UNITS.contains(u)), "{}", entry.name);
            assert!(!entry.about.is_empty() && !entry.title.is_empty());
        }
        assert_eq!(known("throughput/8").unwrap().name, "throughput/");
        assert_eq!(title("throughput/8"), "Throughput, batch 8");
        assert!(known("speed").is_none() && known("new/thing").is_none());
    }

    #[test]
    fn durations_change_unit() {
        assert_eq!(duration(0.0123), "12.3 ms");
        assert_eq!(duration(90.0), "90.0 s");
        assert_eq!(duration(600.0), "10.0 min");
        assert_eq!(duration(7200.0), "2.0 h");
    }
}
