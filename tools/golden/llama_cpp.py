"""The C API of llama.cpp by ctypes: what the golden scripts need of it.

The library is any build of llama.cpp that exports its C API; its path is in the environment variable LLAMA_LIB.
"""

import ctypes as C
import os

import numpy as np


class Params(C.Structure):
    """Parameters by value, whatever they hold: larger than they are, and only their first fields are set."""

    _fields_ = [("words", C.c_uint32 * 256)]


class Batch(C.Structure):
    _fields_ = [("n_tokens", C.c_int32), ("token", C.POINTER(C.c_int32)), ("embd", C.c_void_p), ("pos", C.POINTER(C.c_int32)),
                ("n_seq_id", C.POINTER(C.c_int32)), ("seq_id", C.POINTER(C.POINTER(C.c_int32))), ("logits", C.POINTER(C.c_int8))]


lib = C.CDLL(os.environ["LLAMA_LIB"])
messages = []


@C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)
def listen(level, text, data):
    messages.append(text.decode(errors="replace"))


def declare(result, name, *arguments):
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments
    return function


log_set = declare(None, "llama_log_set", C.c_void_p, C.c_void_p)
model_defaults = declare(Params, "llama_model_default_params")
context_defaults = declare(Params, "llama_context_default_params")
load = declare(C.c_void_p, "llama_model_load_from_file", C.c_char_p, Params)
free = declare(None, "llama_model_free", C.c_void_p)
vocab_of = declare(C.c_void_p, "llama_model_get_vocab", C.c_void_p)
count = declare(C.c_int32, "llama_vocab_n_tokens", C.c_void_p)
is_end = declare(C.c_bool, "llama_vocab_is_eog", C.c_void_p, C.c_int32)
is_control = declare(C.c_bool, "llama_vocab_is_control", C.c_void_p, C.c_int32)
tokenize = declare(C.c_int32, "llama_tokenize", C.c_void_p, C.c_char_p, C.c_int32, C.POINTER(C.c_int32), C.c_int32, C.c_bool, C.c_bool)
to_piece = declare(C.c_int32, "llama_token_to_piece", C.c_void_p, C.c_int32, C.c_char_p, C.c_int32, C.c_int32, C.c_bool)
context = declare(C.c_void_p, "llama_init_from_model", C.c_void_p, Params)
context_free = declare(None, "llama_free", C.c_void_p)
batch_of = declare(Batch, "llama_batch_init", C.c_int32, C.c_int32, C.c_int32)
decode = declare(C.c_int32, "llama_decode", C.c_void_p, Batch)
logits_of = declare(C.POINTER(C.c_float), "llama_get_logits_ith", C.c_void_p, C.c_int32)
lib.llama_backend_init()
log_set(C.cast(listen, C.c_void_p), None)


class Model:
    def __init__(self, path):
        messages.clear()
        self.model = load(str(path).encode(), model_defaults())
        if not self.model:
            raise ValueError("".join(text for text in messages if "error" in text or "unknown" in text))
        self.vocab = vocab_of(self.model)
        self.size = count(self.vocab)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        free(self.model)

    def tokenize(self, text, special=False, parse=False):
        """Tokens of a text; `special` adds what every text gets, `parse` makes tokens of the names of control tokens."""
        data = text.encode()
        tokens = (C.c_int32 * (len(data) + 16))()
        n = tokenize(self.vocab, data, len(data), tokens, len(tokens), special, parse)
        assert n >= 0
        return list(tokens[:n])

    def ends(self):
        return [i for i in range(self.size) if is_end(self.vocab, i)]

    def controls(self):
        return [i for i in range(self.size) if is_control(self.vocab, i)]

    def piece(self, token):
        buffer = C.create_string_buffer(1024)
        n = to_piece(self.vocab, token, buffer, 1024, 0, False)
        return buffer.raw[: max(n, 0)]

    def logits(self, tokens):
        params = context_defaults()
        params.words[0] = params.words[1] = params.words[2] = max(len(tokens), 32)  # context, batch, micro-batch
        assert (params.words[13], *params.words[26:28]) == (2**32 - 1, 1, 1), "flash_attn_type, type_k and type_v are where they were"
        params.words[13] = params.words[26] = params.words[27] = 0  # no flash attention, F32
        ctx = context(self.model, params)
        batch = batch_of(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        assert decode(ctx, batch) == 0
        rows = [np.ctypeslib.as_array(logits_of(ctx, i), (self.size,)).copy() for i in range(len(tokens))]
        context_free(ctx)
        return np.stack(rows)

    def nats(self, tokens):
        """Minus the sum of the log-probabilities of all tokens but the first."""
        logits = self.logits(tokens).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -logits[np.arange(len(tokens) - 1), tokens[1:]].sum()
