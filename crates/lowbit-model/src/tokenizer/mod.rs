//! Texts to tokens: bytes, a `tokenizer.json` of the Hub, a sentencepiece or tiktoken `tokenizer.model`, or the
//! vocabulary of a GGUF file.

use crate::Error;
use crate::container::{read_small, show};
use hub::{Hub, PairContent};
use lowbit_base::file;
use lowbit_base::panics::caught;
use names::{Name, Names, Said};
use pieces::Pieces;
pub(crate) use special::{Special, keys as special_keys};
use spm::{Space, Spm, Use};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::Lowercase;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, models::TrainerWrapper};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl};

mod bpe;
mod bytes;
mod check;
mod directory;
mod gguf;
mod hub;
mod names;
mod pieces;
mod pre;
mod protobuf;
mod sentencepiece;
mod settings;
mod special;
mod spm;
mod tiktoken;

pub(crate) use gguf::{variable_fields, variables as variables_of_gguf};
pub(crate) use settings::{CONFIG as SETTINGS_FILE, Settings, Templates};

/// Most entries of a vocabulary.
const MAX_VOCABULARY: usize = 1 << 20;
/// Largest file, bytes, compressed or not.
const MAX_BYTES: u64 = 128 << 20;
/// Stands for an empty text and fills what must be filled.
const PAD: &str = "<|pad|>";
/// Separates texts: before the first token and after the last.
const END: &str = "<|end|>";
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
    /// Added tokens with switches; others have none.
    pub added: Vec<Name>,
    /// Where sentencepiece puts a space before a text.
    pub space: Space,
    /// Whether sentencepiece makes one space of several and drops those at the ends.
    pub squeeze: bool,
}

/// Two texts as one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairTokens {
    /// Ids of the tokens, `[tokens]`.
    pub ids: Vec<u32>,
    /// Segment of each token, `[tokens]`.
    pub types: Vec<u32>,
}

/// Turns texts into tokens and back. Cloning is cheap.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    kind: Implementation,
    pieces: Pieces,
    /// One line for each part of the file that is ignored.
    notices: Vec<String>,
    /// What a GGUF file says beside.
    listed: Option<Listed>,
    /// The content of `tokenizer.json`, where it was read or written before.
    json: OnceLock<String>,
}

/// What a GGUF file says of a vocabulary and a `tokenizer.json` has no place for.
struct Listed {
    /// `tokenizer.ggml.pre`.
    pre: String,
    /// `tokenizer.ggml.token_type`.
    uses: Vec<Use>,
}

enum Implementation {
    /// Token `b` is the byte `b`; then the pad and the end token.
    Bytes(Names),
    Hub(Box<Hub>),
    Spm(Box<Spm>),
}

/// A tokenizer of the Hub's library whose model is byte-pair encoding.
type BpeTokenizer = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

impl Tokenizer {
    /// One token per byte, then `<|pad|>` (256) and `<|end|>` (257).
    pub fn bytes() -> Self {
        let mut pieces = Pieces::default();
        (0..=255).for_each(|byte| pieces.push(&[byte]));
        [PAD, END].iter().for_each(|name| pieces.push_control(name));
        let names = Names::new([PAD, END].iter().zip(256..).map(|(name, id)| Name::plain(name, id)).collect());
        Self::of(Implementation::Bytes(names), pieces, OnceLock::new(), Vec::new())
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
        if !starts_threads() {
            tokenizers::parallelism::set_parallelism(false);
        }
        let mut hub = tokenizers::Tokenizer::new(BPE::default());
        if lowercase {
            hub.with_normalizer(Some(Lowercase)).map_err(training)?;
        }
        let level = ByteLevel::default().add_prefix_space(false);
        hub.with_pre_tokenizer(Some(level)).with_decoder(Some(level));
        hub.train(&mut TrainerWrapper::BpeTrainer(trainer), texts.into_iter()).map_err(training)?;
        let json = hub.to_string(false).map_err(training)?;
        Self::parse(json.as_bytes(), None).map_err(Error::usage)
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
        Self::read_with(path, file, None)
    }

    /// The same with the settings that stand beside it.
    fn read_with(path: &Path, file: &[u8], settings: Option<&Settings>) -> Result<Self, Error> {
        if let Some(text) = crate::container::foreign::pointer(file) {
            return Err(Error::input(path, text));
        }
        let unpacked = if file.starts_with(&ZSTD) { unpack(file).map(Some) } else { Ok(None) };
        let parsed = unpacked.and_then(|unpacked| Self::parse(unpacked.as_deref().unwrap_or(file), settings));
        parsed.map_err(|text| Error::input(path, text)).map(|tokenizer| tokenizer.at(path))
    }

    /// Names the file in notices.
    fn at(mut self, path: &Path) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.notices.iter_mut().for_each(|text| *text = format!("{}: {text}", path.display()));
        }
        self
    }

    /// One line for each part of its file that is ignored.
    pub fn notices(&self) -> &[String] {
        &self.inner.notices
    }

    /// Writes the content of [`Tokenizer::file_name`] to a path, atomically.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        file::replace(path, &self.content()?)
    }

    /// The content of its file.
    fn content(&self) -> Result<Vec<u8>, Error> {
        match &self.inner.kind {
            Implementation::Spm(spm) => Ok(sentencepiece::write(&spm.vocabulary)),
            _ => Ok(self.json()?.as_bytes().to_vec()),
        }
    }

    /// Its file as text.
    ///
    /// # Errors
    /// When its file is none: that of sentencepiece.
    pub(crate) fn text(&self) -> Result<String, Error> {
        match &self.inner.kind {
            Implementation::Spm(_) => {
                Err(Error::usage("cannot hold a tokenizer of sentencepiece, which is no text: write a directory"))
            }
            _ => Ok(self.json()?.to_string()),
        }
    }

    /// The name of its file in a model directory: `tokenizer.model` for sentencepiece, `tokenizer.json` for all else.
    pub fn file_name(&self) -> &'static str {
        match self.inner.kind {
            Implementation::Spm(_) => "tokenizer.model",
            _ => "tokenizer.json",
        }
    }

    /// # Errors
    /// A sentence naming field, value and limit.
    fn parse(file: &[u8], settings: Option<&Settings>) -> Result<Self, String> {
        if tiktoken::is(file) {
            let pre = pre::find("llama-bpe")?;
            let mut vocabulary = tiktoken::parse(file)?;
            settings.map_or(Ok(()), |settings| settings.extend(&mut vocabulary))?;
            return guarded(|| Self::of_hub(bpe::build(&vocabulary, pre)?, OnceLock::new(), Vec::new()));
        }
        // A sentencepiece model begins with its first piece, field 1.
        if file.first() == Some(&0x0a)
            && std::str::from_utf8(file).map_or(true, |text| !text.trim_start().starts_with('{'))
        {
            let mut vocabulary = sentencepiece::parse(file)?;
            settings.map_or(Ok(()), |settings| settings.extend(&mut vocabulary))?;
            return Self::of_spm(vocabulary);
        }
        let json = std::str::from_utf8(file).map_err(|e| format!("is not UTF-8 at byte {}", e.valid_up_to()))?;
        let checked = check::check(json)?;
        if json == bytes::json() {
            return Ok(Self::bytes());
        }
        guarded(|| {
            // Where the kind of the model is known, it is read without a copy of its content.
            let hub = match checked.bpe {
                true => serde_json::from_str::<BpeTokenizer>(json).map(tokenizers::Tokenizer::from),
                false => serde_json::from_str(json),
            };
            let mut hub = hub.map_err(|e| e.to_string())?;
            let drops = without_dropout(&mut hub);
            let changed = settings.map_or(Ok(false), |settings| settings.apply(&mut hub))?;
            let json = if drops || changed { OnceLock::new() } else { OnceLock::from(json.to_string()) };
            Self::of_hub(hub, json, checked.notices)
        })
    }

    /// The tokenizer of a vocabulary in a GGUF file, `model` and `pre` being its `tokenizer.ggml.model` and `.pre`.
    ///
    /// # Errors
    /// A sentence naming token and fault.
    pub(crate) fn from_vocabulary(model: &str, pre: &str, mut vocabulary: Vocabulary) -> Result<Self, String> {
        match model {
            "llama" => {
                // llama.cpp takes these out of a text before sentencepiece sees it.
                let user = vocabulary.uses.iter_mut().filter(|usage| **usage == Use::User);
                user.for_each(|usage| *usage = Use::Added);
                Self::of_spm(vocabulary)
            }
            "gpt2" => guarded(|| {
                let hub = bpe::build(&vocabulary, pre::find(pre)?)?;
                let mut tokenizer = Self::of_hub(hub, OnceLock::new(), Vec::new())?;
                if let Some(inner) = Arc::get_mut(&mut tokenizer.inner) {
                    inner.listed = Some(Listed { pre: pre.into(), uses: vocabulary.uses });
                }
                Ok(tokenizer)
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
        if let Implementation::Spm(spm) = &self.inner.kind {
            return Ok(("llama", "default", spm.vocabulary.clone()));
        }
        let file = serde_json::from_str(self.json()?).map_err(|e| Error::usage(format!("tokenizer: {e}")))?;
        let (mut vocabulary, pre) =
            bpe::vocabulary_of(&file).map_err(|text| Error::usage(format!("tokenizer: {text}")))?;
        vocabulary.eos = vocabulary.eos.or_else(|| self.end());
        let listed = self.inner.listed.as_ref();
        if let Some(listed) = listed {
            vocabulary.uses.clone_from(&listed.uses);
        }
        Ok(("gpt2", listed.map_or(pre.names[0], |listed| &listed.pre), vocabulary))
    }

    fn of(kind: Implementation, pieces: Pieces, json: OnceLock<String>, notices: Vec<String>) -> Self {
        Tokenizer { inner: Arc::new(Inner { kind, pieces, json, notices, listed: None }) }
    }

    fn of_spm(vocabulary: Vocabulary) -> Result<Self, String> {
        let spm = Spm::new(vocabulary)?;
        let pieces = spm.pieces();
        Ok(Self::of(Implementation::Spm(Box::new(spm)), pieces, OnceLock::new(), Vec::new()))
    }

    fn of_hub(hub: tokenizers::Tokenizer, json: OnceLock<String>, notices: Vec<String>) -> Result<Self, String> {
        let pieces = Pieces::of_hub(&hub);
        let hub = Hub::new(hub, pieces.has_bytes())?;
        Ok(Self::of(Implementation::Hub(Box::new(hub)), pieces, json, notices))
    }

    /// The content of `tokenizer.json`.
    fn json(&self) -> Result<&str, Error> {
        if self.inner.json.get().is_none() {
            let json = match &self.inner.kind {
                Implementation::Bytes(_) => bytes::json(),
                Implementation::Hub(hub) => {
                    hub.library.to_string(false).map_err(|e| Error::usage(format!("tokenizer: {e}")))?
                }
                Implementation::Spm(_) => return Err(Error::usage("a sentencepiece vocabulary has no tokenizer.json")),
            };
            let _ = self.inner.json.set(json);
        }
        Ok(self.inner.json.get().expect("just set"))
    }

    /// Number of entries of the vocabulary, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.pieces.len()
    }

    /// The tokens of a text, at most `max_length`. What spells an added token of the vocabulary, special or not, is text, unless
    /// it is a single character or nothing but spaces. Tokens that the model wants around every text are included, also where
    /// the text is cut.
    ///
    /// # Errors
    /// When a pattern of the file cannot be applied to the text.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Vec<u32>, Error> {
        let [mut ids, after] = self.around();
        let room = max_length.saturating_sub(after.len());
        self.append(text, &Said::all(text.len()), room, &mut ids)?;
        ids.truncate(room);
        ids.extend(after);
        ids.truncate(max_length);
        Ok(ids)
    }

    /// Two texts as one sequence of at most `max_length` tokens; the longer text is cut, as transformers does. `None` where the
    /// vocabulary says nothing of pairs.
    ///
    /// # Errors
    /// When a pattern of the file cannot be applied to a text.
    pub fn encode_pair(&self, texts: [&str; 2], max_length: usize) -> Result<Option<PairTokens>, Error> {
        let Implementation::Hub(hub) = &self.inner.kind else { return Ok(None) };
        let Some(parts) = &hub.pair else { return Ok(None) };
        let mut tokens = [Vec::new(), Vec::new()];
        for (tokens, text) in tokens.iter_mut().zip(texts) {
            hub.encode(text, &Said::all(text.len()), max_length, tokens)?;
        }
        let around = parts.iter().map(|part| if let PairContent::Tokens(ids) = &part.content { ids.len() } else { 0 });
        let lengths = share(max_length.saturating_sub(around.sum()), [tokens[0].len(), tokens[1].len()]);
        let mut pair = PairTokens::default();
        for part in parts {
            match &part.content {
                PairContent::Text(which) => pair.ids.extend(&tokens[*which][..lengths[*which]]),
                PairContent::Tokens(between) => pair.ids.extend(between),
            }
            pair.types.resize(pair.ids.len(), part.segment);
        }
        pair.ids.truncate(max_length);
        pair.types.truncate(max_length);
        Ok(Some(pair))
    }

    /// The tokens of a text made of parts, without what [`Tokenizer::encode`] puts around. In a part marked `true` the names of
    /// added tokens become those tokens; a name that touches another part is text.
    ///
    /// # Errors
    /// When a pattern of the file cannot be applied to the text.
    pub fn encode_parts(&self, parts: &[(&str, bool)]) -> Result<Vec<u32>, Error> {
        let ((text, said), mut ids) = (Said::of(parts), Vec::new());
        self.append(&text, &said, usize::MAX, &mut ids)?;
        Ok(ids)
    }

    /// Tokens that a text in parts has at least, by the length of its longest token; 0 where the steps of the tokenizer may leave out
    /// any part of a text. Takes no time and no memory.
    pub(crate) fn fewest_tokens<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> usize {
        let (names, shrinks) = match &self.inner.kind {
            Implementation::Bytes(names) => (std::slice::from_ref(names), Some(1)),
            Implementation::Hub(hub) => (&hub.names[..], hub.shrinks),
            Implementation::Spm(spm) => (std::slice::from_ref(&spm.names), spm.covers().then_some(1)),
        };
        let Some(shrinks) = shrinks else { return 0 };
        let bytes = |part: &str| match names.iter().any(Names::strip) {
            true => part.split_whitespace().map(str::len).sum(),
            false => part.len(),
        };
        let longest = names.iter().map(Names::longest).fold(self.inner.pieces.longest(), usize::max);
        parts.into_iter().map(bytes).sum::<usize>().div_ceil(shrinks * longest.max(1))
    }

    /// Appends the tokens of a text until there are `limit` or a few more.
    fn append(&self, text: &str, said: &Said, limit: usize, ids: &mut Vec<u32>) -> Result<(), Error> {
        match &self.inner.kind {
            Implementation::Hub(hub) => hub.encode(text, said, limit, ids)?,
            Implementation::Spm(spm) => spm.encode(text, said, limit, ids)?,
            Implementation::Bytes(names) => {
                let found = names.find(text, |from, to| said.touches(from, to));
                let mut at = 0;
                for name in &found {
                    ids.extend(text[at..name.start].bytes().map(u32::from));
                    ids.push(name.id);
                    at = name.end;
                }
                ids.extend(text[at..].bytes().take(limit.saturating_sub(ids.len())).map(u32::from));
            }
        }
        Ok(())
    }

    /// Tokens before and after every text.
    fn around(&self) -> [Vec<u32>; 2] {
        match &self.inner.kind {
            Implementation::Bytes(_) => [Vec::new(), Vec::new()],
            Implementation::Hub(hub) => hub.around.clone(),
            Implementation::Spm(spm) => {
                let v = &spm.vocabulary;
                [v.bos.filter(|_| v.add_bos), v.eos.filter(|_| v.add_eos)].map(|id| id.into_iter().collect())
            }
        }
    }

    /// The text of tokens without special ones; what is not UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// When the decoder of the file fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        if let Implementation::Hub(hub) = &self.inner.kind {
            let fault = |cause: String| Error::usage(format!("the tokenizer cannot decode these tokens: {cause}"));
            let text = caught(|| hub.library.decode(ids, true)).ok_or_else(|| fault(hub::FAILS.into()))?;
            return text.map_err(|e| fault(e.to_string()));
        }
        let mut bytes = Vec::new();
        match &self.inner.kind {
            Implementation::Spm(spm) => spm.decode(&self.inner.pieces, ids, &mut bytes),
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
        self.around()[0].first().copied()
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &self.inner.kind {
            Implementation::Bytes(names) => names.id(token),
            Implementation::Hub(hub) => hub.library.token_to_id(token),
            Implementation::Spm(spm) => spm.id(token),
        }
    }

    /// The spelling of a token in the vocabulary.
    pub(crate) fn name(&self, id: u32) -> Option<String> {
        match &self.inner.kind {
            Implementation::Bytes(_) => [PAD, END].get((id as usize).wrapping_sub(256)).map(|name| name.to_string()),
            Implementation::Hub(hub) => hub.library.id_to_token(id),
            Implementation::Spm(spm) => spm.vocabulary.tokens.get(id as usize).cloned(),
        }
    }

    /// The token that stands for an empty text: padding, else unknown, else 0.
    pub fn padding(&self) -> u32 {
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

/// How many of their tokens two texts keep in `room`: the longer one is cut first (`longest_first` of transformers).
fn share(room: usize, [a, b]: [usize; 2]) -> [usize; 2] {
    if a + b <= room {
        return [a, b];
    }
    let (short, long) = (a.min(b), a.max(b));
    let mut kept = [short, if short > room { short } else { short.max(room - short) }];
    if kept[0] + kept[1] > room {
        kept = [room / 2, room / 2 + room % 2];
    }
    kept[1] = kept[1].min(long);
    if a > b { [kept[1], kept[0]] } else { kept }
}

/// Whether the system starts as many threads at once as the library does, which panics where it does not.
fn starts_threads() -> bool {
    let count = std::thread::available_parallelism().map_or(1, |n| n.get());
    let gate = Mutex::new(());
    let closed = gate.lock();
    std::thread::scope(|scope| {
        let wait = || drop(gate.lock());
        let all = (0..count).all(|_| std::thread::Builder::new().spawn_scoped(scope, wait).is_ok());
        drop(closed);
        all
    })
}

fn training(cause: tokenizers::Error) -> Error {
    Error::usage(format!("the tokenizer cannot be trained on these texts: {cause}"))
}

/// Switches off the random leaving out of merges; whether there was any.
fn without_dropout(hub: &mut tokenizers::Tokenizer) -> bool {
    let tokenizers::ModelWrapper::BPE(model) = hub.get_model() else { return false };
    if model.dropout.is_none() {
        return false;
    }
    let mut model = model.clone();
    model.dropout = None;
    hub.with_model(model);
    true
}

/// The Hub's library panics on some files.
fn guarded(build: impl FnOnce() -> Result<Tokenizer, String>) -> Result<Tokenizer, String> {
    caught(build).unwrap_or_else(|| Err("the tokenizer cannot be built from this file: fetch it again".into()))
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
