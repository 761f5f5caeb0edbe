"""The imaging crate against Pillow, on real photographs: descriptors depend on both giving the same pixels.

The crate runs through its `pixels` example (no server is needed). What may differ, and by how
much, stands in each test.
"""

import struct

import numpy as np
import pytest
from decoding import difference, encoded, opened
from decoding import run as run
from PIL import Image, ImageOps

# Run alone, the first test compiles.
pytestmark = pytest.mark.timeout(900)
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@pytest.fixture(scope="module")
def pictures(photographs):
    """A dozen of the photographs as RGB, of at most 512 pixels a side so that the test takes seconds."""
    found = {}
    for name, data in sorted(photographs.items()):
        image = opened(data)
        if image.mode == "RGB" and min(image.size) >= 64 and len(found) < 12:
            image.thumbnail((512, 512), Image.Resampling.BOX)
            found[name] = image
    assert len(found) >= 5, f"too few colour photographs: {sorted(found)}"
    return found


def test_resize_is_pillows_bit_for_bit(run, pictures):
    sizes = [(224, 224), (288, 288), (97, 131), (700, 530), (1, 77), (77, 1), (1, 1), (33, 600)]
    jobs, expected = [], []
    for index, image in enumerate(pictures.values()):
        data = encoded(image, "PNG")
        # Every size for the first pictures, the two usual ones for all.
        for size in sizes if index < 3 else sizes[:2]:
            for name, filter in FILTERS.items():
                jobs.append((data, None, size, name))
                expected.append(image.resize(size, filter))
    for thin in [(1, 200), (200, 1), (3, 5)]:
        image = next(iter(pictures.values())).crop((10, 10, 10 + thin[0], 10 + thin[1]))
        for size in [(224, 224), (7, 9), (1, 1)]:
            for name, filter in FILTERS.items():
                jobs.append((encoded(image, "PNG"), None, size, name))
                expected.append(image.resize(size, filter))
    for ours, theirs, job in zip(run(jobs), expected, jobs, strict=True):
        assert difference(ours, theirs).max() == 0, job[2:]


def test_lossless_files_decode_to_pillows_pixels(run, pictures):
    image = next(iter(pictures.values()))
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    quantised = image.quantize(64)
    grey = image.convert("L")
    files = {
        "png": encoded(image, "PNG"),
        "png with alpha": encoded(alpha, "PNG"),
        "palette png": encoded(quantised, "PNG"),
        "grey png": encoded(grey, "PNG"),
        "black and white png": encoded(image.convert("1"), "PNG"),
        "grey png with alpha": encoded(alpha.convert("LA"), "PNG"),
        "bmp": encoded(image, "BMP"),
        "grey bmp": encoded(grey, "BMP"),
        "gif": encoded(quantised, "GIF"),
        "tiff": encoded(image, "TIFF"),
        "lzw tiff": encoded(image, "TIFF", compression="tiff_lzw"),
        "deflate tiff": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "packbits grey tiff": encoded(grey, "TIFF", compression="packbits"),
        "tiff with alpha": encoded(alpha, "TIFF"),
        "webp": encoded(image, "WEBP", lossless=True),
        "webp with alpha": encoded(alpha, "WEBP", lossless=True, exact=True),
    }
    results = run([(data, None, None, None) for data in files.values()])
    for (name, data), ours in zip(files.items(), results, strict=True):
        theirs = opened(data).convert("RGBA")
        white = Image.new("RGBA", theirs.size, "white")
        expected = Image.alpha_composite(white, theirs).convert("RGB")
        # Pillow composes in its own fixed point, one level apart at most.
        assert difference(ours, expected).max() <= ("alpha" in name), name


def test_jpegs_decode_to_pillows_pixels(run, pictures):
    jobs, names, expected = [], [], []
    for image in list(pictures.values())[:4]:
        files = {
            "4:4:4": encoded(image, "JPEG", quality=90, subsampling=0),
            "4:2:2": encoded(image, "JPEG", quality=90, subsampling=1),
            "4:2:0": encoded(image, "JPEG", quality=90, subsampling=2),
            "progressive": encoded(image, "JPEG", quality=90, progressive=True),
            "restarts": encoded(image, "JPEG", quality=90, restart_marker_rows=1),
            "grey": encoded(image.convert("L"), "JPEG", quality=90),
            "cmyk": encoded(image.convert("CMYK"), "JPEG", quality=90),
        }
        # The same file said to be YCCK: the colours are absurd, the arithmetic is not.
        adobe = files["cmyk"].index(b"Adobe")
        files["ycck"] = files["cmyk"][: adobe + 11] + b"\x02" + files["cmyk"][adobe + 12 :]
        for name, data in files.items():
            jobs.append((data, None, None, None))
            names.append(name)
            expected.append(opened(data).convert("RGB"))
    for name, ours, theirs in zip(names, run(jobs), expected, strict=True):
        apart = difference(ours, theirs)
        # Inverse transforms and the interpolation of chroma may round otherwise; the picture is the same.
        assert apart.mean() < 0.6, (name, apart.mean())
        assert np.percentile(apart, 99) <= 4, (name, np.percentile(apart, 99))


def test_a_reduced_jpeg_is_the_picture_that_pillows_draft_mode_gives(run, pictures):
    jobs, names, expected = [], [], []
    for image in list(pictures.values())[:4]:
        for kind, options in {
            "4:2:0": {"subsampling": 2},
            "4:4:4": {"subsampling": 0},
            "4:2:2": {"subsampling": 1},
            "progressive": {"progressive": True},
            "grey": {},
        }.items():
            data = encoded(image.convert("L") if kind == "grey" else image, "JPEG", quality=90, **options)
            for scale in (4, 8):
                size = tuple(-(-side // scale) for side in image.size)
                draft = opened(data)
                draft.draft(None, (image.width // scale, image.height // scale))
                draft = draft.convert("RGB")
                if draft.size != size:
                    continue
                jobs.append((data, min(size), None, None))
                names.append((kind, scale))
                expected.append((draft, opened(data).convert("RGB").reduce(scale)))
    assert len(jobs) > 20
    for name, ours, (draft, mean) in zip(names, run(jobs), expected, strict=True):
        # The same means, but of 4:2:2 libjpeg-turbo keeps less chroma.
        limit = 3.5 if name[0] == "4:2:2" else 1.0
        assert difference(ours, draft).mean() < limit, (name, difference(ours, draft).mean())
        # Nearer to the mean of the pixels is better: never farther off than Pillow is.
        assert difference(ours, mean).mean() <= difference(np.asarray(draft), mean).mean() + 0.25, name


def test_lossy_webp_decodes_to_pillows_pixels(run, pictures):
    files = [encoded(image, "WEBP", quality=80) for image in list(pictures.values())[:3]]
    for data, ours in zip(files, run([(data, None, None, None) for data in files]), strict=True):
        apart = difference(ours, opened(data).convert("RGB"))
        assert apart.mean() < 1.0, apart.mean()


def test_orientation_is_what_exif_transpose_makes_of_it(run, pictures):
    image = next(iter(pictures.values())).resize((48, 32))
    jobs, expected = [], []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind, options in {
            "PNG": {},
            "TIFF": {},
            "WEBP": {"lossless": True},
            "JPEG": {"quality": 95, "subsampling": 0},
        }.items():
            data = encoded(image, kind, exif=exif, **options)
            jobs.append((data, None, None, None))
            expected.append((kind, orientation, ImageOps.exif_transpose(opened(data)).convert("RGB")))
    for ours, (kind, orientation, theirs) in zip(run(jobs), expected, strict=True):
        assert difference(ours, theirs).mean() < (1 if kind == "JPEG" else 1e-9), (kind, orientation)


def test_sixteen_bit_colour_keeps_the_upper_byte_as_pillow_does(run):
    rng = np.random.default_rng(3)
    samples = rng.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)

    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (ours,) = run([(data, None, None, None)])
    assert difference(ours, opened(data).convert("RGB")).max() == 0
    assert (ours == samples >> 8).all()
