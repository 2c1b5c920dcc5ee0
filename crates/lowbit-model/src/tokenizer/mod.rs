//! Texts to tokens: bytes, a `tokenizer.json` of the Hub, a sentencepiece or tiktoken `tokenizer.model`, or the
//! vocabulary of a GGUF file.

use crate::Error;
use crate::container::{read_small, show};
use lowbit_base::file;
use pieces::Pieces;
pub(crate) use special::{Special, keys as special_keys};
use spm::{Spm, Use};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::Lowercase;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, models::TrainerWrapper};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl};

mod bpe;
mod bytes;
mod check;
mod gguf;
mod pieces;
mod pre;
mod protobuf;
mod sentencepiece;
mod special;
mod spm;
mod tiktoken;

/// Most entries of a vocabulary.
const MAX_VOCABULARY: usize = 1 << 20;
/// Largest file, bytes, compressed or not.
const MAX_BYTES: u64 = 128 << 20;
/// Stands for an empty text and fills what must be filled.
const PAD: &str = "<|pad|>";
/// Separates texts: before the first token and after the last.
const END: &str = "<|end|>";
/// File names of a tokenizer in a model directory, in the order they are looked for.
const FILES: &[&str] = &["tokenizer.json", "tokenizer.model", "tokenizer.json.zst", "tokenizer.model.zst"];
/// How a file compressed with zstd begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A vocabulary as a list, with what the kinds of lists need beside it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vocabulary {
    /// Spelling of each token.
    pub tokens: Vec<String>,
    /// What each token is for.
    pub uses: Vec<Use>,
    /// Scores of sentencepiece, one per token.
    pub scores: Vec<f32>,
    /// Pairs of byte-level BPE, the first merged first.
    pub merges: Vec<(String, String)>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// Whether every text gets the token that begins it.
    pub add_bos: bool,
    /// Whether every text gets the token that ends it.
    pub add_eos: bool,
    /// Whether sentencepiece puts a space before a text.
    pub prefix: bool,
    /// Whether sentencepiece makes one space of several and drops those at the ends.
    pub squeeze: bool,
}

/// Turns texts into tokens and back. Cloning is cheap.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    kind: Kind,
    pieces: Pieces,
    /// The content of `tokenizer.json`, where it was read or written before.
    json: OnceLock<String>,
}

enum Kind {
    /// Token `b` is the byte `b`; then the pad and the end token.
    Bytes,
    Hub(Box<Hub>),
    Spm(Box<Spm>),
}

/// A tokenizer of the Hub's library whose model is byte-pair encoding.
type BpeTokenizer = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A tokenizer of the Hub's library.
struct Hub {
    /// Control tokens in a text are text.
    plain: tokenizers::Tokenizer,
    /// Control tokens in a text are control tokens; made when first asked for.
    marked: OnceLock<tokenizers::Tokenizer>,
    /// What a GGUF file says beside.
    listed: Option<Listed>,
}

/// What a GGUF file says of a vocabulary and a `tokenizer.json` has no place for.
struct Listed {
    /// `tokenizer.ggml.pre`.
    pre: String,
    /// `tokenizer.ggml.token_type`.
    uses: Vec<Use>,
}

impl Tokenizer {
    /// One token per byte, then `<|pad|>` (256) and `<|end|>` (257).
    pub fn bytes() -> Self {
        let mut pieces = Pieces::default();
        (0..=255).for_each(|byte| pieces.push(&[byte]));
        [PAD, END].iter().for_each(|name| pieces.push_control(name));
        Tokenizer { inner: Arc::new(Inner { kind: Kind::Bytes, pieces, json: OnceLock::new() }) }
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

    /// Reads a `tokenizer.json`, or a `tokenizer.model` of sentencepiece or tiktoken, compressed with zstd or not. The content
    /// decides which it is.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind) naming file, field and limit.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::read(path, &read_small(path, MAX_BYTES)?)
    }

    /// Reads the content of such a file; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn read(path: &Path, file: &[u8]) -> Result<Self, Error> {
        if let Some(text) = crate::container::foreign::pointer(file) {
            return Err(Error::input(path, text));
        }
        let unpacked = if file.starts_with(&ZSTD) { unpack(file).map(Some) } else { Ok(None) };
        let parsed = unpacked.and_then(|unpacked| Self::parse(unpacked.as_deref().unwrap_or(file)));
        parsed.map_err(|text| Error::input(path, text))
    }

    /// The file of a tokenizer in a model directory, if it has one.
    pub fn find(directory: &Path) -> Option<PathBuf> {
        FILES.iter().map(|name| directory.join(name)).find(|path| path.exists())
    }

    /// Writes the content of [`Tokenizer::file_name`] to a path, atomically.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        file::replace(path, &self.content()?)
    }

    /// Adds the tokenizer to the files of a model directory, where what another kind of tokenizer left disappears.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save_in(&self, set: &mut file::Set) -> Result<(), Error> {
        FILES.iter().filter(|name| **name != self.file_name()).for_each(|other| set.remove(other));
        set.write(self.file_name(), &self.content()?)
    }

    /// The content of its file.
    fn content(&self) -> Result<Vec<u8>, Error> {
        match &self.inner.kind {
            Kind::Spm(spm) => Ok(sentencepiece::write(&spm.vocabulary)),
            _ => Ok(self.json()?.as_bytes().to_vec()),
        }
    }

    /// The name of its file in a model directory: `tokenizer.model` for sentencepiece, `tokenizer.json` for all else.
    pub fn file_name(&self) -> &'static str {
        match self.inner.kind {
            Kind::Spm(_) => "tokenizer.model",
            _ => "tokenizer.json",
        }
    }

    /// # Errors
    /// A sentence naming field, value and limit.
    fn parse(file: &[u8]) -> Result<Self, String> {
        if tiktoken::is(file) {
            let pre = pre::find("llama-bpe")?;
            return guarded(|| Ok(Self::of_hub(bpe::build(&tiktoken::parse(file)?, pre)?, OnceLock::new(), None)));
        }
        // A sentencepiece model begins with its first piece, field 1.
        if file.first() == Some(&0x0a)
            && std::str::from_utf8(file).map_or(true, |text| !text.trim_start().starts_with('{'))
        {
            return Self::of_spm(sentencepiece::parse(file)?);
        }
        let json = std::str::from_utf8(file).map_err(|e| format!("is not UTF-8 at byte {}", e.valid_up_to()))?;
        let bpe = check::check(json)?;
        if json == bytes::json() {
            return Ok(Self::bytes());
        }
        guarded(|| {
            // Where the kind of the model is known, it is read without a copy of its content.
            let hub = match bpe {
                true => serde_json::from_str::<BpeTokenizer>(json).map(tokenizers::Tokenizer::from),
                false => serde_json::from_str(json),
            };
            let hub = hub.map_err(|e| e.to_string())?;
            Ok(Self::of_hub(hub, OnceLock::from(json.to_string()), None))
        })
    }

    /// The tokenizer of a vocabulary in a GGUF file, `model` and `pre` being its `tokenizer.ggml.model` and `.pre`.
    ///
    /// # Errors
    /// A sentence naming token and fault.
    pub(crate) fn from_vocabulary(model: &str, pre: &str, vocabulary: Vocabulary) -> Result<Self, String> {
        match model {
            "llama" => Self::of_spm(vocabulary),
            "gpt2" => guarded(|| {
                let hub = bpe::build(&vocabulary, pre::find(pre)?)?;
                let listed = Listed { pre: pre.into(), uses: vocabulary.uses };
                Ok(Self::of_hub(hub, OnceLock::new(), Some(listed)))
            }),
            other => Err(format!("`tokenizer.ggml.model` is `{}`; this program reads gpt2 and llama", show(other))),
        }
    }

    /// Whether a text begins with a token when a GGUF file with this `tokenizer.ggml.model` and `.pre` does not say.
    pub(crate) fn adds_bos(model: &str, pre: &str) -> bool {
        model == "llama" || pre::find(pre).is_ok_and(|pre| pre.add_bos)
    }

    /// `tokenizer.ggml.model`, `tokenizer.ggml.pre` and the vocabulary, as a GGUF file holds them.
    ///
    /// # Errors
    /// When GGUF has no place for a part of this tokenizer.
    pub(crate) fn vocabulary(&self) -> Result<(&'static str, &str, Vocabulary), Error> {
        if let Kind::Spm(spm) = &self.inner.kind {
            return Ok(("llama", "default", spm.vocabulary.clone()));
        }
        let file = serde_json::from_str(self.json()?).map_err(|e| Error::usage(format!("tokenizer: {e}")))?;
        let (mut vocabulary, pre) =
            bpe::vocabulary_of(&file).map_err(|text| Error::usage(format!("tokenizer: {text}")))?;
        vocabulary.eos = vocabulary.eos.or_else(|| self.end());
        let listed = if let Kind::Hub(hub) = &self.inner.kind { hub.listed.as_ref() } else { None };
        if let Some(listed) = listed {
            vocabulary.uses.clone_from(&listed.uses);
        }
        Ok(("gpt2", listed.map_or(pre.names[0], |listed| &listed.pre), vocabulary))
    }

    fn of_spm(vocabulary: Vocabulary) -> Result<Self, String> {
        let spm = Spm::new(vocabulary)?;
        let pieces = spm.pieces();
        Ok(Tokenizer { inner: Arc::new(Inner { kind: Kind::Spm(Box::new(spm)), pieces, json: OnceLock::new() }) })
    }

    fn of_hub(mut hub: tokenizers::Tokenizer, json: OnceLock<String>, listed: Option<Listed>) -> Self {
        // Length is the model's matter.
        hub.with_padding(None).with_truncation(None).expect("no truncation is always possible");
        hub.set_encode_special_tokens(true);
        let pieces = Pieces::of_hub(&hub);
        let kind = Kind::Hub(Box::new(Hub { plain: hub, marked: OnceLock::new(), listed }));
        Tokenizer { inner: Arc::new(Inner { kind, pieces, json }) }
    }

    /// The content of `tokenizer.json`.
    fn json(&self) -> Result<&str, Error> {
        if self.inner.json.get().is_none() {
            let json = match &self.inner.kind {
                Kind::Bytes => bytes::json(),
                Kind::Hub(hub) => hub.plain.to_string(false).map_err(|e| Error::usage(format!("tokenizer: {e}")))?,
                Kind::Spm(_) => return Err(Error::usage("a sentencepiece vocabulary has no tokenizer.json")),
            };
            let _ = self.inner.json.set(json);
        }
        Ok(self.inner.json.get().expect("just set"))
    }

    /// Number of entries of the vocabulary, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.pieces.len()
    }

    /// The tokens of a text, at most `max_length`; what looks like a special token in the text is encoded as text. Tokens
    /// that the model wants around every text are included.
    ///
    /// # Errors
    /// When a pattern of the file cannot be applied to the text.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Vec<u32>, Error> {
        let mut ids = match &self.inner.kind {
            Kind::Bytes => text.bytes().take(max_length).map(u32::from).collect(),
            Kind::Hub(hub) => encode_hub(&hub.plain, text, true)?,
            Kind::Spm(spm) => {
                let mut ids: Vec<u32> = self.bos().into_iter().collect();
                spm.encode(text, true, max_length, &mut ids);
                ids.extend(spm.vocabulary.eos.filter(|_| spm.vocabulary.add_eos));
                ids
            }
        };
        ids.truncate(max_length);
        Ok(ids)
    }

    /// The tokens of a text made of parts, without what [`Tokenizer::encode`] puts around. In a part marked `true` the
    /// names of control tokens become those tokens; in the others they are text, also where a name crosses parts.
    ///
    /// # Errors
    /// When a pattern of the file cannot be applied to the text.
    pub fn encode_parts(&self, parts: &[(&str, bool)]) -> Result<Vec<u32>, Error> {
        let whole: String = parts.iter().map(|(text, _)| *text).collect();
        let mut end = 0;
        let plain: Vec<_> = parts
            .iter()
            .filter_map(|(text, marked)| {
                let start = end;
                end += text.len();
                (!marked && !text.is_empty()).then_some((start, end))
            })
            .collect();
        let found = self.inner.pieces.spelled(&whole);
        let forged = found.iter().any(|(start, end, _)| plain.iter().any(|(from, to)| start < to && from < end));
        let mut ids = Vec::new();
        if forged {
            for (text, marked) in parts {
                self.encode_part(text, *marked, &mut ids)?;
            }
        } else {
            self.encode_part(&whole, true, &mut ids)?;
        }
        Ok(ids)
    }

    /// Appends the tokens of a part; a part begins a text when nothing or a control token is before it.
    fn encode_part(&self, text: &str, marked: bool, ids: &mut Vec<u32>) -> Result<(), Error> {
        let found = if marked { self.inner.pieces.spelled(text) } else { Vec::new() };
        if let Kind::Hub(hub) = &self.inner.kind {
            let tokenizer = if found.is_empty() { &hub.plain } else { hub.marked() };
            ids.extend(encode_hub(tokenizer, text, false)?);
            return Ok(());
        }
        let mut at = 0;
        for (start, end, id) in found.into_iter().map(|(s, e, id)| (s, e, Some(id))).chain([(text.len(), 0, None)]) {
            let part = &text[at..start];
            match &self.inner.kind {
                Kind::Spm(spm) => {
                    let begins = ids.last().is_none_or(|id| self.inner.pieces.is_control(*id));
                    spm.encode(part, begins, usize::MAX, ids);
                }
                _ => ids.extend(part.bytes().map(u32::from)),
            }
            ids.extend(id);
            at = end;
        }
        Ok(())
    }

    /// The text of tokens without special ones; what is not UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// When the decoder of the file fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        if let Kind::Hub(hub) = &self.inner.kind {
            let text = hub.plain.decode(ids, true);
            return text.map_err(|e| Error::usage(format!("the tokenizer cannot decode these tokens: {e}")));
        }
        let mut bytes = Vec::new();
        match &self.inner.kind {
            Kind::Spm(spm) => spm.decode(&self.inner.pieces, ids, &mut bytes),
            _ => bytes.extend(ids.iter().filter_map(|id| self.token_bytes(*id)).flatten()),
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes that a token adds to a text that goes on: none for a control token, `None` outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.inner.pieces.get(id)
    }

    /// Whether a token is a control token.
    pub fn is_control(&self, id: u32) -> bool {
        self.inner.pieces.is_control(id)
    }

    /// Names and ids of the control tokens.
    pub fn controls(&self) -> Vec<(&str, u32)> {
        self.inner.pieces.controls()
    }

    /// The token that [`Tokenizer::encode`] puts before every text, if any.
    pub fn bos(&self) -> Option<u32> {
        match &self.inner.kind {
            Kind::Bytes => None,
            Kind::Hub(hub) => encode_hub(&hub.plain, "", true).ok()?.first().copied(),
            Kind::Spm(spm) => spm.vocabulary.bos.filter(|_| spm.vocabulary.add_bos),
        }
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &self.inner.kind {
            Kind::Bytes => [(PAD, 256), (END, 257)].iter().find(|(name, _)| *name == token).map(|(_, id)| *id),
            Kind::Hub(hub) => hub.plain.token_to_id(token),
            Kind::Spm(spm) => spm.id(token),
        }
    }

    /// The spelling of a token in the vocabulary.
    pub(crate) fn name(&self, id: u32) -> Option<String> {
        match &self.inner.kind {
            Kind::Bytes => [PAD, END].get((id as usize).wrapping_sub(256)).map(|name| name.to_string()),
            Kind::Hub(hub) => hub.plain.id_to_token(id),
            Kind::Spm(spm) => spm.vocabulary.tokens.get(id as usize).cloned(),
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

impl Hub {
    fn marked(&self) -> &tokenizers::Tokenizer {
        self.marked.get_or_init(|| {
            let mut hub = self.plain.clone();
            hub.set_encode_special_tokens(false);
            hub
        })
    }
}

fn encode_hub(hub: &tokenizers::Tokenizer, text: &str, around: bool) -> Result<Vec<u32>, Error> {
    let encoded = catch_unwind(AssertUnwindSafe(|| hub.encode_fast(text, around)));
    let fault = |cause: &str| Error::usage(format!("the tokenizer cannot encode this text: {cause}"));
    let encoded = encoded.map_err(|_| fault("a pattern backtracks too often"))?;
    Ok(encoded.map_err(|e| fault(&e.to_string()))?.get_ids().to_vec())
}

/// The Hub's library panics on some files.
fn guarded(build: impl FnOnce() -> Result<Tokenizer, String>) -> Result<Tokenizer, String> {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err("the tokenizer cannot be built from this file".into()))
}

/// The content of a file compressed with zstd, if it is not larger than a file may be.
fn unpack(file: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let broken = |e: std::io::Error| format!("is damaged zstd: {e}; fetch the file again");
    let stream = zstd::stream::read::Decoder::new(file).map_err(broken)?;
    stream.take(MAX_BYTES + 1).read_to_end(&mut out).map_err(broken)?;
    match out.len() as u64 > MAX_BYTES {
        true => Err(format!("holds more than {MAX_BYTES} bytes")),
        false => Ok(out),
    }
}
