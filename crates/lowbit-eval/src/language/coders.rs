//! Compressors without a network on the bytes of a text: what a language model has to stay below.

use super::{Text, takes_bytes};
use crate::compress::table::{BYTES, Table};
use crate::record::{Detail, Measure, Record};
use brotli::enc::BrotliEncoderParams;
use constriction::stream::Encode;
use constriction::stream::queue::DefaultRangeEncoder;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use liblzma::read::{XzDecoder, XzEncoder};
use lowbit_base::{Error, Stop};
use lowbit_model::Tokenizer;
use ppmd_rust::{Ppmd7Decoder, Ppmd7Encoder};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::time::Instant;

/// One direction of a compressor.
type Way = fn(&[u8]) -> io::Result<Vec<u8>>;

/// Longest context of PPMd, bytes; its name says it.
const PPMD_ORDER: u32 = 8;
/// Memory of its model, bytes.
const PPMD_MEMORY: u32 = 64 << 20;

/// A compressor.
pub struct Coder {
    /// Name in records.
    pub name: &'static str,
    /// What it is, for a reader.
    pub about: &'static str,
    compress: Way,
    restore: Option<Way>,
}

/// Every compressor, the simplest first.
pub static CODERS: &[Coder] = &[
    Coder {
        name: "order-0",
        about: "how often each byte came so far, and arithmetic coding",
        compress: |content| Ok(adaptive(content, 0)),
        restore: None,
    },
    Coder {
        name: "order-2",
        about: "how often each byte came after the two before it, blended with shorter contexts (Witten-Bell), and arithmetic coding",
        compress: |content| Ok(adaptive(content, 2)),
        restore: None,
    },
    Coder { name: "gzip -9", about: "DEFLATE", compress: gzip, restore: Some(|code| all(GzDecoder::new(code))) },
    Coder {
        name: "zstd -19",
        about: "Zstandard",
        compress: |content| zstd::bulk::compress(content, 19),
        restore: Some(|code| zstd::decode_all(code)),
    },
    Coder {
        name: "brotli -11",
        about: "Brotli",
        compress: brotli,
        restore: Some(|code| all(brotli::Decompressor::new(code, 1 << 16))),
    },
    Coder {
        name: "xz -9",
        about: "LZMA",
        compress: |content| all(XzEncoder::new(content, 9)),
        restore: Some(|code| all(XzDecoder::new(code))),
    },
    Coder {
        name: "ppmd -o8",
        about: "PPMd, variant H, by Shkarin: prediction by partial matching",
        compress: ppmd,
        restore: Some(|code| all(Ppmd7Decoder::new(code, PPMD_ORDER, PPMD_MEMORY).map_err(io::Error::other)?)),
    },
];

fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}

fn brotli(mut content: &[u8]) -> io::Result<Vec<u8>> {
    let params = BrotliEncoderParams { quality: 11, lgwin: 24, size_hint: content.len(), ..Default::default() };
    let mut code = Vec::new();
    brotli::BrotliCompress(&mut content, &mut code, &params)?;
    Ok(code)
}

fn ppmd(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = Ppmd7Encoder::new(Vec::new(), PPMD_ORDER, PPMD_MEMORY).map_err(io::Error::other)?;
    encoder.write_all(content)?;
    encoder.finish(true)
}

fn all(mut reader: impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    reader.read_to_end(&mut content)?;
    Ok(content)
}

/// The records of all compressors on a content; each result that can be restored is, and compared.
///
/// # Errors
/// When a compressor fails, or a stop was asked for.
pub fn records(task: &str, content: &[u8], stop: &Stop) -> Result<Vec<Record>, Error> {
    let record = |coder: &Coder| {
        stop.check()?;
        coder.record(task, content)
    };
    CODERS.iter().map(record).collect()
}

/// The bytes of a text, spelled by its tokens.
///
/// # Errors
/// When they do not spell it.
pub fn content(text: &Text, tokenizer: &Tokenizer) -> Result<Vec<u8>, Error> {
    let mut content = Vec::with_capacity(text.bytes() as usize);
    for token in text.texts().iter().flatten().filter(|token| !tokenizer.is_control(**token)) {
        content.extend_from_slice(tokenizer.token_bytes(*token).unwrap_or_default());
    }
    let spells = takes_bytes(tokenizer) || lowbit_base::hex(Sha256::digest(&content)) == text.sha256;
    match spells {
        true => Ok(content),
        false => Err(Error::usage(format!(
            "the tokens of {} do not spell its bytes: compare compressors beside a byte-level model",
            text.name
        ))),
    }
}

impl Coder {
    fn record(&self, task: &str, content: &[u8]) -> Result<Record, Error> {
        let failed = |e: io::Error| Error::data(format!("{}: {e}", self.name));
        let (n, start) = (content.len() as u64, Instant::now());
        let code = (self.compress)(content).map_err(failed)?;
        let rate =
            |start: Instant| Measure::measured(n as f64 / start.elapsed().as_secs_f64().max(1e-9), "per_second", n);
        let mut measures = BTreeMap::from([
            ("throughput".to_string(), rate(start)),
            ("compressed_bytes".into(), Measure::measured(code.len() as f64, "bytes", n)),
        ]);
        if n > 0 {
            let (bits, ratio) = (8.0 * code.len() as f64 / n as f64, n as f64 / code.len() as f64);
            measures.insert("bits_per_byte".into(), Measure::measured(bits, "bits", n));
            for name in ["compression_ratio", "file_ratio", "file_ratio_with_model"] {
                measures.insert(name.into(), Measure::measured(ratio, "ratio", n));
            }
        }
        if let Some(restore) = self.restore {
            let start = Instant::now();
            if restore(&code).map_err(failed)? != content {
                return Err(Error::data(format!("{}: what was restored is not what was compressed", self.name)));
            }
            measures.insert("decompression_throughput".into(), rate(start));
        }
        let detail = Detail { made: "baseline".into(), note: Some(self.about.into()), ..Detail::default() };
        Ok(Record { task: task.into(), model: self.name.into(), recipe: "none".into(), params: 0, measures, detail })
    }
}

/// How often each byte came in a context.
#[derive(Clone)]
struct Counts {
    of: [u32; BYTES],
    all: u32,
    distinct: u32,
}

impl Default for Counts {
    fn default() -> Self {
        Counts { of: [0; BYTES], all: 0, distinct: 0 }
    }
}

impl Counts {
    fn add(&mut self, byte: u8) {
        let count = &mut self.of[usize::from(byte)];
        self.distinct += u32::from(*count == 0);
        *count += 1;
        self.all += 1;
    }

    /// Blends the shares of a shorter context with what came in this one (Witten and Bell, 1991): new bytes are as likely as the
    /// context had distinct ones.
    fn blend(&self, shares: &mut [f32; BYTES]) {
        if self.all > 0 {
            let whole = (self.all + self.distinct) as f32;
            let fresh = self.distinct as f32;
            shares
                .iter_mut()
                .zip(&self.of)
                .for_each(|(share, count)| *share = (*count as f32 + fresh * *share) / whole);
        }
    }
}

/// Arithmetic coding by what came so far after the last `order` bytes; the contexts of a byte are the bytes before it, the nearest lowest.
fn adaptive(content: &[u8], order: u32) -> Vec<u8> {
    let mut contexts: Vec<HashMap<u32, Counts>> = vec![HashMap::new(); order as usize + 1];
    let (mut coder, mut before) = (DefaultRangeEncoder::new(), 0u32);
    for byte in content {
        let mut shares = [1.0 / BYTES as f32; BYTES];
        for (length, counts) in (0u32..).zip(&mut contexts) {
            let counts = counts.entry(before & ((1 << (8 * length)) - 1)).or_default();
            counts.blend(&mut shares);
            counts.add(*byte);
        }
        coder.encode_symbol(*byte, Table::of(&shares)).expect("every byte is possible");
        before = before << 8 | u32::from(*byte);
    }
    let words = coder.into_compressed().unwrap_or_else(|never| match never {});
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_codes_have_the_size_of_their_probabilities() {
        // Two bytes in turn: order 0 needs a bit for each, order 2 next to nothing.
        let content = b"ab".repeat(5000);
        let [none, two] = [0, 2].map(|order| adaptive(&content, order).len());
        assert!((1250..1280).contains(&none), "{none}");
        assert!(two < 30, "{two}");
        // The entropy of a source of bytes with probabilities 1/2, 1/4, 1/4 is 1.5 bits.
        let mut random = lowbit_base::SplitMix64::new(3);
        let content: Vec<u8> = (0..40_000).map(|_| b"aabc"[(random.bits() % 4) as usize]).collect();
        for order in [0, 1, 2] {
            let bits = 8.0 * adaptive(&content, order).len() as f64 / content.len() as f64;
            assert!((1.49..1.52).contains(&bits), "order {order}: {bits}");
        }
        assert!(adaptive(&[], 2).len() <= 8);
    }

    #[test]
    fn every_compressor_restores_what_it_can() {
        let content = "It was the best of times, it was the worst of times. ".repeat(40);
        for coder in CODERS {
            let record = coder.record("t@1", content.as_bytes()).unwrap();
            let value = |name: &str| record.measures[name].value;
            assert!((value("bits_per_byte") * value("compression_ratio") - 8.0).abs() < 1e-12);
            assert!(value("bits_per_byte") < 5.0, "{}", coder.name);
            assert_eq!(record.measures.contains_key("decompression_throughput"), coder.restore.is_some());
            assert!(coder.record("t@1", &[]).is_ok(), "{}", coder.name);
        }
    }
}
