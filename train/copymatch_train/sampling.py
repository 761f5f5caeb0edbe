"""PK batches: P pictures × K views, drawn and edited as a pure function of (seed, step), so that resuming is exact."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from . import edits
from .config import Config
from .pictures import Pictures
from .schedule import edit_strength


class PKBatches(Dataset):
    """Item `step` is (pixels (P/share·K, 3, S, S) uint8, labels (P/share·K,)); views of a picture are adjacent.

    `same_source` of a batch's pictures come from one source: hard negatives from a narrow domain. With `share` processes,
    process `rank` makes its part of the same batch.
    """

    def __init__(self, config: Config, pictures: Pictures, training: np.ndarray, rank: int = 0, share: int = 1):
        self.config, self.pictures, self.training, self.rank, self.share = config, pictures, training, rank, share
        self.weights = pictures.drawing_weights(training, config.data.source_cap)
        sources = np.array(pictures.sources)[training]
        self.by_source = {s: np.flatnonzero(sources == s) for s in np.unique(sources)}
        self.sources = sources

    def __len__(self) -> int:
        return self.config.schedule.steps

    def classes(self, step: int) -> np.ndarray:
        """Positions (into `training`) of the batch's P distinct pictures."""
        rng = np.random.default_rng((self.config.run.seed, step))
        wanted = self.config.optimiser.classes
        first = int(rng.choice(len(self.training), p=self.weights))
        pool = self.by_source[self.sources[first]]
        narrow = min(int(round(self.config.data.same_source * wanted)), len(pool))
        chosen = list(rng.choice(pool, narrow, replace=False))
        taken = set(int(c) for c in chosen)
        while len(chosen) < wanted:
            for c in rng.choice(len(self.training), wanted, p=self.weights):
                if int(c) not in taken and len(chosen) < wanted:
                    taken.add(int(c))
                    chosen.append(c)
        # Shuffled, so that every process gets its share of the narrow half.
        return rng.permutation(np.array(chosen))

    def views(self, position: int, draw: random.Random, strength: float) -> list[Image.Image]:
        c = self.config
        index = int(self.training[position])
        image = self.pictures.image(index)
        if self.pictures.grey[index] and draw.random() < c.data.tint_grey:
            image = edits.tint(image, draw)

        def other() -> Image.Image:
            return self.pictures.image(int(self.training[draw.randrange(len(self.training))]))

        out = []
        for view in range(c.optimiser.views):
            if view == 0:
                made = edits.weak(image, draw) if draw.random() < c.edits.weak_first_view else edits.edited(image, draw, 0.5 * strength, other)[0]
            else:
                made = edits.edited(image, draw, strength, other)[0]
            out.append(made.resize((c.edits.side, c.edits.side), Image.BILINEAR, reducing_gap=3.0))
        return out

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        strength = edit_strength(step, self.config.schedule.steps, self.config.edits)
        pixels, labels = [], []
        for slot, position in enumerate(self.classes(step)):
            if slot % self.share != self.rank:
                continue
            draw = random.Random(f"{self.config.run.seed}/{step}/{slot}")
            for image in self.views(int(position), draw, strength):
                pixels.append(np.asarray(image))
                labels.append(int(position))
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
