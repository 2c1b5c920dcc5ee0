//! Texts to tokens: bytes, or a `tokenizer.json` of the Hub.

use crate::Error;
use crate::container::write_atomic;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::Lowercase;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, models::TrainerWrapper};

mod bytes;
mod check;

/// Most entries of a vocabulary.
const MAX_VOCABULARY: usize = 1 << 20;
/// Largest `tokenizer.json`, bytes.
const MAX_BYTES: u64 = 128 << 20;
/// Stands for an empty text and fills what must be filled.
const PAD: &str = "<|pad|>";
/// Separates texts: before the first token and after the last.
const END: &str = "<|end|>";

/// Turns texts into tokens and back. Cloning is cheap.
#[derive(Clone)]
pub struct Tokenizer {
    kind: Kind,
    /// The content of `tokenizer.json`.
    json: Arc<str>,
}

#[derive(Clone)]
enum Kind {
    /// Token `b` is the byte `b`; then the pad and the end token.
    Bytes,
    Hub(Arc<tokenizers::Tokenizer>),
}

impl Tokenizer {
    /// One token per byte, then `<|pad|>` (256) and `<|end|>` (257).
    pub fn bytes() -> Self {
        Tokenizer { kind: Kind::Bytes, json: bytes::json().into() }
    }

    /// Trains byte-level byte-pair encoding on texts: `<|pad|>` is 0, `<|end|>` 1, then the 256 bytes, then merges. The
    /// vocabulary may end up smaller than asked for when the texts offer no more pairs.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind) when the vocabulary is smaller than 258 or larger than 2^20.
    pub fn train_bpe<'a>(
        texts: impl IntoIterator<Item = &'a str, IntoIter: Send>,
        vocab_size: usize,
        lowercase: bool,
    ) -> Result<Self, Error> {
        if !(258..=MAX_VOCABULARY).contains(&vocab_size) {
            let text = format!("vocabulary of {vocab_size} entries; it must lie in 258..={MAX_VOCABULARY}");
            return Err(Error::usage(text));
        }
        let trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab_size)
            .min_frequency(2)
            .special_tokens(vec![AddedToken::from(PAD, true), AddedToken::from(END, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut hub = tokenizers::Tokenizer::new(BPE::default());
        if lowercase {
            hub.with_normalizer(Some(Lowercase)).map_err(training)?;
        }
        let level = ByteLevel::default().add_prefix_space(false);
        hub.with_pre_tokenizer(Some(level)).with_decoder(Some(level));
        hub.train(&mut TrainerWrapper::BpeTrainer(trainer), texts.into_iter()).map_err(training)?;
        let json = hub.to_string(false).map_err(training)?;
        Self::parse(json.as_bytes()).map_err(Error::usage)
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind) naming file, field and limit.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
        if !meta.is_file() || meta.len() > MAX_BYTES {
            return Err(Error::input(path, format!("is not a regular file of at most {MAX_BYTES} bytes")));
        }
        let json = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
        Self::parse(&json).map_err(|text| Error::input(path, text))
    }

    /// Writes `tokenizer.json`, atomically.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        write_atomic(path, self.json.as_bytes())
    }

    fn parse(json: &[u8]) -> Result<Self, String> {
        let json = std::str::from_utf8(json).map_err(|e| format!("is not UTF-8 at byte {}", e.valid_up_to()))?;
        check::check(json)?;
        let kind = if json == bytes::json() {
            Kind::Bytes
        } else {
            let hub = catch_unwind(|| tokenizers::Tokenizer::from_bytes(json));
            let mut hub =
                hub.map_err(|_| "the tokenizer cannot be built from this file")?.map_err(|e| e.to_string())?;
            // What a text spells is text, never a special token; length is the model's matter.
            hub.set_encode_special_tokens(true);
            hub.with_truncation(None).map_err(|e| e.to_string())?.with_padding(None);
            Kind::Hub(Arc::new(hub))
        };
        Ok(Tokenizer { kind, json: json.into() })
    }

    /// Number of entries of the vocabulary, special tokens included.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Bytes => 258,
            Kind::Hub(hub) => hub.get_vocab_size(true),
        }
    }

    /// The tokens of a text, at most `max_length`; what looks like a special token in the text is encoded as text. Tokens
    /// that the file's own template adds around every text are included.
    ///
    /// # Errors
    /// When a pattern of the file cannot be applied to the text.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Vec<u32>, Error> {
        let mut ids = match &self.kind {
            Kind::Bytes => text.bytes().take(max_length).map(u32::from).collect(),
            Kind::Hub(hub) => {
                let encoded = catch_unwind(AssertUnwindSafe(|| hub.encode_fast(text, true)));
                let fault = |cause: &str| Error::usage(format!("the tokenizer cannot encode this text: {cause}"));
                let encoded = encoded.map_err(|_| fault("a pattern backtracks too often"))?;
                encoded.map_err(|e| fault(&e.to_string()))?.get_ids().to_vec()
            }
        };
        ids.truncate(max_length);
        Ok(ids)
    }

    /// The text of tokens without special ones; what is not UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// When the decoder of the file fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        match &self.kind {
            Kind::Bytes => {
                let bytes: Vec<u8> = ids.iter().filter_map(|id| u8::try_from(*id).ok()).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Kind::Hub(hub) => {
                let text = hub.decode(ids, true);
                text.map_err(|e| Error::usage(format!("the tokenizer cannot decode these tokens: {e}")))
            }
        }
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => [(PAD, 256), (END, 257)].iter().find(|(name, _)| *name == token).map(|(_, id)| *id),
            Kind::Hub(hub) => hub.token_to_id(token),
        }
    }

    /// The token that stands for an empty text: padding, else unknown, else 0.
    pub fn filler(&self) -> u32 {
        [PAD, "[PAD]", "<pad>", "<unk>", "[UNK]"].iter().find_map(|token| self.id(token)).unwrap_or(0)
    }

    /// The token that separates texts, if the vocabulary has one.
    pub fn end(&self) -> Option<u32> {
        [END, "</s>", "<|endoftext|>", "<|end_of_text|>", "[SEP]"].iter().find_map(|token| self.id(token))
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} entries)", self.vocab_size())
    }
}

fn training(cause: tokenizers::Error) -> Error {
    Error::usage(format!("the tokenizer cannot be trained on these texts: {cause}"))
}
