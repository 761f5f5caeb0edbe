"""Cross-batch memory: the most recent descriptors with their picture labels, oldest overwritten first."""

from __future__ import annotations

import torch


class CrossBatchMemory:
    def __init__(self, rows: int, dimensions: int, device: str = "cpu"):
        self.descriptors = torch.zeros(rows, dimensions, device=device)
        self.labels = torch.full((rows,), -1, dtype=torch.long, device=device)
        self.written = 0

    def push(self, d: torch.Tensor, labels: torch.Tensor) -> None:
        rows = len(self.labels)
        if not rows:
            return
        d, labels = d.detach()[-rows:].float(), labels[-rows:]
        at = (self.written + torch.arange(len(d), device=labels.device)) % rows
        self.descriptors[at], self.labels[at] = d, labels
        self.written += len(d)

    def filled(self) -> tuple[torch.Tensor, torch.Tensor]:
        n = min(self.written, len(self.labels))
        # Copies: `push` overwrites rows that the backward pass still needs.
        return self.descriptors[:n].clone(), self.labels[:n].clone()

    def state_dict(self) -> dict:
        return dict(descriptors=self.descriptors, labels=self.labels, written=self.written)

    def load_state_dict(self, state: dict) -> None:
        self.descriptors.copy_(state["descriptors"])
        self.labels.copy_(state["labels"])
        self.written = int(state["written"])
