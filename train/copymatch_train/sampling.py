"""PK batches: P pictures × K views, drawn and edited as a pure function of (seed, step), so that resuming is exact."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from . import edits, neighbours
from .config import Config
from .edits import Box
from .pictures import Pictures
from .schedule import edit_strength


class PKBatches(Dataset):
    """Item `step` is (pixels (P/share·K, 3, S, S) uint8, labels (P/share·K,), places (P/share·K, 4)); views of a
    picture are adjacent. A place is the box of what is seen of the picture.

    `same_source` of a batch's pictures come from one source, or are one picture's nearest by descriptor (`mined`): hard
    negatives. With `share` processes, process `rank` makes its part of the same batch.
    """

    def __init__(self, config: Config, pictures: Pictures, training: np.ndarray, rank: int = 0, share: int = 1):
        self.config, self.pictures, self.training, self.rank, self.share = config, pictures, training, rank, share
        self.weights = pictures.drawing_weights(training, config.data.source_cap, config.data.beside_share)
        sources = np.array(pictures.sources)[training]
        self.by_source = {s: np.flatnonzero(sources == s) for s in np.unique(sources)}
        self.sources = sources
        self.near = neighbours.read(config.data.neighbours, len(training)) if config.data.mined else None

    def __len__(self) -> int:
        return self.config.schedule.steps

    def classes(self, step: int) -> np.ndarray:
        """Positions (into `training`) of the batch's P distinct pictures."""
        rng = np.random.default_rng((self.config.run.seed, step))
        wanted = self.config.optimiser.classes
        first = int(rng.choice(len(self.training), p=self.weights))
        pool = self.by_source[self.sources[first]]
        if self.near is not None and rng.random() < self.config.data.mined:
            near = self.near[first][self.near[first] >= 0]
            # Nothing was mined for it, or nothing is near it: its source, as without mining.
            pool = np.append(near, first) if len(near) else pool
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

    def views(self, position: int, draw: random.Random, strength: float) -> list[tuple[Image.Image, Box]]:
        """Each view with where the picture is in it."""
        c = self.config
        index = int(self.training[position])
        image = self.pictures.image(index)
        if self.pictures.grey[index] and draw.random() < c.data.tint_grey:
            image = edits.tint(image, draw)

        def other() -> Image.Image:
            return self.pictures.image(int(self.training[draw.randrange(len(self.training))]))

        out = []
        for view in range(c.optimiser.views):
            if view == 0 and draw.random() < c.edits.weak_first_view:
                made, box = edits.weak(image, draw), edits.WHOLE
            else:
                made, box = edits.edited_and_seen(image, draw, 0.5 * strength if view == 0 else strength, other)
            if view > 0 and c.edits.second_looks and draw.random() < c.edits.second_looks:
                made, box = second_look(made, box, draw, c.edits.second_look_error)
            out.append((made.resize((c.edits.side, c.edits.side), Image.BILINEAR, reducing_gap=3.0), box))
        return out

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        strength = edit_strength(step, self.config.schedule.steps, self.config.edits)
        pixels, labels, places = [], [], []
        for slot, position in enumerate(self.classes(step)):
            if slot % self.share != self.rank:
                continue
            draw = random.Random(f"{self.config.run.seed}/{step}/{slot}")
            for image, box in self.views(int(position), draw, strength):
                pixels.append(np.asarray(image))
                labels.append(int(position))
                places.append(box)
        return (
            torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
            torch.tensor(labels),
            torch.tensor(places, dtype=torch.float32),
        )


def second_look(image: Image.Image, box: Box, draw: random.Random, error: float) -> tuple[Image.Image, Box]:
    """The box cut out, each edge off by up to `error` of the box's size; and where in that the box is."""
    left, top, right, bottom = box
    reach_x, reach_y = error * (right - left), error * (bottom - top)
    x0, x1 = max(0.0, left + draw.uniform(-reach_x, reach_x)), min(1.0, right + draw.uniform(-reach_x, reach_x))
    y0, y1 = max(0.0, top + draw.uniform(-reach_y, reach_y)), min(1.0, bottom + draw.uniform(-reach_y, reach_y))
    w, h = image.size
    cut = (int(x0 * w), int(y0 * h), max(int(x0 * w) + 8, round(x1 * w)), max(int(y0 * h) + 8, round(y1 * h)))
    within = [
        min(1.0, max(0.0, v))
        for v in ((left - x0) / (x1 - x0), (top - y0) / (y1 - y0), (right - x0) / (x1 - x0), (bottom - y0) / (y1 - y0))
    ]
    return image.crop(cut), tuple(within)
