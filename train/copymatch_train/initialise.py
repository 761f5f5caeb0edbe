"""Fill a fresh network: trunk from the configured file, linear head by PCA whitening over training pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .checkpoint import network_state
from .config import Config
from .network import CopyNetwork
from .pictures import Pictures
from .preprocess import to_input
from .projector import LinearHead
from .tflite_weights import load_mobilenet_v2


@torch.no_grad()
def pooled_features(
    network: CopyNetwork, pictures: Pictures, indices: np.ndarray, config: Config, side: int, batch: int = 32
) -> torch.Tensor:
    """(len(indices), channels) pooled features in evaluation mode."""
    network.eval()
    rows = []
    e = config.export
    for start in range(0, len(indices), batch):
        inputs = np.stack(
            [to_input(pictures.image(int(i)), side, e.resize, e.mean, e.std) for i in indices[start : start + batch]]
        )
        rows.append(network.features(torch.from_numpy(inputs)).float())
    return torch.cat(rows)


def start_from(network: CopyNetwork, state: dict) -> None:
    """An earlier stage's weights: the trunk and pooling always, the head where it is the same one."""
    own = network.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    missing = [k for k in own if k.startswith("trunk.") and k not in fitting]
    if missing:
        raise ValueError(
            f"network.init: the checkpoint lacks {len(missing)} of the trunk's tensors, first {missing[0]}"
        )
    network.load_state_dict(own | fitting)


def start_whole(network: CopyNetwork, exported: dict) -> None:
    """All weights but the negatives from an exported file, which must have them; what training alone needs (a fixed
    p) is the network's own."""
    wanted = [
        name for name, parameter in network.named_parameters() if parameter.requires_grad or name.startswith("trunk.")
    ]
    missing = [
        name for name in wanted if name not in exported or exported[name].shape != network.get_parameter(name).shape
    ]
    if missing:
        raise ValueError(f"the exported file lacks {len(missing)} of the network's weights, first {missing[0]}")
    start_from(network, {k: v for k, v in exported.items() if not k.startswith("negatives.")})


def exported_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The weights in a model.onnx that `export` wrote, by the network's own names, as float32."""
    import onnx
    from onnx import numpy_helper

    tensors = onnx.load(str(path)).graph.initializer
    return {t.name.removesuffix("_f16"): torch.from_numpy(numpy_helper.to_array(t).astype(np.float32)) for t in tensors}


def initialise(
    network: CopyNetwork, config: Config, pictures: Pictures, indices: np.ndarray, samples: int = 3000
) -> None:
    """Deterministic in the run's seed. Random trunks keep PyTorch's own initialisation; a linear head that no
    file gives is whitened."""
    init = config.network.init
    if init == "random":
        return
    given: dict = {}
    if init.endswith(".tflite"):
        load_mobilenet_v2(network.trunk, init)
    else:
        given = exported_state(init) if init.endswith(".onnx") else network_state(Path(init))
        start_from(network, given)
    head = given.get("head.short.weight")
    if isinstance(network.head, LinearHead) and (head is None or head.shape != network.head.short.weight.shape):
        rng = np.random.default_rng(config.run.seed)
        chosen = rng.choice(indices, min(samples, len(indices)), replace=False)
        network.head.whiten(
            pooled_features(network, pictures, chosen, config, config.edits.side), widths=network.widths
        )
