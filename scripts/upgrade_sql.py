#!/usr/bin/env python3
"""Writes an update script to the standard output: upgrade_sql.py FROM TO.

A released step is frozen: sql/upgrades/FROM--TO.sql is the whole of it. The step to the version under development has
by hand, in that file, what cannot be derived (ALTER TABLE, DROP FUNCTION, data that moves); the rest follows from
comparing sql/*.sql, in the order of src/lib.rs, with what FROM installed (sql/history):

- a statement that FROM had word for word is left out;
- CREATE FUNCTION, PROCEDURE, VIEW and AGGREGATE replace what FROM made; what it did not make is created, so that
  nobody's object is taken over;
- COMMENT, GRANT, REVOKE and SET LOCAL always run;
- any other new statement runs as it stands, unless FROM made an object of that kind and name: changing that one is
  work by hand.

`-- @model VERSION@` in either stands for the model that VERSION's library carried: it becomes one of the catalogue.
tests/test_upgrade.py proves that an updated catalogue is that of a fresh installation.
"""

import base64
import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPLACEABLE = re.compile(r"CREATE (FUNCTION|PROCEDURE|VIEW|AGGREGATE) ", re.IGNORECASE)
ALWAYS = re.compile(r"(COMMENT ON|GRANT|REVOKE|SET LOCAL) ", re.IGNORECASE)
# Kind and name of what a CREATE makes; triggers and policies have theirs within a table.
MADE = re.compile(
    r"CREATE (?:UNIQUE |CONSTRAINT |OR REPLACE )*(TABLE|TYPE|INDEX|SCHEMA|OPERATOR CLASS|OPERATOR|CAST|"
    r"ACCESS METHOD|SEQUENCE|EVENT TRIGGER|TRIGGER|POLICY|FUNCTION|PROCEDURE|VIEW|AGGREGATE) +([^ (;]+)",
    re.IGNORECASE,
)
ON_TABLE = re.compile(r" ON (\S+)")
DROPPED = re.compile(r"DROP (FUNCTION|PROCEDURE|VIEW|AGGREGATE) +(?:IF EXISTS +)?([^ (;]+)", re.IGNORECASE)
TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|[eE]?'(?:[^']|'')*'"""
    r"""|"(?:[^"]|"")*"|(?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?P=tag)|[A-Za-z_]\w*|.""",
    re.DOTALL,
)


def statements(text: str) -> list[str]:
    """The statements of a script, without comments around them."""
    found, current, depth, words = [], [], 0, []
    for match in TOKEN.finditer(text):
        token = match.group()
        if token.startswith(("--", "/*")):
            current.append(token if "".join(current).strip() else "")
            continue
        current.append(token)
        word = token.upper()
        if word[:1].isalpha():
            # A body BEGIN ATOMIC … END holds statements; CASE … END stands within them.
            if depth == 0 and word == "ATOMIC" and words[-1:] == ["BEGIN"] or depth and word == "CASE":
                depth += 1
            elif depth and word == "END":
                depth -= 1
            words.append(word)
        elif token == ";" and depth == 0:
            found.append("".join(current).strip())
            current, words = [], []
    if rest := "".join(current).strip():
        found.append(rest + ";")
    return found


def plain(statement: str) -> str:
    """The statement without comments, line ends and the schema of the extension, which 0.1.0 and 0.2.0 left out."""
    words = re.sub(r"'\s*\n\s*'", "", re.sub(r"--[^\n]*", "", statement))
    words = re.sub(r"\( | (?=\))", lambda match: match.group().strip(), re.sub(r"\s+", " ", words)).strip()
    if "$" not in words:
        words = words.replace("@extschema@.", "")
        words = re.sub(r"(COMMUTATOR|NEGATOR) = (?:OPERATOR\((\S+)\)|'(\S+)')", r"\1 = \2\3", words)
    return words


def signature(statement: str) -> str:
    """Of a replaceable statement: kind, name and parameters, without their defaults and results."""
    words = plain(statement).replace("@extschema@.", "")
    head = re.match(r"CREATE (?:OR REPLACE )?(\w+ [^ (]+)", words)
    depth, end = 0, head.end()
    if words[end : end + 2].strip().startswith("("):
        for end in range(head.end(), len(words)):
            depth += {"(": 1, ")": -1}.get(words[end], 0)
            if depth == 0 and words[end] == ")":
                break
    parameters = re.sub(r"(,|\() *(?:OUT [^,()]*(?:\([^)]*\))?)(?=,|\))", r"\1", words[head.end() : end])
    parameters = re.sub(r" (?:DEFAULT|=) (?:[^,()]|\([^()]*\))*", "", parameters)
    return f"{head.group(1)} {parameters}".upper()


def made(statement: str) -> tuple | None:
    match = MADE.match(plain(statement))
    if not match:
        return None
    kind, name = match.group(1).upper(), match.group(2).removeprefix("@extschema@.")
    table = ON_TABLE.search(plain(statement)) if kind in ("TRIGGER", "POLICY") else None
    # An operator is one for each pair of types, a class for each type, a cast for each pair.
    if kind in ("OPERATOR", "OPERATOR CLASS", "CAST"):
        return kind, plain(statement)
    return kind, name, table and table.group(1)


def model(version: str) -> str:
    folder = ROOT / "models" / "history" / version
    weights, background = ((folder / name).read_bytes() for name in ("model.onnx", "background.bin"))
    return (
        f"UPDATE copymatch.model SET built_in = false,\n"
        f"    weights = pg_catalog.decode('{base64.b64encode(weights).decode()}', 'base64'),\n"
        f"    background = pg_catalog.decode('{base64.b64encode(background).decode()}', 'base64')\n"
        f"    WHERE built_in AND sha256 = '\\x{hashlib.sha256(weights).hexdigest()}'"
        f" AND sha256 <> (SELECT b.sha256 FROM copymatch.builtin_model() b);\n"
        + (ROOT / "sql" / "upgrades" / "model.sql").read_text()
    )


def derived(by_hand: str, old: str) -> list[str]:
    before = statements(old)
    known, written = {plain(statement) for statement in before}, set(before)
    replaceables = {signature(statement) for statement in before if REPLACEABLE.match(statement)}
    names = {made(statement) for statement in before} - {None}
    again = {(kind.upper(), name.removeprefix("@extschema@.")) for kind, name in DROPPED.findall(plain(by_hand))}
    order = re.findall(
        r'^extension_sql_file!\(\s*"\.\./sql/(\w+)\.sql"', (ROOT / "src" / "lib.rs").read_text(), re.MULTILINE
    )
    result = []
    for name in order:
        for statement in statements((ROOT / "sql" / f"{name}.sql").read_text()):
            is_new = plain(statement) not in known
            if ALWAYS.match(statement):
                result.append(statement)
            elif replaceable := REPLACEABLE.match(statement):
                dropped = (replaceable.group(1).upper(), made(statement)[1]) in again
                if signature(statement) not in replaceables:
                    result.append(statement)
                # Of a body between dollars the catalogue keeps every line end.
                elif is_new or dropped or "$$" in statement and statement not in written:
                    result.append(REPLACEABLE.sub(r"CREATE OR REPLACE \1 ", statement, count=1))
            elif is_new and made(statement) not in names:
                result.append(statement)
    return result


def script(start: str, end: str, with_models: bool = True) -> str:
    """The update script from one version to another."""
    by_hand = (ROOT / "sql" / "upgrades" / f"{start}--{end}.sql").read_text()
    version = re.search(r"^default_version *= *'(.*)'", (ROOT / "copymatch.control").read_text(), re.MULTILINE).group(1)
    text = by_hand
    if end == version:
        old = (ROOT / "sql" / "history" / f"copymatch--{start}.sql").read_text()
        text += "\n-- What follows is derived from sql/*.sql.\n" + "\n".join(derived(by_hand, old)) + "\n"
    if with_models:
        text = re.sub(r"^-- @model (\S+)@$", lambda match: model(match.group(1)), text, flags=re.MULTILINE)
    return text


def main() -> None:
    start, end = sys.argv[1:]
    sys.stdout.write(script(start, end))


if __name__ == "__main__":
    main()
