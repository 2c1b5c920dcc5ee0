"""Corrections for several tests, intervals over seeds, and bootstraps, as statsmodels, scipy and numpy have them; JSON to stdout.

    python noise.py > ../../crates/lowbit-eval/tests/golden/noise.json
"""

import json

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score
from statsmodels.stats.multitest import multipletests


def holm(p):
    return {"p": p, "corrected": [float(x) for x in multipletests(p, method="holm")[1]]}


def t_interval(samples):
    low, high = stats.t.interval(0.95, len(samples) - 1, loc=np.mean(samples), scale=stats.sem(samples))
    return {"samples": samples, "interval": [float(np.mean(samples)), float(low), float(high)]}


def f1_macro(confusion, resamples=20_000):
    """Rows drawn again are a multinomial draw of the cells."""
    counts = np.array(confusion)
    rng, n = np.random.default_rng(7), counts.sum()
    draws = rng.multinomial(n, counts.ravel() / n, size=resamples).reshape(resamples, *counts.shape)
    right = np.einsum("sii->si", draws)
    scores = (2 * right / np.maximum(draws.sum(1) + draws.sum(2), 1)).mean(1)
    truths, answers = np.nonzero(counts)
    rows = counts[truths, answers]
    whole = f1_score(np.repeat(truths, rows), np.repeat(answers, rows), average="macro")
    mine = (2 * np.diag(counts) / (counts.sum(0) + counts.sum(1))).mean()
    assert abs(whole - mine) < 1e-12
    return {"confusion": confusion, "interval": [float(x) for x in np.percentile(scores, [2.5, 97.5])]}


def paired_bootstrap(differences):
    found = stats.bootstrap((differences,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3))
    low, high = float(found.confidence_interval.low), float(found.confidence_interval.high)
    return {
        "differences": differences,
        "mean": float(np.mean(differences)),
        "interval": [low, high],
        "width": high - low,
        "excludes_zero": bool(low > 0 or high < 0),
    }


rng = np.random.default_rng(1)
blocks = lambda mean: [round(float(x), 6) for x in rng.normal(mean, 0.02, 200)]
print(
    json.dumps(
        {
            "holm": [
                holm([0.01, 0.04, 0.03, 0.005]),
                holm([0.02, 0.02, 0.9, 1.0, 0.0004]),
                holm([0.5]),
                holm([0.3, 0.2, 0.6]),
                holm([1e-9, 0.04999, 0.0125, 0.0167, 0.025, 0.5, 0.05]),
            ],
            "t975": [{"freedom": n, "quantile": float(stats.t.ppf(0.975, n))} for n in (1, 2, 3, 4, 5, 9, 10, 29, 30, 99, 1000)],
            "t_interval": [t_interval([0.954, 0.957, 0.951]), t_interval([1.0, 2.0]), t_interval([0.9, 0.91, 0.905, 0.899, 0.93])],
            "f1_macro": [
                f1_macro([[480, 8, 7, 5], [3, 490, 4, 3], [15, 2, 450, 33], [12, 4, 30, 454]]),
                f1_macro([[40, 10], [7, 3]]),
            ],
            "paired_bootstrap": [paired_bootstrap(blocks(0.0)), paired_bootstrap(blocks(0.006)), paired_bootstrap(blocks(-0.03))],
        },
        indent=1,
    )
)
