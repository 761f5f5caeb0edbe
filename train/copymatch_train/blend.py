"""One linear head from two: the head that training left and PCA whitening of the same trunk, each
right where the other errs.

Both maps stand side by side, brought to the same mean length; the principal axes of what they give for training
pictures lead back to the head's dimensions. So the similarity is close to the mean of the two heads'
similarities, at the cost of one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from . import checkpoint
from . import config as configuration
from .initialise import pooled_features
from .network import CopyNetwork
from .pictures import Pictures

# Eigenvalues are divided by their own power of this: a little of the whitening's evenness for plain cosine.
EVENNESS = 0.2


@torch.no_grad()
def blended(
    first: torch.nn.Linear,
    second: torch.nn.Linear,
    features: torch.Tensor,
    evenness: float = EVENNESS,
    shrink: float = 0.02,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight, bias) of a map of `first`'s shape; `features` (M, C) are pooled features of unedited pictures."""
    features = features.double()
    weights, biases = [], []
    for head in (first, second):
        weight, bias = head.weight.double(), head.bias.double()
        size = (features @ weight.T + bias).norm(dim=1).mean()
        weights.append(weight / size)
        biases.append(bias / size)
    weight, bias = torch.cat(weights), torch.cat(biases)
    d = F.normalize(features @ weight.T + bias, dim=1)
    values, vectors = torch.linalg.eigh(d.T @ d / len(d))
    values, vectors = values.flip(0)[: first.out_features], vectors.flip(1)[:, : first.out_features]
    down = (vectors / (values + shrink * values.mean()).pow(evenness / 2)).T
    return (down @ weight).float(), (down @ bias).float()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Blend a run's own linear head with the one that `whiten` made for its trunk."
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("trained", type=Path, help="the run's checkpoint")
    parser.add_argument("whitened", type=Path, help="what `whiten` made of it")
    parser.add_argument("out", type=Path, help="a checkpoint for `export`")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument(
        "--side", type=int, help="pixels a side (default: those of the first look at the first of export.sizes)"
    )
    a = parser.parse_args()
    config = configuration.load(a.config)
    torch.set_num_threads(config.run.threads)
    network, whitened = CopyNetwork(config.network), CopyNetwork(config.network)
    checkpoint.load_for_inference(a.trained, network, config)
    checkpoint.load_for_inference(a.whitened, whitened, config)
    pictures = Pictures.of(config.data)
    training = np.flatnonzero(~pictures.held_out(config.data.held_out))
    weights = pictures.drawing_weights(training, config.data.source_cap)
    chosen = np.random.default_rng(a.seed).choice(training, min(a.pictures, len(training)), replace=False, p=weights)
    features = pooled_features(network, pictures, chosen, config, a.side or config.first_side)
    weight, bias = blended(whitened.head.short, network.head.short, features)
    network.head.short.weight.data.copy_(weight)
    network.head.short.bias.data.copy_(bias)
    torch.save(dict(network=network.state_dict()), a.out)
    print(f"{len(chosen)} pictures → {a.out}")


if __name__ == "__main__":
    main()
