"""Losses of distillation and their gradients by PyTorch, in float64.

Writes crates/lowbit-train/tests/golden_distill.json:
  logits     T^2 KL(softmax(teacher / T) || softmax(student / T)) summed over the rows that count (Hinton: arXiv 1503.02531)
  outputs    factor * mean((student - teacher)^2), the mean taken over all tokens of an update (TernaryBERT: arXiv 2009.12812)
  relations  KL(teacher || student) of the relations of queries, keys and values (MiniLMv2: arXiv 2012.15828, with rows of length 1 as in
             BitDistill: arXiv 2510.13998), summed over the three, heads and tokens
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

OUT = Path(__file__).parents[2] / "crates/lowbit-train/tests/golden_distill.json"


def drawn(*shape, scale=1.0):
    """Values that float32 holds exactly."""
    return (scale * torch.randn(*shape)).float().double()


def of_logits(rows, width, temperature, ignored):
    student, teacher = drawn(rows, width, scale=3.0).requires_grad_(), drawn(rows, width, scale=3.0)
    targets = [0xFFFFFFFF if row in ignored else row % width for row in range(rows)]
    counts = [row for row in range(rows) if row not in ignored]
    of_student = F.log_softmax(student[counts] / temperature, dim=-1)
    of_teacher = F.softmax(teacher[counts] / temperature, dim=-1)
    loss = temperature**2 * F.kl_div(of_student, of_teacher, reduction="sum")
    loss.backward()
    return dict(width=width, temperature=temperature, targets=targets, student=student.flatten().tolist(),
                teacher=teacher.flatten().tolist(), loss=loss.item(), gradient=student.grad.flatten().tolist())


def of_outputs(rows, width, tokens, factor):
    student, teacher = drawn(rows, width).requires_grad_(), drawn(rows, width)
    loss = F.mse_loss(student, teacher) * rows / tokens
    (factor * loss).backward()
    return dict(width=width, tokens=tokens, factor=factor, student=student.flatten().tolist(),
                teacher=teacher.flatten().tolist(), loss=loss.item(), gradient=student.grad.flatten().tolist())


def relations(x, heads):
    """[heads, tokens, tokens] of [tokens, width]."""
    parts = F.normalize(x.view(x.shape[0], heads, -1).transpose(0, 1), dim=-1)
    return parts @ parts.transpose(-1, -2)


def of_relations(lengths, heads, width, teacher_width):
    tokens = sum(lengths)
    student = [drawn(tokens, width).requires_grad_() for _ in range(3)]
    teacher = [drawn(tokens, teacher_width) for _ in range(3)]
    loss = 0.0
    for own, other in zip(student, teacher):
        for x, y in zip(own.split(lengths), other.split(lengths)):
            of_student = F.log_softmax(relations(x, heads), dim=-1)
            loss = loss + F.kl_div(of_student, F.softmax(relations(y, heads), dim=-1), reduction="sum")
    loss.backward()
    return dict(lengths=lengths, heads=heads, widths=[width, teacher_width], student=[x.flatten().tolist() for x in student],
                teacher=[x.flatten().tolist() for x in teacher], loss=loss.item(),
                gradients=[x.grad.flatten().tolist() for x in student])


def main():
    torch.manual_seed(7)
    done = dict(
        logits=[of_logits(4, 5, 1.0, []), of_logits(6, 11, 2.5, [1, 4]), of_logits(3, 130, 5.0, [])],
        relations=[of_relations([3, 1, 6], 2, 8, 12), of_relations([5], 1, 6, 6), of_relations([2, 4], 4, 20, 8)],
        outputs=[of_outputs(3, 5, 3, 1.0), of_outputs(4, 33, 10, 20.0)],
    )
    rounded = json.dumps(json.loads(json.dumps(done), parse_float=lambda text: float(f"{float(text):.9g}")))
    OUT.write_text(rounded + "\n")
    print(f"{OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
