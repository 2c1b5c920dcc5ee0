//! Keys of `config.json` that no family here reads: those without effect on the logits of text, and those with one in some
//! network of transformers, which are refused unless their value means that they do nothing.

use super::keys::{Keys, print};
use crate::Error;
use crate::container::show;
use serde_json::Value;

/// Keys without effect here: bookkeeping, initialization, dropout and losses of training, settings of generation, types that
/// weights are loaded in, and parts of networks whose other keys are refused.
#[rustfmt::skip]
const NEUTRAL: &[&str] = &[
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_flash_attn_2_enabled", "_name_or_path",
    "activation_dropout", "architectures", "attention_dropout", "attention_probs_dropout_prob", "attn_implementation",
    "attn_pdrop", "aux_loss_coef", "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward",
    "classifier_activation", "classifier_dropout", "classifier_dropout_prob", "classifier_proj_size", "cls_token_id",
    "custom_pipelines", "decoder_start_token_id", "diversity_penalty", "do_sample", "dropout", "dtype", "early_stopping",
    "embd_pdrop", "embed_dropout", "embedding_dropout", "embedding_initializer_range", "encoder_no_repeat_ngram_size",
    "eod_token_id", "epsilon_cutoff", "eta_cutoff", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "hidden_dropout", "hidden_dropout_prob",
    "id2label", "init_device", "init_method", "init_std", "initializer_cutoff_factor", "initializer_factor",
    "initializer_range", "is_decoder", "keys_to_ignore_at_inference", "label2id", "layerdrop", "length_penalty", "mask_token_id",
    "max_length", "max_new_tokens", "min_length", "model_max_length", "name_or_path", "no_repeat_ngram_size",
    "norm_topk_prob", "num_beam_groups", "num_beams", "num_labels", "num_logits_to_keep", "num_nextn_predict_layers",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_past", "output_router_logits",
    "output_scores", "pad_token_id", "prefix", "pretraining_tp", "problem_type", "pruned_heads", "quantize",
    "remove_invalid_values", "repetition_penalty", "resid_dropout", "resid_pdrop", "residual_dropout", "return_dict",
    "return_dict_in_generate", "router_aux_loss_coef", "router_jitter_noise", "seed", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tensor_parallel", "tf_legacy_loss", "tokenizer_class", "top_k", "top_p",
    "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "typical_p", "unk_token_id",
    "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache", "use_flash_attn", "use_flash_attention",
    "use_return_dict", "vision_end_token_id", "vision_start_token_id", "vision_token_id", "z_loss_coefficient",
];

/// What a key may be without an effect: null and empty, false (but where true is named), and what is named.
#[derive(Clone, Copy)]
enum Idle {
    /// No other value.
    None,
    /// 0.
    Zero,
    /// 1, or a list of ones.
    One,
    /// true.
    True,
    /// One of these words.
    Words(&'static [&'static str]),
}

/// Keys with an effect in some network of transformers, or in code beside the weights.
const EFFECTIVE: &[(&str, Idle)] = &[
    // Factors of embeddings, residual sums, scores and logits.
    ("attention_in_multiplier", Idle::One),
    ("attention_multiplier", Idle::None),
    ("attention_out_multiplier", Idle::One),
    ("attention_value_scale", Idle::One),
    ("attn_scale", Idle::None),
    ("attn_temperature_tuning", Idle::Zero),
    ("dim_model_base", Idle::None),
    ("embedding_multiplier", Idle::One),
    ("embedding_scale", Idle::One),
    ("key_multiplier", Idle::One),
    ("lm_head_multiplier", Idle::One),
    ("logit_scale", Idle::One),
    ("logits_scaling", Idle::One),
    ("mlp_multipliers", Idle::One),
    ("mup_enabled", Idle::None),
    ("query_pre_attn_scalar", Idle::None),
    ("rescale_embeddings", Idle::None),
    ("residual_multiplier", Idle::One),
    ("scale_attn_by_inverse_layer_idx", Idle::None),
    ("scale_attn_weights", Idle::True),
    ("scale_depth", Idle::None),
    ("scale_emb", Idle::One),
    ("scale_embedding", Idle::None),
    // Bounds of scores, logits and projections.
    ("attn_logit_softcapping", Idle::Zero),
    ("clip_qkv", Idle::Zero),
    ("final_logit_softcapping", Idle::Zero),
    ("logits_soft_cap", Idle::Zero),
    ("output_logit_soft_cap", Idle::Zero),
    ("swiglu_limit", Idle::Zero),
    // Other functions, norms and biases.
    ("activation", Idle::Words(&["silu", "swiglu"])),
    ("activation_function", Idle::Words(&["silu"])),
    ("add_bias_linear", Idle::None),
    ("attention_bias", Idle::None),
    ("attention_out_bias", Idle::None),
    ("attention_qkv_bias", Idle::None),
    ("bias", Idle::None),
    ("hidden_activation", Idle::Words(&["silu"])),
    ("lm_head_bias", Idle::None),
    ("mlp_bias", Idle::None),
    ("mlp_hidden_act", Idle::Words(&["silu"])),
    ("norm_bias", Idle::None),
    ("norm_type", Idle::Words(&["rms_norm", "rmsnorm"])),
    ("qk_layernorm", Idle::None),
    ("qk_norm", Idle::None),
    ("qkv_bias", Idle::None),
    ("use_bias", Idle::None),
    ("use_post_norm", Idle::None),
    ("use_qk_norm", Idle::None),
    ("use_qkv_bias", Idle::None),
    ("use_sandwich_norm", Idle::None),
    // What attention sees, and where positions come from.
    ("add_cross_attention", Idle::None),
    ("alibi", Idle::None),
    ("attention_chunk_size", Idle::Zero),
    ("causal", Idle::True),
    ("global_attn_every_n_layers", Idle::One),
    ("is_causal", Idle::True),
    ("is_encoder_decoder", Idle::None),
    ("layer_types", Idle::Words(&["full_attention"])),
    ("local_attention", Idle::Zero),
    ("multi_query", Idle::None),
    ("no_rope_layer_interval", Idle::Zero),
    ("no_rope_layers", Idle::One),
    ("position_embedding_type", Idle::Words(&["rope", "rotary"])),
    ("prefix_lm", Idle::None),
    ("rope_interleave", Idle::None),
    ("rope_interleaved", Idle::None),
    ("rope_local_base_freq", Idle::None),
    ("rope_ratio", Idle::One),
    ("rope_traditional", Idle::None),
    ("rotary_emb_fraction", Idle::One),
    ("rotary_pct", Idle::One),
    ("sliding_window", Idle::None),
    ("sliding_window_pattern", Idle::None),
    ("sliding_window_size", Idle::None),
    ("use_alibi", Idle::None),
    ("use_bidirectional_attention", Idle::None),
    ("use_learned_position_embeddings", Idle::None),
    ("use_rope", Idle::True),
    ("use_sliding_window", Idle::None),
    // Other layers.
    ("attn_output_gate", Idle::None),
    ("cross_layer_attention", Idle::None),
    ("full_attention_interval", Idle::One),
    ("kv_lora_rank", Idle::Zero),
    ("layer_types_mlp", Idle::None),
    ("layers_block_type", Idle::Words(&["attention", "full_attention"])),
    ("linear_num_key_heads", Idle::Zero),
    ("moe_layers", Idle::None),
    ("moe_num_experts", Idle::Zero),
    ("n_routed_experts", Idle::Zero),
    ("n_shared_experts", Idle::Zero),
    ("num_experts", Idle::Zero),
    ("num_kv_shared_layers", Idle::Zero),
    ("num_local_experts", Idle::Zero),
    ("parallel_attn", Idle::None),
    ("per_layer_config", Idle::None),
    ("q_lora_rank", Idle::Zero),
    ("shared_expert_intermediate_size", Idle::Zero),
    ("text_config", Idle::None),
    ("use_attention_gate", Idle::None),
    ("use_parallel_residual", Idle::None),
    ("vision_config", Idle::None),
    ("zero_expert_num", Idle::Zero),
    // Weights that are stored or trained in another way.
    ("compression_config", Idle::None),
    ("input_bits", Idle::None),
    ("quantization", Idle::None),
    ("weight_bits", Idle::None),
];

impl Idle {
    /// Whether a value has no effect.
    fn holds(self, value: &Value) -> bool {
        let one = |value: &Value| value.as_f64() == Some(1.0) || value == &Value::Bool(true);
        let every = |of: &dyn Fn(&Value) -> bool| value.as_array().is_some_and(|list| list.iter().all(of));
        let word = |words: &[&str], value: &Value| value.as_str().is_some_and(|word| words.contains(&word));
        let nothing = match value {
            Value::Null => true,
            Value::Bool(set) => *set == matches!(self, Idle::True),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        nothing
            || match self {
                Idle::None | Idle::True => false,
                Idle::Zero => value.as_f64() == Some(0.0),
                Idle::One => one(value) || every(&one),
                Idle::Words(words) => word(words, value) || every(&|value| word(words, value)),
            }
    }
}

/// Passes judgement on the keys that nobody read: those that would change results are refused, unknown ones are said.
///
/// # Errors
/// Names key and value.
pub(crate) fn settle(keys: &Keys, model_type: &str) -> Result<(), Error> {
    let mut unknown = Vec::new();
    for (key, value) in keys.unread() {
        if let Some((_, idle)) = EFFECTIVE.iter().find(|(known, _)| *known == key) {
            if !idle.holds(value) {
                let text = format!("is {}, which networks of model_type {model_type} do not have here", print(value));
                return Err(Error::config(key, format!("{text}; where transformers ignores it, remove the key")));
            }
        } else if !NEUTRAL.contains(&key) {
            unknown.push(format!("`{}`", show(key)));
        }
    }
    if let [Some(newer), Some(older)] = ["dtype", "torch_dtype"].map(|key| keys.value(key).filter(|v| v.is_string()))
        && newer != older
    {
        let text = "are two types; weights are computed with as they are stored";
        keys.notice(format!("`dtype` {} and `torch_dtype` {} {text}", print(newer), print(older)));
    }
    if !unknown.is_empty() {
        keys.notice(format!("unknown to networks of model_type {model_type}, ignored: {}", unknown.join(", ")));
    }
    Ok(())
}
