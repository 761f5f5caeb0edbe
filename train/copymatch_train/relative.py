"""AdamW whose steps are relative to the weights they change, row by row.

Weights with batch normalisation folded into them differ in size a hundredfold from layer to layer and from channel to
channel; steps of one size shake the small ones and leave the large ones where they are. Here a row (output
channel) moves by learning rate × its own root mean square, as in LAMB (You et al., ICLR 2020) and Adafactor
(Shazeer and Stern, ICML 2018).
"""

from __future__ import annotations

import torch

# Of the tensor's root mean square: the least that a row counts for, so that a silent channel can still learn.
FLOOR = 0.1


def row_size(p: torch.Tensor) -> torch.Tensor:
    """Root mean square of each row (first dimension), kept to broadcast; of the whole for vectors and scalars."""
    whole = p.square().mean().sqrt().clamp(min=1e-6)
    if p.dim() < 2:
        return whole
    return p.square().mean(tuple(range(1, p.dim())), keepdim=True).sqrt().maximum(FLOOR * whole)


class RelativeAdamW(torch.optim.AdamW):
    @torch.no_grad()
    def step(self, closure=None):
        """AdamW's step, scaled; the sizes are those before it, so there is no state beside AdamW's own. Groups with
        `relative` False: unscaled."""
        moved = [
            p
            for group in self.param_groups
            if group.get("relative", True)
            for p in group["params"]
            if p.grad is not None
        ]
        before = [p.clone() for p in moved]
        loss = super().step(closure)
        for p, old in zip(moved, before):
            p.sub_(old).mul_(row_size(old)).add_(old)
        return loss
