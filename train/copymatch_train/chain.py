"""A chain of commands that makes a model: `python -m copymatch_train.chain train/chain.yaml --into train/runs`

The same command resumes. The file is a list of steps in order. A step's `run` is one or several commands of this
package, as they stand after `python -m copymatch_train.`; `config` is its configuration, `inputs` what else it reads
and `outputs` what it makes. `{config}`, `{data}`, `{into}`, `{mirror}` and `{model}` are filled in. A step is skipped
whose outputs exist and whose commands and inputs' contents are those that it was run with; outputs of other inputs are
set aside (`.stale`), so that a run of `fit` does not go on from them. What a step was begun with stands in INTO, in a
folder of the chain's name.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

# What the configurations' own paths begin with; with another --into or --data steps get copies that name those.
RUNS, DATA = "train/runs", "../shared/data"
MIRROR = "../mirror"


class ChainError(ValueError):
    """The chain's file, or what one of its steps needs, is not as it should be."""


@dataclass
class Step:
    name: str
    run: list[str]
    outputs: list[str]
    inputs: list[str] = field(default_factory=list)
    config: str = ""


def read(path: str | Path) -> list[Step]:
    """The steps of a file; one that is not as it should be is refused by its name."""
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ChainError(f"{path}: not YAML: {error}") from None
    if not isinstance(raw, list) or not raw:
        raise ChainError(f"{path}: a list of steps is wanted")
    known = {f.name: f for f in dataclasses.fields(Step)}
    steps: list[Step] = []
    for number, values in enumerate(raw):
        place = f"{path}: step {number}"
        if not isinstance(values, dict) or not isinstance(values.get("name"), str):
            raise ChainError(f"{place} has no name")
        place = f"{path}: {values['name']}"
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ChainError(f"{place}.{unknown[0]}: unknown field; known: {', '.join(known)}")
        values = values | {k: [values[k]] for k in ("run", "inputs", "outputs") if isinstance(values.get(k), str)}
        for name in ("run", "inputs", "outputs"):
            texts = values.get(name, [])
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise ChainError(f"{place}.{name}: {texts!r} is neither a text nor a list of texts")
        for name in ("run", "outputs"):
            if not values.get(name):
                raise ChainError(f"{place}.{name}: missing")
        if values["name"] in (step.name for step in steps):
            raise ChainError(f"{place}: the name stands twice")
        steps.append(Step(**values))
    return steps


@dataclass
class Places:
    """What the placeholders of a chain stand for."""

    data: str = DATA
    into: str = RUNS
    model: str = ""
    # Of the folder in `into` that says what was done.
    notes: str = "chain"
    # Folder of git directories that pictures of public repositories are read from.
    mirror: str = ""

    def __post_init__(self) -> None:
        self.data, self.into = self.data.rstrip("/"), self.into.rstrip("/")
        self.model = self.model or f"{self.into}/model"
        self.mirror = self.mirror or MIRROR

    def fill(self, text: str, config: str = "") -> str:
        try:
            return text.format(data=self.data, into=self.into, model=self.model, mirror=self.mirror, config=config)
        except (KeyError, IndexError, ValueError) as error:
            raise ChainError(f"{text}: unknown placeholder or unpaired brace ({error})") from None

    def note(self, name: str) -> Path:
        return Path(self.into) / self.notes / name

    def configuration(self, path: str) -> str:
        """The configuration to give to a step: the file itself, or a copy beside the notes with other paths."""
        if not path or (self.into, self.data) == (RUNS, DATA):
            return path
        text = Path(path).read_text().replace(f"{DATA}/", f"{self.data}/").replace(f"{RUNS}/", f"{self.into}/")
        copy = self.note(Path(path).name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists() or copy.read_text() != text:
            copy.write_text(text)
        return str(copy)

    def commands(self, step: Step) -> list[list[str]]:
        """Argument vectors, the module first."""
        config = self.configuration(step.config)
        return [[self.fill(word, config) for word in shlex.split(command)] for command in step.run]

    def inputs(self, step: Step) -> list[Path]:
        config = self.configuration(step.config)
        return [Path(p) for p in ([config] if config else []) + [self.fill(text) for text in step.inputs]]

    def outputs(self, step: Step) -> list[Path]:
        return [Path(self.fill(text)) for text in step.outputs]


def contents(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise ChainError(f"{path}: missing") from None


def stamp(step: Step, places: Places) -> dict:
    """What a step's outputs depend on: its commands, and its inputs' contents by their names."""
    return dict(commands=places.commands(step), inputs={str(p): contents(p) for p in places.inputs(step)})


def call(command: list[str]) -> None:
    """A module of this package as a program of its own, at this one's priority."""
    subprocess.run([sys.executable, "-m", f"copymatch_train.{command[0]}", *command[1:]], check=True)


def run(steps: list[Step], places: Places, again: str = "", carry_out: Callable[[list[str]], None] = call) -> list[str]:
    """Carry out what is not done yet, from `again` on in any case; the names of the steps that ran."""
    if again and again not in (step.name for step in steps):
        raise ChainError(f"--from {again}: no such step; there are {', '.join(step.name for step in steps)}")
    ran: list[str] = []
    anew = False
    for step in steps:
        anew = anew or step.name == again
        note = places.note(f"{step.name}.json")
        now = stamp(step, places)
        before = json.loads(note.read_text()) if note.exists() else None
        same = before is not None and {k: before[k] for k in now} == now
        outputs = places.outputs(step)
        if same and before["done"] and not anew and all(p.exists() for p in outputs):
            print(f"{step.name}: done", flush=True)
            continue
        if anew or (before is not None and not same):
            for path in outputs:
                if path.exists():
                    os.replace(path, path.with_name(path.name + ".stale"))
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(now | dict(done=False), indent=1) + "\n")
        for path in outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
        for command in now["commands"]:
            print(f"{step.name}: {shlex.join(command)}", flush=True)
            carry_out(command)
        missing = [str(p) for p in outputs if not p.exists()]
        if missing:
            raise ChainError(f"{step.name}: ended without {', '.join(missing)}")
        note.write_text(json.dumps(now | dict(done=True), indent=1) + "\n")
        ran.append(step.name)
    return ran


def main() -> None:
    parser = argparse.ArgumentParser(description="Carry out a chain of training commands; what is done is skipped.")
    parser.add_argument("chain", type=Path)
    parser.add_argument("--into", default=RUNS, help=f"folder of the runs; the configurations' {RUNS} is there")
    parser.add_argument("--data", default=DATA, help="folder with the training pictures' tar shards and train.csv")
    parser.add_argument("--model", default="", help="folder of the model that is made (default: INTO/model)")
    parser.add_argument("--mirror", default=MIRROR, help="folder of public repositories' git directories")
    parser.add_argument("--from", dest="again", default="", metavar="STEP", help="carry out STEP and all after it anew")
    parser.add_argument("--list", action="store_true", help="only print the commands")
    a = parser.parse_args()
    try:
        steps, places = read(a.chain), Places(a.data, a.into, a.model, a.chain.stem, a.mirror)
        if a.list:
            for step in steps:
                for command in places.commands(step):
                    print(shlex.join(["python", "-m", f"copymatch_train.{command[0]}", *command[1:]]))
            return
        run(steps, places, a.again)
    except (ChainError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"error: {shlex.join(error.cmd[2:])} ended with {error.returncode}") from None


if __name__ == "__main__":
    main()
