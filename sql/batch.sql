-- A whole table against a set, in one statement.
CREATE FUNCTION copymatch.say_progress(total bigint, what text) RETURNS void
    AS 'MODULE_PATHNAME', 'say_progress_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.say_progress(bigint, text) IS
    'counts one piece of the running statement''s work; every few seconds a NOTICE says how much is done, the '
    'rate and the remaining time';

CREATE FUNCTION copymatch.match_each(
    statement text, pictured boolean, set_name text, wanted integer, verify text, min_verdict text, partial boolean,
    total bigint, what text, every boolean)
    RETURNS TABLE (upload text, reference_set text, reference text, rank integer, similarity double precision,
        background double precision, score double precision, probability double precision, verdict text,
        explanation text, verified boolean, inliers integer, agreement double precision, region jsonb)
    AS 'MODULE_PATHNAME', 'match_each' LANGUAGE c VOLATILE PARALLEL UNSAFE COST 10000 ROWS 10000;
COMMENT ON FUNCTION copymatch.match_each(
    text, boolean, text, integer, text, text, boolean, bigint, text, boolean) IS
    'matches each row (key, descriptor, image) of a query, run with the caller''s rights, as copy_match does; searches '
    'of one index that come one after the other read its lists once for many of them. pictured: whether there are '
    'images; total and what: for NOTICEs of how far it is, NULL: somebody else counts; every: a row for which nothing '
    'is found comes once, with its key alone';

CREATE FUNCTION copymatch.match_rows(
    uploads regclass, key text, source name, set_name text, wanted integer, verify text, min_verdict text,
    partial boolean)
    RETURNS TABLE (upload text, reference_set text, reference text, rank integer, similarity double precision,
        background double precision, score double precision, probability double precision, verdict text,
        explanation text, verified boolean, inliers integer, agreement double precision, region jsonb)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(set_name);
    keys name[];
    source_type regtype;
    descriptor text;
    total bigint;
BEGIN
    IF uploads IS NULL OR match_rows.key IS NULL OR source IS NULL THEN
        PERFORM copymatch.refuse('22004',
            'copy_match_table needs a relation, its key and the column with its images or descriptors',
            'copy_match_table(''uploads'', ''id'', ''image'', ''licensed'')');
    END IF;
    keys := copymatch.parse_key(uploads, match_rows.key);
    PERFORM copymatch.require_column(uploads, source, NULL);
    SELECT a.atttypid INTO source_type FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = uploads AND a.attname = source AND a.attnum > 0 AND NOT a.attisdropped;
    IF source_type <> 'bytea'::regtype AND NOT copymatch.holds_descriptors(source_type) THEN
        PERFORM copymatch.refuse('42804',
            pg_catalog.format('column "%s" of relation %s is of type %s', source, uploads, source_type),
            pg_catalog.format('It must hold images (bytea) or descriptors (%s).', '@extschema@.vector'::regtype));
    END IF;
    EXECUTE pg_catalog.format('SELECT count(*) FROM %s AS r WHERE r.%I IS NOT NULL', uploads, source) INTO total;
    -- An image that cannot be matched gives a WARNING that names it, and no rows; embed_reference
    -- counts the images itself.
    descriptor := CASE WHEN source_type = 'bytea'::regtype
        THEN pg_catalog.format('copymatch.embed_reference(r.%I, %L, %s, %s)', source, chosen.model,
            copymatch.key_expression(keys[1], keys[2:]), total)
        ELSE pg_catalog.format('r.%I::@extschema@.vector', source) END;
    RETURN QUERY SELECT m.* FROM copymatch.match_each(
        pg_catalog.format('SELECT %s, %s, %s FROM %s AS r WHERE r.%I IS NOT NULL',
            copymatch.key_expression(keys[1], keys[2:]), descriptor,
            CASE WHEN source_type = 'bytea'::regtype THEN pg_catalog.format('r.%I', source)
                ELSE 'NULL::pg_catalog.bytea' END,
            uploads, source),
        source_type = 'bytea'::regtype, set_name, wanted, match_rows.verify, match_rows.min_verdict,
        match_rows.partial, total,
        CASE WHEN source_type <> 'bytea'::regtype THEN 'descriptors matched' END, false) AS m;
END $$;
COMMENT ON FUNCTION copymatch.match_rows(regclass, text, name, text, integer, text, text, boolean) IS
    'what copy_match_table runs';

CREATE FUNCTION @extschema@.copy_match_table(
    uploads regclass, key text, source name, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT NULL,
    verify text DEFAULT NULL, min_verdict text DEFAULT NULL, partial boolean DEFAULT false)
    RETURNS TABLE (upload text, reference_set text, reference text, rank integer, similarity double precision,
        background double precision, score double precision, probability double precision, verdict text,
        explanation text, verified boolean, inliers integer, agreement double precision, region jsonb)
    LANGUAGE sql VOLATILE ROWS 10000
BEGIN ATOMIC
    SELECT m.upload, m.reference_set, m.reference, m.rank, m.similarity, m.background, m.score, m.probability,
           m.verdict, m.explanation,
           m.verified, m.inliers, m.agreement, m.region
    FROM copymatch.match_rows($1, $2, $3, $4, $5, $6, $7, $8) AS m;
END;
COMMENT ON FUNCTION @extschema@.copy_match_table(regclass, text, name, text, integer, text, text, boolean) IS
    'matches every row of a relation against a set (verify, min_verdict, partial and the last four columns: as in '
    'copy_match; of descriptors nothing is verified): key names its key, source its column with images (bytea) or '
    'descriptors. Each row is a search through the set''s index, whose lists are read once for many rows. Says every '
    'few seconds how far it is; an image that cannot be matched gives a WARNING and no rows';
