"""Golden values of classification metrics, by scikit-learn's defaults: classes present or answered, zero_division=0.

python tools/golden/classification.py > crates/lowbit-eval/tests/golden/classification.json
"""

import json

from sklearn.metrics import accuracy_score, precision_recall_fscore_support

CASES = [
    (4, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2], [0, 0, 1, 2, 1, 1, 0, 2, 2, 2, 1, 0]),
    (3, [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
    (3, [1, 1, 1, 1, 1], [1, 2, 1, 2, 1]),
    (2, [0, 0, 1, 1], [1, 1, 0, 0]),
    (6, [5, 5, 0, 3, 3, 3, 0, 1], [5, 0, 0, 3, 4, 3, 4, 4]),
]


def case(classes, truths, answers):
    labels = sorted(set(truths) | set(answers))
    _, _, f1, _ = precision_recall_fscore_support(truths, answers, labels=labels, zero_division=0)
    macro = precision_recall_fscore_support(truths, answers, average="macro", zero_division=0)
    measures = {"accuracy": float(accuracy_score(truths, answers))}
    measures |= {f"{name}_macro": float(macro[i]) for i, name in enumerate(["precision", "recall", "f1"])}
    measures |= {f"f1/{label}": float(value) for label, value in zip(labels, f1)}
    return {"classes": classes, "truths": truths, "answers": answers, "measures": measures}


print("[\n" + ",\n".join(json.dumps(case(*c)) for c in CASES) + "\n]")
