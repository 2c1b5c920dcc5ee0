"""Golden values of regression metrics and of baselines over numbers, by scikit-learn.

python tools/golden/regression.py > crates/lowbit-eval/tests/golden/regression.json
"""

import json

import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from sklearn.neighbors import NearestCentroid

random = np.random.default_rng(5)
train = random.normal(size=(40, 3)).astype("f") * [1, 10, 0.1] + [0, 5, -2]
test = random.normal(size=(12, 3)).astype("f") * [1, 10, 0.1] + [0, 5, -2]
weights = np.array([2.0, -0.3, 8.0])
value = lambda x: x @ weights + 50 + random.normal(size=len(x))
targets, expected = value(train), value(test)
predicted = LinearRegression().fit(train, targets).predict(test)
classes = (train[:, 1] > 5).astype(int) + (train[:, 0] > 0.5).astype(int)
nearest = NearestCentroid().fit(train, classes).predict(test)

# 95 % interval of R2 over 4,000 resamples of the rows, for comparison with the delta method on many rows.
many = random.normal(size=3000)
guess = many * 0.8 + random.normal(size=3000) * 0.4
rows = random.integers(0, 3000, size=(4000, 3000))
resampled = [r2_score(many[r], guess[r]) for r in rows]

print(json.dumps({
    "train": train.astype("f").tolist(), "test": test.astype("f").tolist(), "targets": targets.tolist(),
    "expected": expected.tolist(), "linear": predicted.tolist(), "classes": classes.tolist(), "nearest": nearest.tolist(),
    "mse": mean_squared_error(expected, predicted), "mae": mean_absolute_error(expected, predicted),
    "r2": r2_score(expected, predicted), "many": many.round(4).tolist(), "guess": guess.round(4).tolist(),
    "r2_many": r2_score(many.round(4), guess.round(4)),
    "interval": np.percentile(resampled, [2.5, 97.5]).tolist(),
}))
