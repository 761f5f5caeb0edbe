#!/usr/bin/env bash
# Sets over distributed and reference tables, on a PostgreSQL that has Citus: CITUS_DSN names a coordinator's database
# with both extensions and at least one worker (a coordinator that is its own worker will do). Citus is not in Debian,
# and nothing here needs it: without CITUS_DSN this says that it was skipped, and succeeds.
#
#   CITUS_DSN='host=… dbname=… user=…' scripts/citus-check.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

if [ -z "${CITUS_DSN:-}" ]; then
    say "citus-check: SKIPPED: CITUS_DSN is not set"
    exit 0
fi
"$ROOT/scripts/python.sh"
COPYMATCH_CITUS_DSN=$CITUS_DSN exec "$LOCAL/venv/bin/python" - "$ROOT" <<'PYTHON'
import os
import sys

import psycopg

sys.path.insert(0, sys.argv[1] + "/tests")
from pictures import jpeg, scene

db = psycopg.connect(os.environ["COPYMATCH_CITUS_DSN"], autocommit=True)
if not db.execute("SELECT count(*) FROM pg_extension WHERE extname = 'citus'").fetchone()[0]:
    sys.exit("citus-check: the database has no extension citus")
print("Citus", db.execute("SELECT extversion FROM pg_extension WHERE extname = 'citus'").fetchone()[0])
for table, spread in (("citus_check_d", "create_distributed_table('citus_check_d', 'id')"),
                      ("citus_check_r", "create_reference_table('citus_check_r')")):
    db.execute(f"DROP TABLE IF EXISTS {table}")
    db.execute(f"SELECT copy_drop_set(name) FROM copymatch.reference_set WHERE name = '{table}'")
    db.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, image bytea)")
    db.execute(f"SELECT {spread}")
    for seed in range(8):
        db.execute(f"INSERT INTO {table} VALUES (%s, %s)", [seed, jpeg(scene(seed))])
    db.execute(f"SELECT copy_create_set('{table}', '{table}', key => 'id', image => 'image')")
    db.execute(f"CALL copy_fill_set('{table}')")
    found = db.execute(f"SELECT reference, verdict FROM copy_match(%s, '{table}', 1)", [jpeg(scene(4), 60)]).fetchone()
    assert found == ("4", "copy"), (table, found)
    db.execute(f"SELECT copy_disable_reference('{table}', '4')")
    found = db.execute(f"SELECT reference FROM copy_match(%s, '{table}', 1)", [jpeg(scene(4), 60)]).fetchone()
    assert found != ("4",), (table, found)
    db.execute(f"SELECT copy_drop_set('{table}')")
    db.execute(f"DROP TABLE {table}")
    print(table, "right")
PYTHON
