//! Pre-tokenizers of byte-level BPE: how a text is split before pairs are merged. [`PRES`] is the list.
//!
//! The patterns are those of the `tokenizer.json` of the models; llama.cpp, whose names these are, approximates those with
//! classes of letters by case (`gpt-4o`, `tekken`, `kimi-k2`).

use crate::container::show;
use lowbit_base::alternatives;
use serde_json::{Value, json};

/// How a text is split before pairs are merged.
#[derive(Debug)]
pub(super) struct Pre {
    /// Names in `tokenizer.ggml.pre`; the first is the one to write.
    pub names: &'static [&'static str],
    /// Regular expressions, each applied to what the ones before left.
    pub patterns: &'static [&'static str],
    /// Whether what is a token as a whole is taken without merging.
    pub whole: bool,
    /// Whether a text begins with the first token when the file does not say.
    pub add_bos: bool,
}

/// Endings of English words, in small and capital letters.
macro_rules! endings {
    () => {
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    };
}
/// Words with at most one character before them, digits by `$digits`, punctuation with line ends after it, spaces.
macro_rules! words {
    ($digits:literal) => {
        concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|", $digits, r"| ?[^\s\p{L}\p{N}]+[\r\n]*", spaces!())
    };
}
macro_rules! spaces {
    () => {
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    };
}
/// Words that begin anew at a capital letter, with `$tail` after each.
macro_rules! cased {
    ($not:literal, $tail:expr, $digits:literal, $after:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}",
            $not,
            r"]*[\p{Ll}\p{Lm}\p{Lo}\p{M}",
            $not,
            "]+",
            $tail,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}",
            $not,
            r"]+[\p{Ll}\p{Lm}\p{Lo}\p{M}",
            $not,
            "]*",
            $tail,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+",
            $after,
            spaces!()
        )
    };
}
/// Words, among them those behind one ASCII punctuation mark; punctuation with what may follow, `$after` being the rest.
macro_rules! marked {
    ($after:expr) => {
        concat!(
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"##,
            $after
        )
    };
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = words!(r"\p{N}{1,3}");
const QWEN2: &str = words!(r"\p{N}");
const O200K: &str = cased!("", concat!(endings!(), "?"), r"\p{N}{1,3}", r"[\r\n/]*");
const BLOOM: &str = " ?[^(\\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+";
const CJK: &str = "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
const CJK_OF_DEEPSEEK: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const ASIAN: &str = concat!(
    "[\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{8c48}-\u{faff}\u{3040}-\u{309f}\u{30a0}-\u{30ff}\u{ff65}-\u{ff9f}\u{2f00}-\u{2fdf}",
    "\u{e40}-\u{e7f}\u{e80}-\u{eff}\u{1780}-\u{17ff}\u{1000}-\u{109f}\u{aa60}-\u{aa7f}\u{a9e0}-\u{a9ff}\u{ac00}-\u{d7af}\u{1100}-\u{11ff}]+",
);
const YOUTU: &str = concat!(
    "[\u{ac00}-\u{d7a3}\u{3131}-\u{318e}]+|[\u{ff01}\u{2026}\u{201c}\u{201d}\u{2018}\u{2019}\u{2014}\u{ff1a}\u{ff1b}\u{ff0c}\u{3001}-\u{303f}\u{fe30}-\u{fe4f}]+",
    "|[\u{3105}-\u{312f}]+|[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
);
const LINES: &str = r"[^\n]+|[\n]+";
const DIGIT: &str = r"\p{N}";
const THREE_DIGITS: &str = r"\p{N}{1,3}";
/// Letters of alphabets with two cases, as DeepSeek lists them.
const CASED: &str = concat!(
    "\\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}",
    "\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}",
    "-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}",
    "\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}",
    "\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}",
    "-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}",
    "\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}",
    "\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}",
    "\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}",
    "\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}",
    "\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}",
    "\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+",
);

/// Every way of splitting; a name of llama.cpp that is missing here belongs to another kind of vocabulary.
#[rustfmt::skip]
pub(super) static PRES: &[Pre] = &[
    // Names; patterns; whole tokens first; a first token.
    pre(&["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum", "exaone4",
        "modern-bert", "roberta-bpe", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code"],
        &[GPT2], false, false),
    pre(&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "falcon_e", "pixtral", "lfm2", "midm-2.0", "jina-v5-nano"],
        &[LLAMA3], true, true),
    pre(&["glm4", "glm5"], &[LLAMA3], true, false),
    pre(&["smaug-bpe", "dbrx", "chatglm-bpe"], &[LLAMA3], false, false),
    pre(&["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2", "solar-open", "kormo", "f2llmv2"],
        &[QWEN2], false, false),
    pre(&["qwen35"], &[concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", spaces!())],
        false, false),
    pre(&["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2], false, false),
    pre(&["tekken"], &[cased!("", "", r"\p{N}", r"[\r\n/]*")], true, true),
    pre(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[O200K], false, false),
    pre(&["granite-embed-multi-97m"], &[O200K], true, false),
    pre(&["kimi-k2"], &[concat!(r"[\p{Han}]+|", cased!(r"&&[^\p{Han}]", concat!(endings!(), "?"), r"\p{N}{1,3}", r"[\r\n]*"))],
        false, false),
    pre(&["tiny_aya", "cohere2moe"], &[r"\d{1,3}(?=(?:\d{3})*\b)", O200K], false, false),
    pre(&["deepseek-llm"], &[r"[\r\n]", CASED, "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+", r"\s+$", CJK_OF_DEEPSEEK, r"\p{N}+"],
        false, false),
    pre(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_OF_DEEPSEEK, DIGIT], false, false),
    pre(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[THREE_DIGITS, CJK, marked!(concat!(r"[\r\n]*", spaces!()))], false, false),
    pre(&["spark2_5"], &[THREE_DIGITS, CJK, marked!(r"|[\r\n]|\s+(?!\S)|\s+"), DIGIT], false, false),
    pre(&["afmoe"], &[r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", ASIAN, marked!(concat!(r"[\r\n]*", spaces!()))], false, false),
    pre(&["youtu"], &[YOUTU, cased!("", concat!(endings!(), "?"), r"\p{N}", r"[\r\n/]*")], true, false),
    pre(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], false, false),
    pre(&["default", ""], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], false, false),
    pre(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM], false, false),
    pre(&["viking"], &[BLOOM, DIGIT], false, false),
    pre(&["jais-2"], &[concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
        r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)",
        r"|\s{1,2}(?!\S)|\s{1}")], false, false),
    pre(&["chameleon"], &["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", DIGIT,
        r"[\p{P}!-/:-@\[-`{-~]", GPT2], false, true),
    pre(&["superbpe"], &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"], false, false),
    pre(&["bailingmoe", "bailingmoe2", "llada-moe"],
        &[r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"], false, false),
    pre(&["seed-coder"], &[concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+", spaces!())], false, false),
    pre(&["ufakzeka"], &[concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*", spaces!())], false, false),
    pre(&["exaone-moe"], &[concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?",
        r"|\s*[\r\n]|\s+(?!\S)|\s+")], false, false),
    pre(&["k2-horizon"], &[concat!(endings!(), r"|[^\r\n\p{L}\p{N}]?(?:\p{L}|\p{M}|\u200C|\u200D)+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
        spaces!())], false, false),
    pre(&["minicpm5"], &[THREE_DIGITS, words!(r"\p{N}+")], true, false),
    pre(&["laguna"], &[LINES, QWEN2], false, false),
];

const fn pre(names: &'static [&'static str], patterns: &'static [&'static str], whole: bool, add_bos: bool) -> Pre {
    Pre { names, patterns, whole, add_bos }
}

/// Names of llama.cpp whose vocabularies are spelled in UTF-8, not in GPT-2's letters.
const OTHERS: &[&str] = &["gemma4", "granite-embed-multi-311m", "mmbert", "sarvam-moe", "whitespace"];

/// The way of splitting of a name.
///
/// # Errors
/// A sentence with the nearest name, or why it is not one.
pub(super) fn find(name: &str) -> Result<&'static Pre, String> {
    PRES.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
        let names = || PRES.iter().flat_map(|pre| pre.names).copied().filter(|name| !name.is_empty());
        let what = format!("`tokenizer.ggml.pre` is `{}`", show(name));
        match OTHERS.contains(&name) {
            true => format!("{what}; its vocabulary is not spelled in bytes, which is not supported"),
            false => format!("{what}, which is unknown{}", alternatives(name, names())),
        }
    })
}

/// The steps of a pre-tokenizer of the Hub's library that splits so.
pub(super) fn steps(pre: &Pre) -> Vec<Value> {
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    pre.patterns.iter().map(split).collect()
}

/// The known way of splitting that a pre-tokenizer of the Hub is; `whole` says whether whole tokens are taken without merging.
pub(super) fn of(step: &Value, whole: bool) -> Option<&'static Pre> {
    let steps = step["pretokenizers"].as_array().cloned().unwrap_or_else(|| vec![step.clone()]);
    let (last, splits) = steps.split_last().filter(|(last, _)| last["type"] == "ByteLevel")?;
    let mut patterns: Vec<String> = splits.iter().map(pattern).collect::<Option<_>>()?;
    // Without a pattern of its own the step splits as GPT-2 does.
    if last["use_regex"] != false {
        patterns.push(GPT2.into());
    }
    let found = |pre: &&Pre| pre.patterns == patterns && pre.whole == whole && last["add_prefix_space"] != true;
    PRES.iter().find(found)
}

/// The regular expression of a step that splits by one.
fn pattern(step: &Value) -> Option<String> {
    match step["type"].as_str()? {
        "Digits" if step["individual_digits"] == true => Some(DIGIT.into()),
        "Split" if step["behavior"] == "Isolated" && step["invert"] != true => {
            let regex = step["pattern"]["Regex"].as_str()?;
            Some(regex.replace('\r', "\\r").replace('\n', "\\n").replace('\t', "\\t"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bpe;
    use super::super::spm::Use;
    use super::super::{Tokenizer, Vocabulary};
    use super::*;

    /// The vocabulary of `tools/golden/pre_tokenizers.py`.
    fn vocabulary(merges: &Value) -> Vocabulary {
        let mut letters: Vec<String> = (0..=255).map(|byte| bpe::spell(&[byte])).collect();
        letters.sort_unstable();
        let mut v = Vocabulary { tokens: letters, ..Vocabulary::default() };
        for merge in merges.as_array().expect("merges") {
            let (left, right) = merge.as_str().expect("a text").split_once(' ').expect("a pair");
            v.merges.push((left.into(), right.into()));
            let union = format!("{left}{right}");
            if !v.tokens.contains(&union) {
                v.tokens.push(union);
            }
        }
        v.tokens.extend(["\u{120}zq", "<s>", "</s>"].map(String::from));
        v.uses = vec![Use::Normal; v.tokens.len()];
        v.uses.iter_mut().rev().take(2).for_each(|usage| *usage = Use::Control);
        v
    }

    #[test]
    fn every_name_splits_as_its_reference_does() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/pre_tokenizers.json")).expect("JSON");
        let v = vocabulary(&golden["merges"]);
        let mut names: Vec<&str> =
            PRES.iter().flat_map(|pre| pre.names).copied().filter(|name| !name.is_empty()).collect();
        for kind in golden["kinds"].as_array().expect("kinds") {
            for name in kind["names"].as_array().expect("names").iter().map(|name| name.as_str().expect("a text")) {
                let tokenizer =
                    Tokenizer::from_vocabulary("gpt2", name, v.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
                for (text, ids) in
                    golden["texts"].as_array().expect("texts").iter().zip(kind["ids"].as_array().expect("ids"))
                {
                    let text = text.as_str().expect("a text");
                    let expected: Vec<u32> = serde_json::from_value(ids.clone()).expect("ids");
                    let found = tokenizer.encode(text, usize::MAX).expect("encodes");
                    let pieces = |ids: &[u32]| ids.iter().map(|id| v.tokens[*id as usize].clone()).collect::<Vec<_>>();
                    assert_eq!(pieces(&found), pieces(&expected), "{name}: {text:?}");
                }
                names.retain(|other| *other != name);
            }
        }
        assert_eq!(names, [""; 0], "names without golden tokens");
    }

    #[test]
    fn names_are_unique_and_patterns_are_found_again() {
        let mut names: Vec<&str> =
            PRES.iter().flat_map(|pre| pre.names).copied().chain(OTHERS.iter().copied()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for pre in PRES {
            let mut steps = steps(pre);
            steps.push(json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}));
            let found = of(&json!({"type": "Sequence", "pretokenizers": steps}), pre.whole).expect("known");
            assert_eq!(found.patterns, pre.patterns, "{:?}", pre.names);
            assert_eq!(found.whole, pre.whole, "{:?}", pre.names);
        }
        let digits = json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
        assert_eq!(of(&digits, false).expect("known").names[0], "smollm");
        assert!(of(&digits, true).is_none());
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        let error = find("qwen-2").expect_err("unknown");
        assert!(error.contains("which is unknown; did you mean `qwen2`? known: gpt-2, phi-2"), "{error}");
        assert!(find("gemma4").expect_err("no bytes").contains("not spelled in bytes"));
    }
}
