from pathlib import Path

import pytest

from copymatch_train import config
from copymatch_train.config import ConfigError, from_dict

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize(
    "raw, named",
    [
        ({"optimizer": {}}, "optimizer"),
        ({"loss": {"infonse": 1.0}}, "loss.infonse"),
        ({"edits": {"side": "big"}}, "edits.side"),
        ({"edits": {"side": 8}}, "edits.side"),
        ({"network": {"trunk": "vgg"}}, "network.trunk"),
        ({"optimiser": {"learning_rate": 0}}, "optimiser.learning_rate"),
        ({"loss": {"koleo": -1}}, "loss.koleo"),
        ({"loss": {"infonce": 0}}, "loss"),
        ({"loss": {"cross_entropy_wide": 1.0}}, "network.head"),
        ({"schedule": {"steps": 10, "warmup": 20}}, "schedule.steps"),
        ({"network": {"init": "weights.h5"}}, "network.init"),
        ({"run": {"processes": 3}}, "optimiser.classes"),
        ({"data": 3}, "data"),
        ([1], "list"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(raw, named):
    with pytest.raises(ConfigError, match=f"^(the configuration is )?{named}"):
        from_dict(raw)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_committed_configuration_is_valid(path):
    config.load(path)


def test_fingerprint_ignores_names_and_paths_but_not_what_shapes_training():
    base = from_dict({})
    assert (
        from_dict({"run": {"name": "x", "log_every": 3}, "data": {"store": "elsewhere"}}).fingerprint()
        == base.fingerprint()
    )
    assert from_dict({"run": {"seed": 9}}).fingerprint() != base.fingerprint()
    assert from_dict({"loss": {"koleo": 0.5}}).fingerprint() != base.fingerprint()
