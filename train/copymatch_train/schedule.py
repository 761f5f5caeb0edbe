"""Learning rate and edit strength as pure functions of the step, so that a resumed run continues exactly."""

from __future__ import annotations

import math

from .config import Edits, Schedule


def learning_rate_factor(step: int, schedule: Schedule) -> float:
    """Linear warm-up from `warmup_factor` to 1, flat, cosine annealing to `final_factor` at the last step."""
    s = schedule
    if step < s.warmup:
        return s.warmup_factor + (1 - s.warmup_factor) * step / s.warmup
    if step < s.warmup + s.flat:
        return 1.0
    length = s.steps - s.warmup - s.flat
    progress = min(1.0, (step - s.warmup - s.flat) / max(1, length - 1))
    return s.final_factor + (1 - s.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def edit_strength(step: int, steps: int, edits: Edits) -> float:
    """Rises linearly over the first `ramp` of the run."""
    progress = 1.0 if edits.ramp == 0 else min(1.0, step / max(1.0, edits.ramp * steps))
    return edits.strength_from + (edits.strength_to - edits.strength_from) * progress
