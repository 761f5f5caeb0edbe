"""The whole network: trunk with WaveBlocks, pooling, head, and its outputs by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .config import Network
from .locator import Locator, cut_out, likeliest_box, other_box
from .negatives import NegativeSubtraction
from .pooling import AveragePooling, GeM, both_signs
from .projector import LinearHead, ProjectorHead
from .trunks import build_trunk
from .waveblock import WaveBlock

# The stages of mobilenet_v2 behind which the locator looks: at 1/4, 1/8 and 1/16 of the image's size.
_LOCATED = (2, 3, 5)


@dataclass
class Outputs:
    """`feature` (N, C) pooled; `wide` (N, W) or None; `descriptor` (N, D) unit length.

    `references` (P, D) with `reference_labels` (P,): descriptors that the moving average gives, where the loss
    wants them. `taught` (N, T) and `taught_references` (P, T): the teacher's descriptors of the same pictures,
    where there is one. `located` (N, 5, H, W): what the locator says of each cell, where there is one; `places`
    (N, 4): where the pictures are.
    """

    feature: torch.Tensor
    wide: torch.Tensor | None
    short: torch.Tensor
    descriptor: torch.Tensor
    references: torch.Tensor | None = None
    reference_labels: torch.Tensor | None = None
    taught: torch.Tensor | None = None
    taught_references: torch.Tensor | None = None
    located: torch.Tensor | None = None
    places: torch.Tensor | None = None


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
            NegativeSubtraction(
                config.negatives + config.negatives_beside,
                config.dimensions,
                config.negative_share,
                config.negative_temperature,
            )
            if config.negatives
            else None
        )
        # The locator reads these maps and the last one, at 1/32.
        self.locator = (
            Locator(*(self.trunk.stage_channels(k) for k in _LOCATED), self.trunk.channels)
            if config.second_look
            else None
        )
        self.first_shrink, self.second_look = config.first_shrink, config.second_look
        self.second_share, self.third_share = config.second_share, config.third_share
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
        """The feature map behind the frozen stages, which the moving average shares; `x`
        itself where none is frozen."""
        for number, stage in enumerate(self.trunk.stages[: self.frozen_stages]):
            x = self._waved(number, stage(x))
        return x

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self._pooled(self.frozen(x))[0]

    def _pooled(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(N, sum of `widths`): the pooled `levels`, then the pooled `expansions`, then the pooled last map.
        And the locator's maps."""
        levels, expansions = [], []
        # The map behind the frozen stages may be one of the locator's.
        maps = [x] if self.frozen_stages - 1 in _LOCATED else []
        for number, stage in enumerate(self.trunk.stages[self.frozen_stages :], self.frozen_stages):
            if number in self.expansions:
                expanded, x = self.trunk.through_expansion(stage, x)
                expansions.append(self.pool(expanded.float()))
            else:
                x = stage(x)
            x = self._waved(number, x)
            if number in self.levels:
                levels.append(self.pool(both_signs(x.float())))
            if number in _LOCATED:
                maps.append(x)
        pooled = (
            torch.cat([*levels, *expansions, self.pool(x.float())], 1) if levels or expansions else self.pool(x.float())
        )
        return pooled, [*maps, x]

    def _waved(self, number: int, x: torch.Tensor) -> torch.Tensor:
        return self.wave(x) if self.wave is not None and number in self.trunk.wave_after else x

    def outputs(self, x: torch.Tensor) -> Outputs:
        return self.outputs_behind(self.frozen(x))

    def outputs_behind(self, x: torch.Tensor) -> Outputs:
        """Outputs from the frozen stages' feature map."""
        feature, maps = self._pooled(x)
        wide, short = self.head(feature)
        located = None if self.locator is None else self.locator(*(m.float() for m in maps))
        return Outputs(feature, wide, short, F.normalize(short, dim=1), located=located)

    def shrunk(self, x: torch.Tensor) -> torch.Tensor:
        """What the first look sees: (N, 3, S, S) → (N, 3, S/first_shrink, S/first_shrink)."""
        return (
            x
            if self.first_shrink == 1
            else F.avg_pool2d(x, self.first_shrink).contiguous(memory_format=torch.channels_last)
        )

    def described(self, x: torch.Tensor) -> torch.Tensor:
        """Unit descriptors (N, dimensions) as deployed, before any subtraction: with a locator, of the image and of the
        one or two pictures found in it."""
        first = self.outputs(self.shrunk(x))
        if first.located is None:
            return first.descriptor
        found = likeliest_box(first.located)[:, None]
        shares = torch.full_like(found[:, :, :1], self.second_share)
        if self.third_share:
            other, certainty = other_box(first.located, found[:, 0])
            found = torch.cat([found, other[:, None]], 1)
            shares = torch.cat([shares, self.third_share * certainty[:, None, None]], 1)
        # All cuts in one pass: the exported graph holds the trunk twice, not three times.
        cuts = cut_out(x, found, self.second_look).contiguous(memory_format=torch.channels_last)
        _, short = self.head(self.features(cuts))
        further = F.normalize(short, dim=1).reshape(-1, found.shape[1], short.shape[1]) * shares
        return F.normalize(first.descriptor + further.sum(1), dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The deployed output: unit descriptors (N, dimensions), the negatives subtracted."""
        descriptor = self.described(x)
        return descriptor if self.negatives is None else self.negatives(descriptor)
