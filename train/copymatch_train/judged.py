"""Judged pictures for the weights of verification: references, edited copies and strangers, of
held-out training pictures.

    python -m copymatch_train.judged train/configs/default.yaml FOLDER --table ../shared/data/train.csv
    make calibrate-verification PICTURES=FOLDER

Writes `references/`, `queries/` and `truth.csv` (query, reference or nothing, source, edits). No network saw
these pictures in training, and no benchmark holds them. The store's names never move between runs, so the same
seed gives the same folder.

`--leave-out` keeps pictures away whose path in the table has a word: `Faces` are frames of one session, in which what
is a copy is a matter of taste, and some stand in the training pictures, too, out of which others are pasted.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import config as configuration
from . import edits
from .pictures import Pictures

# Strengths of the edits, in turn: a fit must see easy and hard ones.
STRENGTHS = (0.4, 0.7, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--references", type=int, default=1900)
    parser.add_argument("--copies", type=int, default=800)
    parser.add_argument("--strangers", type=int, default=700)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--table", type=Path, help="train.csv: name, path …")
    parser.add_argument("--leave-out", nargs="*", default=["Faces"])
    a = parser.parse_args()
    config = configuration.load(a.config)
    pictures = Pictures.of(config.data)
    held = pictures.held_out(config.data.held_out)
    kept = np.ones(len(pictures), bool)
    if a.table:
        with a.table.open(newline="") as file:
            path = {row["name"]: row["path"] for row in csv.DictReader(file)}
        kept = np.array([not any(word in path.get(name, "") for word in a.leave_out) for name in pictures.names])
    rng = np.random.default_rng(a.seed)
    order, training = rng.permutation(np.flatnonzero(held & kept)), np.flatnonzero(~held & kept)
    references, rest = order[: a.references], order[a.references :]
    if len(rest) < a.strangers:
        raise SystemExit(f"--strangers {a.strangers}: {len(rest)} held-out pictures are left")
    for folder in ("references", "queries"):
        (a.out / folder).mkdir(parents=True)
    for number, which in enumerate(references):
        pictures.image(int(which)).save(a.out / "references" / f"R{number:05d}.jpg", quality=(80, 85, 90)[number % 3])
    plan = [(int(references[at]), f"R{at:05d}.jpg") for at in rng.choice(len(references), a.copies, replace=False)]
    plan += [(int(which), "") for which in rest[: a.strangers]]
    with (a.out / "truth.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("query", "reference", "source", "edits"))
        for number, (which, reference) in enumerate(tqdm(plan, desc="queries")):
            draw = random.Random(a.seed * 1_000_003 + number)
            image, names = edits.edited(
                pictures.image(which), draw, STRENGTHS[number % len(STRENGTHS)], another(pictures, training, draw)
            )
            image.convert("RGB").save(a.out / "queries" / f"Q{number:05d}.jpg", quality=draw.randint(40, 90))
            table.writerow((f"Q{number:05d}.jpg", reference, pictures.sources[which], "+".join(names)))


def another(pictures: Pictures, training: np.ndarray, draw: random.Random):
    """Draws training pictures, to paste, lay under or put beside."""
    return lambda: pictures.image(int(training[draw.randrange(len(training))]))


if __name__ == "__main__":
    main()
