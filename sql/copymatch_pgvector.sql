-- Extension copymatch_pgvector: pgvector's vector and halfvec are copymatch's byte for byte, and
-- here PostgreSQL learns it.
--
-- Both extensions may be in any schema, and no version before 16 lets a script name a schema of another extension:
-- everything is found by who owns it, and written with its schema. What is made refers to all else by OID, so that
-- pgvector may move later on.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $adopt$
DECLARE
    ours text; -- copymatch's schema and pgvector's, quoted
    theirs text;
    missing text;
    kind record;
    metric record;
    same boolean;
BEGIN
    SELECT pg_catalog.quote_ident(n.nspname) INTO ours FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'copymatch';
    SELECT pg_catalog.quote_ident(n.nspname) INTO theirs FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector';
    IF pg_catalog.to_regprocedure(ours || '.dimensions_support(internal)') IS NULL THEN
        RAISE EXCEPTION 'copymatch_pgvector needs copymatch 0.3.0 or later in this database'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'ALTER EXTENSION copymatch UPDATE;';
    END IF;

    -- ivf learns the operators of pgvector's types. They go into the families of copymatch's own: an index on a column
    -- of either type serves the operators of both.
    FOR kind IN SELECT u.name, ours || '.' || u.name AS own, theirs || '.' || u.name AS other
                FROM pg_catalog.unnest(ARRAY['vector', 'halfvec']) AS u(name) LOOP
        -- Whoever may create objects in pgvector's schema shall not have them taken for pgvector's.
        SELECT t.name INTO missing FROM pg_catalog.unnest(ARRAY['', '<->', '<#>', '<=>']) AS t(name)
            WHERE NOT EXISTS (
                SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                    AND e.extname = 'vector'
                WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                  AND CASE WHEN t.name = ''
                      THEN d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
                           AND d.objid = pg_catalog.to_regtype(kind.other)
                           AND EXISTS (SELECT FROM pg_catalog.pg_type y WHERE y.oid = d.objid AND y.typtype = 'b'
                               AND y.typlen = -1 AND y.typalign = 'i')
                      ELSE d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass
                           AND d.objid = pg_catalog.to_regoperator(pg_catalog.format('%s.%s(%s,%s)', theirs, t.name,
                               kind.other, kind.other)) END)
            LIMIT 1;
        IF missing IS NOT NULL THEN
            RAISE EXCEPTION 'this version of pgvector has no %', pg_catalog.rtrim(kind.name || ' ' || missing)
                USING ERRCODE = 'feature_not_supported',
                    HINT = 'pgvector 0.7.0 and later have both types: ALTER EXTENSION vector UPDATE;';
        END IF;

        -- One way implicit, so that every function and operator of copymatch takes pgvector's values; the other way for
        -- assignments, so that no expression that pgvector's own operators serve has a second reading. A cast WITHOUT
        -- FUNCTION keeps no dimensions, and PostgreSQL would check them by pgvector's function, row by row, in a table
        -- that it rewrites: copymatch's knows when not to.
        EXECUTE pg_catalog.format('CREATE CAST (%s AS %s) WITHOUT FUNCTION AS IMPLICIT', kind.other, kind.own);
        EXECUTE pg_catalog.format('COMMENT ON CAST (%s AS %s) IS ''the same bytes''', kind.other, kind.own);
        EXECUTE pg_catalog.format('CREATE FUNCTION copymatch.to_pgvector(%s, integer, boolean) RETURNS %s '
                                  'AS ''MODULE_PATHNAME'', %L '
            'LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE SUPPORT %s.dimensions_support',
            kind.own, kind.other, kind.name || '_to_' || kind.name || '_wrapper', ours);
        EXECUTE pg_catalog.format('COMMENT ON FUNCTION copymatch.to_pgvector(%s, integer, boolean) IS ''checks the '
                                  'number of dimensions; the same bytes''', kind.own);
        EXECUTE pg_catalog.format('CREATE CAST (%s AS %s) WITH FUNCTION copymatch.to_pgvector(%s, integer, boolean) '
                                  'AS ASSIGNMENT', kind.own, kind.other, kind.own);
        EXECUTE pg_catalog.format('COMMENT ON CAST (%s AS %s) IS ''the same bytes; the planner leaves it out where '
                                  'there are no dimensions to check''', kind.own, kind.other);

        -- What was promised, tried on a value: text and binary format, and the bytes between.
        EXECUTE pg_catalog.format('SELECT v.x::%1$s::text = v.x::text AND %3$s.%4$I(v.x) = %5$s.%4$I(v.x::%1$s)
                                   AND v.x::%1$s::%2$s::text = v.x::text
                                   FROM (SELECT ''[1,-2.5,0.125]''::%2$s AS x) v', kind.own, kind.other, theirs,
                                       kind.name || '_send', ours) INTO same;
        IF same IS NOT TRUE THEN
            RAISE EXCEPTION 'type % of this version of pgvector has another format than copymatch''s', kind.name
                USING ERRCODE = 'feature_not_supported';
        END IF;

        EXECUTE pg_catalog.format('CREATE FUNCTION copymatch.ivf_within(%s, double precision) RETURNS boolean '
                                  'AS ''MODULE_PATHNAME'', ''ivf_within'' '
            'LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE', kind.other);
        EXECUTE pg_catalog.format('COMMENT ON FUNCTION copymatch.ivf_within(%s, double precision) IS ''internal: tells '
                                  'an ivf index a distance bound; always true''', kind.other);
        EXECUTE pg_catalog.format('CREATE OPERATOR copymatch.<~ (LEFTARG = %s, RIGHTARG = double precision, '
                                  'FUNCTION = copymatch.ivf_within)', kind.other);
        EXECUTE pg_catalog.format('COMMENT ON OPERATOR copymatch.<~ (%s, double precision) IS ''internal: tells an ivf '
                                  'index a distance bound; always true''', kind.other);
        FOR metric IN SELECT m.name, m.operator, m.said, m.usual
                      FROM (VALUES ('l2', '<->', 'Euclidean distance', 'DEFAULT'), ('ip', '<#>', 'inner product', ''),
                          ('cosine', '<=>', 'cosine distance', ''))
                           AS m(name, operator, said, usual) LOOP
            EXECUTE pg_catalog.format('CREATE OPERATOR CLASS %1$s.%3$s_%5$s_ops %7$s FOR TYPE %4$s
                    USING ivf FAMILY %2$s.%3$s_%5$s_ops AS
                    OPERATOR 1 %1$s.%6$s (%4$s, %4$s) FOR ORDER BY pg_catalog.float_ops,
                    OPERATOR 2 copymatch.<~ (%4$s, double precision),
                    FUNCTION 1 %2$s.ivf_%3$s_%5$s(internal)',
                theirs, ours, kind.name, kind.other, metric.name, metric.operator, metric.usual);
            EXECUTE pg_catalog.format('COMMENT ON OPERATOR CLASS %s.%s_%s_ops USING ivf IS %L',
                theirs, kind.name, metric.name,
                pg_catalog.format('pgvector''s %s: nearest by %s (%s)', kind.name, metric.said, metric.operator));
        END LOOP;
    END LOOP;

    -- bit is PostgreSQL's, and both extensions have an operator for it. Which one is meant follows from the search
    -- path, and so does the class.
    IF EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
               AND e.extname = 'vector'
               WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                 AND d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass
                 AND d.objid = pg_catalog.to_regoperator(theirs || '.<~>(bit,bit)')) THEN
        EXECUTE pg_catalog.format('CREATE OPERATOR CLASS %1$s.bit_hamming_ops FOR TYPE bit USING ivf AS
                OPERATOR 1 %1$s.<~> (bit, bit) FOR ORDER BY pg_catalog.float_ops,
                OPERATOR 2 %2$s.<~ (bit, double precision),
                FUNCTION 1 %2$s.ivf_bit_hamming(internal)', theirs, ours);
        EXECUTE pg_catalog.format('COMMENT ON OPERATOR CLASS %s.bit_hamming_ops USING ivf IS ''nearest by '
                                  'pgvector''''s Hamming distance (<~>)''', theirs);
        EXECUTE pg_catalog.format('COMMENT ON OPERATOR FAMILY %s.bit_hamming_ops USING ivf IS ''nearest by '
                                  'pgvector''''s Hamming distance (<~>)''', theirs);
    END IF;
END $adopt$;
