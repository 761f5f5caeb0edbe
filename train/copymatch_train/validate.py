"""Validation during training: seeded edits of held-out pictures against held-out references and strangers."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image

from . import edits
from .config import Config
from .network import CopyNetwork
from .pictures import Pictures
from .scores import summary

SEED = 77


class Validation:
    """Built once per run: the same edited queries every time, so that curves of different runs compare."""

    def __init__(self, config: Config, pictures: Pictures, held_out: np.ndarray, training: np.ndarray):
        r, q, side = config.run.validation_references, config.run.validation_queries, config.run.validation_side
        rng = np.random.default_rng(SEED)
        order = rng.permutation(held_out)
        strangers = order[r : r + q // 3]
        if len(order) < r or q > r:
            raise ValueError(f"run.validation_references: {r} references and {q} queries from {len(order)} held-out pictures")
        background = rng.choice(training, min(len(training), 1000), replace=False)

        def square(image: Image.Image) -> np.ndarray:
            return np.asarray(image.resize((side, side), Image.BILINEAR))

        def query(number: int, index: int) -> np.ndarray:
            draw = random.Random(SEED * 1_000_003 + number)
            image, _ = edits.edited(pictures.image(int(index)), draw, 1.0, lambda: pictures.image(int(training[draw.randrange(len(training))])))
            return square(image)

        self.references = [square(pictures.image(int(i))) for i in order[:r]]
        self.queries = [query(n, i) for n, i in enumerate([*order[:q], *strangers])]
        self.background = [square(pictures.image(int(i))) for i in background]
        self.truth = np.array([*range(q), *([-1] * len(strangers))])
        self.mean, self.std = config.export.mean, config.export.std

    @torch.no_grad()
    def run(self, network: CopyNetwork, device: str = "cpu", batch: int = 32) -> dict[str, float]:
        was_training = network.training
        network.eval()
        mean = torch.tensor(self.mean, device=device)[:, None, None]
        std = torch.tensor(self.std, device=device)[:, None, None]

        def describe(images: list[np.ndarray]) -> np.ndarray:
            rows = []
            for start in range(0, len(images), batch):
                x = torch.from_numpy(np.stack(images[start : start + batch])).permute(0, 3, 1, 2).to(device)
                x = ((x.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
                rows.append(network(x).float().cpu())
            return torch.cat(rows).numpy()

        out = summary(describe(self.queries), describe(self.references), self.truth, describe(self.background))
        network.train(was_training)
        return out
