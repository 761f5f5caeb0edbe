"""Losses, each a function of plain tensors. `labels` are picture identities: equal label, same original."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def barlow_twins(a: torch.Tensor, b: torch.Tensor, off_diagonal: float = 0.0051, eps: float = 1e-5) -> torch.Tensor:
    """Zbontar et al., ICML 2021, eq. 1: Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij², C the cross-correlation over the batch.

    `a`, `b`: (N, D) projections of two views; each dimension is standardised over the batch (biased variance).
    """
    n = a.shape[0]
    a = (a - a.mean(0)) / (a.var(0, unbiased=False) + eps).sqrt()
    b = (b - b.mean(0)) / (b.var(0, unbiased=False) + eps).sqrt()
    c = a.T @ b / n
    diagonal = c.diagonal()
    return (1 - diagonal).square().sum() + off_diagonal * (c.square().sum() - diagonal.square().sum())


def info_nce(
    d: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    memory: torch.Tensor | None = None,
    memory_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over (anchor, positive) pairs of −log softmax of their similarity among all negatives and that positive.

    `d` (N, D) unit descriptors. Negatives are the batch's other pictures and the memory's (Wang et al., CVPR 2020,
    cross-batch memory); memory entries of the anchor's own picture are left out.
    """
    similarity = d @ d.T / temperature
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(d), dtype=torch.bool, device=d.device)
    negatives = similarity.masked_fill(same, float("-inf"))
    if memory is not None and len(memory):
        others = d @ memory.T / temperature
        others = others.masked_fill(labels[:, None] == memory_labels[None, :], float("-inf"))
        negatives = torch.cat([negatives, others], 1)
    floor = negatives.logsumexp(1)
    anchors, positives = torch.nonzero(same & ~itself, as_tuple=True)
    if not len(anchors):
        raise ValueError("info_nce: no picture has two views in this batch")
    positive = similarity[anchors, positives]
    return (torch.logaddexp(positive, floor[anchors]) - positive).mean()


def info_nce_to_references(
    d: torch.Tensor,
    labels: torch.Tensor,
    references: torch.Tensor,
    reference_labels: torch.Tensor,
    temperature: float,
    memory: torch.Tensor | None = None,
    memory_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over queries of −log softmax of the similarity to the own picture's reference among all references.

    As in MoCo (He et al., CVPR 2020): `d` (N, D) are edited views, `references` (P, D) nearly unedited ones described
    without gradient by the moving average, `memory` earlier references. It is the comparison that the search makes.
    """
    if memory is not None and len(memory):
        references, reference_labels = torch.cat([references, memory]), torch.cat([reference_labels, memory_labels])
    same = labels[:, None] == reference_labels[None, :]
    if not same.any(1).all():
        raise ValueError("info_nce_to_references: a query's picture has no reference in this batch")
    similarity = d @ references.T / temperature
    # argmax gives the first match: this batch's reference, not an older one from the memory.
    positive = similarity.gather(1, same.int().argmax(1, keepdim=True)).squeeze(1)
    floor = similarity.masked_fill(same, float("-inf")).logsumexp(1)
    return (torch.logaddexp(positive, floor) - positive).mean()


def relational_distillation(
    d: torch.Tensor, references: torch.Tensor, taught: torch.Tensor, taught_references: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Mean over queries of KL(teacher ‖ student), each a softmax of the query's similarities to the same references.

    As in RDCD (Kim et al., WACV 2025) and SEED (Fang et al., ICLR 2021): the student, (N, D) and (M, D), learns
    how alike the teacher, (N, T) and (M, T), finds a picture to every other one, not its descriptors, so that
    their dimensions may differ.
    """
    p = F.log_softmax(taught @ taught_references.T / temperature, 1)
    q = F.log_softmax(d @ references.T / temperature, 1)
    return F.kl_div(q, p.detach(), reduction="batchmean", log_target=True)


def koleo(
    d: torch.Tensor,
    labels: torch.Tensor,
    memory: torch.Tensor | None = None,
    memory_labels: torch.Tensor | None = None,
    eps: float = 1e-6,
) -> torch.Tensor:
    """Kozachenko–Leonenko entropy regulariser (Sablayrolles et al., ICLR 2019): −mean log ‖d_i
    − nearest other picture‖.

    Views of the same picture do not count as neighbours (Pizzi et al., CVPR 2022); the memory widens the search.
    """
    with torch.no_grad():
        candidates, candidate_labels = d, labels
        if memory is not None and len(memory):
            candidates, candidate_labels = torch.cat([d, memory]), torch.cat([labels, memory_labels])
        similarity = (d @ candidates.T).masked_fill(labels[:, None] == candidate_labels[None, :], -2.0)
        nearest = similarity.argmax(1)
    if memory is not None and len(memory):
        neighbours = torch.cat([d, memory])[nearest]
    else:
        neighbours = d[nearest]
    return -((d - neighbours).square().sum(1) + eps).sqrt().log().mean()


def soft_batch_hard_triplet(feature: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Hermans et al., 2017, soft margin (margin 0): mean log(1 + exp(furthest positive − nearest
    negative)), Euclidean."""
    squared = feature.square().sum(1)
    distance = (squared[:, None] + squared[None, :] - 2 * feature @ feature.T).clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(feature), dtype=torch.bool, device=feature.device)
    positive = distance.masked_fill(~same | itself, float("-inf")).amax(1)
    negative = distance.masked_fill(same, float("inf")).amin(1)
    usable = torch.isfinite(positive) & torch.isfinite(negative)
    if not usable.any():
        raise ValueError("soft_batch_hard_triplet: the batch holds no picture with both a positive and a negative")
    return F.softplus(positive[usable] - negative[usable]).mean()


def distillation(teacher: torch.Tensor, student: torch.Tensor, temperature: float = 2.0) -> torch.Tensor:
    """Hinton et al., 2015: T² · KL(teacher ‖ student) of class logits (N, K); the teacher gets no gradient."""
    p = F.log_softmax(teacher.detach() / temperature, 1)
    q = F.log_softmax(student / temperature, 1)
    return F.kl_div(q, p, reduction="batchmean", log_target=True) * temperature**2
