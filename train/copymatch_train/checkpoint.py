"""Checkpoints: everything a resumed run needs, written atomically; one of another configuration is refused."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from .config import Config


class CheckpointError(RuntimeError):
    """The checkpoint cannot continue this run."""


def save(path: Path, config: Config, step: int, parts: dict) -> None:
    """`parts` maps names to objects with state_dict(). Written beside and renamed: a kill leaves the old one whole."""
    state = {name: part.state_dict() for name, part in parts.items() if part is not None}
    state |= dict(fingerprint=config.fingerprint(), step=step)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load(path: Path, config: Config, parts: dict) -> int:
    """Restore `parts` and return the number of steps done."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["fingerprint"] != config.fingerprint():
        raise CheckpointError(
            f"{path} belongs to another configuration (fingerprint {state['fingerprint']}, this one "
            f"is {config.fingerprint()}); "
            "give the run another folder, or restore the configuration it was started with"
        )
    for name, part in parts.items():
        if part is not None:
            part.load_state_dict(state[name])
    return int(state["step"])


def network_state(path: Path) -> dict:
    """The weights to use: the moving average where there is one."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("average", state["network"])


def _put(state: dict, path: Path, network: torch.nn.Module) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds another network than the configuration's: {str(error).splitlines()[1:3]}"
        ) from None


def load_for_inference(path: Path, network: torch.nn.Module, config: Config) -> None:
    _put(network_state(path), path, network)


def load_without_negatives(path: Path, network: torch.nn.Module, config: Config) -> None:
    """As `load_for_inference`, from a checkpoint with other negatives or none; the network's own stay as they are."""
    own = {k: v for k, v in network.state_dict().items() if k.startswith("negatives.")}
    _put({k: v for k, v in network_state(path).items() if not k.startswith("negatives.")} | own, path, network)
