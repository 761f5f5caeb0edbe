"""WaveBlock (Wang et al., "Attentive WaveBlock", 2020; used in arXiv 2111.08004 §3): feature
modulation while training."""

from __future__ import annotations

import torch
from torch import nn


class WaveBlock(nn.Module):
    """Keep one random horizontal band of the feature map, multiply all the rest by `wave`.

    The band is `band` of the height and one draw serves the whole batch. Identity in evaluation mode.
    Input and output: (N, C, H, W).
    """

    def __init__(self, band: float = 0.3, wave: float = 1.5):
        super().__init__()
        if not 0 < band <= 1:
            raise ValueError(f"WaveBlock band {band} is outside (0, 1]")
        self.band, self.wave = band, wave

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        height = x.shape[2]
        kept = max(1, round(self.band * height))
        start = int(torch.randint(0, height - kept + 1, ()))
        gain = torch.full((height,), self.wave, dtype=x.dtype, device=x.device)
        gain[start : start + kept] = 1.0
        return x * gain[None, None, :, None]

    def extra_repr(self) -> str:
        return f"band={self.band}, wave={self.wave}"
