"""Where in an image the picture is, and a second look at it: the part that a copy pasted, framed or
photographed off a page fills.

Every cell of the map at 1/16 of the image's size says how likely it belongs to the picture that was copied,
and where that picture's edges are (as FCOS does for objects: Tian et al., ICCV 2019). The likeliest cells' box
is cut out of the image and brought to the network's size. The edits of the training say where they left the
picture, so the truth costs nothing.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

# Of the likelihood's logits: a cell that is this much less likely counts a third.
SHARPNESS = 0.1
# By so much less likely, in logits, another picture's cell counts for all of its overlap with the first.
ELSEWHERE = 10.0


def cell_centres(height: int, width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """(2, height, width): abscissas, then ordinates, in 0…1."""
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


class _Block(nn.Module):
    """Looks around each cell, and far along its row and its column, where a picture's edge shows as a line."""

    def __init__(self, channels: int, near: int, far: int):
        super().__init__()
        self.near = nn.Conv2d(channels, channels, near, padding=near // 2, groups=channels)
        self.row = nn.Conv2d(channels, channels, (1, far), padding=(0, far // 2), groups=channels)
        self.column = nn.Conv2d(channels, channels, (far, 1), padding=(far // 2, 0), groups=channels)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.relu(self.mix(F.relu(self.near(x) + self.row(x) + self.column(x))))


class Locator(nn.Module):
    """Feature maps → (N, 5, H, W): logits of belonging to the picture and of the way from the cell's centre to the
    image's left, top, right and bottom edge that the picture takes (`boxes` makes edges of them).

    `finest` (N, E, 4H, 4W) at 1/4 of the image's size, `fine` (N, F, 2H, 2W) at 1/8, `middle` (N, M, H, W) at 1/16,
    `last` (N, L, H/2, W/2) at 1/32.
    """

    def __init__(self, finest: int, fine: int, middle: int, last: int, edges: int = 48, channels: int = 96):
        super().__init__()
        self.finest = nn.Conv2d(finest, edges, 3, stride=2, padding=1)
        self.fine = nn.Conv2d(fine, edges, 1)
        self.lines = _Block(edges, 3, 15)
        self.down = nn.Conv2d(2 * edges, channels, 1)
        self.middle = nn.Conv2d(middle, channels, 1)
        self.last = nn.Conv2d(last, channels, 1)
        self.place = nn.Conv2d(2, channels, 1)
        self.whole = nn.Linear(channels, channels)
        self.blocks = nn.Sequential(*(_Block(channels, 5, 11) for _ in range(4)))
        self.out = nn.Conv2d(channels, 5, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        with torch.no_grad():
            # At first: all of the image.
            self.out.bias.copy_(torch.tensor([0.0, 3.0, 3.0, 3.0, 3.0]))

    def forward(
        self, finest: torch.Tensor, fine: torch.Tensor, middle: torch.Tensor, last: torch.Tensor
    ) -> torch.Tensor:
        h, w = middle.shape[2:]
        place = cell_centres(h, w, middle.device)[None]
        lines = self.lines(F.relu(self.finest(finest) + self.fine(fine)))
        lines = torch.cat([F.max_pool2d(lines, 2), F.avg_pool2d(lines, 2)], 1)
        m = (
            self.down(lines)
            + self.middle(middle)
            + F.interpolate(self.last(last), (h, w), mode="nearest")
            + self.place(place)
        )
        m = F.relu(m)
        m = m + self.whole(m.mean(dim=(2, 3)))[:, :, None, None]
        return self.out(self.blocks(m))


def boxes(located: torch.Tensor) -> torch.Tensor:
    """(N, 5, H, W) → (N, 4, H, W): left, top, right, bottom in 0…1 of the image, as each cell sees them."""
    centres = cell_centres(*located.shape[2:], located.device)
    return centres.repeat(2, 1, 1) + torch.cat([-centres, 1 - centres]) * located[:, 1:].sigmoid()


def likeliest_box(located: torch.Tensor) -> torch.Tensor:
    """(N, 5, H, W) → (N, 4): the box of the cells that belong to the picture most likely.

    A softmax over the cells, so sharp that cells of one picture alone take part, rather than the single best: that is
    continuous, so that two machines' roundings give the same descriptor, and evens the boxes out.
    """
    weight = (located[:, 0].flatten(1) / SHARPNESS).softmax(1)
    return (boxes(located).flatten(2) @ weight[:, :, None]).squeeze(2)


def other_box(located: torch.Tensor, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 5, H, W) and the likeliest boxes (N, 4) → the likeliest boxes (N, 4) that share little with those, and (N,)
    how much they count, 0…1.

    Of two pictures side by side nothing says which one is the copy. Where an image has no other picture, the cells
    agree on the first box, and what is found here overlaps with it and counts next to nothing.
    """
    cells = boxes(located).flatten(2).transpose(1, 2)
    shared = overlap(cells, first[:, None])
    likelihood = located[:, 0].flatten(1)
    weight = ((likelihood - ELSEWHERE * shared) / SHARPNESS).softmax(1)
    box = (weight[:, None] @ cells).squeeze(1)
    return box, (weight * likelihood).sum(1).sigmoid() * (1 - (weight * shared).sum(1))


def cut_out(x: torch.Tensor, boxes: torch.Tensor, side: int) -> torch.Tensor:
    """(N, C, S, S) images and (N, L, 4) boxes in 0…1 → (N·L, C, side, side), the cuts of an image adjacent.

    Each direction is a matrix product with a triangle as wide as a target pixel, as Pillow's bilinear filter with a
    box: no aliasing, and a gradient wherever it is asked for.
    """
    source = x.shape[3]
    ends = boxes.reshape(-1, boxes.shape[1], 2, 2) * source
    step = (ends[:, :, 1] - ends[:, :, 0])[..., None] / side
    at = ends[:, :, 0, :, None] + (torch.arange(side, device=x.device, dtype=torch.float32) + 0.5) * step
    pixels = torch.arange(source, device=x.device, dtype=torch.float32) + 0.5
    weights = F.relu(1 - (pixels - at[..., None]).abs() / step.clamp(min=1.0)[..., None])
    weights = weights / weights.sum(4, keepdim=True).clamp(min=1e-6)
    columns, rows = weights[:, :, :1], weights[:, :, 1:]
    # The shape in numbers: the runtime's layouts depend on knowing the channels.
    return (rows @ x[:, None] @ columns.transpose(3, 4)).reshape(-1, x.shape[1], side, side)


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes (…, 4)."""
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared, of_a, of_b = (v[..., 0] * v[..., 1] for v in (sides, a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]))
    return shared / (of_a + of_b - shared).clamp(min=1e-6)


def location_loss(located: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`located` (N, 5, H, W), `places` (N, 4) the true boxes: a mean over images.

    Edges, over the cells within the picture: 1 − overlap, and four times the binary cross-entropy of each way with
    the true one (less its own entropy), which counts as much as the way is long and keeps its gradient where a way
    is wholly wrong. Likelihood: binary cross-entropy with the cell's overlap (0 outside), so that the likeliest cell
    is one whose box is good.
    """
    centres = cell_centres(*located.shape[2:], located.device)
    x, y = centres
    left, top, right, bottom = (places[:, k, None, None] for k in range(4))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    # A picture smaller than a cell belongs to the cell that is nearest to its middle.
    distance = (x - (left + right) / 2).square() + (y - (top + bottom) / 2).square()
    inside = (inside | (distance == distance.amin((1, 2), keepdim=True))).float()
    shared = overlap(boxes(located).permute(0, 2, 3, 1), places[:, None, None, :])
    length = torch.cat([centres, 1 - centres])
    way = torch.stack([x - left, y - top, right - x, bottom - y], 1).div(length).clamp(0, 1)
    crossed = F.binary_cross_entropy_with_logits(located[:, 1:], way, reduction="none") - F.binary_cross_entropy(
        way, way, reduction="none"
    )
    wrong = 1 - shared + 4 * (crossed * length).mean(1)
    edges = (wrong * inside).sum((1, 2)) / inside.sum((1, 2))
    likelihood = F.binary_cross_entropy_with_logits(located[:, 0], inside * shared.detach(), reduction="none").mean(
        (1, 2)
    )
    return (edges + likelihood).mean()
