"""Validation during training: seeded edits of held-out pictures against held-out references and strangers."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from . import edits
from .config import Config
from .locator import likeliest_box, overlap
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
            raise ValueError(
                f"run.validation_references: {r} references and {q} queries from {len(order)} held-out pictures"
            )
        background = rng.choice(training, min(len(training), 1000), replace=False)

        def square(image: Image.Image) -> np.ndarray:
            return np.asarray(image.resize((side, side), Image.BILINEAR))

        def query(number: int, index: int) -> np.ndarray:
            draw = random.Random(SEED * 1_000_003 + number)
            image, _, place = edits.edited_and_placed(
                pictures.image(int(index)),
                draw,
                1.0,
                lambda: pictures.image(int(training[draw.randrange(len(training))])),
            )
            self.places.append(edits.visible_box(place) or edits.WHOLE)
            return square(image)

        self.places: list[edits.Box] = []

        self.references = [square(pictures.image(int(i))) for i in order[:r]]
        self.queries = [query(n, i) for n, i in enumerate([*order[:q], *strangers])]
        self.background = [square(pictures.image(int(i))) for i in background]
        self.truth = np.array([*range(q), *([-1] * len(strangers))])
        self.mean, self.std = config.export.mean, config.export.std

    def inputs(self, images: list[np.ndarray], device: str, side: int | None = None) -> torch.Tensor:
        """(N, S, S, 3) bytes → the network's (N, 3, S, S), rescaled to `side` where it is another."""
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device).float()
        if side is not None and side != x.shape[-1]:
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (self.mean, self.std))
        return ((x / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def descriptors(
        self, network: CopyNetwork, device: str = "cpu", batch: int = 32, sides: list[int] | None = None
    ) -> tuple[np.ndarray, ...]:
        """(queries, references, background), each (N, D) unit; with several `sides`, unit means over the
        pictures rescaled to them."""
        was_training = network.training
        network.eval()

        def describe(images: list[np.ndarray]) -> np.ndarray:
            rows = []
            for start in range(0, len(images), batch):
                rows.append(
                    sum(
                        network(self.inputs(images[start : start + batch], device, side)).float().cpu()
                        for side in sides or [None]
                    )
                )
            return F.normalize(torch.cat(rows), dim=1).numpy()

        out = describe(self.queries), describe(self.references), describe(self.background)
        network.train(was_training)
        return out

    def run(self, network: CopyNetwork, device: str = "cpu", batch: int = 32) -> dict[str, float]:
        queries, references, background = self.descriptors(network, device, batch)
        figures = summary(queries, references, self.truth, background)
        if network.locator is not None:
            figures["overlap"] = self.overlap(network, device, batch)
        return figures

    @torch.no_grad()
    def overlap(self, network: CopyNetwork, device: str = "cpu", batch: int = 32) -> float:
        """Mean intersection over union of the boxes that the locator finds in the queries and the true ones."""
        was_training = network.training
        network.eval()
        found = []
        for start in range(0, len(self.queries), batch):
            x = self.inputs(self.queries[start : start + batch], device)
            found.append(likeliest_box(network.outputs(network.shrunk(x)).located).cpu())
        network.train(was_training)
        return float(overlap(torch.cat(found), torch.tensor(self.places)).mean())
