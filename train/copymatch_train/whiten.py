"""Re-whiten a trained linear head: PCA whitening of pooled features of training pictures and of their edited copies.

The last step before export, as Pizzi et al. (CVPR 2022, §4) do: after a short training the trunk tells copies apart
better than its head shows, and one threshold for all queries needs descriptors that fill the sphere evenly.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from . import checkpoint, edits
from . import config as configuration
from .config import Config
from .initialise import start_from
from .network import CopyNetwork
from .pictures import Pictures
from .preprocess import to_input
from .projector import LinearHead


@torch.no_grad()
def features_of_pictures_and_copies(
    network: CopyNetwork,
    pictures: Pictures,
    chosen: np.ndarray,
    training: np.ndarray,
    config: Config,
    side: int,
    batch: int = 32,
) -> torch.Tensor:
    """(2·len(chosen), channels): every chosen picture as it is, then once edited at a strength of 0.5 to 1."""
    network.eval()
    e, rows, pending = config.export, [], []

    def images():
        for i in chosen:
            yield pictures.image(int(i))
        for number, i in enumerate(chosen):
            draw = random.Random(f"whiten/{config.run.seed}/{number}")
            yield edits.edited(
                pictures.image(int(i)),
                draw,
                draw.uniform(0.5, 1.0),
                lambda draw=draw: pictures.image(int(training[draw.randrange(len(training))])),
            )[0]

    def flush():
        rows.append(
            network.features(torch.from_numpy(np.stack(pending)).contiguous(memory_format=torch.channels_last)).float()
        )
        pending.clear()

    image: Image.Image
    for image in tqdm(images(), total=2 * len(chosen), unit="img", desc="features"):
        pending.append(to_input(image, side, e.resize, e.mean, e.std))
        if len(pending) == batch:
            flush()
    if pending:
        flush()
    return torch.cat(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="PCA-whiten the linear head of a checkpoint over training pictures and their edits."
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="a checkpoint for `export`")
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument(
        "--side", type=int, help="pixels a side (default: those of the first look at the first of export.sizes)"
    )
    a = parser.parse_args()
    config = configuration.load(a.config)
    if config.network.head != "linear":
        raise SystemExit(f"network.head: {config.network.head!r} cannot be whitened, only linear")
    torch.set_num_threads(config.run.threads)
    network = CopyNetwork(config.network)
    # The head is made anew, so the checkpoint's may be of another shape: `network.levels` can be chosen after training.
    start_from(network, checkpoint.network_state(a.checkpoint))
    pictures = Pictures.of(config.data)
    training = np.flatnonzero(~pictures.held_out(config.data.held_out))
    rng = np.random.default_rng(config.run.seed)
    chosen = rng.choice(
        training,
        min(a.pictures, len(training)),
        replace=False,
        p=pictures.drawing_weights(training, config.data.source_cap),
    )
    head: LinearHead = network.head
    features = features_of_pictures_and_copies(network, pictures, chosen, training, config, a.side or config.first_side)
    head.whiten(features, widths=network.widths)
    torch.save(dict(network=network.state_dict()), a.out)
    print(f"{2 * len(chosen)} features of {features.shape[1]} dimensions → {a.out}")


if __name__ == "__main__":
    main()
