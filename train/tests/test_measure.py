"""Two kinds of validation, and mined neighbours."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import yaml
from test_run import tiny

from copymatch_train import config as configuration
from copymatch_train import drawn, fit, measure, neighbours
from copymatch_train.pictures import Pictures
from copymatch_train.sampling import PKBatches

PLAIN = dict(
    cross_entropy_wide=0.0, cross_entropy_short=0.0, distillation=0.0, triplet=0.0, sampled_classes=0, barlow_twins=0.0
)


def test_recall_at_k_counts_ties_against_us():
    r = np.eye(4, dtype=np.float32)
    q = np.array([[1, 0, 0, 0], [0.1, 0.9, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, 1, 0]], np.float32)
    truth = np.array([0, 0, 3, -1])
    assert measure.recall_at(q, r, truth, 1) == pytest.approx(1 / 3)
    assert measure.recall_at(q, r, truth, 2) == pytest.approx(2 / 3)
    assert measure.recall_at(q, r, truth, 4) == 1.0


def test_a_source_is_divided_into_references_and_strangers():
    sources = ["a"] * 30 + ["drawn/x"] * 6 + ["drawn/y"] * 3
    parts = measure.parts_of(sources, np.arange(39), 15, np.random.default_rng(0))
    assert [(p.name, len(p.references), len(p.strangers)) for p in parts] == [("a", 15, 15), ("drawn", 6, 3)]
    every = [i for p in parts for i in (*p.references, *p.strangers)]
    assert sorted(every) == list(range(39))


def test_both_validations_are_reported_and_a_source_that_is_trained_on_is_refused(store, tmp_path, monkeypatch, capsys):
    for kept in (False, True):
        monkeypatch.setattr(
            sys, "argv", ["drawn", str(tmp_path / f"drawn{kept}"), "--each", "6", *(["--kept"] if kept else [])]
        )
        drawn.main()
    config = tiny(
        store,
        data=dict(beside=[str(tmp_path / "drawnFalse")]),
        loss=PLAIN,
        network=dict(head="linear", waveblock=False),
        export=dict(sizes=[32]),
        run=dict(validation_references=4, validation_queries=3),
        schedule=dict(steps=2, warmup=0, flat=0),
    )
    fit.train(config, tmp_path / "run")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config)))
    monkeypatch.setattr(measure, "drawn", lambda pictures, config, count, seed: np.arange(20))

    def run(*foreign):
        arguments = [
            "measure",
            str(tmp_path / "config.yaml"),
            str(tmp_path / "run" / "checkpoint.pt"),
            "--foreign",
            *map(str, foreign),
        ]
        monkeypatch.setattr(
            sys,
            "argv",
            [
                *arguments,
                "--references",
                "30",
                "--copies",
                "8",
                "--strangers",
                "4",
                "--out",
                str(tmp_path / "out.json"),
            ],
        )
        measure.main()

    run(tmp_path / "drawnTrue")
    figures = json.loads((tmp_path / "out.json").read_text())[str(tmp_path / "run" / "checkpoint.pt")]
    assert set(figures) == {"own", "foreign"}
    for place, (copies, strangers, references) in dict(own=(8, 4, None), foreign=(4, 2, 10)).items():
        f = figures[place]
        assert (f["copies"], f["strangers"]) == (copies, strangers) and references in (None, f["references"])
        assert 0 <= f["micro_ap"] <= 1 and f["recall_at_1"] <= f["recall_at_50"] <= 1
    assert "| foreign |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="drawn/chart.* is trained on"):
        run(tmp_path / "drawnFalse")


def test_the_nearest_are_found_without_the_picture_itself_and_its_copies():
    d = np.eye(5, dtype=np.float32)
    d[1] = (0.9, 0.436, 0, 0, 0)
    d[2] = (0.5, 0.866, 0, 0, 0)
    rows = neighbours.nearest(d, 2, same=0.95, chunk=2)
    assert rows[0].tolist() == [1, 2]
    # Pictures 1 and 2 share 0.83; with 0 and 1 taken for the same picture, 0 has 2 first.
    assert neighbours.nearest(d, 1, same=0.9 - 1e-3, chunk=5)[0].tolist() == [2]
    assert len(rows) == 5 and all(i not in row for i, row in enumerate(rows.tolist()))


def test_mined_batches_hold_a_picture_and_its_nearest(store, tmp_path, monkeypatch):
    config = tiny(
        store,
        data=dict(mined=1.0, neighbours=str(tmp_path / "near.npy")),
        loss=PLAIN,
        network=dict(head="linear", waveblock=False),
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config)))
    monkeypatch.setattr(sys, "argv", ["neighbours", str(tmp_path / "config.yaml"), "--count", "5", "--same", "1.1"])
    neighbours.main()
    pictures = Pictures(store)
    training = np.flatnonzero(~pictures.held_out(0.4))
    near = np.load(tmp_path / "near.npy")
    assert near.shape == (len(training), 5)
    batches = PKBatches(config, pictures, training)
    for step in range(6):
        classes = set(batches.classes(step).tolist())
        assert len(classes) == 4
        # Half of the batch, two pictures, come from some picture's neighbourhood.
        assert any(len(classes & {first, *near[first].tolist()}) >= 2 for first in range(len(training)))
    np.save(tmp_path / "near.npy", near[:-1])
    with pytest.raises(ValueError, match="mine it again"):
        PKBatches(config, pictures, training)


def test_drawn_pictures_are_known_to_be_different_however_alike():
    d = np.eye(4, dtype=np.float32)
    d[1] = (0.9, 0.436, 0, 0)
    d[2] = (0.999, 0.045, 0, 0)
    drawn_ones = np.array([True, True, True, False])
    rows = neighbours.nearest(d, 2, same=0.8, distinct=drawn_ones, same_distinct=0.98)
    # 0 and 2 are the same even so; 1 is nearer to both than --same allows, and is a neighbour.
    assert rows[0].tolist()[0] == 1 and 2 not in rows[0].tolist()
    drawn_ones[0] = False
    assert 1 not in neighbours.nearest(d, 2, same=0.8, distinct=drawn_ones, same_distinct=0.98)[0].tolist()


def test_only_the_stores_beside_are_mined_and_the_others_batches_stay_of_one_source(store, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["drawn", str(tmp_path / "drawn"), "--each", "2"])
    drawn.main()
    settings = dict(beside=[str(tmp_path / "drawn")], mined=1.0, neighbours=str(tmp_path / "near.npy"))
    config = tiny(store, data=settings, loss=PLAIN, network=dict(head="linear", waveblock=False))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config)))
    monkeypatch.setattr(
        sys, "argv", ["neighbours", str(tmp_path / "config.yaml"), "--count", "5", "--same-drawn", "1.1", "--beside"]
    )
    neighbours.main()
    pictures = Pictures.of(config.data)
    training = np.flatnonzero(~pictures.held_out(0.4))
    near = np.load(tmp_path / "near.npy")
    assert near.shape == (len(training), 5)
    beside = training >= pictures.own
    assert (near[~beside] == -1).all() and (near[beside] >= 0).any()
    assert beside[near[near >= 0]].all()
    batches = PKBatches(config, pictures, training)
    first = int(np.flatnonzero(~beside)[0])
    # Every batch begins with that picture, and takes a half of its own from among its source's.
    batches.weights = 0.01 * batches.weights
    batches.weights[first] += 0.99
    pool = set(batches.by_source[batches.sources[first]].tolist())
    assert all(len(set(batches.classes(step).tolist()) & pool) >= 2 for step in range(6))


def test_the_stores_beside_have_the_share_of_the_drawing_that_is_set(store, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["drawn", str(tmp_path / "drawn"), "--each", "2"])
    drawn.main()
    pictures = Pictures(store, tmp_path / "drawn")
    training = np.arange(len(pictures))
    plain = pictures.drawing_weights(training, 10)
    weights = pictures.drawing_weights(training, 10, 0.45)
    assert weights.sum() == pytest.approx(1) and weights[pictures.own :].sum() == pytest.approx(0.45)
    # Within the stores nothing changes.
    assert weights[: pictures.own] == pytest.approx(0.55 * plain[: pictures.own] / plain[: pictures.own].sum())
    with pytest.raises(configuration.ConfigError, match="data.beside_share"):
        tiny(store, data=dict(beside_share=0.5))


def test_settings_that_a_run_does_not_use_leave_its_fingerprint(store):
    plain = tiny(store)
    assert plain.fingerprint() == tiny(store, data=dict(beside=[])).fingerprint()
    assert plain.fingerprint() != tiny(store, data=dict(beside=["x"])).fingerprint()
    shared = tiny(store, data=dict(beside=["x"], beside_share=0.4))
    assert shared.fingerprint() not in (plain.fingerprint(), tiny(store, data=dict(beside=["x"])).fingerprint())
    with pytest.raises(configuration.ConfigError, match="data.neighbours"):
        tiny(store, data=dict(mined=0.5))
