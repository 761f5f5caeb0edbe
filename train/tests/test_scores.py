import numpy as np
import pytest

from copymatch_train.calibrate import fit_logistic, threshold_for, wilson
from copymatch_train.scores import (
    background_similarity,
    micro_average_precision,
    recall_at_precision,
    stretched,
    summary,
)


def test_micro_average_precision_by_hand():
    scores, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])
    assert micro_average_precision(scores, correct, 3) == pytest.approx((1 / 1 + 2 / 3) / 3)


def test_ties_are_ordered_against_us():
    assert micro_average_precision(np.array([0.5, 0.5]), np.array([1, 0]), 1) == pytest.approx(0.5)


def test_recall_at_precision_takes_the_lowest_threshold_that_holds():
    scores, correct = np.array([5.0, 4, 3, 2, 1]), np.array([1, 0, 1, 1, 0])
    assert recall_at_precision(scores, correct, 4, 0.75) == (0.75, 2.0)
    assert recall_at_precision(scores, np.zeros(5, int), 4, 0.5) == (0.0, None)


def test_stretching_is_minus_the_squared_distance_of_the_scaled_query():
    rng = np.random.default_rng(0)
    q, r = rng.normal(size=8), rng.normal(size=8)
    q, r = q / np.linalg.norm(q), r / np.linalg.norm(r)
    assert stretched(q @ r, 0.3) == pytest.approx(-(np.linalg.norm(2.5 * 0.3 * q - r) ** 2))


def test_background_similarity_is_the_mean_of_the_five_nearest():
    rng = np.random.default_rng(1)
    q, b = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(50, 4)).astype(np.float32)
    assert np.allclose(background_similarity(q, b), np.sort(q @ b.T, 1)[:, -5:].mean(1), atol=1e-6)


def test_summary_of_perfect_descriptors_is_perfect():
    r = np.eye(12, dtype=np.float32)
    out = summary(r[:6], r, np.arange(6), background=np.full((5, 12), 12**-0.5, np.float32))
    assert out["micro_ap"] == out["recall_at_1"] == out["recall_at_p90"] == out["stretched_micro_ap"] == 1.0


def test_logistic_fit_recovers_the_curve_it_was_drawn_from():
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 1, size=(40_000, 2))
    y = rng.uniform(size=40_000) < 1 / (1 + np.exp(-(-3 + 8 * x[:, 0] - 4 * x[:, 1])))
    assert np.allclose(fit_logistic(x, y.astype(float), ridge=0), [-3, 8, -4], atol=0.25)


def test_logistic_fit_stays_finite_on_separable_data():
    x = np.linspace(0, 1, 50)[:, None]
    assert np.isfinite(fit_logistic(x, (x[:, 0] > 0.5).astype(float))).all()


def test_threshold_keeps_its_precision_at_every_higher_threshold():
    p = np.linspace(1, 0, 1000)
    y = np.arange(1000) < 400
    t = threshold_for(p, y, 0.99)
    assert y[p >= t].mean() >= 0.99 and (p >= t).sum() in range(400, 405)


def test_wilson_interval_holds_the_proportion():
    low, high = wilson(99, 100)
    assert 0.94 < low < 0.99 < high <= 1.0
    assert wilson(0, 0) == (0.0, 1.0)
