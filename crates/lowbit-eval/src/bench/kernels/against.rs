//! Speeds against those of an earlier record: only changes that stand out from the noise of both count.

use super::Speed;
use crate::error::{Error, Kind as Fault};
use crate::record::SCHEMA_VERSION;
use crate::stats;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Changes below this are never reported, as a fraction.
pub const FLOOR: f64 = 0.05;
/// Changes count from so many times the noise on.
pub const NOISES: f64 = 3.0;
/// A median absolute deviation times this is a standard deviation, where values are normal.
const MAD: f64 = 1.4826;
/// Bytes of a record at most.
const MAX_BYTES: u64 = 64 << 20;

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Takes less time, and reaches more of its limit.
    Faster,
    /// Neither.
    Same,
    /// Takes more time, and reaches less of its limit.
    Slower,
}

impl Verdict {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Faster => "faster",
            Verdict::Same => "same",
            Verdict::Slower => "slower",
        }
    }
}

/// One case now and then.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Median seconds now over those of the record.
    pub seconds_ratio: f64,
    /// Part of the limit now over that of the record.
    pub fraction_ratio: f64,
    /// Both must go beyond 1 by more than this, one up and one down.
    pub threshold: f64,
    /// What follows.
    pub verdict: Verdict,
}

/// A record of earlier speeds.
#[derive(Clone, Debug)]
pub struct Earlier {
    path: PathBuf,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct File {
    schema_version: u32,
    host: Host,
    records: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Host {
    cpu: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Case {
    format: String,
    isa: String,
    /// `ROWSxCOLS` where it is missing.
    shape: Option<String>,
    rows: Option<u64>,
    cols: Option<u64>,
    tokens: usize,
    threads: usize,
    seconds_p50: f64,
    seconds_min: f64,
    seconds_max: f64,
    fraction_of_limit: f64,
    /// Seconds of each sample; older records have only their range.
    #[serde(default)]
    samples: Vec<f64>,
}

impl Case {
    fn shape(&self) -> Option<String> {
        self.shape.clone().or_else(|| Some(format!("{}x{}", self.rows?, self.cols?)))
    }

    /// Why this cannot be a case.
    fn fault(&self) -> Option<String> {
        let numbers = [
            ("seconds_p50", self.seconds_p50),
            ("seconds_min", self.seconds_min),
            ("seconds_max", self.seconds_max),
            ("fraction_of_limit", self.fraction_of_limit),
        ];
        let samples = self.samples.iter().map(|s| ("samples", *s));
        let bad = numbers.into_iter().chain(samples).find(|(_, v)| !(v.is_finite() && *v > 0.0));
        match bad {
            Some((name, value)) => Some(format!("`{name}` is {value}, not a positive number")),
            None if self.seconds_min > self.seconds_max => Some("`seconds_min` is above `seconds_max`".into()),
            None if self.shape().is_none() => Some("it has neither `shape` nor `rows` and `cols`".into()),
            None => None,
        }
    }

    /// Noise of the samples; where there are none, half of their range stands for it.
    fn noise(&self) -> f64 {
        let range = (self.seconds_max - self.seconds_min) / 2.0 / self.seconds_p50;
        noise(&self.samples).unwrap_or(range)
    }
}

/// Noise of samples as a part of their median: a standard deviation that a few outliers do not move (1.4826 times the median
/// absolute deviation), or, where it is more, how far the median lies from the fastest sample, as when something else ran
/// most of the time.
fn noise(samples: &[f64]) -> Option<f64> {
    let middle = stats::median(samples)?;
    let deviations: Vec<f64> = samples.iter().map(|s| (s - middle).abs()).collect();
    let fastest = stats::percentile(samples, 0.0)?;
    Some((MAD * stats::median(&deviations)?).max(middle - fastest) / middle)
}

impl Earlier {
    /// Reads a record that `bench kernels --json` printed on a machine with this CPU.
    ///
    /// # Errors
    /// Input, when it is not such a record; usage, when it is of another CPU.
    pub fn read(path: &Path, cpu: &str) -> Result<Self, Error> {
        let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
        if bytes > MAX_BYTES {
            return Err(Error::input(path, format!("{bytes} bytes are too many for a record ({MAX_BYTES} at most)")));
        }
        let text = lowbit_base::file::read(path, MAX_BYTES)?;
        let file: File = serde_json::from_slice(&text)
            .map_err(|e| Error::input(path, format!("is not a record of `bench kernels --json`: {e}")))?;
        if file.schema_version != SCHEMA_VERSION {
            let (found, known) = (file.schema_version, SCHEMA_VERSION);
            return Err(Error::input(path, format!("schema_version is {found}; this program reads {known}")));
        }
        for (i, case) in file.records.iter().enumerate() {
            if let Some(fault) = case.fault() {
                return Err(Error::input(path, format!("records[{i}]: {fault}")));
            }
        }
        if file.host.cpu != cpu {
            return Err(Error::usage(format!(
                "{}: the record is of another CPU, `{}`; this is `{cpu}`: compare records of one CPU",
                path.display(),
                file.host.cpu
            )));
        }
        Ok(Earlier { path: path.into(), cases: file.records })
    }

    /// The record's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn find(&self, format: &str, shape: &str, tokens: usize, isa: &str, threads: usize) -> Option<&Case> {
        self.cases.iter().find(|c| {
            let same = (c.tokens, c.threads) == (tokens, threads) && (&*c.format, &*c.isa) == (format, isa);
            same && c.shape().as_deref() == Some(shape)
        })
    }

    /// Whether the record has any of these cases.
    ///
    /// # Errors
    /// Usage, when it has none.
    pub fn has_any(&self, plan: &super::Plan, cpus: &[lowbit_kernels::Cpu]) -> Result<(), Error> {
        let cases = plan.cases();
        let found = cpus.iter().any(|cpu| {
            let (isa, threads) = (cpu.isa.name(), cpu.pool.threads());
            let mut all = cases.iter().flat_map(|case| plan.tokens.iter().map(move |tokens| (case, *tokens)));
            all.any(|((format, shape), tokens)| self.find(format, shape, tokens, isa, threads).is_some())
        });
        if found {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{}: the record has none of the cases to measure (same format, shape, tokens, instruction set and threads)",
            self.path.display()
        )))
    }

    /// What became of each case; `None` for those the record does not have.
    pub fn changes(&self, speeds: &[Speed]) -> Vec<Option<Change>> {
        let change = |now: &Speed| {
            self.find(&now.format, &now.shape, now.tokens, now.isa, now.threads).map(|then| compare(now, then))
        };
        speeds.iter().map(change).collect()
    }

    /// Demands that no case became slower.
    ///
    /// # Errors
    /// Check, naming the cases.
    pub fn demand(&self, speeds: &[Speed], changes: &[Option<Change>]) -> Result<(), Error> {
        let known = changes.iter().flatten().count();
        let slower = |(s, change): (&Speed, &Option<Change>)| {
            let change = change.as_ref().filter(|c| c.verdict == Verdict::Slower)?;
            let (percent, threads) = ((change.seconds_ratio - 1.0) * 100.0, s.threads);
            Some(format!("{} {} x {} tokens, {threads} threads: +{percent:.0} %", s.format, s.shape, s.tokens))
        };
        let slower: Vec<String> = speeds.iter().zip(changes).filter_map(slower).collect();
        if slower.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} of {known} cases are slower than in {}: {}",
            slower.len(),
            self.path.display(),
            slower.join("; ")
        );
        Err(Error::new(Fault::Check, message))
    }
}

fn compare(now: &Speed, then: &Case) -> Change {
    let noise = noise(&now.samples).unwrap_or(0.0).hypot(then.noise());
    let threshold = FLOOR.max(NOISES * noise);
    let seconds_ratio = now.seconds_p50 / then.seconds_p50;
    let fraction_ratio = now.fraction_of_limit / then.fraction_of_limit;
    let beyond = |ratio: f64| ratio > 1.0 + threshold;
    let verdict = if beyond(seconds_ratio) && beyond(1.0 / fraction_ratio) {
        Verdict::Slower
    } else if beyond(1.0 / seconds_ratio) && beyond(fraction_ratio) {
        Verdict::Faster
    } else {
        Verdict::Same
    };
    Change { seconds_ratio, fraction_ratio, threshold, verdict }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(seconds: f64, fraction: f64, samples: &[f64]) -> Speed {
        Speed {
            format: "ternary".into(),
            isa: "avx2",
            shape: "64x96".into(),
            rows: Some(64),
            cols: Some(96),
            tokens: 1,
            threads: 2,
            copies: 1,
            seconds_p50: seconds,
            seconds_min: seconds,
            seconds_max: seconds,
            n: samples.len(),
            weight_gbps: 1.0,
            gops: 1.0,
            limit: "memory",
            fraction_of_limit: fraction,
            samples: samples.iter().map(|s| s * seconds).collect(),
        }
    }

    fn earlier(cases: serde_json::Value) -> Earlier {
        Earlier { path: "then.json".into(), cases: serde_json::from_value(cases).unwrap() }
    }

    const QUIET: [f64; 5] = [0.995, 1.0, 1.0, 1.004, 1.3];
    /// Something else ran but for one sample.
    const DISTURBED: [f64; 5] = [0.4, 0.99, 1.0, 1.01, 1.02];
    /// 1.4826 times the median deviation is 0.06.
    const LOUD: [f64; 5] = [0.9595, 0.95, 1.0, 1.0405, 1.2];

    #[test]
    fn only_what_stands_out_of_the_noise_is_a_change() {
        use Verdict::{Faster, Same, Slower};
        let cases = [
            ("4 % more time", 1.04, 1.0 / 1.04, &QUIET, Same),
            ("10 % more time", 1.10, 1.0 / 1.10, &QUIET, Slower),
            ("10 % less time", 0.90, 1.0 / 0.90, &QUIET, Faster),
            ("10 % more time, of a machine as much slower", 1.10, 1.0, &QUIET, Same),
            ("10 % less time, of a machine as much faster", 0.90, 1.0, &QUIET, Same),
            ("the same time at half the bandwidth", 1.0, 2.0, &QUIET, Same),
            ("10 % more time in noise", 1.10, 1.0 / 1.10, &LOUD, Same),
            ("25 % more time in noise", 1.25, 1.0 / 1.25, &LOUD, Slower),
            ("80 % more time, but for one sample", 1.80, 1.0 / 1.80, &DISTURBED, Same),
            ("40 % less time in noise", 0.60, 1.0 / 0.60, &LOUD, Faster),
        ];
        for (name, seconds, fraction, samples, verdict) in cases {
            let then = serde_json::json!([{
                "format": "ternary", "isa": "avx2", "shape": "64x96", "tokens": 1, "threads": 2, "seconds_p50": 1e-3,
                "seconds_min": 1e-3, "seconds_max": 2e-3, "fraction_of_limit": 0.4, "samples": [1e-3, 1.001e-3, 1e-3, 2e-3],
            }]);
            let now = [speed(1e-3 * seconds, 0.4 * fraction, samples)];
            let earlier = earlier(then);
            let changes = earlier.changes(&now);
            let change = changes[0].clone().expect("the case is there");
            assert_eq!(change.verdict, verdict, "{name}: {change:?}");
            let demanded = earlier.demand(&now, &changes);
            assert_eq!(demanded.is_err(), verdict == Slower, "{name}");
            if let Err(failure) = demanded {
                assert_eq!(failure.kind, Fault::Check);
                assert!(
                    failure.message.contains("1 of 1 cases") && failure.message.contains("ternary 64x96"),
                    "{failure}"
                );
            }
        }
    }

    #[test]
    fn records_without_samples_have_the_noise_of_their_range() {
        let then = |max: f64| {
            earlier(serde_json::json!([{
                "format": "ternary", "isa": "avx2", "rows": 64, "cols": 96, "tokens": 1, "threads": 2,
                "seconds_p50": 1e-3, "seconds_min": 1e-3, "seconds_max": max, "fraction_of_limit": 0.4,
            }]))
        };
        let now = [speed(1.2e-3, 0.3, &QUIET)];
        assert_eq!(then(1.05e-3).changes(&now)[0].as_ref().unwrap().verdict, Verdict::Slower);
        assert_eq!(then(1.5e-3).changes(&now)[0].as_ref().unwrap().verdict, Verdict::Same);
    }

    #[test]
    fn cases_of_another_kind_are_not_compared() {
        let then = |key: &str, value: serde_json::Value| {
            let mut case = serde_json::json!({
                "format": "ternary", "isa": "avx2", "shape": "64x96", "tokens": 1, "threads": 2, "seconds_p50": 1e-3,
                "seconds_min": 1e-3, "seconds_max": 1e-3, "fraction_of_limit": 0.4,
            });
            case[key] = value;
            earlier(serde_json::json!([case]))
        };
        let now = [speed(1.2e-3, 0.3, &QUIET)];
        assert!(then("tokens", 1.into()).changes(&now)[0].is_some());
        for (key, value) in [
            ("format", "int8".into()),
            ("isa", "scalar".into()),
            ("shape", "96x64".into()),
            ("tokens", 2.into()),
            ("threads", 1.into()),
        ] {
            assert_eq!(then(key, value).changes(&now), [None], "{key}");
        }
    }
}
