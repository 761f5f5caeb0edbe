"""Which photographs the demo stores, and which queries it asks: fixed here, before any result is known.

The rule leaves nothing to choose by outcome. Query n of the 40 edited ones is made from original n // 4 with edit
7·n mod 20, so that every edit occurs exactly twice, on two different photographs: once at strength 0.3 (n < 20) and
once at strength 0.5. Its seed is n + 1.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent

# Stored as references; each is edited four times.
ORIGINALS = [
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "china.jpg",
    "coffee.png",
    "coins.png",
    "flower.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
]

# Stored as references, but no query is made from them.
BYSTANDERS = ["grass.png", "moon.png"]

# Never stored: whatever is found for these is wrong. Among them the likes of references: another portrait before a
# flag, other buildings, other textures. Every second one is edited.
STRANGERS = [
    ("grace_hopper.jpg", None),
    ("Wall.jpg", "crop"),
    ("cityCC0.png", None),
    ("hubble_deep_field.jpg", "text"),
    ("ihc.png", None),
    ("brick.png", "screenshot"),
    ("gravel.png", None),
    ("page.png", "pad"),
    ("text.png", None),
    ("clock_motion.png", "jitter"),
]

EDITS = [
    "crop",
    "rotate",
    "turn",
    "flip",
    "flip_vertical",
    "resize",
    "aspect",
    "perspective",
    "pad",
    "blur",
    "noise",
    "jitter",
    "grey",
    "jpeg",
    "pixelise",
    "text",
    "emoji",
    "paste",
    "screenshot",
    "meme",
]

# Edits that are the same at any strength.
UNGRADED = {"turn", "flip", "flip_vertical"}

EDITS_PER_ORIGINAL = 4


@dataclass(frozen=True)
class Query:
    """A picture to look up. `edit` None: the photograph as it is. `stored`: whether its original is a reference."""

    photograph: str
    edit: str | None
    strength: float
    seed: int
    stored: bool

    @property
    def label(self) -> str:
        """What was done to the photograph, in a few words."""
        if self.edit is None:
            return "as it is"
        name = self.edit.replace("_", " ")
        return name if self.edit in UNGRADED else f"{name} {self.strength:g}"


def queries() -> list[Query]:
    """40 edited copies of references, then 10 pictures that are copies of nothing."""
    copies = [
        Query(
            photograph=ORIGINALS[number // EDITS_PER_ORIGINAL],
            edit=EDITS[7 * number % len(EDITS)],
            strength=0.3 if number < len(EDITS) else 0.5,
            seed=number + 1,
            stored=True,
        )
        for number in range(len(ORIGINALS) * EDITS_PER_ORIGINAL)
    ]
    strangers = [
        Query(photograph, edit, 0.4, 100 + number, stored=False) for number, (photograph, edit) in enumerate(STRANGERS)
    ]
    return copies + strangers


@dataclass(frozen=True)
class Photograph:
    """One row of PHOTOGRAPHS.md."""

    file: str
    title: str
    package: str
    licence: str
    credit: str


def photographs() -> dict[str, Photograph]:
    """The photographs by file name, in the order of PHOTOGRAPHS.md."""
    found = {}
    for line in (FOLDER / "PHOTOGRAPHS.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and "." in cells[0]:
            found[cells[0]] = Photograph(*cells)
    return found
