"""Writes a GGUF file again with its matrices in another type of llama.cpp, by llama.cpp."""

import argparse
import ctypes
import sys

import llama_cpp

TYPES = dict(f16=1, q4_0=2, q8_0=7, q4_k_m=15, bf16=32)

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("model")
p.add_argument("out")
p.add_argument("--type", choices=TYPES, default="q4_0")
p.add_argument("--threads", type=int, default=2)
a = p.parse_args()
options = llama_cpp.llama_model_quantize_default_params()
options.ftype, options.nthread, options.allow_requantize = TYPES[a.type], a.threads, True
if llama_cpp.llama_model_quantize(a.model.encode(), a.out.encode(), ctypes.byref(options)):
    sys.exit(f"llama.cpp could not write {a.out}")
