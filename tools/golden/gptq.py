"""Codes of GPTQ (arXiv 2210.17323, algorithm 1) on seeded small matrices, in float64 with the Cholesky factor of the inverse Hessian.

Scales are those from minimum to maximum of each group of 64 columns: of the weights as they are, columns being visited by descending
diagonal of the Hessian; or of the corrected weights when the group is reached, columns being visited in order. Then the codes after four
rounds of coordinate descent (QuantEase, arXiv 2309.01885, algorithm 2 without outliers), scales being kept.

    python tools/golden/gptq.py            writes crates/lowbit-model/tests/golden/gptq.json
"""

import json
import pathlib

import numpy as np

ROWS, COLS, TOKENS, FACTORS, GROUP, BLOCK, DAMPING = 5, 200, 512, 24, 64, 128, 0.01
OUT = pathlib.Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/gptq.json"


def min_max(w, most):
    """Scale and offset of a group, as float32 holds them."""
    low, high = np.float32(w.min()), np.float32(w.max())
    return np.float32((np.float64(high) - np.float64(low)) / most), low


def nearest(w, scale, offset, most):
    code = np.clip(np.round((w - np.float64(offset)) / np.float64(scale)), 0, most)
    return code, code * np.float64(scale) + np.float64(offset)


def gptq(weights, inputs, most, by_activation):
    w = weights.astype(np.float64)
    x = inputs.astype(np.float64)
    hessian = x.T @ x / len(x)
    hessian += DAMPING * np.mean(np.diag(hessian)) * np.eye(COLS)
    order = np.argsort(-np.diag(hessian), kind="stable") if by_activation else np.arange(COLS)
    scales = {}
    if by_activation:
        for row in range(ROWS):
            for first in range(0, COLS, GROUP):
                scales[row, first // GROUP] = min_max(w[row, first : first + GROUP], most)
    w, hessian = w[:, order], hessian[np.ix_(order, order)]
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    codes = np.zeros((ROWS, COLS), dtype=int)
    for start in range(0, COLS, BLOCK):
        end = min(start + BLOCK, COLS)
        errors = np.zeros((ROWS, end - start))
        for step in range(start, end):
            column = order[step]
            if not by_activation and column % GROUP == 0:
                for row in range(ROWS):
                    scales[row, column // GROUP] = min_max(w[row, column : column + GROUP], most)
            for row in range(ROWS):
                codes[row, column], rounded = nearest(w[row, step], *scales[row, column // GROUP], most)
                errors[row, step - start] = (w[row, step] - rounded) / upper[step, step]
            w[:, step:end] -= np.outer(errors[:, step - start], upper[step, step:end])
        w[:, end:] -= errors @ upper[start:end, end:]
    return codes, scales, hessian[np.ix_(np.argsort(order), np.argsort(order))]


def descend(weights, codes, scales, hessian, most):
    codes, w = codes.copy(), weights.astype(np.float64)
    rounded = np.zeros_like(w)
    for row in range(ROWS):
        for column in range(COLS):
            scale, offset = scales[row, column // GROUP]
            rounded[row, column] = codes[row, column] * np.float64(scale) + np.float64(offset)
    for _ in range(4):
        for column in range(COLS):
            wanted = rounded[:, column] + (w - rounded) @ hessian[:, column] / hessian[column, column]
            for row in range(ROWS):
                found = nearest(wanted[row], *scales[row, column // GROUP], most)
                codes[row, column], rounded[row, column] = found
    return codes


def case(weights, inputs, most, by_activation):
    codes, scales, hessian = gptq(weights, inputs, most, by_activation)
    descended = descend(weights, codes, scales, hessian, most)
    return {"most": most, "by_activation": by_activation, "codes": codes.tolist(), "descended": descended.tolist()}


def numbers(state, *shape):
    """Whole numbers from -8 to 7 of the generator of Numerical Recipes, which the test has too."""
    out = []
    for _ in range(np.prod(shape)):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append((state >> 28) - 8)
    return np.array(out).reshape(shape)


def main():
    # Inputs that depend on each other, one that is larger, and one that is always 0.
    inputs = numbers(1, TOKENS, FACTORS) @ numbers(2, FACTORS, COLS) + 8 * numbers(3, TOKENS, COLS)
    inputs[:, 11] *= 4
    inputs[:, 70] = 0
    w, x = (numbers(4, ROWS, COLS) / 8 + numbers(5, ROWS, COLS) / 256).astype(np.float32), (inputs / 64).astype(np.float32)
    cases = [
        case(w, x, most, by_activation)
        for most in (3, 15)
        for by_activation in (False, True)
    ]
    OUT.write_text(json.dumps(cases, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
