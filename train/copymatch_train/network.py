"""The whole network: trunk with WaveBlocks, pooling, head, and its outputs by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .config import Network
from .pooling import AveragePooling, GeM
from .projector import LinearHead, ProjectorHead
from .trunks import build_trunk
from .waveblock import WaveBlock


@dataclass
class Outputs:
    """`feature` (N, C) pooled; `wide` (N, W) or None; `descriptor` (N, D) unit length.

    `references` (P, D) with `reference_labels` (P,): descriptors that the moving average gives, where the loss wants them.
    """

    feature: torch.Tensor
    wide: torch.Tensor | None
    short: torch.Tensor
    descriptor: torch.Tensor
    references: torch.Tensor | None = None
    reference_labels: torch.Tensor | None = None


class CopyNetwork(nn.Module):
    """(N, 3, S, S) normalised pictures → Outputs. `frozen_stages` leading stages run without gradients."""

    def __init__(self, config: Network):
        super().__init__()
        self.trunk = build_trunk(config.trunk, config.batch_norm, config.last_stride)
        self.pool = GeM(config.gem_p, config.gem_learnable) if config.pooling == "gem" else AveragePooling()
        self.wave = WaveBlock() if config.waveblock else None
        channels = self.trunk.channels
        if config.head == "linear":
            self.head: nn.Module = LinearHead(channels, config.dimensions)
        else:
            self.head = ProjectorHead(channels, config.projector_hidden, config.projector_wide, config.dimensions)
        self.frozen_stages = config.frozen_stages
        for stage in self.trunk.stages[: self.frozen_stages]:
            stage.requires_grad_(False)

    def train(self, mode: bool = True) -> CopyNetwork:
        """Frozen stages stay in evaluation mode, so that their batch statistics stay too."""
        super().train(mode)
        for stage in self.trunk.stages[: self.frozen_stages]:
            stage.eval()
        return self

    @torch.no_grad()
    def frozen(self, x: torch.Tensor) -> torch.Tensor:
        """The feature map behind the frozen stages, which the moving average shares; `x` itself where none is frozen."""
        for number, stage in enumerate(self.trunk.stages[: self.frozen_stages]):
            x = self._waved(number, stage(x))
        return x

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self._pooled(self.frozen(x))

    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        for number, stage in enumerate(self.trunk.stages[self.frozen_stages :], self.frozen_stages):
            x = self._waved(number, stage(x))
        return self.pool(x.float())

    def _waved(self, number: int, x: torch.Tensor) -> torch.Tensor:
        return self.wave(x) if self.wave is not None and number in self.trunk.wave_after else x

    def outputs(self, x: torch.Tensor) -> Outputs:
        return self.outputs_behind(self.frozen(x))

    def outputs_behind(self, x: torch.Tensor) -> Outputs:
        """Outputs from the frozen stages' feature map."""
        feature = self._pooled(x)
        wide, short = self.head(feature)
        return Outputs(feature, wide, short, F.normalize(short, dim=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The deployed output: unit descriptors (N, dimensions)."""
        return self.outputs(x).descriptor
