"""The whole network: trunk with WaveBlocks, pooling, head, and its outputs by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .config import Network
from .negatives import NegativeSubtraction
from .pooling import AveragePooling, GeM, both_signs
from .projector import LinearHead, ProjectorHead
from .trunks import build_trunk
from .waveblock import WaveBlock


@dataclass
class Outputs:
    """`feature` (N, C) pooled; `wide` (N, W) or None; `descriptor` (N, D) unit length.

    `references` (P, D) with `reference_labels` (P,): descriptors that the moving average gives, where the loss wants them.
    `taught` (N, T) and `taught_references` (P, T): the teacher's descriptors of the same pictures, where there is one.
    """

    feature: torch.Tensor
    wide: torch.Tensor | None
    short: torch.Tensor
    descriptor: torch.Tensor
    references: torch.Tensor | None = None
    reference_labels: torch.Tensor | None = None
    taught: torch.Tensor | None = None
    taught_references: torch.Tensor | None = None


class CopyNetwork(nn.Module):
    """(N, 3, S, S) normalised pictures → Outputs. `frozen_stages` leading stages run without gradients."""

    def __init__(self, config: Network):
        super().__init__()
        self.trunk = build_trunk(config.trunk, config.batch_norm, config.last_stride)
        self.pool = GeM(config.gem_p, config.gem_learnable) if config.pooling == "gem" else AveragePooling()
        self.wave = WaveBlock() if config.waveblock else None
        # Middle layers see smaller parts of the picture, and more of what distinguishes it from others of its kind.
        self.levels, self.expansions = set(config.levels), set(config.expansions)
        self.widths = [2 * self.trunk.stage_channels(k) for k in sorted(self.levels)]
        self.widths += [self.trunk.expansion_channels(k) for k in sorted(self.expansions)] + [self.trunk.channels]
        channels = sum(self.widths)
        if config.head == "linear":
            self.head: nn.Module = LinearHead(channels, config.dimensions)
        else:
            self.head = ProjectorHead(channels, config.projector_hidden, config.projector_wide, config.dimensions)
        self.negatives = (
            NegativeSubtraction(config.negatives, config.dimensions, config.negative_share, config.negative_temperature) if config.negatives else None
        )
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
        """(N, sum of `widths`): the pooled `levels`, then the pooled `expansions`, then the pooled last map."""
        levels, expansions = [], []
        for number, stage in enumerate(self.trunk.stages[self.frozen_stages :], self.frozen_stages):
            if number in self.expansions:
                expanded, x = self.trunk.through_expansion(stage, x)
                expansions.append(self.pool(expanded.float()))
            else:
                x = stage(x)
            x = self._waved(number, x)
            if number in self.levels:
                levels.append(self.pool(both_signs(x.float())))
        return torch.cat([*levels, *expansions, self.pool(x.float())], 1) if levels or expansions else self.pool(x.float())

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
        """The deployed output: unit descriptors (N, dimensions), the negatives subtracted."""
        descriptor = self.outputs(x).descriptor
        return descriptor if self.negatives is None else self.negatives(descriptor)
