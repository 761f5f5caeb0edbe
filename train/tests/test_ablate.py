import dataclasses
import json
import sys

import pytest
import torch
import yaml
from test_run import tiny

from copymatch_train import ablate, fit
from copymatch_train.config import ConfigError, load


@pytest.fixture
def table(store):
    base = dataclasses.asdict(tiny(store, schedule=dict(steps=2, warmup=0, flat=0)))
    return dict(
        seeds=[1, 2],
        base=base,
        rows={"all": None, "average pooling": dict(network=dict(pooling="average")), "second": dict(after="all")},
    )


def test_a_row_differs_from_the_base_in_what_it_names(table, tmp_path):
    base = ablate.row_config(table, "all", 1, tmp_path)
    row = ablate.row_config(table, "average pooling", 2, tmp_path)
    assert (base.network.pooling, row.network.pooling, row.run.seed) == ("gem", "average", 2)
    row.network.pooling, row.run.seed, row.run.name = "gem", 1, base.run.name
    assert row == base
    with pytest.raises(ConfigError, match="no row 'x'"):
        ablate.row_config(table, "x", 1, tmp_path)


def test_rows_run_once_start_from_the_row_before_and_print_their_figures(table, tmp_path, monkeypatch, capsys):
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "ablate",
            str(tmp_path / "table.yaml"),
            str(tmp_path / "out"),
            "--row",
            "second",
            "--row",
            "all",
            "--seeds",
            "1",
        ],
    )
    ablate.main()
    printed = capsys.readouterr().out
    assert (
        printed.count("| second |") == 2
        and json.loads((tmp_path / "out" / "second-1" / "result.json").read_text())["recall_at_1"] >= 0
    )
    first = torch.load(tmp_path / "out" / "all-1" / "checkpoint.pt", weights_only=True)["step"]
    assert first == 2
    monkeypatch.setattr(fit, "train", None)
    ablate.main()
    assert capsys.readouterr().out == printed


def test_several_seeds_give_mean_and_spread():
    results = [dict.fromkeys(ablate.FIGURES, v) for v in (0.2, 0.4)]
    assert ablate.line("r", results).startswith("| r | 0.300 ± 0.141 |") and ablate.line("r", results).endswith("| 2 |")


def test_the_shipped_table_is_valid(tmp_path):
    from pathlib import Path

    shipped = yaml.safe_load((Path(__file__).parents[1] / "configs" / "tables" / "ablation.yaml").read_text())
    for name in shipped["rows"]:
        ablate.row_config(shipped, name, 1, tmp_path)


def test_stretching_is_scored_on_a_trained_network(store, tmp_path):
    config = tiny(store, schedule=dict(steps=2, warmup=0, flat=0))
    fit.train(config, tmp_path)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config)))
    rows = ablate.stretching(load(tmp_path / "c.yaml"), tmp_path / "checkpoint.pt")
    assert len(rows) == 2 + 2 * (1 + 5 + 1) and any("mean over 32, 40 px" in r for r in rows)
