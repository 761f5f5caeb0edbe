"""Train one configuration: `python -m copymatch_train.fit CONFIG.yaml RUN_FOLDER`. Resumes
from RUN_FOLDER by itself."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from tqdm import tqdm

from . import checkpoint
from . import config as configuration
from .average import MovingAverage
from .config import Config, ConfigError
from .curves import draw
from .initialise import initialise
from .network import CopyNetwork, Outputs
from .objective import Objective
from .pictures import Pictures
from .processes import gather, sum_gradients
from .relative import RelativeAdamW
from .sampling import PKBatches
from .schedule import edit_strength, learning_rate_factor
from .teacher import Teacher
from .validate import Validation


def build_optimisers(config: Config, network: CopyNetwork, objective: Objective) -> dict[str, torch.optim.Optimizer]:
    """Trunk and head at their own rates; sampled classifiers have sparse gradients, which need their own optimiser."""
    o = config.optimiser
    head = [*network.head.parameters(), *network.pool.parameters()]
    head = [p for p in head if p.requires_grad]
    trunk = [p for p in network.trunk.parameters() if p.requires_grad]
    classifiers = list(objective.parameters())
    sparse = config.loss.sampled_classes > 0
    groups = [dict(params=trunk, scale=1.0), dict(params=head, scale=o.head_multiplier)]
    if network.locator is not None:
        groups.append(
            dict(params=list(network.locator.parameters()), scale=o.locator_rate / o.learning_rate, relative=False)
        )
    if classifiers and not sparse:
        groups.append(dict(params=classifiers, scale=o.head_multiplier))
    kind = torch.optim.Adam if o.name == "adam" else RelativeAdamW if o.relative else torch.optim.AdamW
    out: dict[str, torch.optim.Optimizer] = {
        "optimiser": kind([g for g in groups if g["params"]], lr=o.learning_rate, weight_decay=o.weight_decay)
    }
    if classifiers and sparse:
        out["sparse"] = torch.optim.SparseAdam([dict(params=classifiers, scale=o.head_multiplier)], lr=o.learning_rate)
    return out


def device_of(config: Config) -> str:
    if config.run.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device: 'cuda' but PyTorch sees no CUDA device")
    return config.run.device


def describe(
    network: CopyNetwork,
    average: MovingAverage | None,
    x: torch.Tensor,
    labels: torch.Tensor,
    places: torch.Tensor,
    config: Config,
    teacher: Teacher | None = None,
) -> tuple[Outputs, torch.Tensor]:
    """Outputs of a batch (P·K, 3, S, S) with the labels they belong to; the first views go to the moving average
    where the loss wants that."""
    if not config.loss.momentum_references:
        out = network.outputs(x)
        out.places = places
        return out, labels
    first = torch.arange(len(x)) % config.optimiser.views == 0
    behind = network.frozen(x)
    queries, references = (behind[rows].contiguous(memory_format=torch.channels_last) for rows in (~first, first))
    with torch.no_grad():
        described = average.average.outputs_behind(references).descriptor
    out = network.outputs_behind(queries)
    out.references, out.reference_labels, out.places = described, labels[first], places[~first]
    if teacher is not None:
        taught = teacher(x)
        out.taught, out.taught_references = taught[~first], taught[first]
    return out, labels[~first]


def train(config: Config, folder: Path, rank: int = 0, world: int = 1, stop_after: int | None = None) -> dict | None:
    """Run (or continue) training in `folder`; returns the last validation's figures on rank 0.

    `stop_after` ends early as a kill would, after that many steps of this call (tests).
    """
    device = device_of(config)
    torch.set_num_threads(config.run.threads)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = Pictures.of(config.data)
    held = pictures.held_out(config.data.held_out)
    training, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    if len(training) < config.optimiser.classes:
        raise ConfigError(
            f"optimiser.classes: {config.optimiser.classes} but the store has {len(training)} training pictures"
        )
    torch.manual_seed(config.run.seed)
    network = CopyNetwork(config.network)
    teacher = (
        Teacher(config.loss.teacher_config, config.loss.teacher_weights, config, device)
        if config.loss.teacher
        else None
    )
    objective = Objective(config, len(training), device, teacher.dimensions if teacher else 0).to(device)
    path = folder / "checkpoint.pt"
    if not path.exists():
        initialise(network, config, pictures, training)
    network = network.to(device, memory_format=torch.channels_last)
    average = MovingAverage(network, config.optimiser.ema) if config.optimiser.ema else None
    optimisers = build_optimisers(config, network, objective)
    parts = dict(
        network=network,
        objective=objective,
        memory=objective.memory,
        taught_memory=objective.taught_memory,
        average=average.average if average else None,
        **optimisers,
    )
    done = 0
    if path.exists():
        done = checkpoint.load(path, config, parts)
        if average:
            average.updates = done
        if rank == 0:
            print(f"resuming {path} at step {done} of {config.schedule.steps}", file=sys.stderr)
    batches = PKBatches(config, pictures, training, rank, world)
    loader = DataLoader(
        batches,
        sampler=range(done, config.schedule.steps),
        batch_size=None,
        num_workers=config.data.workers,
        prefetch_factor=4 if config.data.workers else None,
        pin_memory=device == "cuda",
    )
    validation = Validation(config, pictures, held_out, training) if rank == 0 else None
    mean = torch.tensor(config.export.mean, device=device)[:, None, None]
    std = torch.tensor(config.export.std, device=device)[:, None, None]
    log = open(folder / "metrics.jsonl", "a", buffering=1) if rank == 0 else None
    figures: dict | None = None

    def report(record: dict) -> None:
        log.write(json.dumps(record) + "\n")

    def validate(step: int) -> dict:
        started = time.time()
        result = validation.run(average.average if average else network, device)
        report(
            dict(
                kind="validation",
                step=step,
                seconds=round(time.time() - started, 1),
                **{k: round(v, 4) for k, v in result.items()},
            )
        )
        draw(folder / "metrics.jsonl", folder / "curves.png")
        return result

    if rank == 0 and done == 0 and config.run.validate_start:
        figures = validate(0)
    network.train()
    started, waited, seen = time.time(), 0.0, 0
    bar = tqdm(
        total=config.schedule.steps, initial=done, unit="step", desc=config.run.name, disable=rank != 0, mininterval=5
    )
    autocast = torch.autocast(device, torch.bfloat16) if config.optimiser.bf16 else nullcontext()
    parent = os.getppid()
    fetching = time.time()
    for step, (pixels, labels, places) in enumerate(loader, done):
        waited += time.time() - fetching
        # WaveBlock and class sampling draw from here: a function of the step, so that a resumed run draws the same.
        torch.manual_seed((config.run.seed * 1_000_003 + step) * 64 + rank)
        factor = learning_rate_factor(step, config.schedule)
        for optimiser in optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = config.optimiser.learning_rate * group["scale"] * factor
            optimiser.zero_grad(set_to_none=True)
        x = pixels.to(device, non_blocking=True)
        x = ((x.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        try:
            with autocast:
                out, labels = describe(network, average, x, labels, places.to(device), config, teacher)
            out, labels = gather(out, labels.to(device), rank, world)
            loss, values = objective(out, labels)
            loss.backward()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if (
                isinstance(error, RuntimeError)
                and "alloc" not in str(error).lower()
                and "out of memory" not in str(error).lower()
            ):
                raise
            raise SystemExit(
                f"out of memory at {config.optimiser.classes} pictures × {config.optimiser.views} views "
                f"of {config.edits.side} px: "
                f"lower optimiser.classes or edits.side ({error})"
            ) from None
        if not torch.isfinite(loss):
            raise SystemExit(f"loss is {loss.item()} at step {step} ({values}); lower optimiser.learning_rate")
        sum_gradients(network, world)
        if config.optimiser.gradient_clip:
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimiser.gradient_clip)
        for optimiser in optimisers.values():
            optimiser.step()
        if average:
            average.update(network)
        seen += len(pixels) * world
        step += 1
        bar.update()
        last = step == config.schedule.steps
        if rank == 0:
            if step % config.run.log_every == 0 or last:
                spent = time.time() - started
                values = {k: round(v, 4) for k, v in values.items()}
                report(
                    dict(
                        kind="train",
                        step=step,
                        loss=round(loss.item(), 4),
                        **values,
                        rate=factor,
                        strength=round(edit_strength(step, config.schedule.steps, config.edits), 3),
                        gem_p=round(float(network.pool.p.detach()), 3) if hasattr(network.pool, "p") else 1.0,
                        images_per_second=round(seen / spent, 1),
                        waiting=round(waited / spent, 3),
                        seconds=round(spent, 1),
                    )
                )
                bar.set_postfix(values | {"img/s": round(seen / spent, 1)})
            if step % config.run.validate_every == 0 or last:
                figures = validate(step)
            if step % config.run.checkpoint_every == 0 or last:
                checkpoint.save(path, config, step, parts)
        if world > 1 and os.getppid() != parent:
            raise SystemExit("the process that started this run is gone")
        if stop_after is not None and step - done >= stop_after:
            break
        fetching = time.time()
    bar.close()
    return figures


def train_together(rank: int, world: int, config: Config, folder: Path, rendezvous: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    try:
        train(config, folder, rank, world)
    finally:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path, help="checkpoints, metrics.jsonl, curves.png; continued when it exists")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rendezvous", help=argparse.SUPPRESS)
    a = parser.parse_args()
    try:
        config = configuration.load(a.config)
        a.folder.mkdir(parents=True, exist_ok=True)
        if a.rank is None:
            (a.folder / "config.yaml").write_text(a.config.read_text())
        world = config.run.processes
        if world == 1:
            figures = train(config, a.folder)
            print(json.dumps({k: round(v, 4) for k, v in (figures or {}).items()}))
            return
        if a.rank is not None:
            train_together(a.rank, world, config, a.folder, a.rendezvous)
            return
        # Commands of their own rather than forks: they show under their name in ps, and stop
        # and continue like this one.
        rendezvous = (a.folder / f"rendezvous.{os.getpid()}").resolve()
        again = [
            sys.executable,
            "-m",
            "copymatch_train.fit",
            str(a.config),
            str(a.folder),
            "--rendezvous",
            str(rendezvous),
            "--rank",
        ]
        others = [subprocess.Popen([*again, str(rank)]) for rank in range(world)]
        codes = [p.wait() for p in others]
        rendezvous.unlink(missing_ok=True)
        if any(codes):
            raise SystemExit(f"a process of the run failed; exit codes {codes}")
    except (ConfigError, checkpoint.CheckpointError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
