"""Prints the licences of the crates that are compiled into the library and into copymatch-encoder: each text once, with
the crates that it is of. Their licences want these to accompany a copy.

Usage: crate_licences.py [PG_MAJOR]

The texts are those that the crates themselves carry, as cargo has downloaded them (and downloads what it lacks); of a
crate without one, what its Cargo.toml says.
"""

import collections
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
#: What we ship: everything that is compiled in hangs below these.
SHIPPED = ("copymatch", "encoder-process")
TEXT = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE|OFL|UFL)\b", re.IGNORECASE)


def metadata(major: str) -> dict:
    """The resolved graph, as cargo knows it, of this machine's target."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform"]
    target = re.search(r"^host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True), re.MULTILINE).group(1)
    command += [target, "--no-default-features", "--features", f"copymatch/pg{major}"]
    return json.loads(subprocess.check_output(command, cwd=ROOT))


def compiled_in(graph: dict) -> list[dict]:
    """Packages of others that ours are linked with: neither for building nor for tests alone."""
    packages = {package["id"]: package for package in graph["packages"]}
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    members = set(graph["workspace_members"])
    waiting = [one for one in members if packages[one]["name"] in SHIPPED]
    found = set(waiting)
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    macros = {one for one in found if any("proc-macro" in target["kind"] for target in packages[one]["targets"])}
    ours = sorted(found - members - macros, key=lambda one: (packages[one]["name"], packages[one]["version"]))
    return [packages[one] for one in ours]


def texts(package: dict) -> list[str]:
    """The licences that a crate carries, those of fonts in it, too."""
    folder = pathlib.Path(package["manifest_path"]).parent
    places = [folder, folder / "fonts"]
    files = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
    files = [path for path in files if path.is_file() and path.suffix != ".rs" and TEXT.match(path.name)]
    return [path.read_text(errors="replace").strip() for path in files]


def main() -> None:
    crates = collections.defaultdict(list)
    bare = []
    packages = compiled_in(metadata(sys.argv[1] if len(sys.argv) > 1 else "15"))
    originals = {}
    for package in packages:
        name = f"{package['name']} {package['version']} ({package['license'] or 'see its licence'})"
        found = texts(package)
        if not found:
            bare.append(f"{name}: {', '.join(package['authors']) or package['repository']}")
        for text in found:
            # The same words, however they are broken into lines.
            key = re.sub(r"\s+", " ", text)
            originals.setdefault(key, text)
            crates[key].append(name)
    print(f"copymatch is linked with {len(packages)} crates of others. Their licences:")
    for key, names in sorted(crates.items(), key=lambda item: -len(item[1])):
        print("\n" + "=" * 78)
        print("\n".join(names))
        print("-" * 78)
        print(originals[key])
    if bare:
        print("\n" + "=" * 78)
        print("Crates that carry no text of their licence; who made them:")
        print("\n".join(bare))


if __name__ == "__main__":
    main()
