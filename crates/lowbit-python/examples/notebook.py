# %% [markdown]
# # What do low bits cost on my reviews?
# Cells of a notebook as a program: `python notebook.py`, or open it in an editor that knows `# %%`.

# %%
import numpy as np

import lowbit

# %% A weight matrix in several formats: bytes, and the error of a product.
random = np.random.default_rng(0)
weights = random.normal(size=(1000, 1000)).astype(np.float32)
x = random.normal(size=(8, 1000)).astype(np.float32)
exact = x @ weights.T
for name in ["bf16", "int8", "nf4", "ternary"]:
    packed = lowbit.quantize(name, weights)
    error = np.sqrt(np.mean((packed.matmul(x) - exact) ** 2) / np.mean(exact**2))
    print(f"{name:8} {packed.nbytes:9,} bytes  relative error {error:.4f}")

# %% A language model: the one that the package brings along.
model = lowbit.Model.open(lowbit.SHIPPED)
for piece in model.generate("This film is", max_tokens=20, seed=3):
    print(piece, end="")
print()

# %% Rows of one's own: a DataFrame works as well as this mapping.
words = {"pos": ["lovely", "great", "superb"], "neg": ["awful", "poor", "dull"]}
labels = [str(random.choice(["pos", "neg"])) for _ in range(400)]
reviews = {"review": [f"the film was {random.choice(words[l])} and {random.choice(words[l])}" for l in labels], "stars": labels}
report = lowbit.compare(reviews, text="review", label="stars", progress=print)
report

# %%
print(report)
best = report.model("ternary_qat")
print(best.classify(["a superb plot", "a dull cast"]).labels)
