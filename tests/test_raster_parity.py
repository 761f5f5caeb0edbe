"""TIFF, BMP, GIF and animations in the forms that people have, against Pillow; orientation from
wherever it may stand."""

import io
import struct
import zlib

import numpy as np
import pytest
from decoding import difference, encoded, opened
from decoding import run as run
from PIL import Image, ImageOps, PngImagePlugin
from test_jpeg_parity import cjpeg, scene

# Run alone, the first test compiles.
pytestmark = pytest.mark.timeout(900)


def on_white(image: Image.Image) -> np.ndarray:
    image = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def check(run, files: dict, most: int = 0):
    """name -> (bytes, expected picture): no pixel further off than `most`."""
    results = run([(data, None, None, None) for data, _ in files.values()])
    wrong = []
    for (name, (_, expected)), ours in zip(files.items(), results, strict=True):
        if isinstance(ours, str):
            wrong.append((name, ours))
        elif ours.shape != np.asarray(expected).shape:
            wrong.append((name, ours.shape, np.asarray(expected).shape))
        elif difference(ours, expected).max() > most:
            wrong.append((name, int(difference(ours, expected).max()), float(difference(ours, expected).mean())))
    assert not wrong, (len(wrong), wrong[:15])


# TIFF


def tiff(entries: dict, chunks: list[bytes], big_endian: bool = False, big: bool = False, tiled: bool = False) -> bytes:
    """A TIFF of one page; entries: tag -> (type, values)."""
    order = ">" if big_endian else "<"
    sizes = {1: "B", 3: "H", 4: "I", 7: "B", 11: "f", 12: "d", 16: "Q"}
    start = 16 if big else 8
    offsets, at = [], start
    for chunk in chunks:
        offsets.append(at)
        at += len(chunk) + len(chunk) % 2
    entries = dict(entries)
    entries[324 if tiled else 273] = (4, offsets)
    entries[325 if tiled else 279] = (4, [len(chunk) for chunk in chunks])
    body = b"".join(chunk + b"\0" * (len(chunk) % 2) for chunk in chunks)
    directory_at = at
    head, step, inline = (8, 20, 8) if big else (2, 12, 4)
    behind = directory_at + head + step * len(entries) + (8 if big else 4)
    directory, extra = struct.pack(order + ("Q" if big else "H"), len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        data = struct.pack(f"{order}{len(values)}{sizes[kind]}", *values)
        directory += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(values))
        if len(data) <= inline:
            directory += data.ljust(inline, b"\0")
        else:
            directory += struct.pack(order + ("Q" if big else "I"), behind + len(extra))
            extra += data
    directory += struct.pack(order + ("Q" if big else "I"), 0)
    mark = b"MM" if big_endian else b"II"
    if big:
        header = mark + struct.pack(order + "HHHQ", 43, 8, 0, directory_at)
    else:
        header = mark + struct.pack(order + "HI", 42, directory_at)
    return header + body + directory + extra


def layout(pixels: np.ndarray, photometric: int, **more) -> dict:
    """Entries for an array of rows, columns and samples."""
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = more.pop("bits", pixels.dtype.itemsize * 8)
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * samples),
        259: (3, [1]),
        262: (3, [photometric]),
        277: (3, [samples]),
        278: (4, [height]),
    }
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    if kind != 1:
        entries[339] = (3, [kind] * samples)
    for tag, value in more.items():
        entries[int(tag[1:])] = value
    return entries


def test_tiffs_that_pillow_writes(run):
    image = scene(83, 61)
    files = {}
    modes = {
        "RGB": image,
        "L": image.convert("L"),
        "palette": image.quantize(64),
        "palette of 16": image.quantize(16),
        "1": image.convert("1"),
        "CMYK": image.convert("CMYK"),
    }
    for mode, picture in modes.items():
        for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_deflate"):
            files[mode, compression] = picture, {"compression": compression} if compression else {}
    for compression in ("group3", "group4", "tiff_ccitt"):
        for size in ((83, 61), (8, 8), (1, 5), (300, 200)):
            files["fax", compression, size] = scene(*size).convert("1"), {"compression": compression}
        files["fax, white", compression] = Image.new("1", (50, 40), 1), {"compression": compression}
        files["fax, black", compression] = Image.new("1", (50, 40), 0), {"compression": compression}
    for predictor in (2,):
        for mode in ("RGB", "L"):
            for compression in ("tiff_lzw", "tiff_adobe_deflate"):
                files[mode, compression, "predictor", predictor] = (
                    modes[mode],
                    {"compression": compression, "tiffinfo": {317: predictor}},
                )
    files["strips"] = image, {"tiffinfo": {278: 7}, "compression": "tiff_lzw"}
    files["group 3, two-dimensional"] = image.convert("1"), {"compression": "group3", "tiffinfo": {292: 1}}
    files["group 3, byte-aligned"] = image.convert("1"), {"compression": "group3", "tiffinfo": {292: 4}}
    files["big"] = image, {"big_tiff": True}
    cases = {}
    for name, (picture, options) in files.items():
        data = encoded(picture, "TIFF", **options)
        cases[name] = data, opened(data).convert("RGB")
    check(run, cases)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("tiled", [False, True])
def test_tiffs_of_every_layout(run, big_endian, planar, tiled):
    rgb = np.asarray(scene(83, 61))
    grey = np.asarray(scene(83, 61).convert("L"))
    alpha = np.linspace(0, 255, 83 * 61).reshape(61, 83, 1).astype("uint8")
    rgba = np.concatenate([rgb, alpha], 2)
    premultiplied = np.concatenate([(rgb * (alpha / 255.0)).round().astype("uint8"), alpha], 2)
    cmyk = np.asarray(scene(83, 61).convert("CMYK"))
    half = rgb.astype("float32") / 255
    order = ">" if big_endian else "<"
    pictures = {
        "grey": (grey, 1, {}, np.repeat(grey[..., None], 3, 2)),
        "white is zero": (255 - grey, 0, {}, np.repeat(grey[..., None], 3, 2)),
        "RGB": (rgb, 2, {}, rgb),
        "RGB of 16 bits": (rgb.astype("uint16") * 256 + 77, 2, {}, rgb),
        "grey of 16 bits": (grey.astype("uint16") * 256 + 77, 1, {}, np.repeat(grey[..., None], 3, 2)),
        "alpha": (rgba, 2, {"t338": (3, [2])}, on_white(Image.fromarray(rgba, "RGBA"))),
        "premultiplied": (premultiplied, 2, {"t338": (3, [1])}, on_white(Image.fromarray(rgba, "RGBA"))),
        "a fourth sample of no meaning": (rgba, 2, {"t338": (3, [0])}, rgb),
        "grey and alpha": (
            np.concatenate([grey[..., None], alpha], 2),
            1,
            {"t338": (3, [2])},
            on_white(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha[..., 0])])),
        ),
        "CMYK": (cmyk, 5, {}, np.asarray(Image.fromarray(cmyk, "CMYK").convert("RGB"))),
        "floats from 0 to 1": (half, 2, {}, rgb),
        "doubles": (half.astype("float64"), 2, {}, rgb),
        "half floats": (half.astype("float16"), 2, {}, rgb),
        "grey floats to 255": (grey.astype("float32"), 1, {}, np.repeat(grey[..., None], 3, 2)),
        "32-bit integers to 255": (grey.astype("uint32"), 1, {}, np.repeat(grey[..., None], 3, 2)),
        "signed": (grey.astype("int16"), 1, {}, np.repeat(grey[..., None], 3, 2)),
    }
    files = {}
    for name, (pixels, photometric, more, expected) in pictures.items():
        stacked = pixels if pixels.ndim == 3 else pixels[..., None]
        stored = stacked.astype(stacked.dtype.newbyteorder(order))
        entries = layout(pixels, photometric, **more)
        if planar:
            entries[284] = (3, [2])
        planes = [stored[..., i : i + 1] for i in range(stored.shape[2])] if planar else [stored]
        chunks = []
        for plane in planes:
            if tiled:
                # Tiles of 32 x 16, padded at the edges.
                padded = np.pad(plane, ((0, -plane.shape[0] % 16), (0, -plane.shape[1] % 32), (0, 0)), "edge")
                for top in range(0, padded.shape[0], 16):
                    for left in range(0, padded.shape[1], 32):
                        chunks.append(padded[top : top + 16, left : left + 32].tobytes())
            else:
                for top in range(0, plane.shape[0], 9):
                    chunks.append(plane[top : top + 9].tobytes())
        if tiled:
            entries.update({322: (3, [32]), 323: (3, [16])})
            del entries[278]
        else:
            entries[278] = (3, [9])
        for big in (False, True):
            for compressed in (False, True):
                packed = [zlib.compress(chunk) for chunk in chunks] if compressed else chunks
                how = {259: (3, [8 if compressed else 1])}
                data = tiff({**entries, **how}, packed, big_endian, big, tiled)
                files[name, big, compressed] = data, expected
    # Pillow rounds what lies on white otherwise; a premultiplied value has lost a level already.
    check(run, files, most=1)


def test_tiff_palettes_of_every_depth(run):
    rng = np.random.default_rng(2)
    files = {}
    for bits in (1, 2, 4, 8):
        colours = rng.integers(0, 256, (1 << bits, 3), dtype=np.uint8)
        indices = rng.integers(0, 1 << bits, (21, 37), dtype=np.uint8)
        as_bits = np.unpackbits(indices[..., None], axis=2)[..., 8 - bits :].reshape(21, -1)
        for reversed_bits in (False, True):
            packed = np.packbits(as_bits, axis=1)
            if reversed_bits:
                packed = np.packbits(np.unpackbits(packed[..., None], axis=2)[..., ::-1], axis=2)[..., 0]
            entries = layout(indices, 3, bits=bits, t320=(3, [int(v) * 257 for v in colours.T.ravel()]))
            if reversed_bits:
                entries[266] = (3, [2])
            files[bits, reversed_bits] = tiff(entries, [packed.tobytes()]), colours[indices]
    check(run, files)


def test_tiffs_with_jpeg_within(run):
    image = scene(96, 64)
    files = {}
    for quality in (60, 95):
        data = encoded(image, "TIFF", compression="jpeg", quality=quality)
        files["Pillow's", quality] = data, opened(data).convert("RGB")
        grey = encoded(image.convert("L"), "TIFF", compression="jpeg", quality=quality)
        files["grey", quality] = grey, opened(grey).convert("RGB")
    # Tiles of YCbCr, with all tables in each.
    pixels, chunks, expected = np.asarray(image), [], np.zeros((64, 96, 3), "uint8")
    for top in range(0, 64, 32):
        for left in range(0, 96, 48):
            part = cjpeg(Image.fromarray(pixels[top : top + 32, left : left + 48]), "-sample", "2x2")
            chunks.append(part)
            expected[top : top + 32, left : left + 48] = np.asarray(opened(part).convert("RGB"))
    entries = layout(pixels, 6, t259=(3, [7]), t322=(3, [48]), t323=(3, [32]), t530=(3, [2, 2]))
    del entries[278]
    files["tiles"] = tiff(entries, chunks, tiled=True), expected
    whole = cjpeg(image, "-sample", "2x1")
    old = layout(pixels, 6, t259=(3, [6]), t513=(4, [8]), t514=(4, [len(whole)]))
    files["old style"] = tiff(old, [whole]), opened(whole).convert("RGB")
    check(run, files)


def test_tiffs_with_jpeg_whose_samples_mean_what_tiff_says(run):
    """Inks, white at zero, an alpha, planes: a JPEG of its own would be something else."""
    image = scene(96, 64)
    inks = image.convert("CMYK")
    cmyk = encoded(inks, "TIFF", compression="jpeg", quality=95)
    grey = image.convert("L")
    negative = cjpeg(Image.eval(grey, lambda level: 255 - level).convert("RGB"), "-grayscale")
    files = {
        "CMYK": (cmyk, opened(cmyk).convert("RGB")),
        "white is zero": (
            tiff(layout(np.asarray(grey), 0, t259=(3, [7])), [negative]),
            Image.eval(opened(negative), lambda level: 255 - level).convert("RGB"),
        ),
    }
    planes = [cjpeg(band.convert("RGB"), "-grayscale") for band in image.split()]
    expected = Image.merge("RGB", [opened(plane) for plane in planes])
    files["planes"] = tiff(layout(np.asarray(image), 2, t259=(3, [7]), t284=(3, [2])), planes), expected
    alpha = Image.linear_gradient("L").resize(image.size)
    planes.append(cjpeg(alpha.convert("RGB"), "-grayscale"))
    rgba = Image.merge("RGBA", [*expected.split(), opened(planes[3])])
    entries = layout(np.asarray(rgba), 2, t259=(3, [7]), t284=(3, [2]), t338=(3, [2]))
    files["planes and an alpha"] = tiff(entries, planes), Image.fromarray(on_white(rgba))
    check(run, files, most=2)


def test_tiff_chroma_subsampled_without_jpeg(run):
    ycbcr = np.asarray(scene(80, 60).convert("YCbCr")).astype(int)
    files = {}
    for across, down in ((1, 1), (2, 1), (2, 2), (4, 2), (1, 2), (4, 4)):
        rows, means = b"", np.zeros_like(ycbcr)
        for top in range(0, 60, down):
            for left in range(0, 80, across):
                block = ycbcr[top : top + down, left : left + across]
                chroma = block[..., 1:].reshape(-1, 2).mean(0).round().astype(int)
                rows += bytes(block[..., 0].ravel().tolist()) + bytes(chroma.tolist())
                means[top : top + down, left : left + across, 0] = block[..., 0]
                means[top : top + down, left : left + across, 1:] = chroma
        expected = Image.fromarray(means.astype("uint8"), "YCbCr").convert("RGB")
        entries = layout(ycbcr.astype("uint8"), 6, t530=(3, [across, down]))
        files[across, down] = tiff(entries, [rows]), expected
    check(run, files, most=1)


def test_tiff_that_nobody_can_read_is_named(run):
    pixels = np.asarray(scene(20, 20))
    names = {
        "CIE Lab": layout(pixels, 8),
        "JPEG 2000": layout(pixels, 2, t259=(3, [34712])),
        "Zstandard": layout(pixels, 2, t259=(3, [50000])),
        "predictor": layout(pixels, 2, t317=(3, [9])),
    }
    answers = run([(tiff(entries, [pixels.tobytes()]), None, None, None) for entries in names.values()])
    for name, answer in zip(names, answers, strict=True):
        assert isinstance(answer, str) and "unsupported" in answer and name in answer, (name, answer)
    (cut,) = run([(tiff(layout(pixels, 2), [pixels.tobytes()[:-100]]), None, None, None)])
    assert isinstance(cut, str)


# BMP


def bmp(header: bytes, palette: bytes, data: bytes) -> bytes:
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def rle(indices: np.ndarray, bits: int) -> bytes:
    """Runs, literals and an end-of-line for each row, bottom row first."""
    data = b""
    for row in indices[::-1]:
        x = 0
        while x < len(row):
            run = 1
            while x + run < len(row) and run < 200 and row[x + run] == row[x]:
                run += 1
            if run > 2 or len(row) - x < 3:
                value = int(row[x]) * (17 if bits == 4 else 1)
                data += bytes([run, value])
                x += run
            else:
                literal = [int(v) for v in row[x : x + 5]]
                if len(literal) < 3:
                    continue
                if bits == 4:
                    pairs = literal + [0] * (len(literal) % 2)
                    body = bytes(pairs[i] << 4 | pairs[i + 1] for i in range(0, len(pairs), 2))
                else:
                    body = bytes(literal)
                data += bytes([0, len(literal)]) + body + b"\0" * (len(body) % 2)
                x += len(literal)
        data += b"\0\0"
    return data + b"\0\1"


def test_bitmaps(run):
    rng = np.random.default_rng(4)
    image = scene(37, 21)
    rgb = np.asarray(image)
    width, height = 37, 21
    files = {}
    for mode in ("RGB", "L", "P", "1"):
        data = encoded(image.quantize(50) if mode == "P" else image.convert(mode), "BMP")
        files[mode] = data, opened(data).convert("RGB")
    rows = [np.pad(row[:, ::-1].ravel(), (0, -3 * width % 4)).tobytes() for row in rgb]
    up, down = b"".join(reversed(rows)), b"".join(rows)
    files["oldest header"] = bmp(struct.pack("<IHHHH", 12, width, height, 1, 24), b"", up), rgb
    files["OS/2, 16 bytes"] = bmp(struct.pack("<IIIHH", 16, width, height, 1, 24), b"", up), rgb
    os2 = struct.pack("<IIIHHIIIIII", 64, width, height, 1, 24, 0, 0, 0, 0, 0, 0).ljust(64, b"\0")
    files["OS/2, 64 bytes"] = bmp(os2, b"", up), rgb
    info = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)
    files["downwards"] = bmp(info, b"", down), rgb
    for bits in (1, 2, 4, 8):
        colours = rng.integers(0, 256, (1 << bits, 3), dtype=np.uint8)
        indices = rng.integers(0, 1 << bits, (height, width), dtype=np.uint8)
        indices[5:9, 3:30] = 1
        as_bits = np.unpackbits(indices[..., None], axis=2)[..., 8 - bits :].reshape(height, -1)
        packed = np.packbits(as_bits, axis=1)
        packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))[::-1].tobytes()
        quads = b"".join(bytes([b, g, r, 0]) for r, g, b in colours.tolist())
        triples = b"".join(bytes([b, g, r]) for r, g, b in colours.tolist())
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
        files[bits] = bmp(header, quads, packed), colours[indices]
        files["oldest", bits] = (
            bmp(struct.pack("<IHHHH", 12, width, height, 1, bits), triples, packed),
            colours[indices],
        )
        if bits >= 4:
            header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, 0, 0, 0, 0, 0)
            files["runs", bits] = bmp(header, quads, rle(indices, bits)), colours[indices]
    # 16 and 32 bits by masks, with and without alpha; version 5 whose alpha is nowhere set.
    five = rgb.astype(int) * 31 // 255
    words = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    words = np.pad(words, ((0, 0), (0, width % 2)))[::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 0, 0, 0, 0, 0, 0)
    data = bmp(header, b"", words)
    files["16 bits"] = data, opened(data).convert("RGB")
    quads = rgb.astype("<u4")
    alpha = np.linspace(0, 255, width * height).reshape(height, width).astype("<u4")
    for name, level, expected in [
        ("opaque", 255, rgb),
        ("all zero", 0, rgb),
        ("alpha", alpha, on_white(Image.fromarray(np.dstack([rgb, alpha.astype("uint8")]), "RGBA"))),
    ]:
        words = (quads[..., 0] << 16 | quads[..., 1] << 8 | quads[..., 2] | np.uint32(level) << 24)[::-1]
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        five = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, 0, 0, 0, 0, 0) + masks
        files["version 5", name] = bmp(five.ljust(124, b"\0"), b"", words.astype("<u4").tobytes()), expected
    plain = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 0, 0, 0, 0, 0, 0)
    words = (quads[..., 0] << 16 | quads[..., 1] << 8 | quads[..., 2])[::-1].astype("<u4").tobytes()
    files["32 bits, no alpha"] = bmp(plain, b"", words), rgb
    check(run, files, most=1)


# Animations


def animation(frames: list[Image.Image], kind: str, **options) -> bytes:
    if kind == "GIF":
        frames = [frame.quantize(128) for frame in frames]
    if kind == "WEBP":
        options["lossless"] = True
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=40, **options)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_a_blank_or_fading_start_is_passed_over(run, kind):
    picture = scene(160, 120, 3)
    black = Image.new("RGB", picture.size)
    fading = [Image.blend(black, picture, step / 8) for step in range(9)]
    starts = {
        "one black": [black, picture, picture],
        "ten black": [black] * 10 + [picture],
        "white": [Image.new("RGB", picture.size, "white"), picture],
        "fading in": fading,
        "in and out": fading + fading[::-1],
        "a corner first": [black, *[Image.composite(picture, black, mask) for mask in halves(picture.size)], picture],
    }
    files = {}
    for name, frames in starts.items():
        for disposal in (0, 1, 2) if kind != "WEBP" else (0,):
            if kind == "PNG" and disposal == 2:
                continue
            options = {} if kind == "WEBP" else {"disposal": disposal}
            data = animation(frames, kind, **options)
            files[name, disposal] = data, picture.quantize(128).convert("RGB") if kind == "GIF" else picture
    results = run([(data, None, None, None) for data, _ in files.values()])
    for (name, (_, expected)), ours in zip(files.items(), results, strict=True):
        assert difference(ours, expected).mean() < 12, (name, difference(ours, expected).mean())


def halves(size):
    for part in (4, 2):
        mask = Image.new("L", size)
        mask.paste(255, (0, 0, size[0] // part, size[1] // part))
        yield mask


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_ordinary_start_is_kept(run, kind):
    frames = [scene(160, 120, seed) for seed in (3, 4, 5, 6)]
    (ours,) = run([(animation(frames, kind), None, None, None)])
    first = frames[0].quantize(128).convert("RGB") if kind == "GIF" else frames[0]
    assert difference(ours, first).mean() < 1


def test_frames_of_a_gif_are_laid_as_other_readers_lay_them(run):
    """Small frames, transparency and every disposal, behind a blank start: the frame that is
    taken is one of Pillow's."""
    rng = np.random.default_rng(9)
    base = scene(64, 48, 2)
    # Of "restore what was before" for the first frame, before which nothing was, readers think differently.
    for disposal in (0, 1, 2, [1, 3, 3, 1, 3]):
        frames = [Image.new("RGB", base.size)]
        for _ in range(4):
            frame = frames[-1].copy()
            x, y = int(rng.integers(0, 40)), int(rng.integers(0, 30))
            frame.paste(base.crop((x, y, x + 24, y + 18)), (x, y))
            frames.append(frame)
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=disposal)
        (ours,) = run([(data, None, None, None)])
        shown, gif = [], opened(data)
        for number in range(gif.n_frames):
            gif.seek(number)
            shown.append(on_white(gif))
        assert min(difference(ours, frame).max() for frame in shown[1:]) == 0, disposal


def test_a_gif_frame_beyond_the_canvas_widens_it(run):
    data = bytearray(encoded(scene(40, 30).quantize(32), "GIF"))
    for canvas in ((20, 15), (40, 10), (7, 30), (0, 0)):
        data[6:10] = struct.pack("<HH", *canvas)
        (ours,) = run([(bytes(data), None, None, None)])
        expected = opened(bytes(data))
        expected.load()
        assert difference(ours, expected.convert("RGB")).max() == 0, canvas


# Orientation


def xmp(orientation: int, as_element: bool) -> bytes:
    inside = (
        f"><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>"
        if as_element
        else f' tiff:Orientation="{orientation}"/>'
    )
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{inside}</rdf:RDF></x:xmpmeta>'
    ).encode()


def test_orientation_is_read_from_xmp_and_exif_wherever_they_stand(run):
    image = scene(48, 32)
    jobs, expected = [], []
    for orientation in range(1, 9):
        for as_element in (False, True):
            packet = xmp(orientation, as_element)
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", packet.decode())
            files = {
                "JPEG": encoded(image, "JPEG", quality=95, subsampling=0, xmp=packet),
                "PNG": encoded(image, "PNG", pnginfo=text),
                "WEBP": encoded(image, "WEBP", lossless=True, xmp=packet),
                "TIFF": encoded(image, "TIFF", tiffinfo={700: packet}),
            }
            for kind, data in files.items():
                jobs.append((data, None, None, None))
                expected.append((kind, orientation, ImageOps.exif_transpose(image_with(image, orientation))))
        # EXIF goes first, where it says something.
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(image, "PNG", exif=exif, pnginfo=text)
        jobs.append((data, None, None, None))
        expected.append(("EXIF and XMP", orientation, ImageOps.exif_transpose(image_with(image, orientation))))
    for ours, (kind, orientation, theirs) in zip(run(jobs), expected, strict=True):
        apart = difference(ours, theirs.convert("RGB"))
        assert apart.mean() < (4 if kind == "JPEG" else 1e-9), (kind, orientation, apart.mean())


def image_with(image: Image.Image, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.open(io.BytesIO(encoded(image, "PNG", exif=exif)))


def test_a_changed_byte_of_a_png_is_told_in_words(run):
    data = bytearray(encoded(scene(40, 30), "PNG"))
    data[data.index(b"IDAT") + 30] ^= 1
    (answer,) = run([(bytes(data), None, None, None)])
    assert isinstance(answer, str) and "0x" not in answer and "[" not in answer, answer
