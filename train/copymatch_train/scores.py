"""Scores of a retrieval run: micro-average precision, recall at precision, stretching. numpy only.

The definitions are those of the Image Similarity Challenge; ties are ordered against us.
"""

from __future__ import annotations

import numpy as np


def background_similarity(queries: np.ndarray, background: np.ndarray, neighbours: int = 5) -> np.ndarray:
    """(N,) mean inner product of each unit query with its nearest background descriptors."""
    out = np.empty(len(queries), np.float32)
    for start in range(0, len(queries), 256):
        s = queries[start : start + 256] @ background.T
        out[start : start + 256] = np.partition(s, -neighbours, axis=1)[:, -neighbours:].mean(1)
    return out


def stretched(
    similarity: np.ndarray, background: np.ndarray, factor: float = 2.5, clamp: tuple[float, float] | None = None
) -> np.ndarray:
    """−‖s·q − r‖² with s = factor · m (arXiv 2111.08004 §4), from the inner product q·r and m, m within
    `clamp` as in the extension."""
    s = factor * (background if clamp is None else background.clip(*clamp))
    return -(s * s + 1) + 2 * s * similarity


def ranked(scores: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores in descending order with their correctness; among equal scores the wrong ones come first."""
    order = np.lexsort((correct, -scores))
    return scores[order], correct[order].astype(bool)


def micro_average_precision(scores: np.ndarray, correct: np.ndarray, positives: int) -> float:
    _, y = ranked(scores, correct)
    precision = np.cumsum(y) / np.arange(1, len(y) + 1)
    return float((precision * y).sum() / positives)


def recall_at_precision(
    scores: np.ndarray, correct: np.ndarray, positives: int, target: float = 0.9
) -> tuple[float, float | None]:
    """(recall, threshold) at the lowest threshold whose precision still reaches `target`."""
    s, y = ranked(scores, correct)
    hits = np.cumsum(y)
    # Only the last of equal scores is a threshold one can set.
    settable = np.append(s[1:] != s[:-1], True)
    ok = np.flatnonzero((hits / np.arange(1, len(y) + 1) >= target) & settable)
    if not len(ok):
        return 0.0, None
    return float(hits[ok[-1]] / positives), float(s[ok[-1]])


def summary(
    queries: np.ndarray,
    references: np.ndarray,
    truth: np.ndarray,
    background: np.ndarray | None = None,
    k: int = 10,
    neighbours: int = 5,
    factor: float = 2.5,
    clamp: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Figures over the k nearest references of every query. `truth[i]` is the reference's row,
    −1 where there is none."""
    similarity = queries @ references.T
    k = min(k, references.shape[0])
    top = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(similarity, top, 1)
    correct = top == truth[:, None]
    positives = int((truth >= 0).sum())
    best = similarity.argmax(1)
    out = {
        "micro_ap": micro_average_precision(values.ravel(), correct.ravel(), positives),
        "recall_at_p90": recall_at_precision(values.ravel(), correct.ravel(), positives)[0],
        "recall_at_1": float(((best == truth) & (truth >= 0)).sum() / positives),
    }
    if background is not None:
        m = background_similarity(queries, background, neighbours)[:, None]
        s = stretched(values, m, factor, clamp)
        out["stretched_micro_ap"] = micro_average_precision(s.ravel(), correct.ravel(), positives)
        out["stretched_recall_at_p90"] = recall_at_precision(s.ravel(), correct.ravel(), positives)[0]
    return out
