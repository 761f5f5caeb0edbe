"""Checks what cargo would build: licences, sources, duplicates. Reads `cargo metadata` and nothing else.

Written here rather than taken as cargo-deny because that compiles for longer than copymatch does, and these three
rules are what it would have been asked for:

1. Every crate's licence expression is satisfied by the licences allowed below (so: none copyleft, none missing).
2. Every crate comes from the registry or from this repository, at a version that Cargo.lock pins; none from git.
3. No crate is there twice in incompatible versions unless it is named below, with the reason.
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

# Crates that two dependencies of ours want in different versions, which we cannot change.
KNOWN_DUPLICATES: dict[str, str] = {}


def satisfied(expression: str) -> bool:
    """Whether an SPDX licence expression (AND, OR, WITH, parentheses) can be met with the allowed licences alone."""
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
        return token in ALLOWED_LICENCES

    value = either()
    if tokens:
        raise ValueError(f"cannot read the licence expression {expression!r}")
    return value


def compatible_version(version: str) -> str:
    """What cargo treats as one version: 1.x.y is 1, 0.2.x is 0.2, 0.0.3 is 0.0.3."""
    major, minor, patch = (version.split("+")[0].split("-")[0].split(".") + ["0", "0"])[:3]
    if major != "0":
        return major
    return f"0.{minor}" if minor != "0" else f"0.0.{patch}"


def main() -> int:
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    built = {node["id"] for node in metadata["resolve"]["nodes"]}
    findings = []
    versions = collections.defaultdict(dict)
    for package in (package for package in metadata["packages"] if package["id"] in built):
        label = f"{package['name']} {package['version']}"
        licence = package["license"]
        if not licence:
            findings.append(f"{label}: no licence expression")
        elif not satisfied(licence):
            findings.append(f"{label}: licence {licence} is not among those allowed")
        source = package["source"]
        if source is not None and not source.startswith("registry+"):
            findings.append(f"{label}: comes from {source}, not from the registry")
        if source is None and not pathlib.Path(package["manifest_path"]).is_relative_to(ROOT):
            findings.append(f"{label}: comes from {package['manifest_path']}, outside this repository")
        versions[package["name"]][compatible_version(package["version"])] = package["version"]
    duplicates = {name: sorted(found.values()) for name, found in versions.items() if len(found) > 1}
    for name, found in sorted(duplicates.items()):
        if name not in KNOWN_DUPLICATES:
            findings.append(f"{name}: in several versions ({', '.join(found)})")
    for name in sorted(KNOWN_DUPLICATES.keys() - duplicates.keys()):
        findings.append(f"{name}: named as a known duplicate, but there is one version only")
    for finding in findings:
        print(finding, file=sys.stderr)
    if not findings:
        print(f"{len(built)} crates: licences, sources and versions are in order")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
