"""Generalised-mean pooling (Radenović et al., TPAMI 2018)."""

from __future__ import annotations

import torch
from torch import nn


class GeM(nn.Module):
    """(N, C, H, W) → (N, C): (mean over positions of max(x, eps)^p)^(1/p), p learnable unless told otherwise.

    p = 1 is average pooling of the positive part, p → ∞ is max pooling. The paper starts at 3.
    """

    def __init__(self, p: float = 3.0, learnable: bool = True, eps: float = 1e-6):
        super().__init__()
        if p < 1:
            raise ValueError(f"GeM p {p} is below 1")
        self.p = nn.Parameter(torch.tensor(float(p)), requires_grad=learnable)
        self.eps = eps
        self.cube = p == 3 and not learnable

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clamp(min=self.eps)
        if self.cube:
            # By multiplication: a general power takes a tenth of a small network's training time.
            return (x * x * x).mean(dim=(2, 3)).pow(1.0 / 3.0)
        return x.pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)

    def extra_repr(self) -> str:
        return f"p={self.p.item():.3f}, learnable={self.p.requires_grad}"


class AveragePooling(nn.Module):
    """(N, C, H, W) → (N, C): the mean over positions; the ablation's counterpart of GeM."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def both_signs(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) → (N, 2C, H, W): x and −x, so that GeM, which drops what is negative, sees all of a
    map without activation."""
    return torch.cat([x, -x], 1)
