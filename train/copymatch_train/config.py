"""One YAML per run, read into dataclasses. A wrong configuration is refused with the field's name before any work."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml


class ConfigError(ValueError):
    """A field of the configuration is unknown, missing, of the wrong type or out of range."""


def _check(ok: bool, name: str, value: object, rule: str) -> None:
    if not ok:
        raise ConfigError(f"{name}: {value!r} {rule}")


@dataclass
class Data:
    store: str = "train/runs/pictures"
    # Further stores that are trained on: drawn pictures, pictures of other repositories (`drawn`, `repositories`).
    beside: list[str] = field(default_factory=list)
    held_out: float = 0.1
    source_cap: int = 1200
    same_source: float = 0.5
    # Of the batches, how many have a picture's nearest others by descriptor (`neighbours`' file)
    # in place of its source's.
    mined: float = 0.0
    neighbours: str = ""
    # Of the pictures that batches draw, the share of `beside`'s stores; 0: what their numbers and `source_cap` give.
    beside_share: float = 0.0
    tint_grey: float = 0.7
    workers: int = 1

    def validate(self) -> None:
        _check(0 < self.held_out < 0.9, "data.held_out", self.held_out, "is outside (0, 0.9)")
        _check(self.source_cap >= 1, "data.source_cap", self.source_cap, "is below 1")
        for name in ("same_source", "tint_grey", "mined"):
            _check(0 <= getattr(self, name) <= 1, f"data.{name}", getattr(self, name), "is outside [0, 1]")
        _check(
            self.mined == 0 or self.neighbours != "",
            "data.neighbours",
            self.neighbours,
            "is empty, which data.mined needs",
        )
        share = self.beside_share
        _check(0 <= share < 1, "data.beside_share", share, "is outside [0, 1)")
        _check(share == 0 or len(self.beside) > 0, "data.beside_share", share, "needs data.beside")
        _check(0 <= self.workers <= 64, "data.workers", self.workers, "is outside 0…64")


@dataclass
class Network:
    trunk: str = "mobilenet_v2"
    init: str = "random"
    batch_norm: bool = False
    last_stride: int = 2
    frozen_stages: int = 0
    # Stages, and stages' first expansions, that are pooled beside the last map.
    levels: list[int] = field(default_factory=list)
    expansions: list[int] = field(default_factory=list)
    pooling: str = "gem"
    gem_p: float = 3.0
    gem_learnable: bool = True
    waveblock: bool = False
    head: str = "linear"
    projector_hidden: int = 1024
    projector_wide: int = 2048
    dimensions: int = 256
    # Training pictures whose descriptors are subtracted (`negatives`); 0: none.
    negatives: int = 0
    # And so many of the stores beside the training's own (`data.beside`).
    negatives_beside: int = 0
    negative_share: float = 0.4
    negative_temperature: float = 0.05
    # Pixels a side of the second look, at the picture that the locator finds in the image (`locator`); 0: no locator.
    # It is cut out of the input, which the first look sees `first_shrink` times smaller, and its descriptor counts
    # `second_share` times as much as the first.
    second_look: int = 0
    first_shrink: int = 1
    second_share: float = 1.0
    # What a third look counts, at another picture beside the one found, where one is certain; 0: no third look.
    third_share: float = 0.0

    def validate(self) -> None:
        _check(0 <= self.negatives <= 65536, "network.negatives", self.negatives, "is outside 0…65536")
        _check(
            0 <= self.negatives_beside <= 65536, "network.negatives_beside", self.negatives_beside, "is outside 0…65536"
        )
        _check(
            self.negatives_beside == 0 or self.negatives > 0,
            "network.negatives_beside",
            self.negatives_beside,
            "needs network.negatives",
        )
        _check(0 <= self.negative_share < 1, "network.negative_share", self.negative_share, "is outside [0, 1)")
        _check(
            self.negative_temperature > 0, "network.negative_temperature", self.negative_temperature, "must be positive"
        )
        _check(
            self.trunk in ("mobilenet_v2", "resnet50"), "network.trunk", self.trunk, "is not mobilenet_v2 or resnet50"
        )
        _check(
            self.second_look == 0 or 32 <= self.second_look <= 1024,
            "network.second_look",
            self.second_look,
            "is neither 0 nor within 32…1024",
        )
        _check(
            self.second_look == 0
            or (self.trunk == "mobilenet_v2" and self.frozen_stages <= 3 and self.last_stride == 2),
            "network.second_look",
            self.second_look,
            "needs mobilenet_v2 with last_stride 2 and at most 3 frozen stages",
        )
        _check(1 <= self.first_shrink <= 8, "network.first_shrink", self.first_shrink, "is outside 1…8")
        _check(
            self.first_shrink == 1 or self.second_look > 0,
            "network.first_shrink",
            self.first_shrink,
            "needs network.second_look",
        )
        _check(self.third_share >= 0, "network.third_share", self.third_share, "is negative")
        _check(
            self.third_share == 0 or self.second_look > 0,
            "network.third_share",
            self.third_share,
            "needs network.second_look",
        )
        _check(self.second_share > 0, "network.second_share", self.second_share, "must be positive")
        _check(self.last_stride in (1, 2), "network.last_stride", self.last_stride, "is not 1 or 2")
        _check(self.pooling in ("gem", "average"), "network.pooling", self.pooling, "is not gem or average")
        _check(self.gem_p >= 1, "network.gem_p", self.gem_p, "is below 1")
        _check(self.head in ("linear", "projector"), "network.head", self.head, "is not linear or projector")
        _check(self.frozen_stages >= 0, "network.frozen_stages", self.frozen_stages, "is below 0")
        for name, allowed in (
            ("levels", range(self.frozen_stages, 8)),
            ("expansions", range(max(2, self.frozen_stages), 8)),
        ):
            value = getattr(self, name)
            ok = not value or (
                self.trunk == "mobilenet_v2" and len(set(value)) == len(value) and all(k in allowed for k in value)
            )
            _check(
                ok,
                f"network.{name}",
                value,
                f"must be distinct stages {allowed.start}…{allowed.stop - 1} of mobilenet_v2, none of them frozen",
            )
        for name in ("projector_hidden", "projector_wide", "dimensions"):
            _check(1 <= getattr(self, name) <= 65536, f"network.{name}", getattr(self, name), "is outside 1…65536")
        _check(
            self.init == "random" or self.init.endswith((".tflite", ".pt", ".onnx")),
            "network.init",
            self.init,
            "is not random, a .tflite file, a .pt checkpoint or an exported .onnx",
        )
        _check(
            not (self.init.endswith(".tflite") and (self.trunk != "mobilenet_v2" or self.batch_norm)),
            "network.init",
            self.init,
            "fits only trunk mobilenet_v2 with batch_norm false",
        )


@dataclass
class Loss:
    """Weights; 0 switches a part off. Temperatures and sizes beside them."""

    barlow_twins: float = 0.0
    barlow_lambda: float = 0.0051
    infonce: float = 1.0
    temperature: float = 0.07
    memory: int = 8192
    # The first view of a picture is described by the moving average, without gradient, and is
    # what the others must find.
    momentum_references: bool = False
    koleo: float = 1.0
    cross_entropy_wide: float = 0.0
    cross_entropy_short: float = 0.0
    label_smoothing: float = 0.1
    sampled_classes: int = 0
    distillation: float = 0.0
    distillation_temperature: float = 2.0
    triplet: float = 0.0
    # Relational distillation from a trained network (`teacher`): its configuration, and its checkpoint or model.onnx.
    teacher: float = 0.0
    teacher_config: str = ""
    teacher_weights: str = ""
    teacher_temperature: float = 0.05
    # Where the locator says that the picture is (`network.second_look`).
    location: float = 0.0

    def validate(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            _check(isinstance(value, (bool, str)) or value >= 0, f"loss.{f.name}", value, "is negative")
        for name in ("temperature", "distillation_temperature", "teacher_temperature"):
            _check(getattr(self, name) > 0, f"loss.{name}", getattr(self, name), "must be positive")
        _check(self.label_smoothing < 1, "loss.label_smoothing", self.label_smoothing, "is not below 1")
        for name in ("teacher_config", "teacher_weights"):
            _check(
                self.teacher == 0 or getattr(self, name) != "",
                f"loss.{name}",
                getattr(self, name),
                "is empty, which loss.teacher needs",
            )
        active = ("barlow_twins", "infonce", "cross_entropy_wide", "cross_entropy_short", "triplet", "location")
        _check(any(getattr(self, n) > 0 for n in active), "loss", "every weight is 0", "nothing to train")


@dataclass
class Edits:
    side: int = 128
    weak_first_view: float = 0.5
    strength_from: float = 0.3
    strength_to: float = 1.0
    ramp: float = 0.5
    # Share of the edited views that are given as the locator would cut them out, and by how much of its size
    # each edge is off, at most.
    second_looks: float = 0.0
    second_look_error: float = 0.12

    def validate(self) -> None:
        _check(32 <= self.side <= 1024, "edits.side", self.side, "is outside 32…1024")
        for name in ("weak_first_view", "strength_from", "strength_to", "ramp", "second_looks"):
            _check(0 <= getattr(self, name) <= 1, f"edits.{name}", getattr(self, name), "is outside [0, 1]")
        _check(
            0 <= self.second_look_error < 0.5, "edits.second_look_error", self.second_look_error, "is outside [0, 0.5)"
        )


@dataclass
class Schedule:
    """Lengths in steps: linear warm-up from `warmup_factor` to 1, flat, then cosine to `final_factor`."""

    steps: int = 1000
    warmup: int = 100
    flat: int = 0
    warmup_factor: float = 0.01
    final_factor: float = 0.01

    def validate(self) -> None:
        _check(self.steps >= 1, "schedule.steps", self.steps, "is below 1")
        _check(self.warmup >= 0 and self.flat >= 0, "schedule.warmup", self.warmup, "or schedule.flat is negative")
        _check(self.warmup + self.flat <= self.steps, "schedule.steps", self.steps, "is less than warmup + flat")
        for name in ("warmup_factor", "final_factor"):
            _check(0 <= getattr(self, name) <= 1, f"schedule.{name}", getattr(self, name), "is outside [0, 1]")


@dataclass
class Optimiser:
    name: str = "adamw"
    learning_rate: float = 3.5e-4
    # The learning rate is in units of each weight row's root mean square: for trunks with folded batch normalisation.
    relative: bool = False
    head_multiplier: float = 1.0
    # AdamW's own rate for the locator, whose weights start small.
    locator_rate: float = 1.0e-3
    weight_decay: float = 1e-4
    classes: int = 32
    views: int = 2
    gradient_clip: float = 0.0
    ema: float = 0.0
    bf16: bool = False

    def validate(self) -> None:
        _check(self.name in ("adam", "adamw"), "optimiser.name", self.name, "is not adam or adamw")
        _check(not self.relative or self.name == "adamw", "optimiser.relative", self.relative, "goes with adamw alone")
        for name in ("learning_rate", "locator_rate"):
            _check(getattr(self, name) > 0, f"optimiser.{name}", getattr(self, name), "must be positive")
        _check(self.classes >= 2, "optimiser.classes", self.classes, "is below 2")
        _check(self.views >= 2, "optimiser.views", self.views, "is below 2")
        _check(0 <= self.ema < 1, "optimiser.ema", self.ema, "is outside [0, 1)")
        for name in ("head_multiplier", "weight_decay", "gradient_clip"):
            _check(getattr(self, name) >= 0, f"optimiser.{name}", getattr(self, name), "is negative")


@dataclass
class Run:
    name: str = "run"
    seed: int = 1
    threads: int = 1
    processes: int = 1
    device: str = "cpu"
    log_every: int = 20
    checkpoint_every: int = 200
    validate_every: int = 400
    validate_start: bool = True
    validation_side: int = 128
    validation_references: int = 1500
    validation_queries: int = 500

    def validate(self) -> None:
        _check(self.device in ("cpu", "cuda", "auto"), "run.device", self.device, "is not cpu, cuda or auto")
        for name in (
            "threads",
            "processes",
            "log_every",
            "checkpoint_every",
            "validate_every",
            "validation_references",
            "validation_queries",
        ):
            _check(getattr(self, name) >= 1, f"run.{name}", getattr(self, name), "is below 1")


@dataclass
class Export:
    """How the trained network is used: scales (several are averaged), resize filter, normalisation on the 0…1 scale."""

    name: str = "copymatch-small"
    version: str = "1"
    sizes: list[int] = field(default_factory=lambda: [224])
    resize: str = "bilinear"
    mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])

    def validate(self) -> None:
        _check(
            len(self.sizes) >= 1 and all(32 <= s <= 1024 for s in self.sizes),
            "export.sizes",
            self.sizes,
            "must be 32…1024 each",
        )
        _check(self.resize in ("bilinear", "bicubic", "lanczos"), "export.resize", self.resize, "is unknown")
        _check(len(self.mean) == 3, "export.mean", self.mean, "must have 3 numbers")
        _check(
            len(self.std) == 3 and all(s > 0 for s in self.std), "export.std", self.std, "must have 3 positive numbers"
        )


@dataclass
class Config:
    run: Run = field(default_factory=Run)
    data: Data = field(default_factory=Data)
    network: Network = field(default_factory=Network)
    loss: Loss = field(default_factory=Loss)
    edits: Edits = field(default_factory=Edits)
    schedule: Schedule = field(default_factory=Schedule)
    optimiser: Optimiser = field(default_factory=Optimiser)
    export: Export = field(default_factory=Export)

    def validate(self) -> None:
        for f in dataclasses.fields(self):
            getattr(self, f.name).validate()
        loss, head = self.loss, self.network.head
        beside = self.network.negatives_beside
        _check(beside == 0 or len(self.data.beside) > 0, "network.negatives_beside", beside, "needs data.beside")
        _check(
            self.run.processes == 1 or loss.sampled_classes == 0,
            "run.processes",
            self.run.processes,
            "does not go with loss.sampled_classes, whose draws would differ",
        )
        _check(
            self.run.processes == 1 or not (loss.cross_entropy_short or loss.cross_entropy_wide),
            "run.processes",
            self.run.processes,
            "does not go with cross-entropy, whose classifier is not reduced",
        )
        _check(
            self.optimiser.classes % self.run.processes == 0,
            "optimiser.classes",
            self.optimiser.classes,
            "is not divisible by run.processes",
        )
        _check(
            not loss.momentum_references or (self.optimiser.ema > 0 and loss.infonce > 0 and loss.barlow_twins == 0),
            "loss.momentum_references",
            loss.momentum_references,
            "needs optimiser.ema and loss.infonce, and does not go with loss.barlow_twins",
        )
        _check(
            loss.location == 0 or self.network.second_look > 0,
            "loss.location",
            loss.location,
            "needs network.second_look",
        )
        _check(
            self.network.second_look == 0 or len(self.export.sizes) == 1,
            "export.sizes",
            self.export.sizes,
            "must be one size where network.second_look looks twice",
        )
        for name, size in (("export.sizes", self.export.sizes[0]), ("run.validation_side", self.run.validation_side)):
            _check(size % self.network.first_shrink == 0, name, size, "is no multiple of network.first_shrink")
        _check(
            loss.teacher == 0 or loss.momentum_references,
            "loss.teacher",
            loss.teacher,
            "needs loss.momentum_references",
        )
        wide = loss.cross_entropy_wide > 0 or loss.distillation > 0
        _check(
            not wide or head == "projector",
            "network.head",
            head,
            "has no wide branch, which loss.cross_entropy_wide and loss.distillation need",
        )

    @property
    def first_side(self) -> int:
        """Pixels a side of what the network sees first of an input of the first of `export.sizes`."""
        return self.export.sizes[0] // self.network.first_shrink

    def fingerprint(self) -> str:
        """Identifies everything that shapes training; names, paths, threads and logging may change between resumes."""
        d = dataclasses.asdict(self)
        d.pop("export")
        d["run"] = {"seed": self.run.seed}
        d["data"].pop("store")
        d["data"].pop("workers")
        # What a run before these fields had is what it would have with none of them.
        for name, none in (("beside", []), ("beside_share", 0.0), ("mined", 0.0), ("neighbours", "")):
            if d["data"][name] == none or name == "neighbours":
                d["data"].pop(name)
        if "beside" in d["data"]:
            d["data"]["beside"] = len(d["data"]["beside"])
        # Negatives, and the sizes of the looks, come after training.
        d["network"] = {
            k: v for k, v in d["network"].items() if not k.startswith(("negative", "first_", "second_", "third_"))
        } | {"locator": self.network.second_look > 0}
        return hashlib.sha256(json.dumps(d, sort_keys=True).encode()).hexdigest()[:16]


def _typed(name: str, wanted: object, value: object) -> object:
    origin = typing.get_origin(wanted)
    if origin is list:
        if not isinstance(value, list):
            raise ConfigError(f"{name}: {value!r} is not a list")
        (inner,) = typing.get_args(wanted)
        return [_typed(f"{name}[{i}]", inner, v) for i, v in enumerate(value)]
    if origin is types.UnionType:
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is int and isinstance(value, bool) or not isinstance(value, wanted):
        raise ConfigError(f"{name}: {value!r} is not of type {wanted.__name__}")
    return value


def from_dict(raw: object) -> Config:
    if not isinstance(raw, dict):
        raise ConfigError(f"the configuration is {type(raw).__name__}, a mapping is wanted")
    sections = {f.name: f.default_factory for f in dataclasses.fields(Config)}
    config = Config()
    for section, values in raw.items():
        if section not in sections:
            raise ConfigError(f"{section}: unknown section; known: {', '.join(sections)}")
        if not isinstance(values, dict):
            raise ConfigError(f"{section}: {values!r} is not a mapping")
        target = getattr(config, section)
        hints = typing.get_type_hints(type(target))
        for key, value in values.items():
            if key not in hints:
                raise ConfigError(f"{section}.{key}: unknown field; known: {', '.join(hints)}")
            setattr(target, key, _typed(f"{section}.{key}", hints[key], value))
    config.validate()
    return config


def load(path: str | Path) -> Config:
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return from_dict(raw or {})
