//! A decoder in the terms of llama.cpp: architectures, metadata, tensors, and the order of the rows that rotary positions turn.

use super::gguf_rope::{self, Base, Written};
use super::{Config, MAX_LAYERS};
use crate::Error;
use crate::arch::Head;
use crate::arch::family::{self, GgufHeader};
use crate::container::gguf::{Field, Gguf, Value};
use crate::container::show;
use crate::exec::Activation;
use crate::source::{ParamSpec, Role};

/// An architecture of llama.cpp that the decoder covers.
pub(crate) struct Arch {
    /// `general.architecture`.
    pub name: &'static str,
    /// Function of the gate.
    pub act: Activation,
    /// Whether norms before the output and down projections are part of it.
    pub sub_norm: bool,
    /// Whether norms of queries and keys are part of it.
    pub qk_norm: bool,
    /// Whether linear layers may have biases.
    pub biased: bool,
    /// Whether files may hold tensors of divisors of the rotary frequencies.
    pub divided: bool,
    /// Whether rows of queries and keys are stored in pairs of neighbours instead of halves.
    pub paired: bool,
    /// Whether llama.cpp takes the embedding as head whatever the file holds.
    pub tied: bool,
    /// The type of tensors that keeps ternary matrices in the program that has the architecture.
    pub ternary_type: &'static str,
}

/// Pairs of metadata to write.
pub(crate) type Fields = Vec<(String, Field)>;

/// Names of tensors outside the layers, ours and theirs.
const OUTER: &[(&str, &str)] =
    &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];
/// Names of tensors of a layer, ours and theirs.
const INNER: &[(&str, &str)] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.attn_sub_norm", "attn_sub_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.ffn_sub_norm", "ffn_sub_norm"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];
/// The output matrix of a model whose head is not tied.
pub(crate) const OUTPUT: &str = "output.weight";

/// The name of a parameter in a GGUF file, if it has one.
pub(crate) fn tensor_name(ours: &str) -> Option<String> {
    let (stem, end) = ours.rsplit_once('.')?;
    if let Some((_, theirs)) = OUTER.iter().find(|(name, _)| *name == stem) {
        return Some(format!("{theirs}.{end}"));
    }
    let (layer, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, theirs) = INNER.iter().find(|(name, _)| *name == part)?;
    Some(format!("blk.{layer}.{theirs}.{end}"))
}

/// The name of the tensor that scales a matrix of this name in a GGUF file.
pub(crate) fn scale_name(theirs: &str) -> String {
    format!("{}.scale", theirs.strip_suffix(".weight").unwrap_or(theirs))
}

/// Heads of a parameter whose rows rotary positions turn.
pub(super) fn rotated_heads(ours: &str, c: &Config) -> Option<usize> {
    let (stem, _) = ours.rsplit_once('.')?;
    if stem.ends_with(".self_attn.q_proj") {
        Some(c.num_attention_heads)
    } else {
        stem.ends_with(".self_attn.k_proj").then_some(c.num_key_value_heads)
    }
}

/// Elements of a row of a parameter whose rows are outputs; those of a bias have one.
pub(crate) fn row_width(spec: &ParamSpec) -> usize {
    if spec.role == Role::Bias { 1 } else { spec.cols }
}

/// Rows from pairs of neighbours to halves, or back: row `[head, half, pair]` is stored as `[head, pair, half]`.
pub(crate) fn unpair<T: Copy>(values: &[T], heads: usize, cols: usize, back: bool) -> Vec<T> {
    let rows = values.len() / cols.max(1);
    let dim = rows / heads.max(1);
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (head, at) = (row / dim, row % dim);
        let from = if back { at % 2 * (dim / 2) + at / 2 } else { at % (dim / 2) * 2 + at / (dim / 2) };
        out.extend_from_slice(&values[(head * dim + from) * cols..][..cols]);
    }
    out
}

/// Metadata of a file whose keys begin with the name of its architecture.
pub(super) struct ArchKeys<'a> {
    pub file: &'a Gguf,
    /// `general.architecture`.
    pub arch: &'a str,
}

impl ArchKeys<'_> {
    /// The whole key that ends so.
    pub fn key(&self, end: &str) -> String {
        format!("{}.{end}", self.arch)
    }

    /// An error that names the file and a key.
    pub fn fault(&self, end: &str, text: impl std::fmt::Display) -> Error {
        Error::input(self.file.path(), format!("metadata `{}` {text}", self.key(end)))
    }

    /// A value that must be there.
    fn present<T>(&self, end: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| self.fault(end, "is missing"))
    }

    /// A size, if it is there; some files list the same number for every layer.
    fn size(&self, end: &str) -> Result<Option<usize>, Error> {
        let key = self.key(end);
        let Some(Value::Array(_)) = self.file.metadata().get(&key) else { return self.file.count(&key) };
        let list = self.file.numbers(&key, MAX_LAYERS)?.unwrap_or_default();
        match list.iter().all(|n| *n == list[0]) {
            true => Ok(list.first().map(|n| *n as usize)),
            false => Err(self.fault(end, "differs between layers, which is not supported")),
        }
    }

    /// A size that must be there.
    fn need(&self, end: &str) -> Result<usize, Error> {
        self.present(end, self.size(end)?)
    }

    /// Width of a head: as it is given, else the share of a head in the hidden size.
    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize, Error> {
        let head_dim = match self.file.count(&self.key("attention.key_length"))? {
            Some(given) => given,
            None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                let text =
                    format!("is {heads}, which does not divide `{}` {hidden_size}", self.key("embedding_length"));
                return Err(self.fault("attention.head_count", text));
            }
        };
        for end in ["rope.dimension_count", "attention.value_length"] {
            if let Some(given) = self.file.count(&self.key(end))?.filter(|given| *given != head_dim) {
                return Err(self.fault(end, format!("is {given}; only {head_dim} is supported here")));
            }
        }
        Ok(head_dim)
    }
}

/// The architecture that a file names.
fn arch_of(file: &Gguf) -> Result<&'static Arch, Error> {
    let at = |text: &str| Error::input(file.path(), format!("metadata `general.architecture` is {text}"));
    let name = file.text("general.architecture")?.ok_or_else(|| at("missing"))?;
    family::gguf_archs().find(|a| a.name == name).ok_or_else(|| {
        let known: Vec<_> = family::gguf_archs().map(|a| a.name).collect();
        at(&format!("`{}`, which is unknown; supported: {}", show(name), known.join(", ")))
    })
}

/// The architecture and configuration of a file.
///
/// # Errors
/// Names file, key and value; what would change results and is not supported is refused by its name.
pub(crate) fn config(file: &Gguf) -> Result<(&'static Arch, crate::Config), Error> {
    let arch = arch_of(file)?;
    let keys = ArchKeys { file, arch: arch.name };
    let (hidden_size, heads) = (keys.need("embedding_length")?, keys.need("attention.head_count")?);
    let head_dim = keys.head_dim(hidden_size, heads)?;
    let eps = "attention.layer_norm_rms_epsilon";
    let rms_norm_eps = file.number(&keys.key(eps))?;
    let table = file.tensor("token_embd.weight");
    let table = table.ok_or_else(|| Error::input(file.path(), "tensor `token_embd.weight` is missing"))?;
    let rope_theta = file.number(&keys.key("rope.freq_base"))?.unwrap_or(10_000.0);
    let base = Base { theta: rope_theta, head_dim, context: context(file, arch)? };
    let any = |end: &&str| file.tensors().iter().any(|t| t.name.starts_with("blk.") && t.name.ends_with(end));
    let has = |ends: &[&str]| arch.biased && ends.iter().any(any);
    let config = Config {
        vocab_size: table.shape.first().copied().unwrap_or(1),
        hidden_size,
        num_hidden_layers: keys.need("block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: keys.size("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        intermediate_size: keys.need("feed_forward_length")?,
        hidden_act: arch.act,
        rope_theta,
        rope_scaling: gguf_rope::read(&keys, base)?,
        rms_norm_eps: keys.present(eps, rms_norm_eps)?,
        sub_norm: arch.sub_norm,
        qk_norm: arch.qk_norm,
        qkv_bias: has(&["attn_q.bias", "attn_k.bias", "attn_v.bias"]),
        output_bias: has(&["attn_output.bias"]),
        mlp_bias: has(&["ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"]),
        sliding_window: None,
        full_attention_layers: Vec::new(),
        causal: true,
        bigram_buckets: 0,
        dropout: 0.0,
        head: Head::Lm { tied: arch.tied || file.tensor(OUTPUT).is_none() },
    };
    Ok((arch, crate::Config::Decoder(config)))
}

/// Longest sequence of the network of a file, tokens.
///
/// # Errors
/// When the key is no whole number.
pub(crate) fn context(file: &Gguf, arch: &Arch) -> Result<usize, Error> {
    Ok(file.count(&format!("{}.context_length", arch.name))?.unwrap_or(2048).max(1))
}

/// The header of a GGUF file with a network, for the architecture of llama.cpp that computes it.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind) naming what no architecture covers.
pub(super) fn header(c: &Config, context: usize) -> Result<GgufHeader, Error> {
    let refuse = |text: String| Err(Error::usage(format!("GGUF: {text}; llama.cpp has no such network")));
    let Head::Lm { tied } = c.head else {
        return refuse("the model is a classifier".into());
    };
    if !c.causal || c.bigram_buckets > 0 {
        return refuse("the model looks both ways or has a table of token pairs".into());
    }
    // llama.cpp sees all tokens before: the same as far as the window reaches.
    let reach = c.sliding_window.map_or(context, |window| window.min(context));
    let biased = c.qkv_bias || c.output_bias || c.mlp_bias;
    let computes = |a: &&Arch| {
        let norms = a.sub_norm == c.sub_norm && a.qk_norm == c.qk_norm;
        a.act == c.hidden_act && norms && (tied || !a.tied) && (a.biased || !biased)
    };
    let Some(arch) = family::gguf_archs().find(computes) else {
        let with = |there: bool| if there { "with" } else { "without" };
        let (sub, qk, bias) = (with(c.sub_norm), with(c.qk_norm), with(biased));
        let text = format!("the gate is {:?}, {sub} sub-norms, {qk} norms of queries and keys", c.hidden_act);
        let head = if tied { "tied" } else { "untied" };
        return refuse(format!("{text}, {bias} biases, the head {head}"));
    };
    let base = Base { theta: c.rope_theta, head_dim: c.head_dim, context };
    let scaling = c.rope_scaling.as_ref().map(|scaling| gguf_rope::write(scaling, base, arch.divided)).transpose();
    let Written { fields: scaling, tensors } = match scaling {
        Ok(scaling) => scaling.unwrap_or_default(),
        Err(text) => return refuse(text),
    };
    let u32 = |n: usize| Field::U32(n as u32);
    let fields = [
        ("vocab_size", u32(c.vocab_size)),
        ("context_length", u32(reach)),
        ("embedding_length", u32(c.hidden_size)),
        ("block_count", u32(c.num_hidden_layers)),
        ("feed_forward_length", u32(c.intermediate_size)),
        ("attention.head_count", u32(c.num_attention_heads)),
        ("attention.head_count_kv", u32(c.num_key_value_heads)),
        ("attention.key_length", u32(c.head_dim)),
        ("attention.value_length", u32(c.head_dim)),
        ("attention.layer_norm_rms_epsilon", Field::F32(c.rms_norm_eps)),
        ("rope.dimension_count", u32(c.head_dim)),
        ("rope.freq_base", Field::F32(c.rope_theta)),
    ];
    let own = fields.into_iter().chain(scaling).map(|(end, field)| (format!("{}.{end}", arch.name), field));
    let general = [("general.architecture".to_string(), Field::Text(arch.name.into()))];
    Ok(GgufHeader { arch, fields: general.into_iter().chain(own).collect(), tensors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unpaired_and_paired_again() {
        // Two heads of six rows, one column: what transformers' `[head, 2, 3]` is as `[head, 3, 2]`.
        let ours: Vec<u32> = (0..12).collect();
        let theirs = unpair(&ours, 2, 1, true);
        assert_eq!(theirs, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(unpair(&theirs, 2, 1, false), ours);
        let wide: Vec<u32> = (0..24).collect();
        assert_eq!(unpair(&unpair(&wide, 1, 4, true), 1, 4, false), wide);
    }

    #[test]
    fn names_are_those_of_llama_cpp() {
        let cases = [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.12.self_attn.o_proj.weight", "blk.12.attn_output.weight"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        ];
        for (ours, theirs) in cases {
            assert_eq!(tensor_name(ours).as_deref(), Some(theirs));
        }
        assert_eq!(tensor_name("classifier.bias"), None);
        assert_eq!(scale_name("blk.3.ffn_up.weight"), "blk.3.ffn_up.scale");
    }
}
