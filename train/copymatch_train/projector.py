"""Heads: pooled feature → (wide descriptor or None, short descriptor), before L2 normalisation."""

from __future__ import annotations

import torch
from torch import nn


class LinearHead(nn.Module):
    """(N, C) → (None, (N, dimensions)): one affine map, initialised by PCA whitening where a
    picture store is at hand."""

    wide = 0

    def __init__(self, channels: int, dimensions: int):
        super().__init__()
        self.short = nn.Linear(channels, dimensions)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        return None, self.short(x)

    @torch.no_grad()
    def whiten(
        self,
        features: torch.Tensor,
        shrink: float = 0.02,
        widths: list[int] | None = None,
        shares: list[float] | None = None,
    ) -> None:
        """Set the map to PCA whitening of `features` (M, C).

        Eigenvalues are raised by `shrink` times their mean so that directions with next to no variance are not
        blown up. With `widths` (their sum is C), the blocks of columns are first brought to the total variances
        `shares`² (1 each by default).
        """
        features = features.double()
        mean = features.mean(0)
        centred = features - mean
        gain = torch.ones_like(mean)
        if widths and len(widths) > 1:
            spreads = [block.square().sum(1).mean().sqrt() for block in centred.split(widths, 1)]
            if not all(s > 0 for s in spreads):
                raise ValueError("whitening: a block of features does not vary")
            gain = torch.cat(
                [(share / s).expand(w) for share, s, w in zip(shares or [1.0] * len(widths), spreads, widths)]
            )
            centred = centred * gain
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(features))
        if not values[-1] > 0:
            raise ValueError(f"whitening: the {len(features)} features do not vary, or are not finite")
        dimensions = self.short.out_features
        values, vectors = values.flip(0)[:dimensions], vectors.flip(1)[:, :dimensions]
        weight = (vectors / (values + shrink * values.mean()).sqrt()).T * gain
        # Only the direction of the output counts; this is the size at which Adam's steps are neither huge nor idle.
        weight = weight / (weight.std() * features.shape[1] ** 0.5)
        self.short.weight.copy_(weight)
        self.short.bias.copy_(-(weight @ mean))


class ProjectorHead(nn.Module):
    """The paper's high-dimensional projector (arXiv 2111.08004 §3), (N, C) → ((N, wide), (N, dimensions)).

    C → hidden → BN → LeakyReLU(0.2) → wide → BN, then BN → LeakyReLU(0.2) → dimensions → BN on top of the wide branch.
    """

    def __init__(self, channels: int, hidden: int, wide: int, dimensions: int):
        super().__init__()
        self.wide = wide
        self.widen = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, wide),
            nn.BatchNorm1d(wide),
        )
        self.shorten = nn.Sequential(
            nn.BatchNorm1d(wide),
            nn.LeakyReLU(0.2),
            nn.Linear(wide, dimensions),
            nn.BatchNorm1d(dimensions),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        wide = self.widen(x)
        return wide, self.shorten(wide)
