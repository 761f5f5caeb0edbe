-- Another model for a set, while it is searched: a second descriptor column, filled in committed batches, then a switch.
CREATE FUNCTION copymatch.begin_reembed(set_name text, new_model text, new_calibration bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(set_name);
    kind "char";
    owned boolean;
    dims integer;
    other text;
    base text;
    col text;
    tried integer := 1;
BEGIN
    SELECT c.relkind, pg_catalog.pg_has_role(c.relowner, 'USAGE') INTO kind, owned FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation;
    IF owned IS NOT TRUE THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF chosen.image_column IS NULL OR kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'reference set "%" has no images in a table', chosen.name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Re-embed the tables behind it, and make the set again over their new columns.';
    END IF;
    IF new_model IS NULL THEN
        RAISE EXCEPTION 'copy_reembed needs a model' USING ERRCODE = 'null_value_not_allowed', HINT = 'SELECT name FROM copymatch.models lists them.';
    END IF;
    SELECT m.dimensions INTO dims FROM copymatch.model m WHERE m.name = new_model;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model "%" does not exist', new_model
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM copymatch.models lists them.';
    END IF;
    IF new_model = chosen.model THEN
        RAISE EXCEPTION 'the descriptors of reference set "%" are from model "%" already', chosen.name, new_model
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF new_calibration IS NULL THEN
        SELECT pg_catalog.max(c.id) INTO new_calibration FROM copymatch.calibration c WHERE c.model = new_model AND c.reference_set IS NULL;
        IF new_calibration IS NULL THEN
            RAISE EXCEPTION 'model "%" has no calibration', new_model
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Add the model with its background descriptors and a calibration.';
        END IF;
    ELSIF NOT EXISTS (SELECT FROM copymatch.calibration c WHERE c.id = new_calibration AND c.model = new_model
                     AND (c.reference_set IS NULL OR c.reference_set = chosen.name)) THEN
        RAISE EXCEPTION 'model "%" has no calibration %', new_model, new_calibration USING ERRCODE = 'undefined_object';
    END IF;
    SELECT p.relid::regclass::text INTO other FROM pg_catalog.pg_partition_tree(chosen.relation) p
        JOIN pg_catalog.pg_class c ON c.oid = p.relid WHERE c.relkind NOT IN ('r', 'p') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'partition % is no table', other USING ERRCODE = 'wrong_object_type';
    END IF;

    base := pg_catalog.left('descriptor_' || pg_catalog.translate(new_model, '.-', '__'), 60);
    col := base;
    WHILE EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = chosen.relation AND a.attname = col AND NOT a.attisdropped) LOOP
        tried := tried + 1;
        col := base || tried;
    END LOOP;
    -- The table is locked for a moment: whoever writes to it afterwards sees the row below, and keeps both columns.
    EXECUTE pg_catalog.format('ALTER TABLE %s ADD COLUMN %I @extschema@.vector(%s)', chosen.relation, col, dims);
    IF dims <= 480 THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE PLAIN', chosen.relation, col);
    END IF;
    EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', chosen.relation, col,
                              pg_catalog.format('descriptor of the image by model %s; kept by copymatch', new_model));
    PERFORM copymatch.make_trigger(chosen);
    INSERT INTO copymatch.reembedding (reference_set, model, calibration, descriptor_column, old_model, old_calibration, old_descriptor_column)
        VALUES (chosen.name, new_model, new_calibration, col, chosen.model, chosen.calibration, chosen.descriptor_column);
END $$;
COMMENT ON FUNCTION copymatch.begin_reembed(text, text, bigint) IS 'adds the new descriptor column and records the re-embedding';

CREATE FUNCTION copymatch.find_reembedding(set_name text) RETURNS copymatch.reembedding LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    job copymatch.reembedding;
BEGIN
    PERFORM copymatch.find_set(set_name);
    SELECT * INTO job FROM copymatch.reembedding r WHERE r.reference_set = set_name FOR UPDATE;
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM copymatch.reembedding r WHERE r.reference_set = set_name) THEN
            RAISE EXCEPTION 'must own the relation of reference set "%"', set_name USING ERRCODE = 'insufficient_privilege';
        END IF;
        RAISE EXCEPTION 'reference set "%" is not being re-embedded', set_name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'CALL copy_reembed(set, model) begins it.';
    END IF;
    RETURN job;
END $$;
COMMENT ON FUNCTION copymatch.find_reembedding(text) IS 'the record of a set''s re-embedding, locked, or an error';

-- Embedding is dear, and PostgreSQL would compile each batch's plan for it.
CREATE FUNCTION copymatch.reembed_batch(set_name text, batch integer) RETURNS boolean LANGUAGE plpgsql VOLATILE SET jit = off AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(set_name);
    -- Two callers take turns: each batch reads where the last one ended.
    job copymatch.reembedding := copymatch.find_reembedding(set_name);
    key text := copymatch.key_expression(chosen.key_column, chosen.further_key_columns);
    leaves oid[];
    rows tid[];
    filled bigint;
BEGIN
    IF job.state <> 'filling' THEN
        RETURN false;
    END IF;
    IF job.total IS NULL THEN
        EXECUTE pg_catalog.format('SELECT count(*) FROM %s AS r WHERE r.%I IS NOT NULL', chosen.relation, chosen.image_column) INTO job.total;
    END IF;
    -- A table that is no partition tree is its own only leaf.
    SELECT pg_catalog.array_agg(u.leaf ORDER BY u.leaf) INTO leaves FROM (
        SELECT p.relid::oid FROM pg_catalog.pg_partition_tree(chosen.relation) p WHERE p.isleaf
        UNION SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation AND c.relkind = 'r') AS u(leaf);
    IF job.part IS NULL OR NOT job.part::oid = ANY (leaves) THEN
        job.part := leaves[1];
        job.position := '(0,0)';
    END IF;
    LOOP
        -- In the order of the table. Whoever could not be embedded in the first pass is not tried again; whoever has the old
        -- descriptor is.
        EXECUTE pg_catalog.format('SELECT pg_catalog.array_agg(u.ctid) FROM (SELECT r.ctid FROM ONLY %s AS r WHERE r.ctid > $1 AND r.%I IS NULL AND r.%I IS NOT NULL%s LIMIT $2) AS u',
                                  job.part, job.descriptor_column, chosen.image_column,
                                  CASE WHEN job.pass > 1 THEN pg_catalog.format(' AND r.%I IS NOT NULL', job.old_descriptor_column) ELSE '' END)
            INTO rows USING job.position, batch;
        EXIT WHEN rows IS NOT NULL;
        SELECT pg_catalog.min(u.leaf)::regclass INTO job.part FROM pg_catalog.unnest(leaves) AS u(leaf) WHERE u.leaf > job.part::oid;
        IF job.part IS NULL THEN
            -- Rows that others wrote anew meanwhile may lie behind: only a pass that finds nothing to do is the last.
            IF job.done_in_pass = 0 THEN
                job.state := 'indexing';
                EXIT;
            END IF;
            job.pass := job.pass + 1;
            job.done_in_pass := 0;
            job.part := leaves[1];
        END IF;
        job.position := '(0,0)';
    END LOOP;
    IF rows IS NOT NULL THEN
        -- A row whose image cannot be embedded is not written: it would come again behind the place that the pass has reached.
        EXECUTE pg_catalog.format('WITH embedded AS MATERIALIZED (SELECT r.ctid, copymatch.embed_reference(r.%3$I, %4$L, %5$s, %6$s) AS descriptor FROM ONLY %1$s AS r WHERE r.ctid = ANY ($1)), '
                                  'written AS (UPDATE ONLY %1$s AS r SET %2$I = e.descriptor FROM embedded e WHERE r.ctid = e.ctid AND r.%2$I IS NULL AND e.descriptor IS NOT NULL RETURNING 1) '
                                  'SELECT count(*) FROM written',
                                  job.part, job.descriptor_column, chosen.image_column, job.model, key, job.total)
            INTO filled USING rows;
        SELECT pg_catalog.max(u.place) INTO job.position FROM pg_catalog.unnest(rows) AS u(place);
        job.done := job.done + filled;
        job.done_in_pass := job.done_in_pass + filled;
    END IF;
    UPDATE copymatch.reembedding r
        SET state = job.state, total = job.total, done = job.done, pass = job.pass, done_in_pass = job.done_in_pass, part = job.part, position = job.position,
            updated = pg_catalog.clock_timestamp(), pid = pg_catalog.pg_backend_pid()
        WHERE r.reference_set = set_name;
    RETURN job.state = 'filling';
END $$;
COMMENT ON FUNCTION copymatch.reembed_batch(text, integer) IS 'embeds the next batch of a set''s images into the new column; false when none is left';

CREATE FUNCTION copymatch.missing_indexes(set_name text) RETURNS text[] LANGUAGE sql STABLE AS $$
    -- The new column needs an index on every leaf where the old one has one.
    WITH job AS (SELECT s.relation, r.* FROM copymatch.reembedding r JOIN copymatch.reference_set s ON s.name = r.reference_set WHERE r.reference_set = set_name),
         leaf AS (SELECT p.relid::oid AS oid FROM job, pg_catalog.pg_partition_tree(job.relation) p WHERE p.isleaf
                  UNION SELECT c.oid FROM job JOIN pg_catalog.pg_class c ON c.oid = job.relation AND c.relkind = 'r'),
         served AS (SELECT i.indrelid, a.attname, pg_catalog.bool_or(i.indisvalid) AS valid FROM leaf
                    JOIN pg_catalog.pg_index i ON i.indrelid = leaf.oid AND i.indpred IS NULL
                    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                    JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'ivf'
                    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    GROUP BY i.indrelid, a.attname)
    SELECT pg_catalog.array_agg(pg_catalog.format('CREATE INDEX CONCURRENTLY ON %s USING ivf (%I @extschema@.vector_cosine_ops)', leaf.oid::regclass, job.descriptor_column) ORDER BY leaf.oid)
    FROM job CROSS JOIN leaf
    WHERE EXISTS (SELECT FROM served s WHERE s.indrelid = leaf.oid AND s.attname = job.old_descriptor_column AND s.valid)
      AND NOT EXISTS (SELECT FROM served s WHERE s.indrelid = leaf.oid AND s.attname = job.descriptor_column AND s.valid)
$$;
COMMENT ON FUNCTION copymatch.missing_indexes(text) IS 'the statements that build the indexes which the new column of a re-embedding still lacks; NULL: none';

CREATE FUNCTION copymatch.fill_locked(chosen copymatch.reference_set, target name, other name, with_model text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    missing bigint;
BEGIN
    -- Readers go on, writers wait: after this nobody writes a row that has but one of the two descriptors.
    EXECUTE pg_catalog.format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', chosen.relation);
    EXECUTE pg_catalog.format('WITH embedded AS MATERIALIZED (SELECT r.tableoid, r.ctid, copymatch.embed_reference(r.%3$I, %4$L, %5$s, 0) AS descriptor FROM %1$s AS r WHERE r.%2$I IS NULL AND r.%6$I IS NOT NULL AND r.%3$I IS NOT NULL), '
                              'written AS (UPDATE %1$s AS r SET %2$I = e.descriptor FROM embedded e WHERE r.tableoid = e.tableoid AND r.ctid = e.ctid AND e.descriptor IS NOT NULL RETURNING 1) '
                              'SELECT (SELECT count(*) FROM embedded) - (SELECT count(*) FROM written)',
                              chosen.relation, target, chosen.image_column, with_model, copymatch.key_expression(chosen.key_column, chosen.further_key_columns), other)
        INTO missing;
    RETURN missing;
END $$;
COMMENT ON FUNCTION copymatch.fill_locked(copymatch.reference_set, name, name, text) IS 'locks a set''s table against writers and embeds what has one of two descriptors only; returns how many images the model refuses';

CREATE FUNCTION copymatch.switch_reembed(set_name text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(set_name);
    job copymatch.reembedding := copymatch.find_reembedding(set_name);
    missing bigint;
BEGIN
    missing := copymatch.fill_locked(chosen, job.descriptor_column, job.old_descriptor_column, job.model);
    IF missing > 0 THEN
        RAISE WARNING '% references of set "%" have no descriptor by model "%"', missing, set_name, job.model
            USING HINT = 'The warnings above name them.';
    END IF;
    UPDATE copymatch.reference_set s SET model = job.model, calibration = job.calibration, descriptor_column = job.descriptor_column WHERE s.name = set_name;
    UPDATE copymatch.reembedding r SET state = 'switched', pid = pg_catalog.pg_backend_pid() WHERE r.reference_set = set_name;
END $$;
COMMENT ON FUNCTION copymatch.switch_reembed(text) IS 'lets a set be searched by its new column, model and calibration: all three from one commit on';

CREATE PROCEDURE copy_reembed(reference_set text, model text DEFAULT NULL, batch integer DEFAULT 100, calibration bigint DEFAULT NULL,
                              build_index boolean DEFAULT false) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    job copymatch.reembedding;
    statements text[];
    statement text;
BEGIN
    IF batch IS NULL OR batch < 1 THEN
        RAISE EXCEPTION 'batch is %', coalesce(batch::text, 'NULL') USING ERRCODE = 'invalid_parameter_value', HINT = 'Images to embed between two commits: at least 1.';
    END IF;
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'copy_reembed runs at READ COMMITTED only' USING ERRCODE = 'invalid_transaction_state', HINT = 'SET default_transaction_isolation = ''read committed''.';
    END IF;
    PERFORM copymatch.find_set(copy_reembed.reference_set);
    SELECT * INTO job FROM copymatch.reembedding r WHERE r.reference_set = copy_reembed.reference_set;
    IF NOT FOUND THEN
        PERFORM copymatch.begin_reembed(copy_reembed.reference_set, copy_reembed.model, copy_reembed.calibration);
        COMMIT;
    ELSIF copy_reembed.model <> job.model THEN
        RAISE EXCEPTION 'reference set "%" is being re-embedded with model "%"', copy_reembed.reference_set, job.model
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Finish that, or give it up with copy_revert_reembed.';
    ELSIF job.state = 'switched' THEN
        RAISE EXCEPTION 'reference set "%" uses the descriptors of model "%" already', copy_reembed.reference_set, job.model
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'copy_finish_reembed drops the old column, copy_revert_reembed switches back.';
    END IF;
    job := copymatch.find_reembedding(copy_reembed.reference_set);
    UPDATE copymatch.reembedding r SET resumed = pg_catalog.clock_timestamp(), updated = pg_catalog.clock_timestamp(), done_before = r.done
        WHERE r.reference_set = copy_reembed.reference_set AND r.state = 'filling';
    COMMIT;
    WHILE copymatch.reembed_batch(copy_reembed.reference_set, batch) LOOP
        COMMIT;
    END LOOP;
    COMMIT;
    statements := copymatch.missing_indexes(copy_reembed.reference_set);
    IF statements IS NOT NULL AND NOT build_index THEN
        RAISE NOTICE 'all images of reference set "%" are embedded; the new column needs its index', copy_reembed.reference_set
            USING HINT = pg_catalog.format(E'A procedure cannot build it without blocking writers. Run:\n%s;\nCALL copy_reembed(%L);',
                                           pg_catalog.array_to_string(statements, E';\n'), copy_reembed.reference_set);
        RETURN;
    END IF;
    FOREACH statement IN ARRAY coalesce(statements, '{}') LOOP
        EXECUTE pg_catalog.replace(statement, 'CREATE INDEX CONCURRENTLY ON ', 'CREATE INDEX ON ');
        COMMIT;
    END LOOP;
    PERFORM copymatch.switch_reembed(copy_reembed.reference_set);
    COMMIT;
    RAISE NOTICE 'reference set "%" uses model "%" now', copy_reembed.reference_set, (copymatch.find_set(copy_reembed.reference_set)).model
        USING HINT = pg_catalog.format('copy_finish_reembed(%1$L) drops the old column; until then copy_revert_reembed(%1$L) switches back.', copy_reembed.reference_set);
END $$;
COMMENT ON PROCEDURE copy_reembed(text, text, integer, bigint, boolean) IS 'goes over to another model while the set is searched and written: fills a new descriptor column, committing every batch images; after an interruption the next CALL goes on. When the column is full it either builds the index (build_index: writers wait) or ends with a NOTICE that has the CREATE INDEX CONCURRENTLY, and the next CALL switches. copymatch.progress shows how far it is';

CREATE FUNCTION copy_revert_reembed(reference_set text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
    job copymatch.reembedding := copymatch.find_reembedding(reference_set);
BEGIN
    IF job.state = 'switched' THEN
        PERFORM copymatch.fill_locked(chosen, job.old_descriptor_column, job.descriptor_column, job.old_model);
        UPDATE copymatch.reference_set s SET model = job.old_model, calibration = job.old_calibration, descriptor_column = job.old_descriptor_column
            WHERE s.name = chosen.name;
        UPDATE copymatch.reembedding r SET state = 'reverted' WHERE r.reference_set = chosen.name;
        RETURN 'reverted';
    END IF;
    DELETE FROM copymatch.reembedding r WHERE r.reference_set = chosen.name;
    EXECUTE pg_catalog.format('ALTER TABLE %s DROP COLUMN %I', chosen.relation, job.descriptor_column);
    RETURN 'dropped';
END $$;
COMMENT ON FUNCTION copy_revert_reembed(text) IS 'goes a step back. After the switch: searches use the old model, column and calibration again, both columns are kept current, and CALL copy_reembed switches anew (reverted). Before the switch, or a second time: the new column is dropped and the re-embedding forgotten (dropped)';

CREATE FUNCTION copy_finish_reembed(reference_set text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
    job copymatch.reembedding := copymatch.find_reembedding(reference_set);
BEGIN
    IF job.state <> 'switched' THEN
        RAISE EXCEPTION 'reference set "%" does not use the new descriptors yet', chosen.name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'CALL copy_reembed goes on, copy_revert_reembed gives it up.';
    END IF;
    DELETE FROM copymatch.reembedding r WHERE r.reference_set = chosen.name;
    IF EXISTS (SELECT FROM copymatch.reference_set s WHERE s.relation = chosen.relation AND s.descriptor_column = job.old_descriptor_column)
       OR EXISTS (SELECT FROM copymatch.reembedding r JOIN copymatch.reference_set s ON s.name = r.reference_set
                  WHERE s.relation = chosen.relation AND job.old_descriptor_column IN (r.descriptor_column, r.old_descriptor_column)) THEN
        PERFORM copymatch.serve_columns(chosen.relation);
        RAISE NOTICE 'column "%" stays: other reference sets use it', job.old_descriptor_column;
    ELSE
        EXECUTE pg_catalog.format('ALTER TABLE %s DROP COLUMN %I', chosen.relation, job.old_descriptor_column);
    END IF;
END $$;
COMMENT ON FUNCTION copy_finish_reembed(text) IS 'ends a re-embedding: the old descriptor column goes, and with it its index, unless another set uses it';

CREATE VIEW copymatch.progress AS
    SELECT 're-embedding'::text AS job, r.reference_set, r.state, r.model, r.done, r.total,
           (pg_catalog.round(100.0 * r.done / nullif(r.total, 0), 1))::double precision AS percent,
           s.rate AS per_second,
           CASE WHEN r.state = 'filling' AND s.rate > 0 THEN pg_catalog.make_interval(secs => greatest(r.total - r.done, 0) / s.rate) END AS remaining,
           r.started, r.updated, a.pid
    FROM copymatch.reembedding r
         CROSS JOIN LATERAL (SELECT (r.done - r.done_before) / nullif(extract(epoch FROM r.updated - r.resumed)::double precision, 0)) AS s(rate)
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = r.pid AND a.datname = pg_catalog.current_database()
              AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = r.pid AND l.relation = 'copymatch.reembedding'::regclass AND l.mode = 'RowExclusiveLock');
COMMENT ON VIEW copymatch.progress IS 'long jobs and how far they are, by their last commit: images done, images a second and the remaining time at that rate; pid: the backend at work, NULL when none is';
GRANT SELECT ON copymatch.progress TO PUBLIC;
