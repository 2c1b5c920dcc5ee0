//! Processed prompts on disk: tokens with their keys and values.
//!
//! `lowbit prompt 1\n`, name of the cache kind padded with spaces to 8 bytes, SHA-256 that tells the model (32 bytes), number
//! of tokens (u64), the tokens (u32 each), keys and values of all layers, the factors of those that left the range of 16 bits,
//! SHA-256 of all before. Little-endian.

use super::Generator;
use crate::engine::LanguageModel;
use crate::parameter_list::cache_bytes;
use crate::trace::{Op, trace};
use crate::{Error, Model, Param};
use lowbit_base::file;
use sha2::{Digest, Sha256};
use std::path::Path;

const MAGIC: &[u8] = b"lowbit prompt 1\n";
/// Bytes of a SHA-256.
const SUM: usize = 32;
/// Bytes before the tokens.
const HEADER: usize = MAGIC.len() + 8 + SUM + 8;
/// Blocks of a matrix that tell it from others, and the bytes of each.
const BLOCKS: usize = 8;
const BLOCK: usize = 64;

impl Generator {
    /// Writes the tokens processed so far with their keys and values to a file, atomically.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save_prompt(&self, path: &Path) -> Result<(), Error> {
        let (sequences, kept) = (self.engine.model(), self.engine.kept().last());
        let tokens = kept.map_or(&[][..], |slot| sequences.tokens(*slot));
        let mut out = MAGIC.to_vec();
        out.extend(format!("{:8}", sequences.kind().name()).bytes());
        out.extend(fingerprint(sequences.model(), sequences.context()));
        out.extend((tokens.len() as u64).to_le_bytes());
        out.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        if let Some(slot) = kept {
            sequences.write_cache(*slot, &mut out);
        }
        let sum = Sha256::digest(&out);
        out.extend_from_slice(&sum);
        file::replace(path, &out)
    }

    /// Reads what [`Generator::save_prompt`] wrote, so that a prompt with the same begin goes on from there; returns the
    /// number of tokens.
    ///
    /// # Errors
    /// When the file is of another model, kind of cache or program, longer than the context, or damaged; names the remedy.
    pub fn load_prompt(&mut self, path: &Path) -> Result<usize, Error> {
        let at = |text: &str| Error::input(path, format!("{text}; delete the file to begin anew"));
        let sequences = self.engine.model();
        let (kind, context) = (sequences.kind(), sequences.context());
        let token = 4 + cache_bytes(sequences.model(), kind) as usize;
        // Factors take no more than what they belong to.
        let most = HEADER + SUM + 2 * token * (context + 1);
        let bytes = file::read(path, most as u64)?;
        let Some((content, sum)) = bytes.split_last_chunk::<SUM>().filter(|(content, _)| content.starts_with(MAGIC))
        else {
            return Err(at("is no prompt cache"));
        };
        if Sha256::digest(content)[..] != sum[..] || content.len() < HEADER {
            return Err(at("is a damaged prompt cache"));
        }
        let (name, rest) = content[MAGIC.len()..].split_at(8);
        if name != format!("{:8}", kind.name()).as_bytes() {
            let name = String::from_utf8_lossy(name);
            return Err(at(&format!("keeps keys and values as {}, not {}", name.trim(), kind.name())));
        }
        let (model, rest) = rest.split_at(SUM);
        if model != fingerprint(sequences.model(), context) {
            return Err(at("is the prompt cache of another model or context"));
        }
        let (count, rest) = rest.split_at(8);
        let count = u64::from_le_bytes(count.try_into().expect("eight bytes")) as usize;
        if count > context {
            return Err(at("is no prompt cache that fits the context of this model"));
        }
        if rest.len() < count * token {
            return Err(at("is a damaged prompt cache"));
        }
        let (tokens, cache) = rest.split_at(4 * count);
        let tokens: Vec<u32> = tokens.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let sequences = self.engine.model_mut();
        let slot = sequences.open();
        if !sequences.read_cache(slot, &tokens, cache) {
            sequences.close(slot);
            return Err(at("is a damaged prompt cache"));
        }
        self.engine.keep(slot);
        Ok(count)
    }
}

/// Tells a network from others: shapes, formats, all vectors, some blocks of every matrix, and how a sequence of `context`
/// tokens is rotated.
fn fingerprint(model: &Model<Param>, context: usize) -> [u8; SUM] {
    let mut hash = Fingerprint { hash: Sha256::new(), context };
    trace(model, |op| hash.note(op));
    hash.hash.finalize().into()
}

struct Fingerprint {
    hash: Sha256,
    context: usize,
}

impl Fingerprint {
    fn note(&mut self, op: Op<'_, Param>) {
        match op {
            Op::Embed { table, index } => {
                self.text(format_args!("embed {index:?}"));
                self.param(table);
            }
            Op::Linear { weight, bias, .. } | Op::Logits { weight, bias, .. } => {
                self.param(weight);
                bias.into_iter().for_each(|bias| self.param(bias));
            }
            Op::Norm { kind, weight, bias, eps } => {
                self.text(format_args!("{kind:?} {eps}"));
                self.param(weight);
                bias.into_iter().for_each(|bias| self.param(bias));
            }
            Op::Conv { weight, bias, window } => {
                self.text(format_args!("{window:?}"));
                self.param(weight);
                bias.into_iter().for_each(|bias| self.param(bias));
            }
            Op::BatchNorm(norm) => {
                self.text(format_args!("batch norm {}", norm.eps));
                norm.params().into_iter().for_each(|param| self.param(param));
            }
            Op::PoolWindows { how, window } => self.text(format_args!("{how:?} {window:?}")),
            Op::Attend(spec) => {
                self.text(format_args!("{spec:?}"));
                // Keys are kept as they were rotated.
                if let Some(rope) = spec.rope {
                    self.text(format_args!("{:?}", rope.frequencies(self.context)));
                }
            }
            Op::Features(width) => self.text(format_args!("features {width}")),
            Op::Activate(f) => self.text(format_args!("{f:?}")),
            Op::Pool(how) => self.text(format_args!("{how:?}")),
            Op::Mul | Op::Add | Op::Dropout(_) | Op::Block(_) => {}
        }
    }

    fn text(&mut self, text: std::fmt::Arguments) {
        self.hash.update(format!("{text}\n"));
    }

    fn param(&mut self, param: &Param) {
        match param {
            Param::Vector(values) => values.iter().for_each(|v| self.hash.update(v.to_le_bytes())),
            Param::Matrix { packed, activations, rotated, name, .. } => {
                let (format, activations) = (packed.format().name(), activations.name());
                let rotated = if *rotated { " rotated" } else { "" };
                self.text(format_args!("{name} {format} {} {} {activations}{rotated}", packed.rows(), packed.cols()));
                for part in packed.parts() {
                    for i in 0..BLOCKS {
                        let start = part.len().saturating_sub(BLOCK) * i / (BLOCKS - 1);
                        self.hash.update(&part[start..(start + BLOCK).min(part.len())]);
                    }
                }
            }
        }
    }
}
