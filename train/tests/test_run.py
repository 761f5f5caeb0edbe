"""A whole run in miniature: train, be killed, resume, export, background, calibration."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml

from copymatch_train import background, calibrate, checkpoint, export, fit, losses, whiten
from copymatch_train.config import ConfigError, from_dict
from copymatch_train.initialise import pooled_features
from copymatch_train.network import CopyNetwork, Outputs
from copymatch_train.pictures import Pictures
from copymatch_train.processes import gather, sum_gradients
from copymatch_train.sampling import PKBatches
from copymatch_train.teacher import Teacher


def tiny(store, **changes):
    raw = dict(
        run=dict(
            name="tiny",
            seed=3,
            log_every=1,
            checkpoint_every=2,
            validate_every=6,
            validation_side=32,
            validation_references=12,
            validation_queries=6,
        ),
        data=dict(store=str(store), held_out=0.4, workers=0),
        network=dict(
            trunk="mobilenet_v2",
            batch_norm=True,
            waveblock=True,
            head="projector",
            projector_hidden=16,
            projector_wide=24,
            dimensions=8,
        ),
        loss=dict(
            infonce=1.0,
            memory=32,
            koleo=0.1,
            cross_entropy_wide=1.0,
            cross_entropy_short=1.0,
            distillation=1.0,
            triplet=1.0,
            sampled_classes=8,
            barlow_twins=0.01,
        ),
        edits=dict(side=32),
        schedule=dict(steps=6, warmup=2, flat=1),
        optimiser=dict(classes=4, views=2, learning_rate=1e-3, ema=0.9),
        export=dict(sizes=[32, 40]),
    )
    for section, values in changes.items():
        raw[section] = raw.get(section, {}) | values
    return from_dict(raw)


def test_a_killed_run_resumes_to_the_very_same_weights_and_schedule(store, tmp_path):
    config = tiny(store)
    fit.train(config, tmp_path / "whole")
    # Killed after 3 steps: the last checkpoint is that of step 2.
    fit.train(config, tmp_path / "killed", stop_after=3)
    fit.train(config, tmp_path / "killed")
    whole, resumed = (torch.load(tmp_path / f / "checkpoint.pt", weights_only=True) for f in ("whole", "killed"))
    assert whole["step"] == resumed["step"] == 6
    for part in ("network", "average", "objective"):
        for name, value in whole[part].items():
            assert torch.equal(value, resumed[part][name]), f"{part}.{name}"

    def rates(folder):
        records = [json.loads(line) for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()]
        return {r["step"]: r["rate"] for r in records if r["kind"] == "train"}

    assert rates("whole") == rates("killed") and len(rates("whole")) == 6
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 1000


def test_a_student_follows_its_teacher_and_resumes(store, tmp_path):
    plain = dict(
        cross_entropy_wide=0.0,
        cross_entropy_short=0.0,
        distillation=0.0,
        triplet=0.0,
        sampled_classes=0,
        barlow_twins=0.0,
    )
    network = dict(head="linear", waveblock=False, frozen_stages=1)
    grown = tiny(store, loss=plain | dict(momentum_references=True), network=network | dict(dimensions=12))
    fit.train(grown, tmp_path / "teacher")
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(dataclasses.asdict(grown)))
    taught = dict(
        infonce=1e-9,
        koleo=0.0,
        momentum_references=True,
        teacher=1.0,
        teacher_config=str(tmp_path / "teacher.yaml"),
        teacher_weights=str(tmp_path / "teacher" / "checkpoint.pt"),
    )
    # Other dimensions than the teacher's, and another size.
    config = tiny(
        store,
        loss=plain | taught,
        network=network,
        optimiser=dict(views=3, learning_rate=3e-3),
        schedule=dict(steps=30, warmup=2, flat=20),
    )
    fit.train(config, tmp_path / "whole")
    fit.train(config, tmp_path / "killed", stop_after=15)
    fit.train(config, tmp_path / "killed")
    whole, resumed = (torch.load(tmp_path / f / "checkpoint.pt", weights_only=True) for f in ("whole", "killed"))
    assert torch.equal(whole["taught_memory"]["descriptors"], resumed["taught_memory"]["descriptors"])
    assert whole["taught_memory"]["descriptors"].shape == (32, 12)
    assert all(torch.equal(value, resumed["network"][name]) for name, value in whole["network"].items())
    records = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    divergence = [r["teacher"] for r in records if r["kind"] == "train"]
    assert np.mean(divergence[-5:]) < 0.8 * np.mean(divergence[3:8]), divergence


def test_a_teacher_of_other_input_is_refused_by_name(store, tmp_path):
    other = tiny(store, export=dict(mean=[0.4, 0.4, 0.4]))
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(dataclasses.asdict(other)))
    with pytest.raises(ConfigError, match="loss.teacher_config.*export.mean"):
        Teacher(str(tmp_path / "teacher.yaml"), "none.pt", tiny(store))
    with pytest.raises(ConfigError, match="loss.teacher_weights"):
        tiny(store, loss=dict(teacher=1.0, teacher_config="a.yaml", momentum_references=True))
    with pytest.raises(ConfigError, match="loss.teacher: .*momentum_references"):
        tiny(store, loss=dict(teacher=1.0, teacher_config="a.yaml", teacher_weights="b.pt"))


def test_references_described_by_the_moving_average_train_and_resume_too(store, tmp_path):
    plain = dict(
        cross_entropy_wide=0.0,
        cross_entropy_short=0.0,
        distillation=0.0,
        triplet=0.0,
        sampled_classes=0,
        barlow_twins=0.0,
    )
    config = tiny(
        store,
        loss=plain | dict(momentum_references=True),
        network=dict(head="linear", waveblock=False, frozen_stages=1),
        optimiser=dict(views=3),
    )
    fit.train(config, tmp_path / "whole")
    fit.train(config, tmp_path / "killed", stop_after=3)
    fit.train(config, tmp_path / "killed")
    whole, resumed = (torch.load(tmp_path / f / "checkpoint.pt", weights_only=True) for f in ("whole", "killed"))
    # Only references are remembered: one a picture and step.
    assert whole["memory"]["written"] == 6 * config.optimiser.classes
    for name, value in whole["network"].items():
        assert torch.equal(value, resumed["network"][name]), name


def test_a_locator_trains_with_the_trunk_and_resumes(store, tmp_path):
    plain = dict(
        cross_entropy_wide=0.0,
        cross_entropy_short=0.0,
        distillation=0.0,
        triplet=0.0,
        sampled_classes=0,
        barlow_twins=0.0,
    )
    network = dict(head="linear", waveblock=False, frozen_stages=3, second_look=32, first_shrink=2, third_share=1.0)
    together = tiny(
        store,
        loss=plain | dict(momentum_references=True, location=1.0),
        network=network,
        edits=dict(second_looks=0.3),
        optimiser=dict(views=3, relative=True, locator_rate=1e-3),
        run=dict(validation_side=64),
        export=dict(sizes=[64]),
    )
    fit.train(together, tmp_path / "whole")
    fit.train(together, tmp_path / "killed", stop_after=3)
    figures = fit.train(together, tmp_path / "killed")
    whole, resumed = (torch.load(tmp_path / f / "checkpoint.pt", weights_only=True) for f in ("whole", "killed"))
    assert all(torch.equal(value, resumed["network"][name]) for name, value in whole["network"].items())
    assert 0 < figures["overlap"] <= 1


def test_a_locator_wants_what_it_needs(store):
    for changes, field in (
        (dict(network=dict(second_look=64, frozen_stages=4)), "network.second_look"),
        (dict(network=dict(second_look=64)), "export.sizes"),
        (dict(network=dict(second_look=64, first_shrink=3), export=dict(sizes=[96])), "run.validation_side"),
        (dict(network=dict(first_shrink=2)), "network.first_shrink"),
        (dict(network=dict(third_share=1.0)), "network.third_share"),
        (dict(loss=dict(location=1.0)), "loss.location"),
    ):
        with pytest.raises(ConfigError, match=field):
            tiny(store, **changes)


def test_a_checkpoint_of_another_configuration_is_refused(store, tmp_path):
    fit.train(tiny(store), tmp_path, stop_after=2)
    with pytest.raises(checkpoint.CheckpointError, match="another configuration"):
        fit.train(tiny(store, optimiser=dict(learning_rate=2e-3)), tmp_path)


def test_training_lowers_the_loss(store, tmp_path):
    config = tiny(
        store,
        loss=dict(
            infonce=1.0,
            temperature=0.1,
            koleo=0.0,
            cross_entropy_wide=0.0,
            cross_entropy_short=0.0,
            distillation=0.0,
            triplet=0.0,
            barlow_twins=0.0,
        ),
        network=dict(head="linear", waveblock=False, batch_norm=True),
        schedule=dict(steps=40, warmup=2),
        edits=dict(strength_from=0.0, strength_to=0.0, side=32),
        run=dict(validate_every=1000),
    )
    fit.train(config, tmp_path)
    losses = [
        r["loss"]
        for r in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        if r["kind"] == "train"
    ]
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.2


def test_a_batch_is_a_function_of_seed_and_step_and_shares_add_up_to_it(store):
    config = tiny(store)
    pictures = Pictures(store)
    training = np.flatnonzero(~pictures.held_out(0.4))
    pixels, labels, places = PKBatches(config, pictures, training)[5]
    again = PKBatches(config, pictures, training)[5]
    assert (
        torch.equal(pixels, again[0])
        and torch.equal(places, again[2])
        and pixels.shape == (8, 3, 32, 32)
        and places.shape == (8, 4)
    )
    assert labels.tolist() == [v for v in labels[::2].tolist() for _ in range(2)] and len(set(labels.tolist())) == 4
    shares = [PKBatches(config, pictures, training, rank, 2)[5] for rank in range(2)]
    assert sorted(labels.tolist()) == sorted(torch.cat([s[1] for s in shares]).tolist())
    other = dataclasses.replace(config, run=dataclasses.replace(config.run, seed=4))
    assert not torch.equal(pixels, PKBatches(other, pictures, training)[5][0])


def share_of_gradient(rank, world, folder):
    """One process's part of a batch of 8 through a linear network; every process saves the summed gradient."""
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.manual_seed(0)
    net = torch.nn.Linear(6, 5).double()
    x, labels = torch.randn(8, 6, dtype=torch.double), torch.arange(8) // 2
    mine = slice(rank * 8 // world, (rank + 1) * 8 // world)
    short = net(x[mine])
    out, all_labels = gather(
        Outputs(short, None, short, torch.nn.functional.normalize(short, dim=1)), labels[mine], rank, world
    )
    loss = losses.info_nce(out.descriptor, all_labels, 0.1) + losses.koleo(out.descriptor, all_labels)
    (loss + losses.soft_batch_hard_triplet(out.feature, all_labels)).backward()
    sum_gradients(net, world)
    torch.save(net.weight.grad, folder / f"{world}-{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


def test_several_processes_sum_to_the_gradient_of_the_whole_batch(tmp_path):
    share_of_gradient(0, 1, tmp_path)
    torch.multiprocessing.spawn(share_of_gradient, (2, tmp_path), nprocs=2)
    whole, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert torch.equal(first, second)
    assert torch.allclose(whole, first, rtol=1e-9)


def test_export_background_and_calibration_fit_together(store, tmp_path, monkeypatch):
    config = tiny(store, network=dict(head="linear"), loss=dict(cross_entropy_wide=0.0, distillation=0.0))
    pictures = Pictures(store)
    torch.manual_seed(0)
    network = CopyNetwork(config.network).train()
    # Random weights describe all pictures alike until batch statistics and centring tell them apart.
    batch, _, _ = PKBatches(config, pictures, np.arange(len(pictures)))[0]
    with torch.no_grad():
        for _ in range(30):
            network(batch.float() / 128 - 1)
    network.head.whiten(pooled_features(network, pictures, np.arange(len(pictures)), config, 32), shrink=10.0)
    report = export.export(network, config, tmp_path, "licence", "source")
    assert report["onnx_vs_pytorch"] < 1e-3
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["input"]["sizes"] == [32, 40] and manifest["dimensions"] == 8
    parity = np.array(manifest["parity"][0]["descriptor"])
    run = export.session((tmp_path / "model.onnx").read_bytes())
    assert np.abs(export.describe(run, [export.waves_v1()], manifest)[0] - parity).max() < 1e-5
    # Any batch, and the same answer in it.
    many = export.describe(run, [pictures.image(i) for i in range(5)], manifest)
    assert np.abs(many[2] - export.describe(run, [pictures.image(2)], manifest)[0]).max() < 1e-5
    assert np.allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)

    import yaml

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config)))
    torch.save(dict(network=network.state_dict()), tmp_path / "trained.pt")
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "whiten",
            str(tmp_path / "config.yaml"),
            str(tmp_path / "trained.pt"),
            str(tmp_path / "whitened.pt"),
            "--pictures",
            "20",
        ],
    )
    whiten.main()
    again = CopyNetwork(config.network)
    checkpoint.load_for_inference(tmp_path / "whitened.pt", again, config)
    assert torch.equal(again.trunk.stages[0][0].weight, network.trunk.stages[0][0].weight)
    assert not torch.allclose(again.head.short.weight, network.head.short.weight)
    monkeypatch.setattr(sys, "argv", ["background", str(tmp_path / "config.yaml"), str(tmp_path), "--rows", "20"])
    background.main()
    assert background.unpack((tmp_path / "background.bin").read_bytes()).shape == (20, 8)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "calibrate",
            str(tmp_path / "config.yaml"),
            str(tmp_path),
            "--references",
            "12",
            "--copies",
            "40",
            "--unrelated",
            "40",
        ],
    )
    calibrate.main()
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert record["clamp"][0] < record["clamp"][1]
    assert 0.5 <= record["review_probability"] <= record["copy_probability"] <= 1.000001


def test_background_rows_survive_packing_to_int8():
    rng = np.random.default_rng(0)
    d = rng.normal(size=(50, 32)).astype(np.float32)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    raw = background.pack(d)
    assert raw[:4] == b"CMBG" and len(raw) == 16 + 50 * (4 + 32)
    assert np.abs(background.unpack(raw) - d).max() <= np.abs(d).max() / 127
    with pytest.raises(ValueError, match="bytes for"):
        background.unpack(raw[:-1])
