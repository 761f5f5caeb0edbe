#!/usr/bin/env bash
# Writes an upgrade script to the standard output: upgrade_sql.sh FROM TO. By hand stands, in sql/upgrades/FROM--TO.sql, what changes
# in tables and in functions that cannot be replaced. The rest follows from sql/*.sql, in the order of src/lib.rs: a file that FROM
# had makes its functions and views anew in their place, a file that it lacked runs as in a fresh installation.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

from=$1
to=$2
case $from in
    # Of what FROM had: files with types, tables and operators, which never run again, and files with functions and views only.
    0.1.0) once='types ivf catalogue' again='embed sets matching' ;;
    *) die "no list of the SQL files of version $from" ;;
esac

cat "$ROOT/sql/upgrades/$from--$to.sql"
# The model that FROM carried in its library becomes one of the catalogue.
old=$ROOT/models/history/$from
printf "UPDATE copymatch.model SET built_in = false,\n    weights = pg_catalog.decode('%s', 'base64'),\n    background = pg_catalog.decode('%s', 'base64')\n" \
    "$(base64 -w 0 "$old/model.onnx")" "$(base64 -w 0 "$old/background.bin")"
printf "    WHERE built_in AND sha256 = '\\\\x%s' AND sha256 <> (SELECT sha256 FROM copymatch.builtin_model());\n" \
    "$(sha256sum "$old/model.onnx" | cut -d' ' -f1)"
cat "$ROOT/sql/upgrades/model.sql"
mapfile -t names < <(sed -n 's/^extension_sql_file!("\.\.\/sql\/\([a-z_]*\)\.sql".*/\1/p' "$ROOT/src/lib.rs")
for name in "${names[@]}"; do
    case " $once " in *" $name "*) continue ;; esac
    printf '\n-- %s.sql\n' "$name"
    case " $again " in
        *" $name "*) sed -E 's/^CREATE (FUNCTION|PROCEDURE|VIEW) /CREATE OR REPLACE \1 /' "$ROOT/sql/$name.sql" ;;
        *) cat "$ROOT/sql/$name.sql" ;;
    esac
done
