"""The benchmark's folder, and its figures by kind of edit."""

import io
import tarfile

import numpy as np
import pytest

from copymatch_train.benchmark import Benchmark, by_edit


def write(folder, references, queries, truth):
    for name, members in (("references", references), ("queries", queries)):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for member in members:
                info = tarfile.TarInfo(f"{name}/{member}.jpg")
                info.size = 3
                tar.addfile(info, io.BytesIO(b"jpg"))
    (folder / "truth.csv").write_text("query,reference,edits\n" + "".join(f"{line}\n" for line in truth))


def test_a_benchmark_is_read_with_its_truth(tmp_path):
    write(tmp_path, ["R0", "R1"], ["Q0", "Q1"], ["Q1,R0,crop+jpeg", "Q0,,blur"])
    b = Benchmark.read(tmp_path)
    assert b.truth.tolist() == [-1, 0] and b.edits == ["blur", "crop+jpeg"] and b.references == [b"jpg"] * 2


@pytest.mark.parametrize("truth, complaint", [(["Q0,R9,crop", "Q1,,crop"], "R9"), (["Q0,R0,crop"], "Q1")])
def test_a_truth_that_does_not_fit_is_refused_by_name(tmp_path, truth, complaint):
    write(tmp_path, ["R0", "R1"], ["Q0", "Q1"], truth)
    with pytest.raises(ValueError, match=complaint):
        Benchmark.read(tmp_path)


def test_an_edit_named_twice_counts_once():
    table = by_edit(np.array([0, -1]), ["crop+crop+jpeg", "crop"], np.array([0, 0]), np.array([False, True]))
    assert table == dict(
        crop=dict(queries=1, recall_at_1=1.0, recall_at_p90=0.0),
        jpeg=dict(queries=1, recall_at_1=1.0, recall_at_p90=0.0),
    )
