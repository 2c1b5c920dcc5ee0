//! A decoder in the terms of transformers' `config.json`.

use super::Config;
use crate::Error;
use crate::arch::family::{Network, Published, keys::Keys, rope};
use crate::container::show;
use crate::exec::Activation;

/// In what a family differs from the others, and what it takes for granted where `config.json` is silent.
pub(crate) struct Switches {
    /// Base of the rotary positions.
    pub rope_theta: f32,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f32,
    /// Function of the gate.
    pub act: Activation,
    /// Longest sequence, tokens.
    pub context: usize,
    /// Key and value heads; as many as query heads if `None`.
    pub kv_heads: Option<usize>,
    /// Width of a head; the query heads share the residual stream if `None`.
    pub head_dim: Option<usize>,
    /// Biases of queries, keys, values and output of attention.
    pub attention_bias: Bias,
    /// Biases of the feed-forward.
    pub mlp_bias: Bias,
    /// Norms before the output and down projections; a family without them has them where they are stored.
    pub sub_norm: bool,
    /// Norms of queries and keys per head.
    pub qk_norm: bool,
    /// Which layers have sliding windows.
    pub windows: Windows,
}

/// Which linear layers have a bias.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    /// None of them.
    Never,
    /// All of them if a key says so.
    Key,
    /// Queries, keys and values.
    Qkv,
}

/// Which layers have sliding windows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Windows {
    /// None.
    Never,
    /// All, of `sliding_window` tokens.
    All {
        /// Its value where the key is missing.
        default: usize,
    },
    /// Those from `max_window_layers` on, or those named in `layer_types`, if `use_sliding_window` says so.
    Some {
        /// `sliding_window` where the key is missing.
        default: usize,
        /// `max_window_layers` where the key is missing.
        first: usize,
    },
}

/// Llama's.
pub(crate) const LLAMA: Switches = Switches {
    rope_theta: 1e4,
    rms_norm_eps: 1e-6,
    act: Activation::Silu,
    context: 2048,
    kv_heads: None,
    head_dim: None,
    attention_bias: Bias::Key,
    mlp_bias: Bias::Key,
    sub_norm: false,
    qk_norm: false,
    windows: Windows::Never,
};

/// Reads the configuration of a network.
///
/// # Errors
/// Names key and value; what would change results and is not supported is refused by its name.
pub(crate) fn config(network: &Published, switches: &Switches) -> Result<Network, Error> {
    let keys = &network.keys;
    let (hidden_size, heads) = (keys.need("hidden_size")?, keys.need("num_attention_heads")?);
    let num_hidden_layers = keys.need("num_hidden_layers")?;
    let context = keys.size("max_position_embeddings")?.unwrap_or(switches.context);
    let head_dim = head_dim(keys, switches, hidden_size, heads)?;
    // A missing key is a number of its own in some families, null never is.
    let kv_heads = if keys.has("num_key_value_heads") { None } else { switches.kv_heads };
    let rotary = rope::read(keys, switches.rope_theta, context)?;
    let attention_bias = switches.attention_bias.read(keys, "attention_bias")?;
    let context = rotary.scaling.as_ref().map_or(context, |scaling| scaling.reach(context));
    let (sliding_window, full_attention_layers) = windows(keys, switches.windows, num_hidden_layers, context)?;
    let (head, labels) = network.decoder_head(false)?;
    let config = Config {
        vocab_size: keys.need("vocab_size")?,
        hidden_size,
        num_hidden_layers,
        num_attention_heads: heads,
        num_key_value_heads: keys.size("num_key_value_heads")?.or(kv_heads).unwrap_or(heads),
        head_dim,
        intermediate_size: keys.need("intermediate_size")?,
        hidden_act: keys.function("hidden_act")?.unwrap_or(switches.act),
        rope_theta: rotary.theta,
        rope_scaling: rotary.scaling,
        rms_norm_eps: keys.get("rms_norm_eps")?.unwrap_or(switches.rms_norm_eps),
        sub_norm: switches.sub_norm
            || (network.stores)(".attn_sub_norm.weight")
            || (network.stores)(".ffn_sub_norm.weight"),
        qk_norm: switches.qk_norm,
        qkv_bias: attention_bias || switches.attention_bias == Bias::Qkv,
        output_bias: attention_bias,
        mlp_bias: switches.mlp_bias.read(keys, "mlp_bias")?,
        sliding_window,
        full_attention_layers,
        causal: true,
        bigram_buckets: 0,
        dropout: 0.0,
        head,
    };
    Ok(Network { config: crate::Config::Decoder(config), context, labels })
}

impl Bias {
    fn read(self, keys: &Keys, key: &str) -> Result<bool, Error> {
        match self {
            Bias::Never => Ok(false),
            Bias::Key => Ok(keys.get(key)?.unwrap_or(false)),
            // Not a key of such a family: it has these biases in any case.
            Bias::Qkv => keys.get::<bool>(key).map(|_| false),
        }
    }
}

fn head_dim(keys: &Keys, switches: &Switches, hidden_size: usize, heads: usize) -> Result<usize, Error> {
    match keys.size("head_dim")?.or(switches.head_dim) {
        Some(given) => Ok(given),
        None if heads > 0 && hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
        None => {
            let text = format!("is {heads}, which does not divide hidden_size {hidden_size}");
            Err(Error::config("num_attention_heads", text))
        }
    }
}

/// The sliding window, if a sequence of `context` tokens is longer, and the layers that do not have it.
fn windows(keys: &Keys, windows: Windows, layers: usize, context: usize) -> Result<(Option<usize>, Vec<usize>), Error> {
    let used: Option<bool> = keys.get("use_sliding_window")?;
    let missing = !keys.has("sliding_window");
    let given = keys.size("sliding_window")?;
    let idle = |window: usize| window == 0 || window >= context || used == Some(false);
    let first = keys.size("max_window_layers")?;
    let (window, first) = match windows {
        Windows::Never if given.is_none_or(idle) => (None, 0),
        Windows::Never => {
            let text = format!("is {}, but networks of this model_type have no sliding windows", given.unwrap_or(0));
            return Err(Error::config(
                "sliding_window",
                format!("{text}; remove the key to ignore it as transformers does"),
            ));
        }
        Windows::All { default } => {
            let window = given.or(missing.then_some(default));
            if used == Some(false) && window.is_some_and(|window| window < context) {
                let text = "is false, which networks of this model_type do not follow: set `sliding_window` to null";
                return Err(Error::config("use_sliding_window", text));
            }
            (window, 0)
        }
        Windows::Some { default, first: from } => {
            (given.or(missing.then_some(default)).filter(|_| used == Some(true)), first.unwrap_or(from))
        }
    };
    if window == Some(0) {
        return Err(Error::config("sliding_window", "is 0; it must be at least 1"));
    }
    let full = match (layer_types(keys, layers)?, windows) {
        (None, _) => (0..layers.min(first)).collect(),
        (Some(full), Windows::Some { .. }) if window.is_some() || full.len() == layers => full,
        (Some(full), Windows::All { .. }) if window.is_some() && full.is_empty() => full,
        (Some(full), _) if window.is_none() && full.len() == layers => full,
        _ => {
            let text = "does not fit the other keys of sliding windows, which networks of this model_type follow";
            return Err(Error::config("layer_types", text));
        }
    };
    Ok(match window.filter(|window| *window < context && full.len() < layers) {
        None => (None, Vec::new()),
        window => (window, full),
    })
}

/// The layers with full attention, as `layer_types` names them.
fn layer_types(keys: &Keys, layers: usize) -> Result<Option<Vec<usize>>, Error> {
    let Some(types) = keys.get::<Vec<String>>("layer_types")?.filter(|types| !types.is_empty()) else {
        return Ok(None);
    };
    if types.len() != layers {
        return Err(Error::config("layer_types", format!("names {} layers of {layers}", types.len())));
    }
    let mut full = Vec::new();
    for (i, kind) in types.iter().enumerate() {
        match kind.as_str() {
            "full_attention" | "attention" => full.push(i),
            "sliding_attention" => {}
            other => {
                let text = format!("has `{}`; supported: full_attention, sliding_attention", show(other));
                return Err(Error::config("layer_types", text));
            }
        }
    }
    Ok(Some(full))
}
