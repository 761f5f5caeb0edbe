"""JPEG in every form that `cjpeg` (libjpeg-turbo) and Pillow write, decoded at full and at
reduced size, against Pillow.

A decoder that gives other pixels without an error is the worst fault there is here: such a picture is stored, and never
found. So every sampling, scan script, coding, restart interval, colour transform and number of components is tried.
"""

import functools
import itertools
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import pytest
from decoding import difference, encoded, opened
from decoding import run as run
from PIL import Image, ImageFile

# Run alone, the first test compiles.
pytestmark = pytest.mark.timeout(900)
# Sides that no block, no MCU and no pair of samples divides.
SIDES = [(83, 61), (40, 33), (17, 90), (3, 5), (1, 1)]


@functools.cache
def scene(width: int, height: int, seed: int = 1) -> Image.Image:
    """Soft colours, hard edges and grain: errors of chroma, of order and of position all show."""
    rng = np.random.default_rng(seed)
    base = Image.fromarray(rng.uniform(0, 255, (4, 4, 3)).astype("uint8")).resize((width, height), Image.BICUBIC)
    pixels = np.asarray(base).astype(float)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(5):
        radius = rng.uniform(0.08, 0.3) * max(width, height)
        inside = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < radius**2
        pixels[inside] = rng.uniform(0, 255, 3)
    return Image.fromarray((pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255).astype("uint8"))


def cjpeg(image: Image.Image, *options: str, scans: str | None = None) -> bytes:
    program = shutil.which("cjpeg")
    assert program, "the JPEG tests need cjpeg: scripts/packages.sh installs it (libjpeg-turbo-progs)"
    with tempfile.TemporaryDirectory() as folder:
        source, script = pathlib.Path(folder, "picture.ppm"), pathlib.Path(folder, "scans")
        image.save(source)
        arguments = [program, "-quality", "90", *options]
        if scans:
            script.write_text(scans)
            arguments += ["-scans", str(script)]
        result = subprocess.run([*arguments, str(source)], capture_output=True)
        assert result.returncode == 0, (options, scans, result.stderr.decode())
        return result.stdout


def check(run, files: dict, exact: bool):
    """Every file at full size has Pillow's pixels, and reduced to 1/2 … 1/8 shows the same picture."""
    jobs, expected = [], []
    for name, data in files.items():
        theirs = opened(data).convert("RGB")
        jobs.append((data, None, None, None))
        expected.append((name, 1, data, theirs))
        for scale in (4, 8):
            size = tuple(-(-side // scale) for side in theirs.size)
            if min(theirs.size) >= 2 * scale:
                jobs.append((data, min(size), None, None))
                expected.append((name, scale, data, theirs))
    wrong = []
    for ours, (name, scale, data, theirs) in zip(run(jobs), expected, strict=True):
        if isinstance(ours, str):
            wrong.append((name, scale, ours))
            continue
        if scale == 1:
            apart = difference(ours, theirs)
            # zune-jpeg, which has the ordinary ones, may round its inverse transform and its chroma otherwise.
            right = apart.max() == 0 if exact else apart.mean() < 0.6 and np.percentile(apart, 99) <= 4
        else:
            whole = theirs.width // scale, theirs.height // scale
            box = theirs.crop((0, 0, whole[0] * scale, whole[1] * scale)).reduce(scale)
            apart = difference(ours[: whole[1], : whole[0]], box)
            # Never much farther from the mean of the pixels than libjpeg's own reduced size, and never far: libjpeg's
            # is of little use with factors of 3.
            limit = 5.0
            draft = opened(data)
            draft.draft(None, whole)
            if draft.size == ours.shape[1::-1]:
                draft = np.asarray(draft.convert("RGB"))[: whole[1], : whole[0]]
                limit = min(limit, difference(draft, box).mean() + 0.5)
            right = apart.mean() < limit
        if not right:
            wrong.append((name, scale, float(apart.mean()), int(apart.max())))
    assert not wrong, (len(wrong), wrong[:12])


def factors(luma, chroma, other=None) -> str:
    return ",".join(f"{h}x{v}" for h, v in (luma, chroma, other or chroma))


def samplings():
    """Luma and chroma factors that divide the largest, ten blocks an MCU at most: what libjpeg allows."""
    sides = range(1, 5)
    for luma in itertools.product(sides, sides):
        for chroma in itertools.product(sides, sides):
            largest = max(luma[0], chroma[0]), max(luma[1], chroma[1])
            divides = all(largest[0] % h == 0 and largest[1] % v == 0 for h, v in (luma, chroma))
            # 2x2,2x2 is 1x1,1x1 by another name: kept once a size, since decoders trip over it.
            if divides and luma[0] * luma[1] + 2 * chroma[0] * chroma[1] <= 10:
                yield luma, chroma


ORDINARY = [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((2, 2), (1, 1))]


@pytest.mark.parametrize("coding", ["baseline", "progressive", "arithmetic", "arithmetic progressive"])
def test_every_sampling(run, coding):
    options = {"baseline": [], "progressive": ["-progressive"], "arithmetic": ["-arithmetic"]}.get(
        coding, ["-arithmetic", "-progressive"]
    )
    files, ordinary = {}, {}
    for luma, chroma in samplings():
        is_ordinary = (luma, chroma) in ORDINARY and "arithmetic" not in coding
        for size in SIDES[: 5 if coding == "baseline" else 2]:
            data = cjpeg(scene(*size), *options, "-sample", factors(luma, chroma))
            (ordinary if is_ordinary else files)[coding, luma, chroma, size] = data
    for second, third in [((1, 1), (2, 1)), ((2, 1), (1, 2)), ((1, 2), (2, 2)), ((2, 2), (1, 1))]:
        files["unlike chroma", second, third] = cjpeg(
            scene(83, 61), *options, "-sample", factors((2, 2), second, third)
        )
    assert len(files) > 60
    check(run, files, exact=True)
    check(run, ordinary, exact=False)


SEQUENTIAL = ["0;1;2;", "0;1,2;", "0,1;2;", "1;2;0;", "2;1;0;", "1,2;0;", "1;0,2;", "0,2;1;"]
PROGRESSIVE = [
    # DC one by one; AC whole, in halves, bit by bit; luma last.
    "0:0-0,0,0; 1:0-0,0,0; 2:0-0,0,0; 0:1-63,0,0; 1:1-63,0,0; 2:1-63,0,0;",
    "2:0-0,0,0; 1:0-0,0,0; 0:0-0,0,0; 2:1-63,0,0; 0:1-63,0,0; 1:1-63,0,0;",
    "1,2:0-0,0,0; 0:0-0,0,0; 1:1-63,0,0; 2:1-63,0,0; 0:1-63,0,0;",
    "0,1,2:0-0,0,0; 0:1-5,0,0; 0:6-63,0,0; 1:1-20,0,0; 2:1-1,0,0; 1:21-63,0,0; 2:2-63,0,0;",
    "0,1,2:0-0,0,3; 0:1-63,0,3; 1:1-63,0,2; 2:1-63,0,1; 0,1,2:0-0,3,2; 0:1-63,3,2; 0:1-63,2,1; 0:1-63,1,0;"
    " 1:1-63,2,1; 1:1-63,1,0; 2:1-63,1,0; 0,1,2:0-0,2,1; 0,1,2:0-0,1,0;",
    "0:0-0,0,1; 1,2:0-0,0,1; 0:0-0,1,0; 1:0-0,1,0; 2:0-0,1,0; 0:1-63,0,0; 1:1-63,0,0; 2:1-63,0,0;",
    # Luma's fine detail and all chroma but the mean never come: a complete, softer picture.
    "0,1,2:0-0,0,0; 0:1-9,0,0;",
]


def test_every_order_of_scans(run):
    files = {}
    for sampling in [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 2), (1, 1)), ((1, 1), (2, 2))]:
        for options in ([], ["-restart", "1"], ["-restart", "3B"], ["-arithmetic"]):
            for size in SIDES[:3]:
                for script in SEQUENTIAL:
                    name = (sampling, *options, size, script)
                    files[name] = cjpeg(scene(*size), *options, "-sample", factors(*sampling), scans=script)
    check(run, files, exact=True)


def test_every_progression(run):
    files = {}
    for sampling in [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((4, 1), (1, 1)), ((1, 1), (2, 1))]:
        for options in ([], ["-restart", "1"], ["-restart", "5B"], ["-arithmetic"]):
            for script in PROGRESSIVE[:-1]:
                name = (sampling, *options, script)
                files[name] = cjpeg(scene(83, 61), *options, "-sample", factors(*sampling), scans=script)
    check(run, files, exact=False)
    soft = cjpeg(scene(83, 61), scans=PROGRESSIVE[-1])
    (ours,) = run([(soft, None, None, None)])
    # libjpeg smooths what the missing scans would have brought, here in chroma; we show what is there.
    luma = [np.asarray(image.convert("L")) for image in (Image.fromarray(ours), opened(soft))]
    assert difference(*luma).mean() < 2


def test_restarts_and_tables(run):
    files = {}
    for size in SIDES:
        for restart in (["-restart", "1B"], ["-restart", "7B"], ["-restart", "1"], ["-restart", "2"]):
            for coding in ([], ["-progressive"], ["-optimize"]):
                for sample in ("1x1", "2x1", "2x2", "1x2"):
                    name = (size, *restart, *coding, sample)
                    files[name] = cjpeg(scene(*size), *restart, *coding, "-sample", sample)
    for quality in ("1", "10", "50", "100"):
        for coding in ([], ["-progressive"]):
            # Below 25 libjpeg's steps exceed 255: quantisation tables of 16 bits.
            files["quality", quality, *coding] = cjpeg(scene(83, 61), "-quality", quality, *coding)
    files["dct float"] = cjpeg(scene(83, 61), "-dct", "float")
    check(run, files, exact=False)


def adobe(data: bytes, transform: int) -> bytes:
    """With an Adobe marker, behind JFIF's where that is there."""
    at = 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2
    return data[:at] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform]) + data[at:]


def without_jfif(data: bytes) -> bytes:
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


def test_every_colour_model(run):
    image = scene(83, 61)
    files = {}
    for coding, options in {"baseline": {}, "progressive": {"progressive": True}}.items():
        plain = encoded(image, "JPEG", quality=90, **options)
        rgb = encoded(image, "JPEG", quality=90, keep_rgb=True, **options)
        for transform in (0, 1, 2, 7):
            files[coding, "jfif and adobe", transform] = adobe(plain, transform)
            files[coding, "adobe", transform] = adobe(without_jfif(plain), transform)
        files[coding, "no marker"] = without_jfif(plain)
        files[coding, "rgb"] = rgb
        files[coding, "grey"] = encoded(image.convert("L"), "JPEG", quality=90, **options)
        for subsampling in (0, 1, 2):
            cmyk = encoded(image.convert("CMYK"), "JPEG", quality=90, subsampling=subsampling, **options)
            at = cmyk.index(b"Adobe")
            for transform in (0, 1, 2, 5):
                files[coding, "cmyk", subsampling, transform] = cmyk[: at + 11] + bytes([transform]) + cmyk[at + 12 :]
            length = int.from_bytes(cmyk[at - 2 : at], "big")
            files[coding, "cmyk, no marker", subsampling] = cmyk[: at - 4] + cmyk[at - 2 + length :]
    for options in ([], ["-arithmetic"], ["-progressive"]):
        files["cjpeg grey", *options] = cjpeg(image, "-grayscale", *options)
        files["cjpeg grey 2x2", *options] = cjpeg(image, "-grayscale", "-sample", "2x2", *options)
        files["cjpeg grey 4x1 restarts", *options] = cjpeg(
            image, "-grayscale", "-sample", "4x1", "-restart", "1", *options
        )
        files["cjpeg rgb", *options] = cjpeg(image, "-rgb", *options)
        files["cjpeg rgb 2x2", *options] = cjpeg(image, "-rgb", "-sample", "2x2", *options)
    check(run, files, exact=False)


def markers(data: bytes):
    """(position, marker) of every segment outside of entropy-coded data."""
    at = 2
    while at < len(data) - 1:
        if data[at] == 0xFF and data[at + 1] not in (0, 0xFF) and not 0xD0 <= data[at + 1] <= 0xD7:
            yield at, data[at + 1]
            if data[at + 1] == 0xD9:
                return
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        else:
            at += 1


def test_what_libjpeg_only_warns_of_is_read(run):
    image = scene(83, 61)
    files = {}
    for name, data in {
        "baseline": cjpeg(image),
        "non-interleaved": cjpeg(image, scans="0;1;2;"),
        "restarts": cjpeg(image, "-restart", "1"),
        "arithmetic": cjpeg(image, "-arithmetic"),
    }.items():
        for first, last in ((0, 0), (1, 63), (0, 5), (63, 63)):
            odd = bytearray(data)
            for at, marker in markers(data):
                if marker == 0xDA:
                    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
                    odd[end - 3 : end] = bytes([first, last, 0])
            files[name, "Ss, Se", first, last] = bytes(odd)
        scan = next(at for at, marker in markers(data) if marker == 0xDA)
        files[name, "fill bytes"] = data[:scan] + b"\xff" * 5 + data[scan:]
        files[name, "garbage between segments"] = data[:scan] + b"\x00\x12garbage" + data[scan:]
        files[name, "a comment"] = data[:scan] + b"\xff\xfe\x00\x06text" + data[scan:]
        files[name, "bytes behind the end"] = data + b"trailer" * 100
    check(run, files, exact=False)


def test_a_picture_that_lacks_only_its_end_marker_is_complete(run):
    image = scene(83, 61)
    files = {
        (options, cut): cjpeg(image, *options)[:-cut]
        for options in [(), ("-progressive",), ("-restart", "1"), ("-sample", "1x1"), ("-grayscale",)]
        for cut in (1, 2)
    }
    files["non-interleaved"] = cjpeg(image, scans="0;1;2;")[:-2]
    allowed, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        check(run, files, exact=False)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = allowed


def test_a_picture_cut_within_its_data_is_refused(run):
    image = scene(83, 61)
    jobs, names = [], []
    for options in [(), ("-progressive",), ("-restart", "1"), ("-arithmetic",), ("-arithmetic", "-progressive")]:
        for scans in (None, "0;1;2;"):
            if scans and "-progressive" in options:
                continue
            data = cjpeg(image, *options, scans=scans)
            scan = next(at for at, marker in markers(data) if marker == 0xDA)
            for end in [*range(scan, len(data) - 8, (len(data) - scan) // 40), len(data) - 8]:
                for min_side in (None, 7):
                    jobs.append((data[:end], min_side, None, None))
                    names.append((options, scans, end, len(data)))
                # Behind the cut an end marker pretends that this is all; zune-jpeg, as libjpeg, believes it.
                if scans and "-arithmetic" not in options:
                    jobs.append((data[:end] + b"\xff\xd9", None, None, None))
                    names.append((options, scans, end, "end marker"))
    taken = [name for ours, name in zip(run(jobs), names, strict=True) if not isinstance(ours, str)]
    assert not taken, (len(taken), taken[:10])


def test_scans_by_the_thousand_are_refused_before_they_are_walked(run):
    """Each scan costs a walk over the picture, whatever its length."""
    data = cjpeg(scene(83, 61), "-progressive")
    starts = [at for at, marker in markers(data) if marker == 0xDA]
    scan = data[starts[-1] : -2]
    (many, some) = run([(data[:-2] + scan * count + b"\xff\xd9", None, None, None) for count in (3000, 150)])
    assert isinstance(many, str) and "scans" in many
    assert not isinstance(some, str) or "scan" in some
