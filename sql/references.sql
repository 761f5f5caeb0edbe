-- References out of use: disabled by a person, or quarantined because they match too much.
CREATE FUNCTION @extschema@.copy_disable_reference(
    reference_set text, reference text, reason text DEFAULT NULL, until timestamptz DEFAULT NULL,
    quarantine boolean DEFAULT false)
    RETURNS void AS 'MODULE_PATHNAME', 'copy_disable_reference_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_disable_reference(text, text, text, timestamptz, boolean) IS
    'takes a reference out of use: searches leave it out and still return k rows. until: when it comes back by itself; '
    'quarantine: recorded as one that matched too much';

CREATE FUNCTION @extschema@.copy_enable_reference(reference_set text, reference text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'copy_enable_reference_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_enable_reference(text, text) IS
    'takes a disabled or quarantined reference into use again; returns whether it was out of use';

CREATE FUNCTION copymatch.quarantine_reference(reference_set text, reference text, reason text, until timestamptz)
    RETURNS void AS 'MODULE_PATHNAME', 'quarantine_reference_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.quarantine_reference(text, text, text, timestamptz) IS
    'writer behind copy_quarantine; the caller must own the set''s relation';

CREATE FUNCTION @extschema@.copy_quarantine(
    reference_set text DEFAULT NULL, within interval DEFAULT '1 day', at_least integer DEFAULT 100,
    times double precision DEFAULT 10, history interval DEFAULT '30 days', until timestamptz DEFAULT NULL,
    dry_run boolean DEFAULT false)
    RETURNS TABLE (set_name text, reference text, uploads bigint, usual double precision, reason text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF within IS NULL OR within <= '0' OR history IS NULL OR history < '0' OR at_least IS NULL OR at_least < 1
            OR times IS NULL OR times < 1 THEN
        PERFORM copymatch.refuse('22023',
            'copy_quarantine needs a positive interval, at_least 1 or more and times 1 or more',
            'copy_quarantine(within => ''1 day'', at_least => 100, times => 10, history => ''30 days'')');
    END IF;
    IF pg_catalog.to_regclass('copymatch.finding') IS NULL THEN
        PERFORM copymatch.refuse('42P01', 'there are no findings to judge references by',
            'copy_quarantine reads copymatch.finding, which flagging fills.');
    END IF;
    IF copy_quarantine.reference_set IS NOT NULL THEN
        PERFORM copymatch.find_set(copy_quarantine.reference_set);
    END IF;
    FOR set_name, reference, uploads, usual IN EXECUTE
        -- Of the window: uploads found, and reviewers' opinion. Of the time before: uploads found
        -- in a window of that length.
        'WITH recent AS (
             SELECT f.set_id, f.reference, pg_catalog.count(DISTINCT (f.relation, f.upload)) AS uploads,
                    pg_catalog.count(*) FILTER (WHERE f.state = ''confirmed'') AS confirmed,
                    pg_catalog.count(*) FILTER (WHERE f.state = ''dismissed'') AS dismissed
             FROM copymatch.finding f
             WHERE f.found > pg_catalog.now() - $2 AND f.verdict <> ''different''
             AND ($1 IS NULL OR f.reference_set = $1)
             GROUP BY f.set_id, f.reference HAVING pg_catalog.count(DISTINCT (f.relation, f.upload)) >= $3)
         SELECT s.name, r.reference, r.uploads, b.usual
         FROM recent r
              JOIN copymatch.reference_set s ON s.id = r.set_id
              JOIN pg_catalog.pg_class c ON c.oid = s.relation AND pg_catalog.pg_has_role(c.relowner, ''USAGE'')
              CROSS JOIN LATERAL (
                  SELECT pg_catalog.count(DISTINCT (f.relation, f.upload))
                         * extract(epoch FROM $2)::float8 / greatest(extract(epoch FROM $5)::float8,
                             extract(epoch FROM $2)::float8) AS usual
                  FROM copymatch.finding f
                  WHERE f.reference_set = s.name AND f.set_id = s.id AND f.reference = r.reference
                  AND f.verdict <> ''different''
                    AND f.found <= pg_catalog.now() - $2 AND f.found > pg_catalog.now() - $2 - $5) b
         WHERE r.uploads >= $4 * b.usual AND r.confirmed <= r.dismissed
           AND NOT EXISTS (SELECT FROM copymatch.reference_status x WHERE x.reference_set = s.name
           AND x.reference = r.reference)
         ORDER BY r.uploads DESC, s.name, r.reference'
        USING copy_quarantine.reference_set, within, at_least, times, history LOOP
        reason := pg_catalog.format('%s uploads within %s, usually %s', uploads, within,
            pg_catalog.round(usual::numeric, 1));
        IF NOT dry_run THEN
            PERFORM copymatch.quarantine_reference(copy_quarantine.set_name, copy_quarantine.reference,
                copy_quarantine.reason, copy_quarantine.until);
            -- Everybody may listen: which reference it is, copymatch.reference_status tells those who may see it.
            PERFORM pg_catalog.pg_notify('copymatch_quarantine',
                pg_catalog.json_build_object('reference_set', set_name)::text);
            RAISE WARNING 'reference % of set "%" is quarantined: %', reference, set_name, reason
                USING HINT = pg_catalog.format('Look at it, then copy_enable_reference(%L, %L) or leave it out.',
                    set_name, reference);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.copy_quarantine(
    text, interval, integer, double precision, interval, timestamptz, boolean) IS
    'takes references out of use that suddenly match everything: found for at_least uploads within the interval, times '
    'as many as usual in the history before it, and not more often confirmed than dismissed by reviewers. Reports '
    'each with a WARNING, a NOTIFY copymatch_quarantine and a row; of the sets that the caller '
    'owns. dry_run: only lists them';
