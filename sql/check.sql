-- Descriptors against images: rows that came where no trigger ran (a logical subscription, a session_replication_role
-- of replica, a trigger that was disabled) have none, or that of an earlier image. With the caller's rights, and for
-- the owner alone: the UPDATE runs the table's triggers, which are his.
CREATE FUNCTION @extschema@.copy_check_set(
    name text DEFAULT copymatch.default_set(), sample bigint DEFAULT NULL, mend boolean DEFAULT true,
    OUT checked bigint, OUT missing bigint, OUT differing bigint, OUT mended bigint)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_check_set.name);
    owner name := (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = chosen.relation);
    total bigint;
    found record;
    changed bigint;
BEGIN
    checked := 0; missing := 0; differing := 0; mended := 0;
    IF owner IS DISTINCT FROM current_user THEN
        PERFORM copymatch.refuse('42501',
            pg_catalog.format('must be owner of the relation of reference set "%s"', chosen.name),
            format('SET ROLE %I', owner));
    END IF;
    IF chosen.image_column IS NULL THEN
        PERFORM copymatch.refuse('55000',
            pg_catalog.format('reference set "%s" has no image column to check its descriptors against', chosen.name));
    END IF;
    IF sample <= 0 THEN
        PERFORM copymatch.refuse('22023', pg_catalog.format('sample is %s', sample),
            'It is a number of rows; NULL: all.');
    END IF;
    EXECUTE format('SELECT count(*) FROM %s', chosen.relation) INTO total;
    FOR found IN EXECUTE format(
        'SELECT r.tableoid AS part, r.ctid AS place, r.%1$I IS NULL AS lacks, r.%1$I::@extschema@.vector AS '
        'descriptor, '
        '       copymatch.embed_reference(r.%2$I, %3$L, %4$s, %5$s) AS fresh '
        'FROM (SELECT tableoid, ctid, * FROM %6$s WHERE %1$I IS NOT NULL OR %2$I IS NOT NULL %7$s) AS r',
        chosen.descriptor_column, chosen.image_column, chosen.model,
        copymatch.key_expression(chosen.key_column, chosen.further_key_columns), least(total, coalesce(sample, total)),
        chosen.relation,
        CASE WHEN sample IS NULL THEN '' ELSE format('ORDER BY random() LIMIT %s', sample) END)
    LOOP
        checked := checked + 1;
        CONTINUE WHEN found.lacks AND found.fresh IS NULL;
        IF found.lacks THEN
            missing := missing + 1;
        -- Another build of the library, another machine: the same image differs by a millionth.
        ELSIF found.fresh IS NULL OR @extschema@.vector_dims(found.descriptor) <> @extschema@.vector_dims(found.fresh)
                OR found.descriptor OPERATOR(@extschema@.<=>) found.fresh > 0.01 THEN
            differing := differing + 1;
        ELSE
            CONTINUE;
        END IF;
        IF mend THEN
            EXECUTE format('UPDATE %s SET %I = $1 WHERE tableoid = $2 AND ctid = $3', chosen.relation,
                chosen.descriptor_column)
                USING found.fresh, found.part, found.place;
            GET DIAGNOSTICS changed = ROW_COUNT;
            mended := mended + changed;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.copy_check_set(text, bigint, boolean) IS
    'compares the descriptors of a set with its images, all or a random sample of rows, and writes those that are '
    'missing or of another image (mend => false: only counts them). For the owner of the set''s relation';

CREATE FUNCTION @extschema@.copy_undescribed(
    reference_set text DEFAULT copymatch.default_set(), most integer DEFAULT 1000)
    RETURNS TABLE (reference text, reason text)
    LANGUAGE plpgsql STABLE ROWS 100 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_undescribed.reference_set);
BEGIN
    IF most IS NULL OR most < 1 THEN
        PERFORM copymatch.refuse('22023', pg_catalog.format('most is %s', coalesce(most::text, 'NULL')),
            'It is the number of rows to return at most, 1 or more.');
    END IF;
    RETURN QUERY EXECUTE pg_catalog.format(
        'SELECT r.reference, CASE WHEN %L THEN %L WHEN r.image IS NULL THEN %L ELSE coalesce(i.reason, %L) END
         FROM (%s) AS r LEFT JOIN LATERAL @extschema@.copy_image_info(r.image) AS i ON r.image IS NOT NULL
         WHERE r.descriptor IS NULL LIMIT %s',
        chosen.image_column IS NULL, 'the set has no image column to make descriptors of', 'no image',
        'not embedded yet: CALL copy_fill_set does it', copymatch.reference_query(chosen.name), most);
END $$;
COMMENT ON FUNCTION @extschema@.copy_undescribed(text, integer) IS
    'references of a set that have no descriptor and are not found, and why: no image, an image that cannot be matched '
    '(reason as copy_image_info gives it), or not embedded yet. At most so many rows (most). Reads with the caller''s '
    'rights, and decodes these images';
