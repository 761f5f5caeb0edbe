"""What somebody who may create in a schema of the path can put there: operators and functions that fit
better than PostgreSQL's.

`set_traps(db, schema)` makes, as the present role, every operator of common names for every pair of common types that
PostgreSQL has no operator of its own for, and functions of the names that the extension's SQL calls, for arguments that
PostgreSQL's take by a cast or as any type. Whoever meets one has an error that begins with TRAP. Exact matches in
pg_catalog always win and are left out.
"""

import re

from conftest import ROOT

TRAP = "sprang a trap"

OPERATORS = "= <> < <= > >= + - * / % || -> ->> #> #>> ~ ~* !~ ~~ !~~ @> <@ && ^ & |".split()
TYPES = """int2 int4 int8 float4 float8 numeric text varchar name "char" oid regclass regtype regrole regproc bool bytea
    json jsonb timestamptz interval date tid text[] name[] int4[] int8[] float8[] bool[] oid[] int2vector""".split()
# For functions of two and three arguments, which are many.
FEW = "int4 int8 float8 numeric text name regclass oid text[] name[]".split()

MAKE = """
DO $make$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT l, r, o.op, CASE WHEN o.op IN ('+', '-', '*', '/', '%', '||', '^', '&', '|') THEN l
        WHEN o.op IN ('->', '#>') THEN 'jsonb'
                    WHEN o.op IN ('->>', '#>>') THEN 'text' ELSE 'bool' END AS result
        FROM unnest('{types}'::text[]) l, unnest('{types}'::text[]) r, unnest('{operators}'::text[]) o(op)
        WHERE NOT EXISTS (SELECT FROM pg_operator p WHERE p.oprname = o.op
        AND p.oprnamespace = 'pg_catalog'::regnamespace
                          AND p.oprleft = l::regtype AND p.oprright = r::regtype)
    LOOP
        IF to_regprocedure(format('{schema}.trap_%s(%s, %s)', md5(one.result), one.l, one.r)) IS NULL THEN
            EXECUTE format('CREATE FUNCTION {schema}.trap_%s(a %s, b %s) RETURNS %s LANGUAGE plpgsql '
                           'AS $f$ BEGIN RAISE EXCEPTION %L; END $f$', md5(one.result), one.l, one.r, one.result,
                           '{trap}: an operator for ' || one.l || ' and ' || one.r);
        END IF;
        EXECUTE format('CREATE OPERATOR {schema}.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = {schema}.trap_%s)',
                       one.op, one.l, one.r, md5(one.result));
    END LOOP;
    FOR one IN
        SELECT n.name, a.arguments
        FROM unnest('{names}'::text[]) n(name),
             (SELECT t FROM unnest('{types}'::text[]) t
              UNION ALL SELECT l || ', ' || r FROM unnest('{few}'::text[]) l, unnest('{few}'::text[]) r
              UNION ALL SELECT 'text, ' || l || ', ' || r FROM unnest('{few}'::text[]) l, unnest('{few}'::text[]) r)
             a(arguments)
        WHERE to_regprocedure(format('pg_catalog.%I(%s)', n.name, a.arguments)) IS NULL
          AND to_regprocedure(format('{schema}.%I(%s)', n.name, a.arguments)) IS NULL
          AND EXISTS (SELECT FROM pg_proc p WHERE p.proname = n.name AND p.pronamespace = 'pg_catalog'::regnamespace
                      AND (p.provariadic <> 0 OR p.pronargs = array_length(string_to_array(a.arguments, ', '), 1)))
    LOOP
        EXECUTE format('CREATE FUNCTION {schema}.%I(%s) RETURNS text LANGUAGE plpgsql '
                       'AS $f$ BEGIN RAISE EXCEPTION %L; END $f$', one.name, one.arguments,
                       '{trap}: ' || one.name || '(' || one.arguments || ')');
    END LOOP;
END $make$
"""

# Shorter and better-fitting forms of the extension's own functions, in its own schema.
OVERLOADS = """
DO $make$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT DISTINCT p.proname, a.arguments
        FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
             JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'copymatch',
             generate_series(0, p.pronargs) n(given),
             LATERAL (SELECT coalesce(string_agg(CASE WHEN s.swap AND t = 'float8'::regtype THEN 'numeric'
                                                      WHEN s.swap AND t = 'int8'::regtype THEN 'int4'
                                                      WHEN s.swap AND t = 'text'::regtype THEN 'name'
                                                      ELSE format_type(t, NULL) END, ', '
                                                      ORDER BY place), '') AS arguments
                      FROM (VALUES (false), (true)) s(swap) LEFT JOIN unnest(p.proargtypes::oid[])
                      WITH ORDINALITY u(t, place) ON place <= n.given GROUP BY s.swap) a
        WHERE p.pronamespace = '{schema}'::regnamespace AND p.prorettype <> 'trigger'::regtype
        AND NOT 'internal'::regtype = ANY (p.proargtypes::oid[])
          AND NOT 'cstring'::regtype = ANY (p.proargtypes::oid[])
    LOOP
        IF to_regprocedure(format('{schema}.%I(%s)', one.proname, one.arguments)) IS NULL THEN
            EXECUTE format('CREATE FUNCTION {schema}.%I(%s) RETURNS text LANGUAGE plpgsql '
                           'AS $f$ BEGIN RAISE EXCEPTION %L; END $f$', one.proname, one.arguments,
                           '{trap}: ' || one.proname || '(' || one.arguments || ')');
        END IF;
    END LOOP;
END $make$
"""


def called_names() -> list[str]:
    """Every name that a script of the extension's calls as a function."""
    scripts = list((ROOT / "sql").glob("*.sql")) + list((ROOT / "sql" / "upgrades").glob("*.sql"))
    return sorted({name for path in scripts for name in re.findall(r"\b([a-z_][a-z0-9_]*)\(", path.read_text())})


def _array(words) -> str:
    return "{" + ",".join('"' + word.replace('"', '\\"') + '"' for word in words) + "}"


def set_traps(db, schema: str = "public") -> None:
    make = MAKE.format(
        types=_array(TYPES),
        few=_array(FEW),
        operators=_array(OPERATORS),
        names=_array(called_names()),
        schema=schema,
        trap=TRAP,
    )
    db.execute("SET search_path = pg_catalog, pg_temp")
    db.execute(make)
    db.execute("RESET search_path")


def set_overloads(db, schema: str = "public") -> None:
    db.execute("SET search_path = pg_catalog, pg_temp")
    db.execute(OVERLOADS.format(schema=schema, trap=TRAP))
    db.execute("RESET search_path")
