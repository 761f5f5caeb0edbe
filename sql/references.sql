-- References out of use: disabled by a person, or quarantined because they match too much.
CREATE FUNCTION copymatch.has_reference(chosen copymatch.reference_set, reference text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    type_name text;
    found boolean;
BEGIN
    -- Compared as the column's own type, so that the key's index serves.
    IF pg_catalog.cardinality(chosen.further_key_columns) = 0 THEN
        SELECT pg_catalog.format_type(a.atttypid, NULL) INTO type_name FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = chosen.relation AND a.attname = chosen.key_column AND NOT a.attisdropped;
        EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM %s AS r WHERE r.%I = CAST($1 AS %s))', chosen.relation, chosen.key_column, type_name)
            INTO found USING reference;
    ELSE
        EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM %s AS r WHERE %s = $1)', chosen.relation,
                                  copymatch.key_expression(chosen.key_column, chosen.further_key_columns)) INTO found USING reference;
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION copymatch.has_reference(copymatch.reference_set, text) IS 'whether the set''s relation has a row with this key';

CREATE FUNCTION copy_disable_reference(reference_set text, reference text, reason text DEFAULT NULL, until timestamptz DEFAULT NULL,
                                       quarantine boolean DEFAULT false) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_disable_reference.reference_set);
    owned boolean;
BEGIN
    IF copy_disable_reference.reference IS NULL OR quarantine IS NULL THEN
        RAISE EXCEPTION 'copy_disable_reference needs a reference' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') INTO owned FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation;
    IF owned IS NOT TRUE THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT copymatch.has_reference(chosen, copy_disable_reference.reference) THEN
        RAISE EXCEPTION 'reference set "%" has no reference %', chosen.name, copy_disable_reference.reference
            USING ERRCODE = 'undefined_object', HINT = 'Give the key as copy_match returns it; that of a composite key looks like (1,"x y").';
    END IF;
    INSERT INTO copymatch.reference_status AS s (reference_set, reference, state, reason, until)
        VALUES (chosen.name, copy_disable_reference.reference, CASE WHEN quarantine THEN 'quarantined' ELSE 'disabled' END,
                copy_disable_reference.reason, copy_disable_reference.until)
        ON CONFLICT ON CONSTRAINT reference_status_pkey
        DO UPDATE SET state = excluded.state, reason = excluded.reason, until = excluded.until, since = excluded.since, by = excluded.by;
END $$;
COMMENT ON FUNCTION copy_disable_reference(text, text, text, timestamptz, boolean) IS 'takes a reference out of use: searches leave it out and still return k rows. until: when it comes back by itself; quarantine: recorded as one that matched too much';

CREATE FUNCTION copy_enable_reference(reference_set text, reference text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_enable_reference.reference_set);
    owned boolean;
BEGIN
    SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') INTO owned FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation;
    IF owned IS NOT TRUE THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM copymatch.reference_status s WHERE s.reference_set = chosen.name AND s.reference = copy_enable_reference.reference;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION copy_enable_reference(text, text) IS 'takes a disabled or quarantined reference into use again; returns whether it was out of use';

CREATE FUNCTION copy_quarantine(reference_set text DEFAULT NULL, within interval DEFAULT '1 day', at_least integer DEFAULT 100,
                                times double precision DEFAULT 10, history interval DEFAULT '30 days', until timestamptz DEFAULT NULL,
                                dry_run boolean DEFAULT false)
    RETURNS TABLE (set_name text, reference text, uploads bigint, usual double precision, reason text) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF within IS NULL OR within <= '0' OR history IS NULL OR history < '0' OR at_least IS NULL OR at_least < 1 OR times IS NULL OR times < 1 THEN
        RAISE EXCEPTION 'copy_quarantine needs a positive interval, at_least 1 or more and times 1 or more' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pg_catalog.to_regclass('copymatch.finding') IS NULL THEN
        RAISE EXCEPTION 'there are no findings to judge references by'
            USING ERRCODE = 'undefined_table', HINT = 'copy_quarantine reads copymatch.finding, which flagging fills.';
    END IF;
    IF copy_quarantine.reference_set IS NOT NULL THEN
        PERFORM copymatch.find_set(copy_quarantine.reference_set);
    END IF;
    FOR set_name, reference, uploads, usual IN EXECUTE
        -- Of the window: uploads found, and reviewers' opinion. Of the time before: uploads found in a window of that length.
        'WITH recent AS (
             SELECT f.reference_set, f.reference, pg_catalog.count(DISTINCT (f.relation, f.upload)) AS uploads,
                    pg_catalog.count(*) FILTER (WHERE f.state = ''confirmed'') AS confirmed,
                    pg_catalog.count(*) FILTER (WHERE f.state = ''dismissed'') AS dismissed
             FROM copymatch.finding f
             WHERE f.found > pg_catalog.now() - $2 AND f.verdict <> ''different'' AND ($1 IS NULL OR f.reference_set = $1)
             GROUP BY f.reference_set, f.reference HAVING pg_catalog.count(DISTINCT (f.relation, f.upload)) >= $3)
         SELECT r.reference_set, r.reference, r.uploads, b.usual
         FROM recent r
              JOIN copymatch.reference_set s ON s.name = r.reference_set
              JOIN pg_catalog.pg_class c ON c.oid = s.relation AND pg_catalog.pg_has_role(c.relowner, ''USAGE'')
              CROSS JOIN LATERAL (
                  SELECT pg_catalog.count(DISTINCT (f.relation, f.upload))
                         * extract(epoch FROM $2)::float8 / greatest(extract(epoch FROM $5)::float8, extract(epoch FROM $2)::float8) AS usual
                  FROM copymatch.finding f
                  WHERE f.reference_set = r.reference_set AND f.reference = r.reference AND f.verdict <> ''different''
                    AND f.found <= pg_catalog.now() - $2 AND f.found > pg_catalog.now() - $2 - $5) b
         WHERE r.uploads >= $4 * b.usual AND r.confirmed <= r.dismissed
           AND NOT EXISTS (SELECT FROM copymatch.reference_status x WHERE x.reference_set = r.reference_set AND x.reference = r.reference)
         ORDER BY r.uploads DESC, r.reference_set, r.reference'
        USING copy_quarantine.reference_set, within, at_least, times, history LOOP
        reason := pg_catalog.format('%s uploads within %s, usually %s', uploads, within, pg_catalog.round(usual::numeric, 1));
        IF NOT dry_run THEN
            INSERT INTO copymatch.reference_status AS s (reference_set, reference, state, reason, until)
                VALUES (copy_quarantine.set_name, copy_quarantine.reference, 'quarantined', copy_quarantine.reason, copy_quarantine.until);
            PERFORM pg_catalog.pg_notify('copymatch_quarantine', pg_catalog.left(pg_catalog.json_build_object(
                'reference_set', set_name, 'reference', reference, 'uploads', uploads, 'usual', usual)::text, 7900));
            RAISE WARNING 'reference % of set "%" is quarantined: %', reference, set_name, reason
                USING HINT = pg_catalog.format('Look at it, then copy_enable_reference(%L, %L) or leave it out.', set_name, reference);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION copy_quarantine(text, interval, integer, double precision, interval, timestamptz, boolean) IS 'takes references out of use that suddenly match everything: found for at_least uploads within the interval, times as many as usual in the history before it, and not more often confirmed than dismissed by reviewers. Reports each with a WARNING, a NOTIFY copymatch_quarantine and a row; of the sets that the caller owns. dry_run: only lists them';
