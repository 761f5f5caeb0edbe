"""Hard negatives: every training picture's nearest others in a trained network's descriptors, for batches
that hold several of them.

What one network confuses is what the next should learn to tell apart, across sources as well as within them. Pictures
nearer than `--same` may be the same picture twice and are left out; of two drawn ones it is known that they are not, so
they have a limit of their own, `--same-drawn`. The descriptors are those that the training compares: of one look, with
the weights that the run starts from.

    python -m copymatch_train.neighbours train/configs/foreign.yaml
writes the file that the configuration's data.neighbours names: (training pictures, K) rows of `training`,
−1 where there are fewer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from . import config as configuration
from .initialise import initialise
from .network import CopyNetwork
from .pictures import Pictures
from .preprocess import to_input


def nearest(
    descriptors: np.ndarray,
    count: int,
    same: float,
    chunk: int = 1024,
    distinct: np.ndarray | None = None,
    same_distinct: float = 1.0,
) -> np.ndarray:
    """(N, count) int32: every unit row's nearest others below `same`, nearest first.

    Two of `distinct` (N, bool) may be as near as `same_distinct`.
    """
    distinct = np.zeros(len(descriptors), bool) if distinct is None else distinct
    out = np.full((len(descriptors), count), -1, np.int32)
    for start in range(0, len(descriptors), chunk):
        s = descriptors[start : start + chunk] @ descriptors.T
        known = distinct[start : start + chunk, None] & distinct
        s[s >= np.where(known, np.float32(same_distinct), np.float32(same))] = -2
        # Itself, also where its descriptor is no unit vector.
        s[np.arange(len(s)), start + np.arange(len(s))] = -2
        top = np.argpartition(-s, min(count, s.shape[1] - 1), axis=1)[:, :count]
        values = np.take_along_axis(s, top, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        found = np.take_along_axis(top, order, 1)
        found[np.take_along_axis(values, order, 1) <= -2] = -1
        out[start : start + len(s), : found.shape[1]] = found
    return out


def read(path: str | Path, training: int) -> np.ndarray:
    rows = np.load(path)
    if rows.ndim != 2 or len(rows) != training:
        raise ValueError(
            f"{path} is for {len(rows)} training pictures, there are {training}; mine it again with `neighbours`"
        )
    return rows


@torch.no_grad()
def first_looks(
    network: CopyNetwork, pictures: Pictures, indices: np.ndarray, config: configuration.Config, batch: int = 32
) -> np.ndarray:
    """(len(indices), dimensions) unit descriptors of whole pictures at the training's size."""
    network.eval()
    e, rows = config.export, []
    for start in tqdm(range(0, len(indices), batch), unit="batch", desc="describe"):
        x = np.stack(
            [
                to_input(pictures.image(int(i)), config.edits.side, e.resize, e.mean, e.std)
                for i in indices[start : start + batch]
            ]
        )
        features = network.features(torch.from_numpy(x).contiguous(memory_format=torch.channels_last))
        rows.append(F.normalize(network.head(features)[1], dim=1).numpy())
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Mine every training picture's nearest others.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--same", type=float, default=0.8)
    parser.add_argument(
        "--beside", action="store_true", help="only for pictures of data.beside's stores, among themselves"
    )
    parser.add_argument("--same-drawn", type=float, default=0.98)
    a = parser.parse_args()
    config = configuration.load(a.config)
    if not config.data.neighbours:
        raise SystemExit(f"{a.config}: data.neighbours names no file")
    torch.set_num_threads(config.run.threads)
    pictures = Pictures.of(config.data)
    training = np.flatnonzero(~pictures.held_out(config.data.held_out))
    network = CopyNetwork(config.network)
    initialise(network, config, pictures, training)
    # Positions in `training`, which the rows of the file are of.
    mined = np.flatnonzero(training >= pictures.own) if a.beside else np.arange(len(training))
    if not len(mined):
        raise SystemExit(f"{a.config}: data.beside has no training pictures")
    descriptors = first_looks(network.to(memory_format=torch.channels_last), pictures, training[mined], config)
    sources = np.array(pictures.sources)[training]
    known = np.char.startswith(sources[mined], "drawn/")
    found = nearest(descriptors, a.count, a.same, distinct=known, same_distinct=a.same_drawn)
    rows = np.full((len(training), a.count), -1, np.int32)
    rows[mined] = np.where(found >= 0, mined[found], -1)
    if not (rows >= 0).any():
        raise SystemExit(f"--same {a.same}, --same-drawn {a.same_drawn}: every two pictures are nearer than that")
    Path(config.data.neighbours).parent.mkdir(parents=True, exist_ok=True)
    np.save(config.data.neighbours, rows)
    across = float((sources[rows] != sources[:, None])[rows >= 0].mean())
    print(
        json.dumps(
            dict(
                pictures=len(training),
                neighbours=a.count,
                found=float((rows >= 0).mean()),
                of_another_source=round(across, 3),
            )
        )
    )


if __name__ == "__main__":
    main()
