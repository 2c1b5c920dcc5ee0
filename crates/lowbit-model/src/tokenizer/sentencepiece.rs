//! `tokenizer.model` of sentencepiece: a protocol buffer (`sentencepiece_model.proto`).

use super::protobuf::{Fields, Message, Wire};
use super::spm::Use;
use super::{MAX_VOCABULARY, Vocabulary};
use crate::container::show;

/// The type of model that merges pairs by score.
const BPE: u64 = 2;
const TYPES: &[&str] = &["", "Unigram", "BPE", "Word", "Char"];

/// Reads a model.
///
/// # Errors
/// A sentence naming the piece or field and its value.
pub(super) fn parse(file: &[u8]) -> Result<Vocabulary, String> {
    let mut v = Vocabulary { prefix: true, squeeze: true, ..Vocabulary::default() };
    // Defaults of the definition.
    let (mut kind, mut bos, mut eos) = (1, 1i64, 2i64);
    for field in Fields::of(file) {
        match field.map_err(broken)? {
            (1, Wire::Bytes(piece)) => {
                if v.tokens.len() == MAX_VOCABULARY {
                    return Err(format!("has more than {MAX_VOCABULARY} pieces"));
                }
                let (text, score, usage) = piece_of(piece, v.tokens.len())?;
                v.tokens.push(text);
                v.scores.push(score);
                v.uses.push(usage);
            }
            (2, Wire::Bytes(trainer)) => {
                for field in Fields::of(trainer) {
                    match field.map_err(broken)? {
                        (3, Wire::Varint(n)) => kind = n,
                        (41, Wire::Varint(n)) => bos = i64::from(n as i32),
                        (42, Wire::Varint(n)) => eos = i64::from(n as i32),
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
    Ok(v)
}

fn broken(text: String) -> String {
    format!("is no sentencepiece model: {text}")
}

fn piece_of(piece: &[u8], id: usize) -> Result<(String, f32, Use), String> {
    let (mut text, mut score, mut usage) = ("", 0.0, 1);
    for field in Fields::of(piece) {
        match field.map_err(broken)? {
            (1, Wire::Bytes(bytes)) => {
                text = std::str::from_utf8(bytes).map_err(|_| format!("piece {id} is not UTF-8"))?;
            }
            (2, Wire::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
            (3, Wire::Varint(n)) => usage = n as i64,
            _ => {}
        }
    }
    if text.is_empty() {
        return Err(format!("piece {id} is empty"));
    }
    let usage = Use::of(usage).ok_or_else(|| format!("piece {id} `{}` has unknown type {usage}", show(text)))?;
    Ok((text.into(), score, usage))
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
            (3, Wire::Varint(n)) => v.prefix = n != 0,
            (4, Wire::Varint(n)) => v.squeeze = n != 0,
            (5, Wire::Varint(0)) => return Err("`normalizer_spec.escape_whitespaces` is false; it must be true".into()),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a model.
pub(super) fn write(v: &Vocabulary) -> Vec<u8> {
    let mut file = Message::default();
    for ((text, score), usage) in v.tokens.iter().zip(&v.scores).zip(&v.uses) {
        let mut piece = Message::default();
        piece.bytes(1, text.as_bytes());
        piece.float(2, *score);
        piece.varint(3, *usage as i64);
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
    file.bytes(2, &trainer.0);
    let mut normalizer = Message::default();
    normalizer.bytes(1, b"identity");
    normalizer.varint(3, i64::from(v.prefix));
    normalizer.varint(4, i64::from(v.squeeze));
    normalizer.varint(5, 1);
    file.bytes(3, &normalizer.0);
    file.0
}
