-- Whoever may create objects in the extension's schema shall not have them met here: every name below has its schema,
-- and what has none is PostgreSQL's own. The setting ends with the script.
SET LOCAL search_path = pg_catalog, pg_temp;

-- What the extension cannot do without, said before anything is made. An update finds its own
-- types here and asks nothing.
DO $$
DECLARE
    encoding text := pg_catalog.current_setting('server_encoding');
    own boolean := EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
        WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
          AND d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
          AND d.deptype = 'e' AND e.extname = 'copymatch');
    taken text;
    owner text;
BEGIN
    IF own THEN
        RETURN;
    END IF;
    IF encoding <> 'UTF8' THEN
        RAISE EXCEPTION 'copymatch needs a database with the encoding UTF8, and this one has %', encoding
            USING ERRCODE = 'feature_not_supported',
                HINT = 'Make one with CREATE DATABASE name ENCODING ''UTF8'' TEMPLATE template0.';
    END IF;
    SELECT t.typname, e.extname INTO taken, owner FROM pg_catalog.pg_type t
        LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid
        AND d.deptype = 'e'
        LEFT JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
        AND e.oid = d.refobjid
        WHERE t.typname IN ('vector', 'halfvec') AND t.typnamespace = '@extschema@'::pg_catalog.regnamespace
        ORDER BY t.typname DESC LIMIT 1;
    IF owner = 'vector' THEN
        RAISE EXCEPTION 'schema % has the types of pgvector, and copymatch brings types of the same names',
            '@extschema@'
            USING ERRCODE = 'duplicate_object',
                  DETAIL = 'One schema cannot hold both; side by side they are one: copy_adopt_pgvector() lets '
                           'copymatch use pgvector''s types.',
                  HINT = 'CREATE SCHEMA copies; CREATE EXTENSION copymatch SCHEMA copies; then '
                         'SELECT copies.copy_adopt_pgvector();';
    ELSIF taken IS NOT NULL THEN
        RAISE EXCEPTION 'schema % has a type "%" already', '@extschema@', taken
            USING ERRCODE = 'duplicate_object', DETAIL = 'copymatch brings its own types vector and halfvec.',
                  HINT = 'Choose another schema: CREATE SCHEMA copies; CREATE EXTENSION copymatch SCHEMA copies.';
    END IF;
END $$;
