"""Calibration: from (similarity, background similarity) of a query's nearest reference to the probability of a copy.

Held-out pictures only (the network never saw them): some are references, seeded edits of them are true copies, edits of
the others are copies of nothing. Half of the originals fit the logistic curve, the other half set the thresholds, which
hold the precision among the training's own sources and among those beside them (pages, screens), each by itself.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np

from . import config as configuration
from . import edits
from .background import describe_all, unpack
from .export import session
from .pictures import Pictures
from .scores import background_similarity

# Strengths a query may have: calibration must see easy and hard ones.
STRENGTHS = (0.3, 0.6, 1.0)
# Fewer originals than this on the strangers' side say nothing about false matches.
MIN_STRANGERS = 10


def fit_logistic(x: np.ndarray, y: np.ndarray, ridge: float = 1e-5) -> np.ndarray:
    """Newton's method on the log-likelihood; returns (intercept, weights…) for `x` (N, F) as it is given.

    Inside, every column is standardised. The ridge, in units of the mean log-likelihood, is so slight
    that it decides only where the data do not (separable cases); one on the raw columns, which vary by a
    tenth, would flatten the curve.
    """
    centre, spread = x.mean(0), np.maximum(x.std(0), 1e-12)
    design = np.column_stack([np.ones(len(x)), (x - centre) / spread])
    w = np.zeros(design.shape[1])
    penalty = np.diag([0.0] + [ridge * len(x)] * x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ w, -40, 40)))
        gradient = design.T @ (p - y) + penalty @ w
        hessian = (design * (p * (1 - p))[:, None]).T @ design + penalty + 1e-9 * np.eye(len(w))
        step = np.linalg.solve(hessian, gradient)
        w -= step * min(1.0, 5.0 / max(1e-12, np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    weights = w[1:] / spread
    return np.array([w[0] - weights @ centre, *weights])


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a proportion."""
    if total == 0:
        return 0.0, 1.0
    p, d = hits / total, 1 + z * z / total
    centre, half = (p + z * z / (2 * total)) / d, z * np.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / d
    return float(centre - half), float(centre + half)


def threshold_for(probability: np.ndarray, correct: np.ndarray, precision: float) -> float:
    """Smallest probability from which on every higher threshold keeps `precision`; 1.0 where none does."""
    order = np.argsort(-probability, kind="stable")
    p, y = probability[order], correct[order]
    running = np.cumsum(y) / np.arange(1, len(y) + 1)
    bad = np.flatnonzero(running < precision)
    # With few cases on top one wrong one would end the search at once: allow for that below 1 / (1 − precision) cases.
    bad = bad[bad >= round(1 / (1 - precision))]
    last = len(p) if not len(bad) else bad[0]
    return float(p[last - 1]) if last else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit calibration.json from seeded edits of held-out pictures.")
    parser.add_argument("config", type=Path)
    parser.add_argument("model", type=Path, help="folder with model.onnx, manifest.json, background.bin")
    parser.add_argument("--references", type=int, default=1800)
    parser.add_argument("--copies", type=int, default=1500)
    parser.add_argument("--unrelated", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument(
        "--beside", type=float, default=0.0, help="share of all three that is of data.beside's stores (0: as they come)"
    )
    parser.add_argument("--dump", type=Path, help="write the nearest-neighbour table as CSV, to look at")
    a = parser.parse_args()
    config = configuration.load(a.config)
    manifest = json.loads((a.model / "manifest.json").read_text())
    pictures = Pictures.of(config.data)
    held = pictures.held_out(config.data.held_out)
    rng = np.random.default_rng(a.seed)
    originals = rng.permutation(np.flatnonzero(held))
    training = np.flatnonzero(~held)
    # Groups of originals, with the share that each has of references, copies and strangers.
    groups = [(originals, 1.0)]
    if a.beside:
        own = originals < pictures.own
        groups = [(originals[own], 1 - a.beside), (originals[~own], a.beside)]
    references, strangers, plan = [], [], []
    for members, share in groups:
        count = round(a.references * share)
        kept, rest = members[:count], members[count:]
        if len(rest) < MIN_STRANGERS:
            raise SystemExit(
                f"--references {a.references}: only {len(rest)} of {len(members)} held-out pictures are left as "
                "strangers"
            )
        plan += [len(references) + int(v) for v in rng.choice(len(kept), round(a.copies * share))]
        plan += [-1 - len(strangers) - int(v) for v in rng.choice(len(rest), round(a.unrelated * share))]
        references += list(kept)
        strangers += list(rest)
    run = session((a.model / "model.onnx").read_bytes(), config.run.threads)
    reference_descriptors = describe_all(
        run, (pictures.image(int(i)) for i in references), manifest, label="references", total=len(references)
    )

    def queries():
        for number, which in enumerate(plan):
            draw = random.Random(a.seed * 1_000_003 + number)
            source = references[which] if which >= 0 else strangers[-1 - which]
            image, _ = edits.edited(
                pictures.image(int(source)),
                draw,
                STRENGTHS[number % len(STRENGTHS)],
                lambda: pictures.image(int(training[draw.randrange(len(training))])),
            )
            yield image

    query_descriptors = describe_all(run, queries(), manifest, label="queries", total=len(plan))
    background = unpack((a.model / "background.bin").read_bytes())
    m = background_similarity(query_descriptors, background)
    similarity = query_descriptors @ reference_descriptors.T
    nearest = similarity.argmax(1)
    top = similarity.max(1)
    truth = np.array([w if w >= 0 else -1 for w in plan])
    correct = nearest == truth
    # A second row per copy: its nearest wrong reference, so that the curve also sees what stands beside a copy.
    wrong = similarity.copy()
    wrong[np.arange(len(plan))[truth >= 0], truth[truth >= 0]] = -2
    # For the stretched score alone: the extension's probability takes the background as it is.
    clamp = [float(v) for v in np.percentile(m, [1, 99])]

    # Split by original, so that no picture is on both sides.
    side = np.array([(w if w >= 0 else -1 - w) % 2 for w in plan], bool)
    x = np.concatenate([np.column_stack([top, m]), np.column_stack([wrong.max(1), m])[truth >= 0]])
    y = np.concatenate([correct, np.zeros((truth >= 0).sum(), bool)])
    fit = np.concatenate([~side, ~side[truth >= 0]])
    intercept, w_similarity, w_background = (float(v) for v in fit_logistic(x[fit], y[fit].astype(float)))
    probability = 1 / (1 + np.exp(-(intercept + w_similarity * top + w_background * m)))

    p, c, t = probability[side], correct[side], truth[side]
    unrelated = t < 0
    review = max(threshold_for(p, c, 0.90), 0.5)
    # Conservative: the precision asked for, and twice the odds of the most likely edited
    # stranger of the threshold half.
    highest = float(p[unrelated].max())
    copy = max(threshold_for(p, c, 0.99), 2 * highest / (1 + highest), review)

    def at(threshold: float) -> dict:
        taken = p >= threshold
        hits, total = int(c[taken].sum()), int(taken.sum())
        return dict(
            matches=total,
            correct=hits,
            precision=round(hits / max(total, 1), 4),
            precision_interval=[round(v, 4) for v in wilson(hits, total)],
            recall=round(hits / max(1, int((t >= 0).sum())), 4),
            false_matches_on_unrelated=int((taken & unrelated).sum()),
        )

    edges = np.linspace(0, 1, 11)
    reliability = [
        dict(
            probability=[round(float(lo), 1), round(float(hi), 1)],
            queries=int(inside.sum()),
            copies=int(c[inside].sum()),
        )
        for lo, hi in zip(edges[:-1], edges[1:])
        for inside in [(p >= lo) & (p < hi + (hi == 1))]
    ]
    record = dict(
        neighbours=5,
        factor=2.5,
        clamp=[round(v, 6) for v in clamp],
        intercept=round(intercept, 6),
        similarity_weight=round(w_similarity, 6),
        background_weight=round(w_background, 6),
        copy_probability=round(copy + 5e-7, 6),
        review_probability=round(review, 6),
        evidence=dict(
            seed=a.seed,
            references=len(references),
            copies=a.copies,
            unrelated=a.unrelated,
            strengths=list(STRENGTHS),
            weights_sha256=manifest["weights_sha256"],
            background_rows=len(background),
            threshold_half=dict(
                queries=len(p),
                copies=int((t >= 0).sum()),
                unrelated=int(unrelated.sum()),
                copy=at(copy),
                review=at(review),
            ),
            recall_at_1=round(float(correct.sum() / (truth >= 0).sum()), 4),
            reliability=reliability,
            note="edits of held-out training pictures by train/copymatch_train/edits.py; top-1 neighbours; one half "
            "fits the curve, the other sets the thresholds",
        ),
    )
    (a.model / "calibration.json").write_text(json.dumps(record, indent=1) + "\n")
    if a.dump:
        lines = [
            f"{n},{plan[n]},{nearest[n]},{top[n]:.4f},{m[n]:.4f},{probability[n]:.4f},{int(correct[n])}"
            for n in range(len(plan))
        ]
        a.dump.write_text("query,plan,nearest,similarity,background,probability,correct\n" + "\n".join(lines) + "\n")
    print(json.dumps({k: v for k, v in record.items() if k != "evidence"} | record["evidence"]["threshold_half"]))


if __name__ == "__main__":
    main()
