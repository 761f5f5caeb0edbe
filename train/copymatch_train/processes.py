"""Data-parallel training over several processes: each makes and runs its share of one batch.

The losses need the whole batch: outputs are gathered, the own share keeps its gradient, and because every process then
computes the same loss, the sum of the processes' gradients is the gradient of the whole batch. Two processes of one
thread train a small network faster than one process of two threads, whose threads wait for each other in every layer.
"""

from __future__ import annotations

from dataclasses import fields

import torch
import torch.distributed as dist
from torch import nn

from .network import Outputs


def _gather(x: torch.Tensor | None, rank: int, world: int) -> torch.Tensor | None:
    if x is None:
        return None
    parts = [torch.empty_like(x) for _ in range(world)]
    dist.all_gather(parts, x.detach().contiguous())
    parts[rank] = x
    return torch.cat(parts)


def gather(out: Outputs, labels: torch.Tensor, rank: int, world: int) -> tuple[Outputs, torch.Tensor]:
    if world == 1:
        return out, labels
    return Outputs(*(_gather(getattr(out, f.name), rank, world) for f in fields(Outputs))), _gather(labels, rank, world)


def sum_gradients(network: nn.Module, world: int) -> None:
    """One reduction for all parameters of the network."""
    if world == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    offset = 0
    for g in gradients:
        g.copy_(flat[offset : offset + g.numel()].view_as(g))
        offset += g.numel()
