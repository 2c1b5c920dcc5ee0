"""Tokens per second of a GGUF file in llama.cpp, as llama-bench measures them: one JSON object on stdout.

    python llama_run.py FILE.gguf --threads 1 2 -p 512 -n 64      (needs llama-cpp-python)

Random tokens, an empty context before each test, a warm-up before the first, the library's own defaults; the Python around
it costs microseconds per token. `--no-mmap` reads the weights into memory instead of mapping the file, which with
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 lies in pages of 2 MiB.
"""

import argparse
import ctypes
import json
import random
import sys
import time

import llama_cpp as c


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--threads", type=int, nargs="+", default=[1])
    p.add_argument("-p", "--prompt", type=int, default=512)
    p.add_argument("-n", "--answer", type=int, default=64)
    p.add_argument("--no-mmap", action="store_true")
    return p.parse_args()


def set_field(params, name, value):
    """Sets a field of a C struct; ctypes would take a misspelt one without a word."""
    if name not in [field for field, _ in params._fields_]:
        sys.exit(f"this version of llama-cpp-python has no parameter `{name}`")
    setattr(params, name, value)


def huge_bytes():
    """Bytes of this process that lie in pages of 2 MiB."""
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    return 0


class Llama:
    def __init__(self, a):
        self.quiet = c.llama_log_callback(lambda level, text, data: None)
        c.llama_log_set(self.quiet, ctypes.c_void_p(0))
        c.llama_backend_init()
        params = c.llama_model_default_params()
        if a.no_mmap:
            set_field(params, "load_mode", c.LLAMA_LOAD_MODE_NONE)
        start = time.perf_counter()
        self.model = c.llama_model_load_from_file(a.model.encode(), params)
        self.load_seconds = time.perf_counter() - start
        self.huge_bytes = huge_bytes()
        if not self.model:
            sys.exit(f"{a.model}: llama.cpp cannot load it")
        self.vocabulary = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        params = c.llama_context_default_params()
        for name, value in dict(n_ctx=max(a.prompt, a.answer), n_batch=512, n_ubatch=512).items():
            set_field(params, name, value)
        self.context = c.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit("llama.cpp cannot make a context")
        self.random = random.Random(7)

    def decode(self, n):
        tokens = (c.llama_token * n)(*(self.random.randrange(self.vocabulary) for _ in range(n)))
        if c.llama_decode(self.context, c.llama_batch_get_one(tokens, n)) != 0:
            sys.exit("llama.cpp cannot decode")
        c.llama_synchronize(self.context)

    def rate(self, threads, batches):
        """Tokens per second of these batches, one after another."""
        c.llama_set_n_threads(self.context, threads, threads)
        c.llama_memory_clear(c.llama_get_memory(self.context), False)
        start = time.perf_counter()
        for n in batches:
            self.decode(n)
        return sum(batches) / (time.perf_counter() - start)


def main():
    a = arguments()
    llama = Llama(a)
    prompt = [512] * (a.prompt // 512) + [a.prompt % 512] * (a.prompt % 512 > 0)
    out = []
    for threads in a.threads:
        llama.rate(threads, [min(a.prompt, 32), 1, 1])
        tests = {f"pp{a.prompt}": prompt, f"tg{a.answer}": [1] * a.answer}
        out += [dict(task=k, threads=threads, rate=llama.rate(threads, batches)) for k, batches in tests.items()]
    print(json.dumps(dict(load_seconds=llama.load_seconds, huge_bytes=llama.huge_bytes, tests=out)))


if __name__ == "__main__":
    main()
