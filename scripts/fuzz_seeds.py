"""Writes the inputs that fuzzing starts from, crates/*/fuzz/seeds: small files of our own making, one or more of every
form that a target reads.

Usage: fuzz_seeds.py    (in `make setup`'s environment, with COPYMATCH_DSN: a database with the
extension makes the sketches)

The same pictures and numbers give the same seeds; the files are committed, and this is how they were made.
"""

import io
import json
import math
import os
import pathlib
import struct
import sys

import psycopg

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from pictures import scene  # noqa: E402

MODEL = ROOT / "models" / "default"


def write(crate: str, target: str, name: str, content: bytes) -> None:
    """One seed; its name says what it is."""
    folder = ROOT / "crates" / crate / "fuzz" / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def encoded() -> dict[str, bytes]:
    """A small picture in every coding that Pillow writes and copymatch reads."""
    picture = scene(1, 40, 30)
    frames = [scene(seed, 24, 18) for seed in (1, 2, 3)]
    forms = [
        ("jpeg-420", picture, {"format": "JPEG", "subsampling": 2}),
        ("jpeg-444-optimised", picture, {"format": "JPEG", "subsampling": 0, "optimize": True}),
        ("jpeg-progressive", picture, {"format": "JPEG", "progressive": True}),
        ("jpeg-restarts", picture, {"format": "JPEG", "restart_marker_blocks": 2}),
        ("jpeg-grey", picture.convert("L"), {"format": "JPEG"}),
        ("jpeg-cmyk", picture.convert("CMYK"), {"format": "JPEG"}),
        ("jpeg-turned", picture, {"format": "JPEG", "exif": exif(6)}),
        ("png-rgb", picture, {"format": "PNG"}),
        ("png-alpha", picture.convert("RGBA"), {"format": "PNG"}),
        ("png-palette", picture.quantize(16), {"format": "PNG"}),
        ("png-grey-16", picture.convert("I;16"), {"format": "PNG"}),
        ("png-bits", picture.convert("1"), {"format": "PNG"}),
        ("png-animated", frames[0], {"format": "PNG", "save_all": True, "append_images": frames[1:]}),
        ("gif", picture.quantize(32), {"format": "GIF"}),
        ("gif-animated", frames[0], {"format": "GIF", "save_all": True, "append_images": frames[1:]}),
        ("webp-lossy", picture, {"format": "WEBP"}),
        ("webp-lossless-alpha", picture.convert("RGBA"), {"format": "WEBP", "lossless": True}),
        ("webp-animated", frames[0], {"format": "WEBP", "save_all": True, "append_images": frames[1:]}),
        ("bmp", picture, {"format": "BMP"}),
        ("bmp-palette", picture.quantize(16), {"format": "BMP"}),
        ("tiff-raw", picture, {"format": "TIFF"}),
        ("tiff-bits-fax", picture.convert("1"), {"format": "TIFF", "compression": "group4"}),
    ] + [
        (f"tiff-{coding.removeprefix('tiff_')}", picture, {"format": "TIFF", "compression": coding})
        for coding in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    ]
    files = {}
    for name, image, options in forms:
        buffer = io.BytesIO()
        image.save(buffer, **options)
        files[name] = buffer.getvalue()
    return files


def exif(orientation: int, order: str = "<") -> bytes:
    """An Exif block with an orientation and, as cameras write them, a maker and a date."""
    tag = struct.Struct(order + "HHI4s")
    maker, date = b"Camera\0", b"2026:01:02 03:04:05\0"
    start = 8 + 2 + 3 * 12 + 4
    entries = [
        tag.pack(0x010F, 2, len(maker), struct.pack(order + "I", start)),
        tag.pack(0x0112, 3, 1, struct.pack(order + "HH", orientation, 0)),
        tag.pack(0x0132, 2, len(date), struct.pack(order + "I", start + len(maker))),
    ]
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4) + maker + date


def field(number: int, content: bytes | int | str) -> bytes:
    """A field of a protobuf message."""

    def varint(value: int) -> bytes:
        more = bytearray()
        while value > 127:
            more.append(value & 127 | 128)
            value >>= 7
        return bytes([*more, value])

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx(*, outside: bool, nested: bool) -> bytes:
    """An ONNX file with one tensor: within, or in a file beside it; in the graph, or in an attribute of a node."""
    where = field(13, field(1, "location") + field(2, "weights.bin")) + field(14, 1) if outside else field(9, bytes(16))
    tensor = field(1, 4) + field(2, 1) + field(8, "weights") + where
    attribute = field(5, field(1, "value") + field(5, tensor) + field(20, 4))
    node = field(2, "image") + field(3, "descriptor") + field(4, "Constant") + (attribute if nested else b"")
    graph = field(1, node) + field(2, "graph") + (b"" if nested else field(5, tensor))
    return field(1, 8) + field(2, "seed") + field(7, graph) + field(8, field(1, "") + field(2, 17))


def background(encoding: int, rows: int = 6, dimensions: int = 4) -> bytes:
    """A background of unit vectors: floats, halves, or bytes with a scale for each row."""
    vectors = []
    for row in range(rows):
        vector = [math.sin(1.7 * row + component) for component in range(dimensions)]
        length = math.sqrt(sum(value * value for value in vector))
        vectors.append([value / length for value in vector])
    if encoding == 2:
        scales = [max(map(abs, vector)) / 127 for vector in vectors]
        codes = [round(value / scale) for vector, scale in zip(vectors, scales, strict=True) for value in vector]
        payload = struct.pack(f"<{rows}f", *scales) + struct.pack(f"{len(codes)}b", *codes)
    else:
        payload = struct.pack(
            f"<{rows * dimensions}{'fe'[encoding]}", *(value for vector in vectors for value in vector)
        )
    return b"CMBG" + struct.pack("<HHII", 1, encoding, rows, dimensions) + payload


def numbers() -> dict[str, list[float]]:
    """Vectors by what is remarkable about them."""
    return {
        "one": [1.0],
        "three": [1.0, -2.5, 0.0],
        "tiny": [1e-38, -1e-45, 6e-8],
        "large": [65504.0, -3.4e38, 1e10],
        "descriptor": [round(math.sin(n) / 11.3, 6) for n in range(256)],
    }


def main() -> None:
    for name, content in encoded().items():
        # The first byte chooses the scale: the whole picture, or at least ten pixels on its short side.
        write("imaging", "decode", name, b"\0" + content)
        write("imaging", "decode", f"{name}-reduced", bytes([21]) + content)
        write("imaging", "inspect", name, content)
    for orientation in range(1, 9):
        write("imaging", "exif", f"orientation-{orientation}", exif(orientation, "<>"[orientation % 2]))
    write("imaging", "exif", "cut-off", exif(6)[:30])

    manifest = json.loads((MODEL / "manifest.json").read_text())
    write("encoder", "manifest", "default", json.dumps(manifest).encode())
    manifest["parity"] = []
    manifest["input"] |= {"layout": "NHWC", "type": "uint8", "fit": "short_side"}
    write("encoder", "manifest", "other-shape", json.dumps(manifest).encode())
    write("encoder", "manifest", "empty", b"{}")
    for outside in (False, True):
        for nested in (False, True):
            name = f"{'outside' if outside else 'within'}-{'attribute' if nested else 'graph'}"
            write("encoder", "self_contained", name, onnx(outside=outside, nested=nested))
    write("encoder", "self_contained", "default-cut-off", (MODEL / "model.onnx").read_bytes()[:3000])

    for name, encoding in {"f32": 0, "f16": 1, "int8": 2}.items():
        write("scoring", "background", name, background(encoding))
    write("scoring", "background", "cut-off", background(2)[:-3])
    calibration = json.loads((MODEL / "calibration.json").read_text())
    write("scoring", "calibration", "default", json.dumps(calibration).encode())
    calibration.pop("evidence", None)
    write("scoring", "calibration", "no-evidence", json.dumps(calibration).encode())

    for name, values in numbers().items():
        write("vectors", "text", name, f"[{','.join(map(repr, values))}]".encode())
        for kind, letter in {"vector": "f", "halfvec": "e"}.items():
            kept = [value for value in values if letter == "f" or abs(value) <= 65504]
            write("vectors", "binary", f"{kind}-{name}", struct.pack(f">hh{len(kept)}{letter}", len(kept), 0, *kept))
    write("vectors", "text", "spaces", b" [ 1 , -.5e-3 ,\t+2. ] ")

    with psycopg.connect(os.environ["COPYMATCH_DSN"]) as db:
        for seed in (1, 2, 3):
            buffer = io.BytesIO()
            scene(seed, 160, 120).save(buffer, "PNG")
            (sketch,) = db.execute("SELECT copy_sketch(%s)", [buffer.getvalue()]).fetchone()
            # The target adds a right checksum to one that lacks it.
            write("keypoints", "sketch", f"scene-{seed}", sketch[:-4])
            write("keypoints", "sketch", f"scene-{seed}-whole", sketch)


if __name__ == "__main__":
    main()
