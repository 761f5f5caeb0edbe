"""A stand-in for pgvector, where that is not installed: its types, operators and functions under its names,
in an extension `vector`.

What copymatch_pgvector emits asks the catalogue alone, so that types of the same layout do: these are copymatch's own
code under another name, with pgvector's ways where they differ (a cast that checks dimensions is never left out). hnsw
and ivfflat are missing: tests of plans skip.
"""

import contextlib
import pathlib
import re

from conftest import ROOT, Installation

CONTROL = """comment = 'stand-in for pgvector in the tests of copymatch'
default_version = '0.8.1'
module_pathname = '$libdir/copymatch'
relocatable = true
"""
MARK = "stand-in for pgvector"


def script() -> str:
    """Everything of sql/types.sql, in whichever schema CREATE EXTENSION names."""
    text = (ROOT / "sql" / "types.sql").read_text().replace("@extschema@.", "")
    text = re.sub(r"CREATE FUNCTION dimensions_support.*?;\n.*?;\n", "", text, flags=re.DOTALL)
    return text.replace(" SUPPORT dimensions_support", "")


UPDATE = """CREATE OR REPLACE FUNCTION vector(vector, integer, boolean) RETURNS vector
    AS 'MODULE_PATHNAME', 'vector_to_vector_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION newly_there(vector) RETURNS integer AS 'MODULE_PATHNAME', 'vector_dims_wrapper' LANGUAGE c IMMUTABLE
STRICT PARALLEL SAFE;
"""


def folder(major: str) -> pathlib.Path:
    """Where a server of this major looks for extensions."""
    return pathlib.Path(Installation(major).run("pg_config", "--sharedir").stdout.strip()) / "extension"


@contextlib.contextmanager
def installed(majors: list[str]):
    """Puts it where these majors have no pgvector, and takes it away again."""
    made = []
    try:
        for major in majors:
            control = folder(major) / "vector.control"
            # What a session that was killed left behind is put anew.
            if control.exists() and MARK not in control.read_text():
                continue
            files = {
                control: CONTROL,
                control.with_name("vector--0.8.0.sql"): script(),
                control.with_name("vector--0.8.0--0.8.1.sql"): UPDATE,
            }
            for path, text in files.items():
                made.append(path)
                path.write_text(text)
        yield
    finally:
        for path in made:
            path.unlink(missing_ok=True)
