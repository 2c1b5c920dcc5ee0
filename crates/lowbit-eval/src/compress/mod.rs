//! Lossless compression of any file by a byte-level language model and arithmetic coding: what the network gives to the bytes that come
//! is the size of the file that is written.
//!
//! A file is cut into lanes, which advance together, so that both directions share passes over the weights; each lane knows only its own
//! bytes. One range coder takes the bytes of all lanes in turn.

pub(crate) mod table;

use crate::Error;
use crate::error::Kind;
use crate::record::{Detail, Measure, Record};
use crate::{facts, language};
use constriction::stream::queue::{DefaultRangeDecoder, DefaultRangeEncoder};
use constriction::stream::{Decode, Encode};
use lowbit_base::memory::Footprint;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::{self, CacheKind};
use lowbit_model::engine::{LanguageModel, Logits, Piece};
use lowbit_model::exec::Batch;
use lowbit_model::{Checkpoint, Sequences, engine};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use table::{BYTES, Interval, Table};

/// What a compressed file begins with; the last byte is the version of its layout.
const MAGIC: [u8; 5] = *b"LBAC\x03";
/// The number of lanes of a file whose bytes are stored: the model would have made them longer.
const STORED: u8 = 0;
/// Bytes of a lane for which another one is opened: lanes cost a beginning without context each, and save time.
const LANE_BYTES: usize = 16 << 10;
/// Lanes at most.
const MAX_LANES: usize = 64;
/// Longest window, tokens.
const MAX_WINDOW: usize = 1024;
/// Tokens of a forward pass, about.
const PASS_TOKENS: usize = 2048;
/// The part of a full window that the next one begins with: these tokens are processed again, and are the shortest context.
const KEPT: usize = 4;
/// Rows of probabilities that a thread takes together.
const GRAIN: usize = 32;
/// Tokens of the pass whose products are counted.
const LIMIT_TOKENS: usize = 128;
/// Bytes of a shortened SHA-256.
const HASH_BYTES: usize = 8;
/// Bytes before the code: magic, lanes, length, hashes of model and content.
const HEADER: usize = MAGIC.len() + 1 + 8 + 2 * HASH_BYTES;

/// Compresses and restores with one network.
pub struct Compressor {
    model: Sequences,
    cpu: Cpu,
    hash: [u8; HASH_BYTES],
    /// The token before the first byte of a lane.
    begin: u32,
    window: usize,
    lanes: Option<usize>,
    /// Bytes of the keys and values of a lane.
    lane: u64,
    /// What the network gives to the bytes at some steps of each lane, `[lane, step, 256]`.
    shares: Vec<f32>,
}

/// A compressed file, and what the network gave to its content.
pub struct Compressed {
    /// The file.
    pub bytes: Vec<u8>,
    /// Bytes of the content.
    pub content: u64,
    /// Minus the sum of the binary logarithms of the probabilities of all bytes; eight of each byte where they are stored.
    pub bits: f64,
    /// Whether the bytes are stored as they are, which the model would have made longer.
    pub is_stored: bool,
}

impl Compressed {
    /// The record of a file that a model compressed.
    ///
    /// # Errors
    /// When the model's file cannot be read.
    pub fn record(&self, model: String, checkpoint: &Checkpoint, seconds: f64) -> Result<Record, Error> {
        let (n, written) = (self.content, self.bytes.len() as f64);
        let mut measures = self.measures(seconds, None);
        if n > 0 {
            measures.insert("bits_per_byte".into(), Measure::measured(8.0 * written / n as f64, "bits", n));
            measures.insert("compression_ratio".into(), Measure::measured(n as f64 / written, "ratio", n));
        }
        let recipe = checkpoint.recipe().name.into();
        let mut record =
            Record { task: "compress".into(), model, recipe, params: 0, measures, detail: Detail::default() };
        facts::describe(&mut record, checkpoint)?;
        with_model(&mut record);
        Ok(record)
    }

    /// What can be said of the file alone, and of the time it took to write it and to restore its content.
    pub fn measures(&self, seconds: f64, restored: Option<f64>) -> BTreeMap<String, Measure> {
        let (n, written) = (self.content, self.bytes.len() as f64);
        let rate = |seconds: f64| Measure::measured(n as f64 / seconds.max(1e-9), "per_second", n);
        let mut measures = BTreeMap::from([
            ("compressed_bytes".into(), Measure::measured(written, "bytes", n)),
            ("coded_bytes".into(), Measure::measured(self.bits / 8.0, "bytes", n)),
            ("throughput".into(), rate(seconds)),
        ]);
        measures.extend(restored.map(|seconds| ("decompression_throughput".into(), rate(seconds))));
        if n > 0 {
            measures.insert("file_ratio".into(), Measure::measured(n as f64 / written, "ratio", n));
        }
        measures
    }
}

/// Writes a content as a file by a model and restores it, and adds sizes and times to the model's record; says why where the model can
/// write none.
///
/// # Errors
/// When memory is short, the logits are not finite, what is restored is not the content, or a stop was asked for.
pub fn prove(checkpoint: &Checkpoint, cpu: &Cpu, content: &[u8], record: &mut Record) -> Result<Option<String>, Error> {
    let mut compressor = match Compressor::new(checkpoint, cpu) {
        Ok(compressor) => compressor,
        Err(error) if error.kind == Kind::Usage => return Ok(Some(error.message)),
        Err(error) => return Err(error),
    };
    let start = Instant::now();
    let compressed = compressor.compress(content, &mut |_| cpu.stop.check())?;
    let seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    if compressor.decompress(&compressed.bytes, &mut |_| cpu.stop.check())? != content {
        return Err(Error::new(Kind::Internal, format!("{}: what was restored is not the text", record.model)));
    }
    record.measures.extend(compressed.measures(seconds, Some(start.elapsed().as_secs_f64())));
    with_model(record);
    Ok(None)
}

/// Adds to a record what its rates of compression are of those that the measured peak of int8 products, in GOP/s, allows: each byte
/// takes the products of one token.
pub fn with_limit(record: &mut Record, checkpoint: &Checkpoint, int8_gops: f64) {
    let tokens = LIMIT_TOKENS.min(checkpoint.model_config().max_length).max(1);
    let pass = Batch::new([vec![0; tokens].as_slice()]);
    let flops = checkpoint.parameters().flops(&pass) as f64 / tokens as f64;
    let names = [("throughput", "int8_limit_share"), ("decompression_throughput", "decompression_int8_limit_share")];
    for (rate, share) in names {
        if let Some(Measure { value, n, .. }) = record.measures.get(rate) {
            let share_of_limit = Measure::measured(value * flops / (int8_gops * 1e9), "fraction", *n);
            record.measures.insert(share.into(), share_of_limit);
        }
    }
}

/// Adds the ratio of a record's file with the weights of its model counted.
pub fn with_model(record: &mut Record) {
    let value = |name: &str| record.measures.get(name).map(|m| (m.value, m.n));
    if let (Some((written, n)), Some((weights, _))) = (value("compressed_bytes"), value("weight_bytes"))
        && n > 0
    {
        let ratio = Measure::measured(n as f64 / (written + weights), "ratio", n);
        record.measures.insert("file_ratio_with_model".into(), ratio);
    }
}

/// Listens to work under way: bytes done so far; an error ends it.
pub type Listener<'a> = dyn FnMut(u64) -> Result<(), Error> + 'a;

impl Compressor {
    /// A compressor with the network of a checkpoint.
    ///
    /// # Errors
    /// When the tokens of the network are not bytes, it cannot continue a text, or its passes of several tokens have other bits than those
    /// of one: then nothing could be restored.
    pub fn new(checkpoint: &Checkpoint, cpu: &Cpu) -> Result<Self, Error> {
        let tokenizer = checkpoint.tokenizer()?;
        if !language::takes_bytes(&tokenizer) {
            let text = "the tokens of this model are not bytes";
            return Err(Error::usage(format!("{text}: take a byte-level model, such as the one inside this program")));
        }
        let begin = language::begin(checkpoint, &tokenizer).unwrap_or(u32::from(b'\n'));
        let window = checkpoint.model_config().max_length.min(MAX_WINDOW);
        if window < 2 {
            return Err(Error::usage("this model sees one token at a time: take one with a longer window"));
        }
        let mut model = Sequences::new(Arc::new(checkpoint.model()?), cpu.clone(), window, CacheKind::F32);
        if !engine::is_exact(&mut model)? {
            let recipe = checkpoint.recipe().name;
            let text = format!("recipe `{recipe}` rounds several tokens otherwise than one");
            return Err(Error::usage(format!("{text}, so that nothing could be restored: take another --recipe")));
        }
        let lane = checkpoint.parameters().cache_bytes(CacheKind::F32) * window as u64;
        Ok(Compressor {
            model,
            cpu: cpu.clone(),
            hash: hash(checkpoint)?,
            begin,
            window,
            lanes: None,
            lane,
            shares: Vec::new(),
        })
    }

    /// The same compressor, which cuts a file into so many lanes (1 to 64), in place of one for each 16 KiB: fewer lose less at their
    /// beginnings, more are faster.
    ///
    /// # Panics
    /// When there are none, or more.
    pub fn lanes(self, lanes: usize) -> Self {
        assert!((1..=MAX_LANES).contains(&lanes), "1 to {MAX_LANES} lanes");
        Compressor { lanes: Some(lanes), ..self }
    }

    /// Compresses bytes.
    ///
    /// # Errors
    /// When the network's logits are not finite, memory is short, or the listener ends the work.
    pub fn compress(&mut self, content: &[u8], listener: &mut Listener) -> Result<Compressed, Error> {
        let lanes = Lanes::of(content.len(), self.lanes.unwrap_or_else(|| lanes_for(content.len())), self.window);
        self.check_memory(content.len(), lanes.count)?;
        let (mut coder, mut bits) = (DefaultRangeEncoder::new(), 0.0);
        let slots = self.open(&lanes);
        let done = self.encode(&lanes, &slots, content, &mut coder, &mut bits, listener);
        slots.into_iter().for_each(|slot| self.model.close(slot));
        done?;
        let words = coder.into_compressed().unwrap_or_else(|never| match never {});
        let is_stored = 4 * words.len() > content.len();
        let mut bytes = MAGIC.to_vec();
        bytes.push(if is_stored { STORED } else { lanes.count as u8 });
        bytes.extend((content.len() as u64).to_le_bytes());
        bytes.extend(self.hash);
        bytes.extend(short(content));
        match is_stored {
            true => bytes.extend(content),
            false => bytes.extend(words.iter().flat_map(|word| word.to_le_bytes())),
        }
        let seal = short(&bytes);
        bytes.extend(seal);
        let bits = if is_stored { 8.0 * content.len() as f64 } else { bits };
        Ok(Compressed { bytes, content: content.len() as u64, bits, is_stored })
    }

    /// Restores what was compressed.
    ///
    /// # Errors
    /// Of kind input when the file is damaged, cut, none of ours, or was written with another network or recipe.
    pub fn decompress(&mut self, file: &[u8], listener: &mut Listener) -> Result<Vec<u8>, Error> {
        let Header { lanes, length, content, code } = self.header(file)?;
        let restored = match lanes {
            lanes if lanes == usize::from(STORED) => code.to_vec(),
            lanes => self.restore(Lanes::of(length, lanes, self.window), length, code, listener)?,
        };
        match short(&restored) == content {
            true => Ok(restored),
            false => Err(Error::data("what was restored is not what was compressed: the file is damaged")),
        }
    }

    fn restore(&mut self, lanes: Lanes, length: usize, code: &[u8], listener: &mut Listener) -> Result<Vec<u8>, Error> {
        self.check_memory(length, lanes.count)?;
        let words: Vec<u32> =
            code.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("4 bytes"))).collect();
        let mut coder = DefaultRangeDecoder::from_compressed(words).unwrap_or_else(|never| match never {});
        let mut restored = vec![0; length];
        let slots = self.open(&lanes);
        let done = self.decode(&lanes, &slots, &mut restored, &mut coder, listener);
        slots.into_iter().for_each(|slot| self.model.close(slot));
        done?;
        Ok(restored)
    }

    fn open(&mut self, lanes: &Lanes) -> Vec<usize> {
        (0..lanes.count).map(|_| self.model.open()).collect()
    }

    /// Codes the bytes of all lanes; passes take several of each lane.
    fn encode(
        &mut self,
        lanes: &Lanes,
        slots: &[usize],
        content: &[u8],
        coder: &mut DefaultRangeEncoder,
        bits: &mut f64,
        listener: &mut Listener,
    ) -> Result<(), Error> {
        let (mut done, mut intervals) = (0, Vec::new());
        for part in lanes.parts() {
            self.feed_again(lanes, slots, content, &part)?;
            let chunk = (PASS_TOKENS / lanes.count).max(1);
            for at in part.bytes.clone().step_by(chunk) {
                let steps = at..(at + chunk).min(part.bytes.end);
                self.give(lanes, slots, content, steps.clone())?;
                self.find(lanes, content, steps.clone(), &mut intervals);
                for (step, i) in steps.clone().zip(0..) {
                    for lane in lanes.active(step) {
                        let interval = intervals[lane * steps.len() + i];
                        *bits += interval.bits();
                        coder.encode_symbol((), interval).map_err(|_| damaged())?;
                        done += 1;
                    }
                }
                listener(done)?;
            }
        }
        Ok(())
    }

    /// Restores the bytes of all lanes, one of each in a pass.
    fn decode(
        &mut self,
        lanes: &Lanes,
        slots: &[usize],
        restored: &mut [u8],
        coder: &mut DefaultRangeDecoder,
        listener: &mut Listener,
    ) -> Result<(), Error> {
        let (mut done, mut tables) = (0, vec![Table::default(); lanes.count]);
        for part in lanes.parts() {
            self.feed_again(lanes, slots, restored, &part)?;
            for step in part.bytes.clone() {
                self.give(lanes, slots, restored, step..step + 1)?;
                let (active, shares) = (lanes.active(step), &self.shares);
                self.cpu.pool.for_rows(
                    active.len(),
                    GRAIN / 2,
                    [(&mut tables[active.clone()], 1)],
                    |rows, [tables]| {
                        let rows = shares[rows.start * BYTES..].chunks_exact(BYTES);
                        tables.iter_mut().zip(rows).for_each(|(table, row)| *table = Table::of(row));
                    },
                );
                for lane in active {
                    restored[lanes.at(lane, step)] = coder.decode_symbol(&tables[lane]).map_err(|_| damaged())?;
                    done += 1;
                }
                listener(done)?;
            }
        }
        Ok(())
    }

    /// Begins a part of the lanes: the sequences hold the last tokens of what came before again, but for the last of them.
    fn feed_again(&mut self, lanes: &Lanes, slots: &[usize], content: &[u8], part: &Part) -> Result<(), Error> {
        let known = part.from..part.bytes.start;
        lanes.active(part.bytes.start).for_each(|lane| self.model.truncate(slots[lane], 0));
        let chunk = (PASS_TOKENS / lanes.count).max(1);
        for at in known.clone().step_by(chunk) {
            let tokens: Vec<(usize, Vec<u32>)> = lanes
                .active(part.bytes.start)
                .map(|lane| (slots[lane], self.tokens(lanes, content, lane, at..(at + chunk).min(known.end))))
                .collect();
            pass(&mut self.model, &tokens, Logits::None)?;
        }
        Ok(())
    }

    /// Fills [`Compressor::shares`]; each row sums to 1. A lane that ends early has rows without a meaning.
    fn give(&mut self, lanes: &Lanes, slots: &[usize], content: &[u8], steps: Range<usize>) -> Result<(), Error> {
        let tokens: Vec<(usize, Vec<u32>)> = lanes
            .active(steps.start)
            .map(|lane| {
                let end = steps.end.min(lanes.length_of(lane));
                (slots[lane], self.tokens(lanes, content, lane, steps.start..end))
            })
            .collect();
        self.shares.resize(tokens.len() * steps.len() * BYTES, 0.0);
        let logits = pass(&mut self.model, &tokens, Logits::All)?;
        let width = logits.len() / tokens.iter().map(|(_, tokens)| tokens.len()).sum::<usize>();
        let mut rows = logits.chunks_exact(width);
        for ((_, tokens), shares) in tokens.iter().zip(self.shares.chunks_exact_mut(steps.len() * BYTES)) {
            for (row, out) in (&mut rows).take(tokens.len()).zip(shares.chunks_exact_mut(BYTES)) {
                out.copy_from_slice(&row[..BYTES]);
            }
        }
        if self.shares.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::numeric("the logits of the network are not finite: take another model"));
        }
        ops::softmax(&self.cpu, &mut self.shares, BYTES);
        Ok(())
    }

    /// The intervals of the bytes at some steps of each lane, `[lane, step]`; a lane that ends early has some without a meaning.
    fn find(&self, lanes: &Lanes, content: &[u8], steps: Range<usize>, intervals: &mut Vec<Interval>) {
        let count = self.shares.len() / BYTES;
        intervals.resize(count, Interval::default());
        self.cpu.pool.for_rows(count, GRAIN, [(&mut intervals[..], 1)], |rows, [intervals]| {
            for (row, interval) in rows.zip(intervals) {
                let (lane, step) = (row / steps.len(), steps.start + row % steps.len());
                if step < lanes.length_of(lane) {
                    let table = Table::of(&self.shares[row * BYTES..][..BYTES]);
                    *interval = table.interval(content[lanes.at(lane, step)]);
                }
            }
        });
    }

    /// Tokens of a lane: the one that begins it, then its bytes.
    fn tokens(&self, lanes: &Lanes, content: &[u8], lane: usize, positions: Range<usize>) -> Vec<u32> {
        let token = |position: usize| match position {
            0 => self.begin,
            position => content[lanes.at(lane, position - 1)].into(),
        };
        positions.map(token).collect()
    }

    /// What a compressed file says of itself, once it is whole and of this network.
    fn header<'f>(&self, file: &'f [u8]) -> Result<Header<'f>, Error> {
        if !file.starts_with(&MAGIC[..4]) {
            return Err(Error::data("is no file that `lowbit compress` wrote"));
        }
        if file.get(4) != Some(&MAGIC[4]) {
            let version = file.get(4).map_or("cut off".into(), u8::to_string);
            return Err(Error::data(format!("its layout has version {version}, and this program knows {}", MAGIC[4])));
        }
        let (body, seal) = file.split_at(file.len().saturating_sub(HASH_BYTES));
        if body.len() < HEADER || short(body) != seal {
            return Err(Error::data("is damaged or cut off: its checksum differs"));
        }
        let (header, code) = body.split_at(HEADER);
        let (header, content) = header.split_at(HEADER - HASH_BYTES);
        let (header, model) = header.split_at(header.len() - HASH_BYTES);
        if model != self.hash {
            let [theirs, own] = [model, &self.hash].map(lowbit_base::hex);
            let text = format!("was written with another model or recipe (hash {theirs}, this one has {own})");
            return Err(Error::data(format!("{text}: name that one with --model")));
        }
        let length = u64::from_le_bytes(header[6..].try_into().expect("8 bytes"));
        let lanes = usize::from(header[5]);
        let whole =
            if lanes == usize::from(STORED) { code.len() as u64 == length } else { code.len().is_multiple_of(4) };
        let fits = lanes <= MAX_LANES && whole && length < 1 << 48;
        match fits {
            true => Ok(Header { lanes, length: length as usize, content: content.try_into().expect("8 bytes"), code }),
            false => Err(Error::data(format!("is damaged: {lanes} lanes of {length} bytes"))),
        }
    }

    fn check_memory(&self, length: usize, lanes: usize) -> Result<(), Error> {
        let need = Footprint::new("split the file").and("content and code", 2 * length as u64);
        need.and("keys and values", self.lane * lanes as u64).check()
    }
}

/// One pass, and its logits.
fn pass<'m>(model: &'m mut Sequences, tokens: &[(usize, Vec<u32>)], logits: Logits) -> Result<&'m [f32], Error> {
    let pieces: Vec<Piece> = tokens.iter().map(|(slot, tokens)| Piece { slot: *slot, tokens, logits }).collect();
    model.pass(&pieces, None)
}

/// What a compressed file says of itself.
struct Header<'f> {
    /// [`STORED`] where there is no code.
    lanes: usize,
    length: usize,
    content: [u8; HASH_BYTES],
    code: &'f [u8],
}

/// How a file is cut: lane `i` has bytes `i * length ..`, the last one the rest.
struct Lanes {
    count: usize,
    length: usize,
    total: usize,
    window: usize,
}

/// Steps in which sequences only grow.
struct Part {
    /// First token that is in the sequences; token 0 begins a lane, token `i` is its byte `i - 1`.
    from: usize,
    /// Steps, each of which gives one byte of every lane.
    bytes: Range<usize>,
}

impl Lanes {
    fn of(total: usize, count: usize, window: usize) -> Self {
        let length = total.div_ceil(count).max(1);
        Lanes { count: total.div_ceil(length).max(1), length, total, window }
    }

    fn length_of(&self, lane: usize) -> usize {
        self.length.min(self.total - (lane * self.length).min(self.total))
    }

    /// Where a byte of a lane lies in the file.
    fn at(&self, lane: usize, step: usize) -> usize {
        lane * self.length + step
    }

    /// The lanes that have a byte at a step: all but perhaps the last.
    fn active(&self, step: usize) -> Range<usize> {
        0..(0..self.count).take_while(|lane| self.length_of(*lane) > step).count()
    }

    /// The parts of all lanes: the first fills the window, each later one begins with a part of it.
    fn parts(&self) -> Vec<Part> {
        let (length, keep) = (self.length_of(0), (self.window / KEPT).max(1));
        let mut parts = vec![Part { from: 0, bytes: 0..length.min(self.window) }];
        while let Some(at) = parts.last().map(|part| part.bytes.end).filter(|end| *end < length) {
            parts.push(Part { from: at + 1 - keep, bytes: at..length.min(at + self.window - keep) });
        }
        parts
    }
}

fn lanes_for(length: usize) -> usize {
    length.div_ceil(LANE_BYTES).clamp(1, MAX_LANES)
}

/// The first bytes of a SHA-256.
fn short(content: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::digest(content)[..HASH_BYTES].try_into().expect("a longer hash")
}

/// A hash of all that decides the bits of a network: its configuration, and its parameters as they are computed with.
fn hash(checkpoint: &Checkpoint) -> Result<[u8; HASH_BYTES], Error> {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", checkpoint.model_config().config));
    for spec in checkpoint.parameters().params() {
        hash.update(format!("{} {} {}", spec.name, spec.rows, spec.cols));
        if checkpoint.recipe().format_of(spec)?.is_none() {
            checkpoint.master(spec)?.iter().for_each(|v| hash.update(v.to_le_bytes()));
            continue;
        }
        let packed = checkpoint.packed(spec)?;
        hash.update(packed.format().name());
        packed.parts().iter().for_each(|part| hash.update(&part[..]));
    }
    Ok(hash.finalize()[..HASH_BYTES].try_into().expect("a longer hash"))
}

fn damaged() -> Error {
    Error::data("the code is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_byte_within_the_window() {
        for (total, count, window) in
            [(0, 1, 8), (1, 1, 8), (100, 3, 8), (257, 4, 16), (64, 64, 2), (65, 64, 7), (8, 1, 8)]
        {
            let lanes = Lanes::of(total, count, window);
            let mut seen = vec![false; total];
            for part in lanes.parts() {
                assert!(part.from <= part.bytes.start);
                for step in part.bytes {
                    assert!(step + 1 - part.from <= window, "token {step} of those from {} fits", part.from);
                    for lane in lanes.active(step) {
                        assert!(!std::mem::replace(&mut seen[lanes.at(lane, step)], true));
                    }
                }
            }
            assert!(seen.into_iter().all(|seen| seen), "{total} bytes in {count} lanes");
        }
    }
}
