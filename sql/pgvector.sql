-- Beside pgvector: what makes it one with copymatch is an extension of its own, so that each goes without the other.
CREATE FUNCTION @extschema@.copy_adopt_pgvector()
    RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    home name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector');
    moved record;
BEGIN
    IF home IS NULL THEN
        PERFORM copymatch.refuse('42704', 'pgvector is not installed in this database',
            'CREATE EXTENSION vector, in another schema than copymatch''s, which has types of the same names.');
    END IF;
    IF NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'copymatch_pgvector') THEN
        CREATE EXTENSION copymatch_pgvector;
        RETURN;
    END IF;
    -- ALTER EXTENSION vector SET SCHEMA takes pgvector's own objects along: the classes of ivf that
    -- stand by them follow here.
    FOR moved IN
        SELECT format('ALTER OPERATOR %s %I.%I USING ivf SET SCHEMA %I', u.what, n.nspname, u.name, home) AS statement
        FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
        AND e.extname = 'copymatch_pgvector'
             JOIN (SELECT 'CLASS' AS what, 'pg_opclass'::regclass AS catalogue, c.oid, c.opcname AS name,
                   c.opcnamespace AS schema FROM pg_opclass c
                   UNION ALL SELECT 'FAMILY', 'pg_opfamily'::regclass, f.oid, f.opfname, f.opfnamespace
                   FROM pg_opfamily f) u
                  ON u.catalogue = d.classid AND u.oid = d.objid
             JOIN pg_namespace n ON n.oid = u.schema
        WHERE d.deptype = 'e' AND n.nspname <> home LOOP
        EXECUTE moved.statement;
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.copy_adopt_pgvector() IS
    'lets copymatch use the types of an installed pgvector: CREATE EXTENSION copymatch_pgvector, for superusers. '
    'Columns of pgvector''s vector can then be those of reference sets, ivf indexes take pgvector''s operators, and '
    'new sets get columns of its type. Once more after ALTER EXTENSION vector SET SCHEMA: its '
    'operator classes of ivf follow';
