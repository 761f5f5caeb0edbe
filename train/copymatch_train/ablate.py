"""What each part gives: short runs that differ from one base in one part, and scores that differ
in one way of stretching.

`ablate TABLE.yaml FOLDER` runs every row that FOLDER has no result for yet and prints the table; `--row NAME` runs one.
A TABLE has `base` (a configuration), `rows` (name: what differs from the base) and `seeds`. A row's `after`
names another row whose weights it starts from. `--stretching CHECKPOINT` scores one trained network under
several kinds of score normalisation.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
import yaml

from . import checkpoint, fit
from .config import Config, ConfigError, from_dict
from .network import CopyNetwork
from .pictures import Pictures
from .scores import background_similarity, micro_average_precision, recall_at_precision, stretched
from .validate import Validation

FIGURES = ("micro_ap", "stretched_micro_ap", "stretched_recall_at_p90", "recall_at_1")


def row_config(table: dict, name: str, seed: int, folder: Path) -> Config:
    """The base with the row's differences, its name and its seed; refuses a row or an `after` that the table lacks."""
    if name not in table["rows"]:
        raise ConfigError(f"rows: no row {name!r}; known: {', '.join(table['rows'])}")
    raw, row = copy.deepcopy(table["base"]), dict(table["rows"][name] or {})
    before = row.pop("after", None)
    for section, values in row.items():
        raw.setdefault(section, {}).update(values)
    raw.setdefault("run", {}).update(name=name, seed=seed)
    if before is not None:
        if before not in table["rows"]:
            raise ConfigError(f"rows.{name}.after: no row {before!r}")
        raw["network"]["init"] = str(place(folder, before, seed) / "checkpoint.pt")
    return from_dict(raw)


def place(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name.replace(' ', '-')}-{seed}"


def run_row(table: dict, name: str, seed: int, folder: Path) -> dict:
    """Trains the row (and the one it comes after) unless its result is there."""
    target = place(folder, name, seed)
    if (target / "result.json").exists():
        return json.loads((target / "result.json").read_text())
    before = (table["rows"][name] or {}).get("after")
    if before:
        run_row(table, before, seed, folder)
    config = row_config(table, name, seed, folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config)))
    figures = {k: round(v, 4) for k, v in fit.train(config, target).items()}
    (target / "result.json").write_text(json.dumps(figures) + "\n")
    return figures


def line(name: str, results: list[dict]) -> str:
    cells = []
    for key in FIGURES:
        values = np.array([r[key] for r in results])
        cells.append(f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""))
    return f"| {name} | " + " | ".join(cells) + f" | {len(results)} |"


def stretching(config: Config, trained: Path) -> list[str]:
    """Rows of a table: one network's descriptors of the validation pictures under several
    normalisations of the scores."""
    network = CopyNetwork(config.network)
    checkpoint.load_for_inference(trained, network, config)
    pictures = Pictures.of(config.data)
    held = pictures.held_out(config.data.held_out)
    validation = Validation(config, pictures, np.flatnonzero(held), np.flatnonzero(~held))
    rows = ["| score | micro-AP | recall@P90 |", "|---|---|---|"]

    def add(name: str, scores: np.ndarray, correct: np.ndarray) -> None:
        positives = int((validation.truth >= 0).sum())
        rows.append(
            f"| {name} | {micro_average_precision(scores, correct, positives):.3f} "
            f"| {recall_at_precision(scores, correct, positives)[0]:.3f} |"
        )

    scales = {f"{config.run.validation_side} px": None}
    if len(config.export.sizes) > 1:
        scales["mean over " + ", ".join(map(str, config.export.sizes)) + " px"] = config.export.sizes
    for label, sides in scales.items():
        queries, references, background = validation.descriptors(network, sides=sides)
        similarity = queries @ references.T
        top = np.argsort(-similarity, axis=1, kind="stable")[:, :10]
        values, correct = np.take_along_axis(similarity, top, 1), (top == validation.truth[:, None]).ravel()
        add(f"{label}: cosine", values.ravel(), correct)
        for k in (1, 5, 10):
            m = background_similarity(queries, background, k)[:, None]
            for factor in (2.0, 2.5, 3.0) if k == 5 else (2.5,):
                add(f"{label}: stretched, k = {k}, factor {factor}", stretched(values, m, factor).ravel(), correct)
        # Pizzi et al., CVPR 2022: minus the mean similarity to the three nearest of the background.
        add(
            f"{label}: SSCD's subtraction",
            (values - background_similarity(queries, background, 3)[:, None]).ravel(),
            correct,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="the table's YAML; with --stretching, the network's configuration")
    parser.add_argument("folder", type=Path, nargs="?", help="one folder a row and seed")
    parser.add_argument("--row", action="append", help="run this row alone (may be given again)")
    parser.add_argument("--seeds", type=int, help="fewer seeds than the table's")
    parser.add_argument("--stretching", type=Path, metavar="CHECKPOINT")
    a = parser.parse_args()
    try:
        raw = yaml.safe_load(a.table.read_text())
        torch.set_num_threads(1)
        if a.stretching:
            print("\n".join(stretching(from_dict(raw), a.stretching)))
            return
        if a.folder is None or not isinstance(raw, dict) or not {"base", "rows", "seeds"} <= set(raw):
            raise ConfigError(f"{a.table}: base, rows, seeds and a folder are wanted")
        seeds = list(raw["seeds"])[: a.seeds]
        # Before any work: a wrong row would otherwise show after hours.
        for name in raw["rows"]:
            row_config(raw, name, seeds[0], a.folder)
        lines = []
        for name in a.row or raw["rows"]:
            lines.append(line(name, [run_row(raw, name, seed, a.folder) for seed in seeds]))
            print(lines[-1], flush=True)
    except (ConfigError, checkpoint.CheckpointError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
    print("\n| row | " + " | ".join(FIGURES) + " | seeds |\n|---|" + "---|" * (len(FIGURES) + 1))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
