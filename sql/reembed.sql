-- Another model for a set, while it is searched: a second descriptor column, filled in
-- committed batches, then a switch.
CREATE FUNCTION copymatch.start_reembed(reference_set text, model text, batch integer, calibration bigint) RETURNS void
    AS 'MODULE_PATHNAME', 'start_reembed_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.start_reembed(text, text, integer, bigint) IS
    'adds the new descriptor column and records the re-embedding, or takes one up again; the caller '
    'must own the set''s relation';

-- Embedding is dear, and PostgreSQL would compile each batch's plan for it.
CREATE FUNCTION copymatch.reembed_batch(set_name text, batch integer) RETURNS boolean
    AS 'MODULE_PATHNAME', 'reembed_batch_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE SET jit = off;
COMMENT ON FUNCTION copymatch.reembed_batch(text, integer) IS
    'embeds the next batch of a set''s images into the new column, as the table''s owner; false when none is left';

CREATE FUNCTION copymatch.missing_indexes(set_name text)
    RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    -- The new column needs an index on every leaf where the old one has one.
    WITH job AS (SELECT s.relation, r.* FROM copymatch.reembedding r
        JOIN copymatch.reference_set s ON s.name = r.reference_set WHERE r.reference_set = set_name),
         leaf AS (SELECT p.relid::oid AS oid FROM job, pg_catalog.pg_partition_tree(job.relation) p WHERE p.isleaf
                  UNION SELECT c.oid FROM job JOIN pg_catalog.pg_class c ON c.oid = job.relation AND c.relkind = 'r'),
         served AS (SELECT i.indrelid, a.attname, pg_catalog.bool_or(i.indisvalid) AS valid FROM leaf
                    JOIN pg_catalog.pg_index i ON i.indrelid = leaf.oid AND i.indpred IS NULL
                    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                    JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'ivf'
                    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    GROUP BY i.indrelid, a.attname)
    SELECT pg_catalog.array_agg(pg_catalog.format('CREATE INDEX CONCURRENTLY ON %s USING ivf (%I %s)',
        leaf.oid::regclass, job.descriptor_column, copymatch.cosine_class(job.relation, job.descriptor_column))
            ORDER BY leaf.oid)
    FROM job CROSS JOIN leaf
    WHERE EXISTS (SELECT FROM served s WHERE s.indrelid = leaf.oid AND s.attname = job.old_descriptor_column
      AND s.valid)
      AND NOT EXISTS (SELECT FROM served s WHERE s.indrelid = leaf.oid AND s.attname = job.descriptor_column
          AND s.valid)
$$;
COMMENT ON FUNCTION copymatch.missing_indexes(text) IS
    'the statements that build the indexes which the new column of a re-embedding still lacks; NULL: none';

CREATE FUNCTION copymatch.switch_reembed(set_name text) RETURNS void
    AS 'MODULE_PATHNAME', 'switch_reembed_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.switch_reembed(text) IS
    'lets a set be searched by its new column, model and calibration: all three from one commit on';

CREATE PROCEDURE @extschema@.copy_reembed(
    reference_set text, model text DEFAULT NULL, batch integer DEFAULT 100, calibration bigint DEFAULT NULL,
    build_index boolean DEFAULT false)
    AS 'MODULE_PATHNAME', 'copy_reembed_wrapper' LANGUAGE c;
COMMENT ON PROCEDURE @extschema@.copy_reembed(text, text, integer, bigint, boolean) IS
    'goes over to another model while the set is searched and written: fills a new descriptor column, committing every '
    'batch images; after an interruption the next CALL goes on. When the column is full it either builds the index '
    '(build_index: writers wait) or ends with a NOTICE that has the CREATE INDEX CONCURRENTLY, and the next CALL '
    'switches. copymatch.progress shows how far it is. Not inside a transaction block';

CREATE FUNCTION @extschema@.copy_revert_reembed(reference_set text) RETURNS text
    AS 'MODULE_PATHNAME', 'copy_revert_reembed_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_revert_reembed(text) IS
    'goes a step back. After the switch: searches use the old model, column and calibration again, both columns are '
    'kept current, and CALL copy_reembed switches anew (reverted). Before the switch, or a second time: the new '
    'column is dropped and the re-embedding forgotten (dropped)';

CREATE FUNCTION @extschema@.copy_finish_reembed(reference_set text) RETURNS void
    AS 'MODULE_PATHNAME', 'copy_finish_reembed_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_finish_reembed(text) IS
    'ends a re-embedding: the old descriptor column goes, and with it its index, and the new one takes its name, '
    'unless another set uses it';

CREATE VIEW copymatch.progress AS
    WITH at_work AS (
        SELECT a.pid, l.relation FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_locks l ON l.pid = a.pid
        WHERE a.datname = pg_catalog.current_database() AND l.mode = 'RowExclusiveLock'
          AND l.relation IN ('copymatch.reembedding'::regclass, 'copymatch.filling'::regclass))
    SELECT 're-embedding'::text AS job, r.reference_set, r.state, r.model, r.done, r.total,
           (pg_catalog.round(100.0 * r.done / nullif(r.total, 0), 1))::double precision AS percent,
           s.rate AS per_second,
           CASE WHEN r.state = 'filling' AND s.rate > 0
               THEN pg_catalog.make_interval(secs => greatest(r.total - r.done, 0) / s.rate) END AS remaining,
           r.started, r.updated,
               (SELECT w.pid FROM at_work w WHERE w.pid = r.pid AND w.relation = 'copymatch.reembedding'::regclass
                   LIMIT 1) AS pid
    FROM copymatch.reembedding r
         CROSS JOIN LATERAL (SELECT (r.done - r.done_before) / nullif(extract(epoch FROM r.updated - r.resumed)::double
             precision, 0)) AS s(rate)
    UNION ALL
    SELECT 'filling', f.reference_set, 'filling', f.model, f.done + f.skipped, f.total,
           (pg_catalog.round(100.0 * (f.done + f.skipped) / nullif(f.total, 0), 1))::double precision, s.rate,
           CASE WHEN s.rate > 0
               THEN pg_catalog.make_interval(secs => greatest(f.total - f.done - f.skipped, 0) / s.rate) END,
           f.started, f.updated,
               (SELECT w.pid FROM at_work w WHERE w.pid = f.pid AND w.relation = 'copymatch.filling'::regclass LIMIT 1)
    FROM copymatch.filling f
         CROSS JOIN LATERAL (SELECT (f.done + f.skipped) / nullif(extract(epoch FROM f.updated - f.started)::double
             precision, 0)) AS s(rate);
COMMENT ON VIEW copymatch.progress IS
    'long jobs (copy_reembed, copy_fill_set) and how far they are, by their last commit: images done, images a second '
    'and the remaining time at that rate; pid: the backend at work, NULL when none is';
GRANT SELECT ON copymatch.progress TO PUBLIC;
