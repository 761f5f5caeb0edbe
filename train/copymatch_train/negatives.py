"""Negative embedding subtraction: what a descriptor shares with pictures that it is no copy of is taken out of it.

After Yokoo, "Contrastive Learning with Large Memory Bank and Negative Embedding Subtraction for Accurate Copy
Detection" (arXiv 2112.04323), who subtracts the mean of the nearest negatives, several times; here all negatives are
weighted by a softmax over their similarities, once, which needs no search and is a few nodes of the exported graph. Two
pictures of the same kind lose what their kind has in common; an edited picture and its original keep what is theirs.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class NegativeSubtraction(nn.Module):
    """(N, D) unit descriptors → (N, D) unit descriptors, less `share` of the softmax mean of the negatives.

    `negatives` (M, D): unit descriptors of training pictures; zeros, which subtract nothing, before `fill`.
    `temperature`: of the softmax over cosine similarities.
    """

    def __init__(self, negatives: int, dimensions: int, share: float, temperature: float):
        super().__init__()
        self.register_buffer("negatives", torch.zeros(negatives, dimensions))
        self.share, self.temperature = share, temperature

    def fill(self, descriptors: torch.Tensor) -> None:
        """Keep these as negatives, rounded to the float16 numbers that the exported file holds."""
        if descriptors.shape != self.negatives.shape:
            raise ValueError(f"negatives are {tuple(self.negatives.shape)}, not {tuple(descriptors.shape)}")
        self.negatives.copy_(F.normalize(descriptors, dim=1).half().float())

    def forward(self, descriptor: torch.Tensor) -> torch.Tensor:
        weight = (F.linear(descriptor, self.negatives) / self.temperature).softmax(1)
        return F.normalize(descriptor - self.share * (weight @ self.negatives), dim=1)
