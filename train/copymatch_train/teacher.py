"""A trained network that a student learns from: larger, at more sizes, or both."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

from . import checkpoint
from . import config as configuration
from .config import Config, ConfigError
from .initialise import exported_state, start_from
from .network import CopyNetwork


class Teacher:
    """(N, 3, S, S) pictures as the student gets them → (N, D) unit descriptors, the mean over the teacher's
    `export.sizes`. Never trained.

    `config` is the teacher's own configuration, whose network may be any; `weights` a checkpoint (its moving average
    where there is one) or an exported model.onnx.
    """

    def __init__(self, config: str, weights: str, student: Config, device: str = "cpu"):
        own = configuration.load(config)
        for name in ("mean", "std"):
            if getattr(own.export, name) != getattr(student.export, name):
                raise ConfigError(f"loss.teacher_config: {config} has another export.{name} than the student")
        self.sizes, self.dimensions = own.export.sizes, own.network.dimensions
        self.network = CopyNetwork(own.network)
        start_from(
            self.network,
            exported_state(weights) if weights.endswith(".onnx") else checkpoint.network_state(Path(weights)),
        )
        self.network.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        total = 0
        for size in self.sizes:
            scaled = x if x.shape[-1] == size else F.interpolate(x, (size, size), mode="bilinear", antialias=True)
            total = total + self.network.described(scaled.contiguous(memory_format=torch.channels_last)).float()
        return F.normalize(total, dim=1)
