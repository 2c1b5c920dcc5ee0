//! `tokenizer.model` of sentencepiece: a protocol buffer (`sentencepiece_model.proto`).

use super::names::Name;
use super::protobuf::{Fields, Message, Wire};
use super::spm::{Space, Use};
use super::{MAX_VOCABULARY, Vocabulary};
use crate::container::show;
use std::collections::HashMap;

/// Extension of a piece: it is an added token, with the switches below.
const ADDED: u64 = 200;
const SINGLE_WORD: u64 = 1;
const LSTRIP: u64 = 2;
const RSTRIP: u64 = 4;
/// Extension of the normalizer: the number of a [`Space`].
const SPACE: u64 = 200;
/// Extension of the trainer: every text ends with the token that ends texts.
const ADD_EOS: u64 = 200;
/// The type of model that merges pairs by score.
const BPE: u64 = 2;
const TYPES: &[&str] = &["", "Unigram", "BPE", "Word", "Char"];

/// Reads a model.
///
/// # Errors
/// A sentence naming the piece or field and its value.
pub(super) fn parse(file: &[u8]) -> Result<Vocabulary, String> {
    let mut v = Vocabulary { space: Space::Each, squeeze: true, ..Vocabulary::default() };
    // Defaults of the definition.
    let (mut kind, mut bos, mut eos) = (1, 1i64, 2i64);
    for field in Fields::of(file) {
        match field.map_err(broken)? {
            (1, Wire::Bytes(piece)) => {
                if v.tokens.len() == MAX_VOCABULARY {
                    return Err(format!("has more than {MAX_VOCABULARY} pieces"));
                }
                let piece = piece_of(piece, v.tokens.len())?;
                v.tokens.push(piece.text);
                v.scores.push(piece.score);
                v.uses.push(piece.usage);
                v.added.extend(piece.added);
            }
            (2, Wire::Bytes(trainer)) => {
                for field in Fields::of(trainer) {
                    match field.map_err(broken)? {
                        (3, Wire::Varint(n)) => kind = n,
                        (41, Wire::Varint(n)) => bos = i64::from(n as i32),
                        (42, Wire::Varint(n)) => eos = i64::from(n as i32),
                        (ADD_EOS, Wire::Varint(n)) => v.add_eos = n != 0,
                        _ => {}
                    }
                }
            }
            (3, Wire::Bytes(normalizer)) => normalizer_of(normalizer, &mut v)?,
            _ => {}
        }
    }
    if kind != BPE {
        let name = usize::try_from(kind).ok().and_then(|kind| TYPES.get(kind)).unwrap_or(&"unknown");
        return Err(format!("`trainer_spec.model_type` is {kind} ({name}); this program reads 2 (BPE)"));
    }
    let within = |id: i64| u32::try_from(id).ok().filter(|id| (*id as usize) < v.tokens.len());
    (v.bos, v.eos, v.add_bos) = (within(bos), within(eos), within(bos).is_some());
    v.add_eos &= v.eos.is_some();
    Ok(v)
}

fn broken(text: String) -> String {
    format!("is no sentencepiece model: {text}")
}

struct Piece {
    text: String,
    score: f32,
    usage: Use,
    added: Option<Name>,
}

fn piece_of(piece: &[u8], id: usize) -> Result<Piece, String> {
    let (mut text, mut score, mut usage, mut switches) = ("", 0.0, 1, None);
    for field in Fields::of(piece) {
        match field.map_err(broken)? {
            (1, Wire::Bytes(bytes)) => {
                text = std::str::from_utf8(bytes).map_err(|_| format!("piece {id} is not UTF-8"))?;
            }
            (2, Wire::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
            (3, Wire::Varint(n)) => usage = n as i64,
            (ADDED, Wire::Varint(n)) => switches = Some(n),
            _ => {}
        }
    }
    if text.is_empty() {
        return Err(format!("piece {id} is empty"));
    }
    let usage = match (Use::of(usage), switches) {
        (Some(Use::User), Some(_)) => Use::Added,
        (Some(usage), _) => usage,
        (None, _) => return Err(format!("piece {id} `{}` has unknown type {usage}", show(text))),
    };
    let added = switches.map(|switches| Name {
        single_word: switches & SINGLE_WORD != 0,
        lstrip: switches & LSTRIP != 0,
        rstrip: switches & RSTRIP != 0,
        ..Name::plain(text, id as u32)
    });
    Ok(Piece { text: text.into(), score, usage, added })
}

fn normalizer_of(normalizer: &[u8], v: &mut Vocabulary) -> Result<(), String> {
    let mut name = String::new();
    for field in Fields::of(normalizer) {
        match field.map_err(broken)? {
            (1, Wire::Bytes(text)) => name = String::from_utf8_lossy(text).into_owned(),
            (2, Wire::Bytes(map)) if !map.is_empty() => {
                let text = format!("`normalizer_spec` has the rules `{}`", show(&name));
                return Err(format!("{text}, which this program does not apply; only `identity` is read"));
            }
            (3, Wire::Varint(0)) => v.space = Space::None,
            (4, Wire::Varint(n)) => v.squeeze = n != 0,
            (SPACE, Wire::Varint(n)) => {
                v.space =
                    Space::of(n).ok_or_else(|| format!("`normalizer_spec` has an unknown place {n} of the space"))?;
            }
            (5, Wire::Varint(0)) => return Err("`normalizer_spec.escape_whitespaces` is false; it must be true".into()),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a model.
pub(super) fn write(v: &Vocabulary) -> Vec<u8> {
    let mut file = Message::default();
    let added: HashMap<u32, &Name> = v.added.iter().map(|name| (name.id, name)).collect();
    for (((text, score), usage), id) in v.tokens.iter().zip(&v.scores).zip(&v.uses).zip(0..) {
        let mut piece = Message::default();
        piece.bytes(1, text.as_bytes());
        piece.float(2, *score);
        piece.varint(3, i64::from(usage.number()));
        let switch = |on: bool, bit: u64| if on { bit } else { 0 };
        let switches = added.get(&id).map(|name| {
            switch(name.single_word, SINGLE_WORD) | switch(name.lstrip, LSTRIP) | switch(name.rstrip, RSTRIP)
        });
        if let Some(switches) = switches.or((*usage == Use::Added).then_some(0)) {
            piece.varint(ADDED, switches as i64);
        }
        file.bytes(1, &piece.0);
    }
    let id = |id: Option<u32>| id.map_or(-1, i64::from);
    let find = |usage: Use| v.uses.iter().position(|u| *u == usage).map(|id| id as u32);
    let mut trainer = Message::default();
    trainer.varint(3, BPE as i64);
    trainer.varint(4, v.tokens.len() as i64);
    trainer.varint(35, i64::from(v.uses.contains(&Use::Byte)));
    trainer.varint(40, id(find(Use::Unknown)));
    trainer.varint(41, id(v.bos.filter(|_| v.add_bos)));
    trainer.varint(42, id(v.eos));
    trainer.varint(43, -1);
    if v.add_eos {
        trainer.varint(ADD_EOS, 1);
    }
    file.bytes(2, &trainer.0);
    let mut normalizer = Message::default();
    normalizer.bytes(1, b"identity");
    normalizer.varint(3, i64::from(v.space != Space::None));
    normalizer.varint(4, i64::from(v.squeeze));
    normalizer.varint(5, 1);
    if matches!(v.space, Space::Missing | Space::First) {
        normalizer.varint(SPACE, v.space as i64);
    }
    file.bytes(3, &normalizer.0);
    file.0
}
