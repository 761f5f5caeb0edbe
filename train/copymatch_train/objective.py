"""The weighted sum of the losses that a configuration switches on, with the state they need."""

from __future__ import annotations

import torch
from torch import nn

from . import losses
from .classifier import PictureClassifier, classification
from .config import Config
from .locator import location_loss
from .memory import CrossBatchMemory
from .network import Outputs


class Objective(nn.Module):
    """`classes` is the number of training pictures, `taught` the teacher's dimensions. Returns (total,
    {name: unweighted value})."""

    def __init__(self, config: Config, classes: int, device: str, taught: int = 0):
        super().__init__()
        self.c = config.loss
        self.views = config.optimiser.views
        d, wide, sampled = config.network.dimensions, config.network.projector_wide, self.c.sampled_classes
        self.memory = CrossBatchMemory(self.c.memory, d, device)
        self.taught_memory = CrossBatchMemory(self.c.memory, taught, device) if self.c.teacher else None
        self.short_classes = (
            PictureClassifier(d, classes, sampled)
            if self.c.cross_entropy_short > 0 or self.c.distillation > 0
            else None
        )
        self.wide_classes = (
            PictureClassifier(wide, classes, sampled)
            if self.c.cross_entropy_wide > 0 or self.c.distillation > 0
            else None
        )

    def forward(self, out: Outputs, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        c, parts = self.c, {}
        memory, memory_labels = self.memory.filled()
        if c.infonce:
            if out.references is None:
                value = losses.info_nce(out.descriptor, labels, c.temperature, memory, memory_labels)
            else:
                value = losses.info_nce_to_references(
                    out.descriptor, labels, out.references, out.reference_labels, c.temperature, memory, memory_labels
                )
            parts["infonce"] = (c.infonce, value)
        if c.teacher:
            # Both memories are filled together: their rows are the same pictures.
            references = torch.cat([out.references, memory])
            taught_references = torch.cat([out.taught_references, self.taught_memory.filled()[0]])
            value = losses.relational_distillation(
                out.descriptor, references, out.taught, taught_references, c.teacher_temperature
            )
            parts["teacher"] = (c.teacher, value)
        if c.koleo:
            parts["koleo"] = (c.koleo, losses.koleo(out.descriptor, labels, memory, memory_labels))
        if c.location:
            parts["location"] = (c.location, location_loss(out.located, out.places))
        if c.barlow_twins:
            projected = out.wide if out.wide is not None else out.short
            grouped = projected.view(-1, self.views, projected.shape[1])
            parts["barlow_twins"] = (c.barlow_twins, losses.barlow_twins(grouped[:, 0], grouped[:, 1], c.barlow_lambda))
        if c.triplet:
            parts["triplet"] = (c.triplet, losses.soft_batch_hard_triplet(out.feature, labels))
        if self.short_classes is not None:
            chosen = self.short_classes.choose(labels)
            short = self.short_classes.logits(out.short, chosen)
            if c.cross_entropy_short:
                parts["cross_entropy_short"] = (
                    c.cross_entropy_short,
                    classification(short, labels, chosen, c.label_smoothing),
                )
            if self.wide_classes is not None:
                wide = self.wide_classes.logits(out.wide, chosen)
                if c.cross_entropy_wide:
                    parts["cross_entropy_wide"] = (
                        c.cross_entropy_wide,
                        classification(wide, labels, chosen, c.label_smoothing),
                    )
                if c.distillation:
                    parts["distillation"] = (
                        c.distillation,
                        losses.distillation(wide, short, c.distillation_temperature),
                    )
        elif self.wide_classes is not None:
            chosen = self.wide_classes.choose(labels)
            parts["cross_entropy_wide"] = (
                c.cross_entropy_wide,
                classification(self.wide_classes.logits(out.wide, chosen), labels, chosen, c.label_smoothing),
            )
        if c.infonce or c.koleo:
            if out.references is None:
                self.memory.push(out.descriptor, labels)
            else:
                self.memory.push(out.references, out.reference_labels)
        if self.taught_memory is not None:
            self.taught_memory.push(out.taught_references, out.reference_labels)
        total = sum(weight * value for weight, value in parts.values())
        return total, {name: float(value.detach()) for name, (_, value) in parts.items()}
