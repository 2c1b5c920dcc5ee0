"""Published networks as transformers reads them: tiny, seeded, each family with the keys of config.json it acts on.

Writes crates/lowbit-model/tests/golden/families/:
  <weights>.safetensors  bfloat16 tensors, as they are stored
  cases.json             name, weights, config.json, and which tensors to drop, for each case
  keys.json              the keys of transformers' configuration of each family with their defaults, `all` keys of its causal
                         networks, and those of them that are `neutral`: they belong to every configuration, to a generation,
                         or change nothing at inference
  expected.safetensors   `prompt` [tokens] and float32 logits `<case>` [tokens, vocabulary], by from_pretrained in float32; of
                         classifiers `<case>` [classes], of encoders without a head the mean of all tokens [width]; for both
                         `<case>.batch` of `sequences` of `lengths`, padded
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig,
                          PreTrainedConfig)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

OUT = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/families"
PROMPT = 24

SMALL = dict(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, hidden_act="silu", max_position_embeddings=256, rms_norm_eps=1e-5,
             rope_theta=10000.0, tie_word_embeddings=False)
WEIGHTS = {
    "llama": SMALL | dict(model_type="llama"),
    "llama_bias": SMALL | dict(model_type="llama", attention_bias=True, mlp_bias=True),
    "bitnet_bias": SMALL | dict(model_type="bitnet", hidden_act="relu2", attention_bias=True),
    "qwen2": SMALL | dict(model_type="qwen2", num_key_value_heads=4, num_hidden_layers=3),
    "qwen3": SMALL | dict(model_type="qwen3", head_dim=16, num_hidden_layers=3, rope_theta=1e6),
    "qwen3_tied": SMALL | dict(model_type="qwen3", head_dim=6, num_key_value_heads=1, tie_word_embeddings=True),
    "qwen3_bias": SMALL | dict(model_type="qwen3", head_dim=8, attention_bias=True, rms_norm_eps=1e-6),
}
# Encoders, GPT-2 and GPT-Neo, and classifiers: three random shapes each.
BERT = dict(model_type="bert", vocab_size=32, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
            intermediate_size=40, max_position_embeddings=40, type_vocab_size=2)
DISTIL = dict(model_type="distilbert", vocab_size=32, dim=20, n_layers=2, n_heads=4, hidden_dim=33,
              max_position_embeddings=40)
GPT2 = dict(model_type="gpt2", vocab_size=32, n_embd=24, n_layer=2, n_head=3, n_positions=40, pad_token_id=0,
            bos_token_id=1, eos_token_id=1)
NEO = dict(model_type="gpt_neo", vocab_size=32, hidden_size=24, num_layers=2, num_heads=2, max_position_embeddings=40,
           attention_types=[[["global", "local"], 1]], window_size=5, intermediate_size=None, pad_token_id=0,
           bos_token_id=1, eos_token_id=1)
ROBERTA = BERT | dict(model_type="roberta", max_position_embeddings=42, pad_token_id=1, type_vocab_size=1, num_hidden_layers=1)
THREE = dict(id2label={"0": "no", "1": "perhaps", "2": "yes"})
WEIGHTS |= {
    "bert": BERT,
    "bert_odd": BERT | dict(hidden_size=15, num_attention_heads=5, intermediate_size=7, num_hidden_layers=3),
    "bert_classifier": BERT | THREE | dict(vocab_size=29, hidden_size=16, num_attention_heads=1),
    "distilbert": DISTIL,
    "distilbert_odd": DISTIL | dict(dim=9, n_heads=3, hidden_dim=5, n_layers=1),
    "distilbert_classifier": DISTIL | THREE,
    "roberta": ROBERTA,
    "roberta_classifier": ROBERTA | THREE | dict(hidden_size=12),
    "xlm_roberta": ROBERTA | dict(model_type="xlm-roberta", hidden_size=21),
    "gpt2": GPT2,
    "gpt2_odd": GPT2 | dict(n_embd=15, n_head=5, n_inner=7, n_layer=3),
    "gpt2_classifier": GPT2 | THREE,
    "gpt_neo": NEO,
    "gpt_neo_odd": NEO | dict(hidden_size=15, num_heads=3, num_layers=3, attention_types=[[["local"], 2], [["global"], 1]],
                              intermediate_size=11),
    "gpt_neo_classifier": NEO | THREE,
    "llama_classifier": SMALL | THREE | dict(model_type="llama", hidden_size=16, pad_token_id=0),
    "qwen3_classifier": SMALL | THREE | dict(model_type="qwen3", hidden_size=16, head_dim=6, pad_token_id=0),
}
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
STEEP = dict(rope_theta=20.0)  # so that the pairs of a small head differ in how they are scaled
LONG = dict(rope_type="longrope", short_factor=[1.0, 1.1, 1.3, 1.7], long_factor=[1.0, 2.0, 4.5, 9.0])
MISTRAL = dict(model_type="mistral")
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
ABSENT = object()  # the key is left out


# Parts of the names of keys that belong to training or to other modes than computing logits.
NEUTRAL = ["dropout", "pdrop", "initializer", "init_std", "router_aux", "router_jitter", "_token_id", "use_cache", "pretraining_tp",
           "classifier_", "aux_loss", "layerdrop", "max_length", "num_logits_to_keep", "norm_topk_prob", "is_decoder",
           "output_router", "init_device", "seed", "num_nextn", "z_loss", "attention_probs", "model_max", "suppress_tokens"]


def scaled(**keys):
    return dict(rope_scaling=keys)


# Case: weights, keys that differ, tensors left out.
CASES = {
    "linear": ("llama", scaled(type="linear", factor=4.0)),
    "linear_one": ("llama", scaled(rope_type="linear", factor=1.0)),
    "linear_new": ("llama", dict(rope_theta=ABSENT, rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=500.0))),
    "linear_beside_default": ("llama", dict(rope_theta=ABSENT, rope_scaling=dict(rope_type="linear", factor=4.0),
                                            rope_parameters=dict(rope_type="default", rope_theta=10000.0))),
    "empty_scaling": ("llama", dict(rope_scaling={})),
    "dynamic": ("llama", scaled(type="dynamic", factor=2.0) | dict(max_position_embeddings=10)),
    "dynamic_within": ("llama", scaled(rope_type="dynamic", factor=3.0) | dict(max_position_embeddings=24)),
    "yarn": ("llama", scaled(**YARN) | dict(max_position_embeddings=64) | STEEP),
    "yarn_default_original": ("llama", scaled(type="yarn", factor=2.0) | dict(max_position_embeddings=20) | STEEP),
    "yarn_outer_original": ("llama", scaled(type="yarn", factor=4.0) | dict(original_max_position_embeddings=40) | STEEP),
    "yarn_no_factor": ("llama", scaled(**YARN | dict(factor=None)) | dict(max_position_embeddings=128) | STEEP),
    "yarn_attention": ("llama", scaled(**YARN, attention_factor=0.8, beta_fast=1.5, beta_slow=0.5) | STEEP),
    "yarn_mscale": ("llama", scaled(**YARN, mscale=0.7, mscale_all_dim=1.3, truncate=False) | STEEP),
    "yarn_zero_betas": ("llama", scaled(**YARN, beta_fast=0, beta_slow=None, mscale=1.0) | STEEP),
    "longrope_short": ("llama", scaled(**LONG, original_max_position_embeddings=32, factor=4.0)),
    "longrope_long": ("llama", scaled(**LONG, original_max_position_embeddings=16)),
    "longrope_edge": ("llama", scaled(**LONG, original_max_position_embeddings=24, attention_factor=1.5)),
    "longrope_outer": ("llama", scaled(**LONG) | dict(original_max_position_embeddings=8, max_position_embeddings=64)),
    "llama3": ("llama", scaled(**LLAMA3) | dict(rope_theta=100.0)),
    "whole_heads": ("llama", dict(partial_rotary_factor=1.0)),
    "defaults": ("llama", dict(rope_theta=ABSENT, rms_norm_eps=ABSENT, hidden_act=ABSENT, max_position_embeddings=ABSENT,
                               tie_word_embeddings=ABSENT)),
    "gelu": ("llama", dict(hidden_act="gelu")),
    "gelu_tanh": ("llama", dict(hidden_act="gelu_pytorch_tanh")),
    "relu": ("llama", dict(hidden_act="relu")),
    "bias": ("llama_bias", {}),
    "tied": ("llama", dict(tie_word_embeddings=True), ["lm_head.weight"]),
    "tied_though_head": ("llama", dict(tie_word_embeddings=True)),
    "tied_by_head": ("llama", dict(tie_word_embeddings=True), ["model.embed_tokens.weight"]),
    "mistral_full": ("llama", MISTRAL | dict(sliding_window=None)),
    "mistral_default": ("llama", MISTRAL),
    "mistral_window": ("llama", MISTRAL | dict(sliding_window=5)),
    "mistral_window_one": ("llama", MISTRAL | dict(sliding_window=1)),
    "mistral_yarn": ("llama", MISTRAL | scaled(**YARN) | dict(sliding_window=None) | STEEP),
    "bitnet_bias": ("bitnet_bias", {}),
    "bitnet_defaults": ("bitnet_bias", dict(rope_theta=ABSENT, rms_norm_eps=ABSENT, hidden_act=ABSENT)),
    "qwen2": ("qwen2", {}),
    "qwen2_unused_window": ("qwen2", dict(use_sliding_window=False, sliding_window=4, max_window_layers=1)),
    "qwen2_window": ("qwen2", dict(use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    "qwen2_all_layers": ("qwen2", dict(use_sliding_window=True, sliding_window=6, max_window_layers=0)),
    "qwen2_layer_types": ("qwen2", dict(use_sliding_window=True, sliding_window=4, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"])),
    "qwen2_tied": ("qwen2", dict(tie_word_embeddings=True), ["lm_head.weight"]),
    "qwen2_yarn": ("qwen2", scaled(**YARN) | STEEP),
    "qwen3": ("qwen3", {}),
    "qwen3_yarn": ("qwen3", scaled(**YARN) | dict(max_position_embeddings=64) | STEEP),
    "qwen3_window": ("qwen3", dict(use_sliding_window=True, sliding_window=3, max_window_layers=2)),
    "qwen3_tied": ("qwen3_tied", {}),
    "qwen3_bias": ("qwen3_bias", {}),
}
CASES |= {name: (name, {}) for name in list(WEIGHTS)[list(WEIGHTS).index("bert"):]} | {
    "bert_relu": ("bert", dict(hidden_act="relu", layer_norm_eps=1e-3)),
    "gpt2_unscaled": ("gpt2", dict(scale_attn_weights=False)),
    "gpt2_gelu": ("gpt2", dict(activation_function="gelu", layer_norm_epsilon=1e-2)),
    "gpt_neo_wide": ("gpt_neo", dict(window_size=9)),
}


def auto(config):
    """The class of transformers that a case is read by."""
    if "id2label" in config:
        return AutoModelForSequenceClassification
    encoders = ["bert", "distilbert", "roberta", "xlm-roberta"]
    return AutoModel if config["model_type"] in encoders else AutoModelForCausalLM


def make(config, seed):
    """Seeded weights, float32 values that are exact in bfloat16."""
    torch.manual_seed(seed)
    hub = dict(config)
    model = auto(hub).from_config(AutoConfig.for_model(hub.pop("model_type"), **hub))
    tensors = {}
    for name, p in model.named_parameters():
        if name.endswith("weight") and p.dim() == 1:
            value = 1 + 0.2 * torch.randn(p.shape)
        else:
            value = torch.randn(p.shape) * (p.shape[-1] ** -0.5 if p.dim() == 2 else 0.3)
        if ".q_proj." in name or ".k_proj." in name:
            value *= 2  # so that positions count
        tensors[name] = value.bfloat16()
    return tensors


def answers(model, tokens, mask=None):
    """Logits, or the mean of all tokens where the network has no head; `[sequences, ..]`."""
    out = model(input_ids=tokens, attention_mask=mask)
    if hasattr(out, "logits"):
        return out.logits.float().contiguous()
    mask = torch.ones_like(tokens) if mask is None else mask
    return ((out.last_hidden_state * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).float().contiguous()


def logits(config, tensors, prompt, sequences):
    """What from_pretrained makes of a directory: of a prompt, and of several padded ones."""
    with tempfile.TemporaryDirectory() as home:
        Path(home, "config.json").write_text(json.dumps(config))
        save_file(tensors, Path(home, "model.safetensors"), {"format": "pt"})
        model = auto(config).from_pretrained(home, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        found = answers(model, prompt[None])[0]
        if auto(config) is AutoModelForCausalLM:
            return found, None
        padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=config.get("pad_token_id") or 0)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in sequences], batch_first=True)
        return found, answers(model, padded, mask)


def known_keys():
    """Keys of transformers' configurations."""
    base = set(PreTrainedConfig().to_dict()) | set(GenerationConfig._get_default_generation_params())
    found = {}
    found["distilbert"] = CONFIG_MAPPING["distilbert"]().to_dict()
    for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            found[model_type] = CONFIG_MAPPING[model_type]().to_dict()
        except Exception:  # a network that has no default configuration
            continue
    everything = set().union(*found.values())
    training = {key for key in everything if any(part in key for part in NEUTRAL)}
    families = {c["model_type"]: {k: v for k, v in found[c["model_type"]].items() if k not in base}
                for c in WEIGHTS.values()} | {"mistral": {k: v for k, v in found["mistral"].items() if k not in base}}
    return families | dict(all=sorted(everything - base), neutral=sorted(training - base))


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    stored = {name: make(config, seed) for seed, (name, config) in enumerate(WEIGHTS.items())}
    for name, tensors in stored.items():
        save_file(tensors, OUT / f"{name}.safetensors")
    torch.manual_seed(99)
    prompt = torch.randint(SMALL["vocab_size"], (PROMPT,))
    # No token of padding among them: transformers takes the last token that is none for a classifier's.
    prompt_above, lengths = torch.randint(2, 29, (PROMPT,)), [PROMPT, 5, 1, 11]
    sequences = [prompt_above[:n] for n in lengths]
    expected, listed = dict(prompt=prompt.int()), []
    expected |= dict(sequences=torch.cat(sequences).int(), lengths=torch.tensor(lengths).int())
    for case, (weights, keys, *without) in CASES.items():
        config = {key: value for key, value in (WEIGHTS[weights] | keys).items() if value is not ABSENT}
        tensors = dict(stored[weights])
        for name in sum(without, []):
            del tensors[name]
        own = prompt if auto(config) is AutoModelForCausalLM else prompt_above
        expected[case], batch = logits(config, tensors, own, sequences)
        if batch is not None:
            expected[f"{case}.batch"] = batch
        listed.append(dict(name=case, weights=weights, without=sum(without, []), config=config))
        print(case, expected[case].abs().max().item())
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in listed) + "\n]\n")
    (OUT / "keys.json").write_text(json.dumps(known_keys(), indent=1) + "\n")
    save_file(expected, OUT / "expected.safetensors")
    print(f"{sum(f.stat().st_size for f in OUT.iterdir()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
