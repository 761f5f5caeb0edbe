"""Exponential moving average of the weights: what is validated and exported when it is on."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MovingAverage:
    """`average` follows `network` with decay `decay`, less while few steps have been seen: min(decay, (1+t)/(10+t))."""

    def __init__(self, network: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.average = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mine, theirs in zip(self.average.state_dict().values(), network.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)
