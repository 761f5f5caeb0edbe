"""The locator: where in an image the picture is, and the second look at it."""

import random

import numpy as np
import onnx
import pytest
import torch
from conftest import photograph
from PIL import Image

from copymatch_train import edits
from copymatch_train.config import Network
from copymatch_train.export import halve_weights, round_weights, session, to_onnx
from copymatch_train.initialise import exported_state
from copymatch_train.locator import Locator, cut_out, likeliest_box, location_loss, other_box, overlap
from copymatch_train.network import CopyNetwork
from copymatch_train.sampling import second_look
from copymatch_train.simplify import simplify


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.25, 0.1, 0.75, 0.95), (0.4, 0.4, 0.6, 0.55)])
def test_a_cut_out_is_what_pillow_makes_of_the_box(box):
    image = photograph(4, 96, 96)
    wanted = image.resize((48, 48), Image.BILINEAR, tuple(96 * v for v in box))
    found = cut_out(as_tensor(image), torch.tensor([[box]], dtype=torch.float32), 48)
    # Pillow rounds to whole values after each direction, and also sees the pixels just outside the box.
    difference = (found - as_tensor(wanted)).abs()
    assert difference.mean() < 1.0 and difference[:, :, 2:-2, 2:-2].max() < 4.0


def test_every_image_of_a_batch_is_cut_by_its_own_box():
    a, b = as_tensor(photograph(1, 64, 64)), as_tensor(photograph(2, 64, 64))
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.2, 0.0, 1.0, 1.0]], [[0.3, 0.2, 0.9, 0.8], [0.0, 0.1, 0.2, 0.9]]])
    together = cut_out(torch.cat([a, b]), boxes, 32)
    alone = [cut_out(image, boxes[i : i + 1, k : k + 1], 32) for i, image in enumerate((a, b)) for k in range(2)]
    assert together.shape == (4, 3, 32, 32) and torch.allclose(together, torch.cat(alone), atol=1e-3)


def test_overlap_is_intersection_over_union():
    a = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.2, 0.2]])
    b = torch.tensor([[0.25, 0.0, 0.75, 1.0], [0.5, 0.5, 1.0, 1.0]])
    assert torch.allclose(overlap(a, b), torch.tensor([1 / 3, 0.0])) and torch.allclose(overlap(a, a), torch.ones(2))


def logits_of(inside: torch.Tensor, places: torch.Tensor, side: int = 8) -> torch.Tensor:
    """What a locator would have to say for these cells (N, side, side) and boxes (N, 4)."""
    x = (torch.arange(side) + 0.5) / side
    left, top, right, bottom = (v[:, None, None] for v in places.unbind(1))
    ways = torch.stack(
        [
            ((x - left) / x).expand(-1, side, -1),
            ((x[:, None] - top) / x[:, None]).expand(-1, -1, side),
            ((right - x) / (1 - x)).expand(-1, side, -1),
            ((bottom - x[:, None]) / (1 - x[:, None])).expand(-1, -1, side),
        ],
        1,
    )
    return torch.cat([(inside[:, None] * 2 - 1) * 12, ways.clamp(1e-6, 1 - 1e-6).logit()], 1)


def test_the_loss_is_least_where_likelihood_and_boxes_are_right():
    places = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.43, 0.43, 0.49, 0.49]])
    x = (torch.arange(8) + 0.5) / 8
    inside = torch.zeros(2, 8, 8)
    inside[0] = (x < 0.5)[None, :]
    inside[1, 3, 3] = 1  # smaller than a cell: the nearest one
    right = logits_of(inside, places)
    assert location_loss(right, places) < 1e-3
    unlikely, elsewhere = right.clone(), right.clone()
    unlikely[:, 0] *= -1
    elsewhere[:, 1:] = logits_of(inside, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2))[:, 1:]
    assert location_loss(unlikely, places) > 5 and location_loss(elsewhere, places) > 1
    assert torch.allclose(likeliest_box(right), places, atol=1e-4)


def test_the_other_of_two_pictures_is_found_and_counts_where_there_is_one():
    halves = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    x = (torch.arange(8) + 0.5) / 8
    left = (x < 0.5)[None, :].float().expand(8, 8)
    both = torch.where(
        left[None, None].bool(), logits_of(left[None], halves[:1]), logits_of(1 - left[None], halves[1:])
    )
    both[:, 0] = 1.0 + 0.5 * left  # the left one a little likelier
    whole = logits_of(torch.ones(1, 8, 8), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    located = torch.cat([both, whole])
    first = likeliest_box(located)
    assert torch.allclose(first[0], halves[0], atol=0.02)
    box, certainty = other_box(located, first)
    assert torch.allclose(box[0], halves[1], atol=0.02) and certainty[0] > 0.6 and certainty[1] < 0.02


def test_a_locator_that_is_sure_of_the_whole_image_still_learns():
    located = logits_of(torch.ones(1, 8, 8), torch.tensor([[0.0, 0.0, 1.0, 1.0]])).requires_grad_()
    location_loss(located, torch.tensor([[0.25, 0.25, 0.75, 0.75]])).backward()
    assert located.grad[:, 1:, 3:5, 3:5].abs().min() > 1e-3


def test_a_locator_starts_with_all_of_the_image_and_learns_where_a_picture_is():
    torch.manual_seed(0)
    locator = Locator(1, 2, 3, 4, edges=16, channels=16)
    optimiser = torch.optim.Adam(locator.parameters(), 5e-3)

    def maps(n, seed):
        """A picture shows in the fine map as ones."""
        g = torch.Generator().manual_seed(seed)
        corner, size = torch.rand(n, 2, generator=g) * 0.5, 0.3 + torch.rand(n, 2, generator=g) * 0.2
        places = torch.cat([corner, corner + size], 1)
        x = (torch.arange(16) + 0.5) / 16
        columns, rows = ((x > places[:, k, None]) & (x < places[:, k + 2, None]) for k in (0, 1))
        fine = (rows[:, :, None] & columns[:, None, :]).float()[:, None].expand(n, 2, 16, 16)
        return (torch.zeros(n, 1, 32, 32), fine, torch.zeros(n, 3, 8, 8), torch.zeros(n, 4, 4, 4)), places

    m, places = maps(200, 1)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert (likeliest_box(locator(*m)) - whole).abs().max() < 0.15
    for step in range(250):
        m, places = maps(32, 100 + step)
        optimiser.zero_grad()
        location_loss(locator(*m), places).backward()
        optimiser.step()
    m, places = maps(200, 1)
    assert overlap(likeliest_box(locator(*m)), places).mean() > 0.65


def test_a_second_look_cuts_near_the_picture_and_says_where_it_is_in_it():
    image = Image.new("RGB", (200, 100))
    image.paste((255, 255, 255), (40, 20, 140, 70))
    for seed in range(30):
        cut, box = second_look(image, (0.2, 0.2, 0.7, 0.7), random.Random(seed), 0.12)
        assert 0.7 * 100 < cut.width < 1.3 * 100 and 0.7 * 50 < cut.height < 1.3 * 50
        rows, columns = np.nonzero(np.asarray(cut)[..., 0])
        found = (
            columns.min() / cut.width,
            rows.min() / cut.height,
            (columns.max() + 1) / cut.width,
            (rows.max() + 1) / cut.height,
        )
        assert np.abs(np.subtract(found, box)).max() < 0.05


def test_an_edited_picture_is_seen(monkeypatch):
    monkeypatch.setattr(edits, "plan", lambda rng, strength: ["collage", "crop", "crop"])
    image, hidden = photograph(3, 200, 160), 0
    for seed in range(150):
        *_, place = edits.edited_and_placed(image, random.Random(seed), 1.0, lambda: photograph(9, 120, 80))
        hidden += edits.visible_box(place) is None
        result, box = edits.edited_and_seen(image, random.Random(seed), 1.0, lambda: photograph(9, 120, 80))
        assert min(box[2] - box[0], box[3] - box[1]) >= 0.1 and min(result.size) >= 24
    assert hidden > 0, "no chain hides the picture: the test says nothing"


def test_the_exported_network_looks_twice_as_pytorch_does(tmp_path):
    torch.manual_seed(2)
    network = CopyNetwork(
        Network(
            head="linear", dimensions=32, second_look=80, first_shrink=2, third_share=1.0, batch_norm=True, negatives=0
        )
    ).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of one batch, so that maps are of ordinary size
    with torch.no_grad():
        network.locator.out.weight.normal_(std=0.05)
        # Smooth pictures: in noise a box that is off by the last bits is another picture.
        x = torch.cat([as_tensor(photograph(seed, 192, 192)) for seed in range(5)]) / 127.5 - 1
        network.train().outputs(network.shrunk(x))
        network.eval()
        first = network.outputs(network.shrunk(x))
        assert likeliest_box(first.located).std(0).max() > 0.01 and not torch.allclose(
            network(x), first.descriptor, atol=1e-3
        )
        round_weights(network)
        model = simplify(halve_weights(to_onnx(network, 192)))
        run = session(model.SerializeToString())
        # Random weights in fifty layers enlarge roundings; `export` holds a trained network to 1e-3.
        for part in (x, x[:1]):
            difference = np.abs(run.run(None, {"image": part.numpy()})[0] - network(part).numpy())
            assert difference.mean() < 5e-4 and difference.max() < 5e-3
    # A teacher, or a run that goes on, is read from the file.
    onnx.save(model, tmp_path / "model.onnx")
    kept = exported_state(tmp_path / "model.onnx")
    assert all(
        torch.allclose(kept[name], value) for name, value in network.locator.state_dict(prefix="locator.").items()
    )
