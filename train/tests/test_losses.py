import math

import pytest
import torch
from torch.nn import functional as F

from copymatch_train import losses


def unit(rows, dimensions, seed=0):
    return F.normalize(
        torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.double), dim=1
    )


def test_barlow_twins_equals_the_sum_over_the_correlation_matrix_written_out():
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(12, 5, generator=g, dtype=torch.double), torch.randn(12, 5, generator=g, dtype=torch.double)
    total = 0.0
    for i in range(5):
        for j in range(5):
            x, y = a[:, i], b[:, j]
            c = sum((x[n] - x.mean()) * (y[n] - y.mean()) for n in range(12)) / 12
            c = c / math.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) / math.sqrt(((y - y.mean()) ** 2).mean() + 1e-5)
            total += float((1 - c) ** 2 if i == j else 0.02 * c**2)
    assert float(losses.barlow_twins(a, b, 0.02)) == pytest.approx(total, rel=1e-9)


def test_barlow_twins_of_identical_decorrelated_views_is_next_to_nothing():
    a = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.double)
    assert float(losses.barlow_twins(a, a.clone())) < 1e-8


def test_info_nce_equals_softmax_over_negatives_written_out_and_skips_own_memory_entries():
    d, memory = unit(6, 4), unit(5, 4, 1)
    labels, memory_labels = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 7, 8, 2, 9])
    t, total = 0.1, 0.0
    for i in range(6):
        j = i ^ 1
        negatives = [d[i] @ d[k] for k in range(6) if labels[k] != labels[i]]
        negatives += [d[i] @ memory[k] for k in range(5) if memory_labels[k] != labels[i]]
        positive = float(d[i] @ d[j]) / t
        total += math.log(math.exp(positive) + sum(math.exp(float(n) / t) for n in negatives)) - positive
    assert float(losses.info_nce(d, labels, t, memory, memory_labels)) == pytest.approx(total / 6, rel=1e-9)


def test_info_nce_refuses_a_batch_without_pairs():
    with pytest.raises(ValueError, match="two views"):
        losses.info_nce(unit(3, 4), torch.arange(3), 0.1)


def test_relational_distillation_is_the_divergence_of_similarities_written_out():
    d, references, taught, taught_references = unit(3, 4), unit(5, 4, 1), unit(3, 6, 2), unit(5, 6, 3)
    t, total = 0.2, 0.0
    for i in range(3):
        p = [math.exp(float(taught[i] @ taught_references[j]) / t) for j in range(5)]
        q = [math.exp(float(d[i] @ references[j]) / t) for j in range(5)]
        total += sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q))
    assert float(losses.relational_distillation(d, references, taught, taught_references, t)) == pytest.approx(
        total / 3, rel=1e-9
    )
    assert float(losses.relational_distillation(d, references, d, references, t)) == pytest.approx(0, abs=1e-12)


def test_koleo_is_minus_mean_log_distance_to_the_nearest_other_picture():
    d, labels = unit(8, 3), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    expected = 0.0
    for i in range(8):
        expected -= math.log(min(float((d[i] - d[j]).norm()) for j in range(8) if labels[j] != labels[i]))
    assert float(losses.koleo(d, labels, eps=0.0)) == pytest.approx(expected / 8, rel=1e-9)


def test_koleo_counts_neighbours_in_the_memory():
    d, labels = unit(4, 3), torch.arange(4)
    near = F.normalize(d + 0.001, dim=1)
    assert float(losses.koleo(d, labels, near, torch.arange(4) + 10)) > float(losses.koleo(d, labels)) + 1
    assert float(losses.koleo(d, labels, near, labels)) == pytest.approx(float(losses.koleo(d, labels)), abs=0.01)


def test_koleo_pushes_descriptors_apart():
    raw = torch.randn(16, 4, generator=torch.Generator().manual_seed(2)) * 0.1 + torch.tensor([1.0, 0, 0, 0])
    raw.requires_grad_(True)
    labels = torch.arange(16)

    def nearest():
        d = F.normalize(raw, dim=1).detach()
        return float((d @ d.T - 2 * torch.eye(16)).max())

    before = nearest()
    for _ in range(50):
        losses.koleo(F.normalize(raw, dim=1), labels).backward()
        with torch.no_grad():
            raw -= 0.1 * raw.grad
            raw.grad = None
    assert nearest() < before - 0.02


def test_triplet_equals_brute_force_over_all_triplets():
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    total = 0.0
    for a in range(9):
        worst = max(
            float((x[a] - x[p]).norm() - (x[a] - x[n]).norm())
            for p in range(9)
            if p != a and labels[p] == labels[a]
            for n in range(9)
            if labels[n] != labels[a]
        )
        total += math.log1p(math.exp(worst))
    assert float(losses.soft_batch_hard_triplet(x, labels)) == pytest.approx(total / 9, rel=1e-6)


def test_distillation_is_zero_for_equal_logits_and_gives_the_teacher_no_gradient():
    teacher, student = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    assert float(losses.distillation(teacher, teacher.detach().clone())) == pytest.approx(0, abs=1e-6)
    losses.distillation(teacher, student).backward()
    assert teacher.grad is None and student.grad is not None
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    direct = float((p * (p / q).log()).sum(1).mean().detach() * 4)
    assert float(losses.distillation(teacher, student).detach()) == pytest.approx(direct, rel=1e-5)


def test_info_nce_to_references_is_the_softmax_over_all_references_of_other_pictures():
    d, labels = unit(6, 8, 1), torch.tensor([0, 0, 1, 1, 2, 2])
    references, own = unit(3, 8, 2), torch.tensor([0, 1, 2])
    memory, older = unit(5, 8, 3), torch.tensor([1, 7, 8, 9, 2])
    total = 0.0
    for i, label in enumerate(labels.tolist()):
        positive = d[i] @ references[label]
        negatives = [
            r for r, other in zip(torch.cat([references, memory]), torch.cat([own, older]).tolist()) if other != label
        ]
        logits = torch.stack([positive, *(d[i] @ r for r in negatives)]) / 0.1
        total += float(-logits.log_softmax(0)[0])
    got = losses.info_nce_to_references(d, labels, references, own, 0.1, memory, older)
    assert got.item() == pytest.approx(total / 6, rel=1e-9)
    with pytest.raises(ValueError, match="no reference"):
        losses.info_nce_to_references(d, labels, references[:2], own[:2], 0.1)
