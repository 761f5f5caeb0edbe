"""The benchmark's folder, and the figures from copy_match's answers against those from the descriptors themselves."""

import io
import tarfile

import numpy as np
import pytest

from copymatch_train.benchmark import Benchmark, by_edit, figures_of_answers
from copymatch_train.scores import background_similarity, stretched, summary


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


def test_answers_give_the_figures_of_the_descriptors():
    rng = np.random.default_rng(4)

    def unit(x):
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    r, background = unit(rng.normal(size=(50, 16))), unit(rng.normal(size=(80, 16)))
    truth = np.array([*range(20), *[-1] * 20])
    q = unit(np.where(truth[:, None] >= 0, r[truth], 0) + 0.6 * rng.normal(size=(40, 16)))
    clamp = (0.3, 0.5)
    m = background_similarity(q, background)
    rows = []
    for i, similarity in enumerate(q @ r.T):
        for j in np.argsort(-similarity)[:10]:
            rows.append(
                (i, int(j), float(similarity[j]), float(stretched(similarity[j], m[i : i + 1], clamp=clamp)[0]), "copy" if similarity[j] > 0.9 else "review")
            )
    benchmark = Benchmark([], [b""] * 50, [], [b""] * 40, truth, ["crop"] * 40)
    out = figures_of_answers(benchmark, rows)
    for name, value in summary(q, r, truth, background, clamp=clamp).items():
        assert out[name] == pytest.approx(value, abs=1e-4), name
    assert sum(out["verdicts"][v][k] for v in ("copy", "review") for k in ("true", "false")) == 40
    assert out["by_edit"]["crop"]["queries"] == 20
    # A query that the extension refused has no rows, and is not found.
    without = figures_of_answers(benchmark, [row for row in rows if row[0] != 3])
    assert without["recall_at_1"] < out["recall_at_1"] and without["by_edit"]["crop"]["queries"] == 20


def test_an_edit_named_twice_counts_once():
    table = by_edit(np.array([0, -1]), ["crop+crop+jpeg", "crop"], np.array([0, 0]), np.array([False, True]))
    assert table == dict(crop=dict(queries=1, recall_at_1=1.0, recall_at_p90=0.0), jpeg=dict(queries=1, recall_at_1=1.0, recall_at_p90=0.0))
