"""What a language model answers to the questions `likelihood`, `choose` and `generate`: transformers in float64, on a tiny
seeded Llama, under the rules of lm-eval (github.com/EleutherAI/lm-evaluation-harness, `TemplateLM._encode_pair` and
`HFLM._loglikelihood_tokens`), the token that begins every text before each context.

Writes crates/lowbit-eval/tests/golden/questions/: a Hub directory `model` (bfloat16, byte-level BPE with a few merges), and
`cases.json`: texts with their nats by window, rows with the log-likelihood of every choice, prompts with greedy answers.
"""

import json
import shutil
from pathlib import Path

import torch
from directories import byte_level
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).parents[2] / "crates/lowbit-eval/tests/golden/questions"
LENGTH = 64
BEGIN, END = 262, 263
CONFIG = dict(vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              head_dim=8, hidden_act="silu", max_position_embeddings=LENGTH, rms_norm_eps=1e-5, rope_theta=10000.0,
              tie_word_embeddings=False, bos_token_id=BEGIN, eos_token_id=END)

TEXTS = [
    "The quick brown fox jumps over the lazy dog, again and again, until the dog is tired of the whole thing; then the fox sleeps.\n",
    "x",
    "na\u00efve \u65e5\u672c text of the weights",
]
WINDOWS = [[64, 32], [24, 12], [24, 24], [16, 5]]  # context, stride
LONG = "The rain in the hills and the wind in the trees, said the old man, are all that the house has heard for years. "
ROWS = [
    # context, choices as they are appended (with the delimiter), right one
    ("The cat sat on", [" the mat", " the weights", " a dog", " it"], 0),
    ("The cat sat on ", ["the mat", "the weights", "a dog", "it"], 1),
    ("What is it?\nAnswer:", [" yes", " no"], 1),
    ("What is it?\nAnswer:", [" n", " nothing of the kind"], 0),
    ("", ["the end", "a start"], 1),
    ("A", ["b", " b", "the", " the"], 3),
    (LONG, [" True", " False", " Neither of the two"], 2),
    ("na\u00efve \u65e5\u672c", [" \u00e9t\u00e9", "\u8a9e"], 0),
    ("the w", ["eights", "hole"], 1),
]
PROMPTS = [
    # prompt, stop texts, most tokens
    ("The cat sat on", ["?", ">"], 12),
    ("What is it?\nAnswer:", [], 8),
    (LONG, [], 6),
]


def network():
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = name.endswith("norm.weight")
            p.copy_(1 + 0.2 * torch.randn(p.shape) if norm else 1.5 * torch.randn(p.shape) * p.shape[-1] ** -0.5)
    return model


def save(model):
    home = OUT / "model"
    home.mkdir(parents=True)
    save_file({name: p.detach().bfloat16().contiguous() for name, p in model.named_parameters()}, home / "model.safetensors",
              {"format": "pt"})
    config = dict(CONFIG, model_type="llama", architectures=["LlamaForCausalLM"], torch_dtype="bfloat16")
    (home / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (home / "tokenizer.json").write_text(json.dumps(byte_level(), ensure_ascii=False))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (home / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")
    return home


class Reference:
    def __init__(self, home):
        self.model = AutoModelForCausalLM.from_pretrained(home, dtype=torch.float64, attn_implementation="eager").eval()
        self.tokenizer = AutoTokenizer.from_pretrained(home)

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)

    def log_probabilities(self, tokens):
        with torch.no_grad():
            return self.model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)

    def windows(self, text, context, stride):
        """Nats of all tokens after the first, each in the first window that holds it."""
        tokens = [BEGIN] + self.encode(text)
        inputs, done, nats = len(tokens) - 1, 0, 0.0
        while done < inputs:
            end = min(done + (stride if done else context), inputs)
            start = max(end - context, 0)
            rows = self.log_probabilities(tokens[start:end])
            nats -= sum(rows[at - start, tokens[at + 1]].item() for at in range(done, end))
            done = end
        return nats

    def pair(self, context, continuation):
        """Tokens of context and continuation, as lm-eval cuts them: spaces at the end of the context go to the continuation."""
        spaces = len(context) - len(context.rstrip())
        if spaces:
            continuation = context[-spaces:] + continuation
            context = context[:-spaces]
        whole, context = self.encode(context + continuation), self.encode(context)
        return [BEGIN] + whole[: len(context)], whole[len(context) :]

    def log_likelihood(self, context, continuation):
        context, continuation = self.pair(context, continuation)
        tokens = (context + continuation)[-(LENGTH + 1) :]
        rows = self.log_probabilities(tokens[:-1])[-len(continuation) :]
        return sum(row[token].item() for row, token in zip(rows, continuation))

    def greedy(self, prompt, stop, most):
        tokens = ([BEGIN] + self.encode(prompt))[-(LENGTH - most) :]
        answer, margin = [], float("inf")
        for _ in range(most):
            row = self.log_probabilities(tokens + answer)[-1]
            best = row.topk(2).values
            margin = min(margin, (best[0] - best[1]).item())
            token = row.argmax().item()
            if token == END:
                break
            answer.append(token)
            text = self.tokenizer.decode(answer)
            if any(s in text for s in stop):
                return min((text[: text.index(s)] for s in stop if s in text), key=len), margin
        return self.tokenizer.decode(answer), margin


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    reference = Reference(save(network()))
    texts = [dict(text=t, bytes=len(t.encode()), tokens=len(reference.encode(t)),
                  nats=[reference.windows(t, *w) for w in WINDOWS]) for t in TEXTS]
    rows = []
    for context, choices, right in ROWS:
        log_likelihoods = [reference.log_likelihood(context, c) for c in choices]
        per_byte = [ll / len(c.strip().encode()) for ll, c in zip(log_likelihoods, choices)]
        best, normalized = (max(range(len(v)), key=v.__getitem__) for v in (log_likelihoods, per_byte))
        rows.append(dict(context=context, choices=choices, right=right, log_likelihoods=log_likelihoods, best=best,
                         best_per_byte=normalized))
        print(repr(context[-20:]), best, normalized, [round(v, 3) for v in log_likelihoods])
    answers = []
    for prompt, stop, most in PROMPTS:
        text, margin = reference.greedy(prompt, stop, most)
        answers.append(dict(prompt=prompt, stop=stop, max_tokens=most, answer=text))
        print(repr(text), "margin", margin)
    cases = dict(windows=WINDOWS, texts=texts, rows=rows, answers=answers)
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")
    print(f"{sum(f.stat().st_size for f in OUT.rglob('*.*') if f.is_file()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
