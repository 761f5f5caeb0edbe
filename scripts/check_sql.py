#!/usr/bin/env python3
"""Runs pgspot over the install script and every update script: whatever could meet another's object,
operator or function is found.

The install script is sql/*.sql in the order of src/lib.rs, which is what cargo pgrx writes
(tests/test_rights_catalogue.py compares). A body BEGIN ATOMIC … END, which pgspot cannot read, is shown to it as
a string: what stands there is bound when it is created, so that it must name everything with its schema, or be
created under a pinned path.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import upgrade_sql

ROOT = Path(__file__).resolve().parent.parent

# Reports that stand, each with its reason: a script and a pattern of the report.
EXCEPTIONS = (
    (
        r"--",
        r"^PS002: ",
        "CREATE OR REPLACE in an update script meets what the version before made and the extension owns: "
        "scripts/upgrade_sql.py writes it "
        "for no other, and PostgreSQL refuses to replace what is no member",
    ),
    (
        r"--",
        r"^PS015: .*: copymatch\.\w+ ",
        "CREATE OR REPLACE VIEW in the extension's own schema, where nobody else creates",
    ),
    (
        r"",
        r"^PS005: .*: extschema\.copy_(fill_set|reembed|process_queue)\(",
        "procedures that commit, which no setting may be given to; their bodies are checked as under any path, and "
        "name everything",
    ),
    (
        r"^0\.1\.0--0\.2\.0$",
        r" at line (530|1073|1825)$",
        "the procedures that commit as 0.2.0 had them, which no setting may be given to; the step behind replaces them",
    ),
)


def install_script() -> str:
    names = re.findall(
        r'^extension_sql_file!\(\s*"\.\./sql/(\w+)\.sql"', (ROOT / "src" / "lib.rs").read_text(), re.MULTILINE
    )
    return "\n".join((ROOT / "sql" / f"{name}.sql").read_text() for name in names)


def scripts() -> dict[str, str]:
    found = {"install": install_script(), "copymatch_pgvector": (ROOT / "sql" / "copymatch_pgvector.sql").read_text()}
    for path in sorted((ROOT / "sql" / "upgrades").glob("*--*.sql")):
        found[path.stem] = upgrade_sql.script(*path.stem.split("--"), with_models=False)
    return found


def readable(text: str) -> str:
    """The script as pgspot can read it: SQL-standard bodies as strings, variables of a table's type as records."""
    result, path = [], ""
    for statement in upgrade_sql.statements(text):
        if statement.upper().startswith("SET LOCAL SEARCH_PATH"):
            path = statement[len("SET LOCAL ") : -1] if "@" not in statement else ""
        atomic = re.match(r"(CREATE [^$]*?)\bBEGIN ATOMIC\b(.*)\bEND\s*;$", statement, re.DOTALL | re.IGNORECASE)
        returned = re.match(
            r"(CREATE [^$]*?LANGUAGE sql[^$']*?)\bRETURN\b([^$]*);$", statement, re.DOTALL | re.IGNORECASE
        )
        if match := atomic or returned:
            bound = f"SET {path}" if path else ""
            statement = f"{match[1]} {bound} AS $bound${'' if atomic else 'SELECT '}{match[2]}$bound$;"
        statement = statement.replace('"precision"', "precision_")  # pgspot would leave out the quotes
        result.append(re.sub(r"^(\s+\w+ )copymatch\.\w+(?= *(?:;|:=))", r"\1record", statement, flags=re.MULTILINE))
    return "\n".join(result)


def main() -> None:
    pgspot = Path(sys.executable).with_name("pgspot")
    wrong = 0
    for name, text in scripts().items():
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(readable(text))
            file.flush()
            told = subprocess.run([pgspot, file.name], capture_output=True, text=True, check=False)
        lines = told.stdout.splitlines()
        if told.stderr or not any(line.strip().startswith("Errors: ") for line in lines):
            lines.append(f"pgspot failed: {told.stderr.strip()[-300:]}")
        for line in lines:
            excused = any(re.search(where, name) and re.search(report, line) for where, report, _ in EXCEPTIONS)
            if line.strip() and not excused and not line.strip().startswith("Errors: "):
                print(f"{name}: {line}")
                wrong += 1
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
