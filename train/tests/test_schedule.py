import pytest

from copymatch_train.config import Edits, Schedule
from copymatch_train.schedule import edit_strength, learning_rate_factor


def test_rate_warms_up_linearly_stays_flat_and_anneals_by_a_cosine():
    s = Schedule(steps=100, warmup=20, flat=30, warmup_factor=0.01, final_factor=0.1)
    rates = [learning_rate_factor(i, s) for i in range(100)]
    assert rates[0] == pytest.approx(0.01) and rates[10] == pytest.approx(0.505)
    assert rates[20:50] == [1.0] * 30
    assert rates[50] == pytest.approx(1.0) and rates[99] == pytest.approx(0.1)
    assert rates[74] + rates[75] == pytest.approx(1.1)
    assert all(a >= b for a, b in zip(rates[49:], rates[50:]))


def test_edit_strength_rises_to_its_end_and_stays():
    e = Edits(strength_from=0.2, strength_to=1.0, ramp=0.5)
    assert edit_strength(0, 100, e) == pytest.approx(0.2)
    assert edit_strength(25, 100, e) == pytest.approx(0.6)
    assert edit_strength(50, 100, e) == edit_strength(99, 100, e) == pytest.approx(1.0)
