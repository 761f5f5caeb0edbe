"""The chain of commands that makes a model, and the program that carries one out."""

from pathlib import Path

import pytest

from copymatch_train import chain
from copymatch_train import config as configuration
from copymatch_train.chain import ChainError, Places, Step

TRAIN = Path(__file__).parent.parent
CHAINS = sorted(TRAIN.glob("chain*.yaml"))


@pytest.fixture
def two(tmp_path):
    """Two steps, the second from the first's output, and a record of what was carried out."""
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a").write_text("a")
    (tmp_path / "c.yaml").write_text("run: {name: c}\n")
    steps = [
        Step("first", ["copy {data}/a {into}/x/b"], ["{into}/x/b"], ["{data}/a"], str(tmp_path / "c.yaml")),
        Step("second", ["copy {into}/x/b {model}/c"], ["{model}/c"], ["{into}/x/b"]),
    ]
    return steps, Places(str(tmp_path / "shards"), str(tmp_path / "runs"))


def copy(command):
    assert command[0] == "copy"
    Path(command[2]).write_text(Path(command[1]).read_text())


def carry_out(two, again=""):
    return chain.run(*two, again, carry_out=copy)


def test_what_is_done_is_skipped_and_only_what_a_change_reaches_is_done_again(two, tmp_path):
    assert carry_out(two) == ["first", "second"]
    assert carry_out(two) == []
    # The first step makes the same of it: the second has nothing to do.
    (tmp_path / "c.yaml").write_text("run: {name: other}\n")
    assert carry_out(two) == ["first"]
    (tmp_path / "shards" / "a").write_text("changed")
    assert carry_out(two) == ["first", "second"]
    assert (tmp_path / "runs" / "model" / "c").read_text() == "changed"
    (tmp_path / "runs" / "model" / "c").unlink()
    assert carry_out(two) == ["second"]
    two[0][1].run = ["copy {into}/x/b {model}/c now"]
    assert carry_out(two) == ["second"]
    assert carry_out(two, "first") == ["first", "second"]
    with pytest.raises(ChainError, match="third: no such step"):
        carry_out(two, "third")


def test_a_step_that_was_killed_goes_on_from_what_it_left_and_from_nothing_of_other_inputs(two, tmp_path):
    left = tmp_path / "runs" / "x" / "b"

    def killed(command):
        left.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chain.run(*two, carry_out=killed)
    seen = []

    def resumed(command):
        seen.append(left.exists() and left.read_text())
        copy(command)

    chain.run(*two, carry_out=resumed)
    assert seen[0] == "half"
    (tmp_path / "shards" / "a").write_text("changed")
    seen.clear()
    chain.run(*two, carry_out=resumed)
    assert seen[0] is False
    assert left.with_name("b.stale").read_text() == "a"


def test_a_step_without_its_input_or_its_output_is_an_error(two, tmp_path):
    with pytest.raises(ChainError, match="first: ended without .*x/b"):
        chain.run(*two, carry_out=lambda command: None)
    (tmp_path / "shards" / "a").unlink()
    with pytest.raises(ChainError, match="shards/a: missing"):
        carry_out(two)


def test_in_other_places_a_step_gets_a_configuration_that_names_them(tmp_path):
    path = TRAIN / "configs" / "small.yaml"
    assert Places().configuration(str(path)) == str(path)
    places = Places(str(tmp_path / "shards"), str(tmp_path / "runs"))
    config = configuration.load(places.configuration(str(path)))
    assert config.data.store == f"{tmp_path}/runs/pictures"
    assert config.network.init.startswith(f"{tmp_path}/shards/")


@pytest.mark.parametrize(
    "text, named",
    [
        ("{}", "a list of steps"),
        ("- {run: x, outputs: y}", "step 0 has no name"),
        ("- {name: a, outputs: y}", "a.run: missing"),
        ("- {name: a, run: x}", "a.outputs: missing"),
        ("- {name: a, run: 3, outputs: y}", "a.run: 3 is neither"),
        ("- {name: a, run: x, outputs: y, needs: z}", "a.needs: unknown field"),
        ("- {name: a, run: x, outputs: y}\n- {name: a, run: x, outputs: y}", "a: the name stands twice"),
        ("- [", "not YAML"),
    ],
)
def test_a_wrong_chain_is_refused_by_what_is_wrong(tmp_path, text, named):
    (tmp_path / "chain.yaml").write_text(text)
    with pytest.raises(ChainError, match=named):
        chain.read(tmp_path / "chain.yaml")


def test_an_unknown_placeholder_is_refused():
    with pytest.raises(ChainError, match="unknown placeholder"):
        Places().commands(Step("a", ["fit {there}"], ["x"]))


@pytest.mark.parametrize("path", CHAINS, ids=lambda p: p.stem)
def test_every_step_reads_what_exists_or_an_earlier_step_makes(path, monkeypatch):
    """Modules and configurations exist; a run's picture store and first weights are among its step's inputs."""
    monkeypatch.chdir(TRAIN.parent)
    made: set[str] = set()
    for step in chain.read(path):
        for command in Places().commands(step):
            assert (TRAIN / "copymatch_train" / f"{command[0]}.py").exists(), command
            # What a command names below the runs is said to be read or made by its step.
            said = {str(p) for p in (*Places().inputs(step), *Places().outputs(step))}
            folders = {str(Path(p).parent) for p in said}
            assert all(w in said | folders for w in command[1:] if w.startswith(chain.RUNS)), command
            if command[0] == "fit":
                config = configuration.load(step.config)
                assert f"{config.data.store}/index.json" in said
                assert config.network.init in said or config.network.init == "random"
        if step.config:
            configuration.load(step.config)
        for wanted in map(str, Places().inputs(step)):
            assert wanted in made or wanted.startswith(chain.DATA) or wanted == step.config, f"{step.name}: {wanted}"
        made |= {str(p) for p in Places().outputs(step)}
    assert f"{chain.RUNS}/model/model.onnx" in made


def test_the_default_chain_stands_once():
    """README.md and scripts/train.sh name the chains and repeat none of their commands."""
    readme, script = ((TRAIN.parent / name).read_text() for name in ("train/README.md", "scripts/train.sh"))
    for path in CHAINS:
        assert f"train/{path.name}" in readme and f"train/{path.name}" in script
    for step in chain.read(TRAIN / "chain.yaml"):
        for command in Places().commands(step):
            if len(command) > 2:
                assert " ".join(command[:3]) + " " not in " ".join(readme.split()), command
        if step.config.endswith(("small.yaml", "default-160.yaml")):
            assert step.config not in script
