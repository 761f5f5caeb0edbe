"""metrics.jsonl → curves.png: losses on the left, validation figures on the right."""

from __future__ import annotations

import json
from pathlib import Path


def read(path: Path) -> list[dict]:
    """Records in order; a line cut off by a kill is left out, and steps repeated after a resume
    keep the later record."""
    records: dict[tuple[str, int], dict] = {}
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        records[record["kind"], record["step"]] = record
    return sorted(records.values(), key=lambda r: r["step"])


def draw(source: Path, target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = read(source)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    fixed = {"kind", "step", "rate", "strength", "gem_p", "images_per_second", "waiting", "seconds"}
    for axis, kind in ((left, "train"), (right, "validation")):
        mine = [r for r in records if r["kind"] == kind]
        for name in dict.fromkeys(k for r in mine for k in r if k not in fixed):
            axis.plot(
                [r["step"] for r in mine if name in r],
                [r[name] for r in mine if name in r],
                label=name,
                marker="." if kind == "validation" else None,
            )
        axis.set_xlabel("step")
        axis.set_title(kind)
        if mine:
            axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
