"""The negatives of a network: training pictures, described by it at the sizes that it is used at,
kept in its checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from . import checkpoint
from . import config as configuration
from .config import Config
from .initialise import exported_state, start_whole
from .network import CopyNetwork
from .pictures import Pictures
from .preprocess import to_input


@torch.no_grad()
def describe_negatives(
    network: CopyNetwork, pictures: Pictures, indices: np.ndarray, config: Config, batch: int = 32
) -> torch.Tensor:
    """(len(indices), dimensions) unit descriptors before any subtraction: means over the sizes
    that the model is used at."""
    network.eval()
    e, rows = config.export, []
    for start in tqdm(range(0, len(indices), batch), unit="batch", desc="negatives"):
        images = [pictures.image(int(i)) for i in indices[start : start + batch]]
        total = 0
        for side in e.sizes:
            inputs = np.stack([to_input(image, side, e.resize, e.mean, e.std) for image in images])
            total = (
                total
                + network.described(torch.from_numpy(inputs).contiguous(memory_format=torch.channels_last)).float()
            )
        rows.append(F.normalize(total, dim=1))
    return torch.cat(rows)


def drawn(
    pictures: Pictures,
    config: Config,
    count: int,
    seed: int,
    without: np.ndarray | None = None,
    beside: bool | None = None,
) -> np.ndarray:
    """`count` training pictures, a source counting for `data.source_cap` at most; none of `without`. `beside`: of the
    stores beside the training's own, or (False) of its own alone; without it of all."""
    training = np.flatnonzero(~pictures.held_out(config.data.held_out))
    if beside is not None:
        training = training[(training >= pictures.own) == beside]
    if without is not None:
        training = np.setdiff1d(training, without)
    if len(training) < count:
        raise ValueError(f"{count} pictures wanted, {len(training)} training pictures are left")
    weights = pictures.drawing_weights(training, config.data.source_cap)
    return np.random.default_rng(seed).choice(training, count, replace=False, p=weights)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Describe the negatives of a configuration's network.negatives and keep them in a checkpoint."
    )
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "checkpoint", type=Path, help="of the same network, with or without negatives; or an exported model.onnx"
    )
    parser.add_argument("out", type=Path, help="a checkpoint for `export`")
    a = parser.parse_args()
    config = configuration.load(a.config)
    if not config.network.negatives:
        raise SystemExit(f"{a.config}: network.negatives is 0")
    torch.set_num_threads(config.run.threads)
    network = CopyNetwork(config.network)
    if a.checkpoint.suffix == ".onnx":
        start_whole(network, exported_state(a.checkpoint))
    else:
        checkpoint.load_without_negatives(a.checkpoint, network, config)
    network = network.to(memory_format=torch.channels_last)
    pictures = Pictures.of(config.data)
    chosen = negative_pictures(pictures, config)
    network.negatives.fill(describe_negatives(network, pictures, chosen, config))
    torch.save(dict(network=network.state_dict()), a.out)
    print(f"{len(chosen)} negatives → {a.out}")


def negative_pictures(pictures: Pictures, config: Config) -> np.ndarray:
    """Which pictures are the negatives: a function of the configuration, so that `background` can leave them out."""
    n, seed = config.network, config.run.seed + 1
    own = drawn(pictures, config, n.negatives, seed, beside=False)
    return np.append(own, drawn(pictures, config, n.negatives_beside, seed, beside=True)) if n.negatives_beside else own


if __name__ == "__main__":
    main()
