"""Checks what cargo would build: licences, sources, duplicates. Reads `cargo metadata` and nothing else.

Written here rather than taken as cargo-deny because that compiles for longer than copymatch does, and these three
rules are what it would have been asked for:

1. Every crate's licence expression is satisfied by the licences allowed below (so: none copyleft, none missing).
2. Every crate comes from the registry or from this repository, at a version that Cargo.lock pins; none from git.
3. Where a crate is there in several incompatible versions, ours use the newest: we cause no duplicate (those that
   other people's crates cause among themselves are not in our hands).
"""

import collections
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

ALLOWED_LICENCES = {
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "0BSD",
}

# Allowed for one crate only.
EXCEPTIONS = {
    # Ubuntu Light and Hack, as data: these licences let fonts be embedded, and reserve their names.
    "epaint_default_fonts": {"OFL-1.1", "Ubuntu-font-1.0"},
}


def satisfied(expression: str, more: frozenset[str] = frozenset()) -> bool:
    """Whether an SPDX licence expression (AND, OR, WITH, parentheses) can be met with the allowed licences (and `more`)."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either() -> bool:
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            value = both() or value
        return value

    def both() -> bool:
        value = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value = one() and value
        return value

    def one() -> bool:
        token = tokens.pop(0)
        if token == "(":
            value = either()
            if not tokens or tokens.pop(0) != ")":
                raise ValueError(f"unbalanced parentheses in {expression!r}")
            return value
        if tokens and tokens[0] == "WITH":
            tokens.pop(0)
            token = f"{token} WITH {tokens.pop(0)}"
        return token in ALLOWED_LICENCES or token in more

    value = either()
    if tokens:
        raise ValueError(f"cannot read the licence expression {expression!r}")
    return value


def newer(version: str) -> tuple:
    """Sorts versions; a pre-release comes before its release."""
    release, _, before = version.split("+")[0].partition("-")
    return (*map(int, release.split(".")), before == "", before)


def main() -> int:
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    built = {node["id"] for node in metadata["resolve"]["nodes"]}
    findings = []
    versions = collections.defaultdict(set)
    for package in (package for package in metadata["packages"] if package["id"] in built):
        label = f"{package['name']} {package['version']}"
        licence = package["license"]
        if not licence:
            findings.append(f"{label}: no licence expression")
        elif not satisfied(licence, frozenset(EXCEPTIONS.get(package["name"], ()))):
            findings.append(f"{label}: licence {licence} is not among those allowed")
        source = package["source"]
        if source is not None and not source.startswith("registry+"):
            findings.append(f"{label}: comes from {source}, not from the registry")
        if source is None and not pathlib.Path(package["manifest_path"]).is_relative_to(ROOT):
            findings.append(f"{label}: comes from {package['manifest_path']}, outside this repository")
        versions[package["name"]].add(package["version"])
    packages = {package["id"]: package for package in metadata["packages"]}
    members = set(metadata["workspace_members"])
    for node in (node for node in metadata["resolve"]["nodes"] if node["id"] in members):
        for wanted in (packages[dependency["pkg"]] for dependency in node["deps"]):
            newest = max(versions[wanted["name"]], key=newer)
            if wanted["version"] != newest:
                ours = packages[node["id"]]["name"]
                findings.append(
                    f"{ours}: depends on {wanted['name']} {wanted['version']}, and {newest} is there as well"
                )
    for finding in findings:
        print(finding, file=sys.stderr)
    if not findings:
        print(f"{len(built)} crates: licences, sources and versions are in order")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
