"""Copies as classes: every training picture is a class, its edits are the samples (arXiv 2111.08004 §3)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PictureClassifier(nn.Module):
    """Linear classifier over pictures; `sampled` > 0 scores only the batch's classes and that many random ones.

    Sampling keeps a wide branch affordable without a GPU: cost and gradient touch (batch
    classes + sampled) rows, not all.
    """

    def __init__(self, dimensions: int, classes: int, sampled: int = 0):
        super().__init__()
        self.weight = nn.Embedding(classes, dimensions, sparse=sampled > 0)
        nn.init.normal_(self.weight.weight, std=0.01)
        self.sampled = sampled

    def choose(self, labels: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor | None:
        """The classes to score in this step, sorted; None for all of them."""
        classes = self.weight.num_embeddings
        if not 0 < self.sampled < classes:
            return None
        drawn = torch.randint(0, classes, (self.sampled,), generator=generator).to(labels.device)
        return torch.unique(torch.cat([labels, drawn]))

    def logits(self, x: torch.Tensor, chosen: torch.Tensor | None) -> torch.Tensor:
        """(N, D) → (N, K), K = len(chosen) or all classes."""
        return x @ (self.weight.weight if chosen is None else self.weight(chosen)).T


def classification(
    logits: torch.Tensor, labels: torch.Tensor, chosen: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Cross-entropy with label smoothing over the scored classes."""
    target = labels if chosen is None else torch.searchsorted(chosen, labels)
    return F.cross_entropy(logits, target, label_smoothing=smoothing)
