-- What an operator asks first when something is not as it should be.
CREATE FUNCTION copymatch.set_health(name text, OUT sampled bigint, OUT missing bigint, OUT trouble text)
    AS 'MODULE_PATHNAME', 'set_health_wrapper' LANGUAGE c VOLATILE STRICT;
COMMENT ON FUNCTION copymatch.set_health(text) IS
    'of a set: rows of a sample and those of them that have an image and no descriptor, read as the relation''s owner; '
    'why it cannot be searched, or NULL';
REVOKE ALL ON FUNCTION copymatch.set_health(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION copymatch.set_health(text) TO copymatch_admin;

CREATE FUNCTION copymatch.flagging_health(relation oid, trigger_name text) RETURNS text
    AS 'MODULE_PATHNAME', 'flagging_health_wrapper' LANGUAGE c VOLATILE STRICT;
COMMENT ON FUNCTION copymatch.flagging_health(oid, text) IS
    'why a flagging trigger would fail at the next upload, or NULL';
REVOKE ALL ON FUNCTION copymatch.flagging_health(oid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION copymatch.flagging_health(oid, text) TO copymatch_admin;

CREATE FUNCTION copymatch.test_picture()
    RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    -- A BMP of 32 x 32: red grows to the right, green upwards, blue in squares.
    SELECT decode('424d360c000000000000360000002800000020000000200000000100180000000000000c0000'
                  '00000000000000000000000000000000', 'hex')
        || decode((SELECT string_agg(lpad(to_hex((x / 4 + y / 4) % 2 * 255), 2, '0') || lpad(to_hex(y * 8), 2, '0')
                                     || lpad(to_hex(x * 8), 2, '0'), '' ORDER BY y, x)
                   FROM generate_series(0, 31) x, generate_series(0, 31) y), 'hex')
$$;
COMMENT ON FUNCTION copymatch.test_picture() IS 'a small picture for copy_doctor to embed';

CREATE FUNCTION @extschema@.copy_doctor()
    RETURNS TABLE ("check" text, subject text, state text, message text, hint text) LANGUAGE plpgsql VOLATILE
    -- It looks, and waits for nobody.
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
#variable_conflict use_column
DECLARE
    found record;
    health record;
    told text;
    told_hint text;
    number bigint;
    installed text := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'copymatch');
    available text := (SELECT a.default_version FROM pg_available_extensions a WHERE a.name = 'copymatch');
    embedded @extschema@.vector;
    workers bigint := (SELECT count(*) FROM pg_stat_activity a WHERE a.backend_type = 'copymatch queue worker'
        AND a.datname = current_database());
BEGIN
    "check" := 'version'; subject := 'extension';
    IF installed = available THEN
        RETURN QUERY SELECT "check", subject, 'ok',
            format('%s on PostgreSQL %s', installed, current_setting('server_version')), NULL::text;
    ELSE
        RETURN QUERY SELECT "check", subject, 'error',
            format('the database has %s, the library is of %s', installed, coalesce(available, 'no version at all')),
            'ALTER EXTENSION copymatch UPDATE;';
    END IF;

    "check" := 'model';
    FOR found IN SELECT m.name, m.dimensions, m.is_default, m.reference_sets FROM copymatch.models m
                 WHERE m.is_default OR m.reference_sets > 0 ORDER BY m.name LOOP
        BEGIN
            embedded := @extschema@.copy_embed(copymatch.test_picture(), found.name);
            IF @extschema@.vector_dims(embedded) = found.dimensions
                    AND abs(@extschema@.vector_norm(embedded) - 1) < 0.001 THEN
                RETURN QUERY SELECT "check", found.name, 'ok',
                    format('embeds; %s dimensions, execution_provider %s', found.dimensions,
                    current_setting('copymatch.execution_provider')), NULL::text;
            ELSE
                RETURN QUERY SELECT "check", found.name, 'error',
                    'its descriptors are not of unit length, or of another number of dimensions',
                        'Add the model anew, or use another.'::text;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS told = MESSAGE_TEXT, told_hint = PG_EXCEPTION_HINT;
            RETURN QUERY SELECT "check", found.name, 'error', told, nullif(told_hint, '');
        END;
    END LOOP;

    "check" := 'service'; subject := 'path';
    SELECT * INTO found FROM copymatch.service_status();
    IF found.path = 'session' AND found.state IN ('missing', 'stopped', 'failing') THEN
        RETURN QUERY SELECT "check", subject, 'error',
            format('the embedding service does not run: %s', found.path_reason),
            coalesce(found.last_trouble,
                'Install copymatch again (copymatch/copymatch-encoder beside copymatch.so); see that '
                'max_worker_processes has room.');
    ELSIF found.path = 'session' THEN
        RETURN QUERY SELECT "check", subject, 'ok',
            format('each session loads the network for itself: %s', found.path_reason), NULL::text;
    ELSIF found.state <> 'running' THEN
        RETURN QUERY SELECT "check", subject, 'error', format('the embedding service is %s', found.state),
            coalesce(found.last_trouble, 'The server log says more.');
    ELSE
        RETURN QUERY SELECT "check", subject, 'ok',
            format('images go through the service: %s, %s threads, %s models loaded',
                coalesce(found.provider, 'no model yet'),
            found.threads, found.models), NULL::text;
        IF found.restarts > 0 THEN
            RETURN QUERY SELECT "check", 'restarts'::text, 'warning',
                format('its process ended %s times since the server''s start; last: %s', found.restarts,
                    found.last_trouble),
                'The server log says when. An image that does it again and again is worth a report.'::text;
        END IF;
        SELECT * INTO health FROM copymatch.service_counters();
        IF health.queue_full > 0 THEN
            RETURN QUERY SELECT "check", 'slots'::text, 'warning',
                format('%s sessions found no free slot in time', health.queue_full),
                'Raise copymatch.service_slots, or lower the load; copymatch.service_stats shows it.'::text;
        END IF;
        IF health.timed_out > 0 THEN
            RETURN QUERY SELECT "check", 'timeouts'::text, 'warning',
                format('%s requests ended by copymatch.service_timeout (%s)', health.timed_out,
                    current_setting('copymatch.service_timeout')),
                'A device that hangs, or a limit that is too short for the model.'::text;
        END IF;
        IF current_setting('copymatch.threads')::integer > 1 THEN
            RETURN QUERY SELECT "check", 'copymatch.threads'::text, 'warning',
                format('is %s, and has no say: copymatch.service_threads is the service''s',
                    current_setting('copymatch.threads')),
                'RESET copymatch.threads;'::text;
        END IF;
    END IF;

    "check" := 'set';
    FOR found IN SELECT s.*, c.oid AS there, c.reltuples FROM copymatch.reference_set s
            LEFT JOIN pg_class c ON c.oid = s.relation ORDER BY s.name LOOP
        BEGIN
            SELECT * INTO health FROM copymatch.set_health(found.name);
            IF health.trouble IS NOT NULL THEN
                RETURN QUERY SELECT "check", found.name, 'error', health.trouble, NULL::text;
            ELSIF health.missing > 0 THEN
                RETURN QUERY SELECT "check", found.name, 'warning',
                    format('of %s rows looked at, %s have an image and no descriptor: they are never found',
                        health.sampled, health.missing),
                    format('CALL copy_fill_set(%L); where images may have changed without the trigger: SELECT * '
                           'FROM copy_check_set(%1$L)', found.name);
            ELSE
                RETURN QUERY SELECT "check", found.name, 'ok', CASE WHEN health.sampled IS NULL THEN 'can be searched'
                    ELSE format('can be searched; %s rows looked at, all with a descriptor', health.sampled) END,
                        NULL::text;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS told = MESSAGE_TEXT, told_hint = PG_EXCEPTION_HINT;
            RETURN QUERY SELECT "check", found.name, 'warning', 'could not be looked at: ' || told,
                nullif(told_hint, '');
        END;
    END LOOP;

    "check" := 'index';
    FOR found IN
        SELECT s.name, s.relation, s.descriptor_column, c.relkind, c.reltuples,
               (SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
                    AND a.attnum = i.indkey[0]
                    JOIN pg_opclass o ON o.oid = i.indclass[0] JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'ivf'
                WHERE i.indrelid = c.oid AND i.indisvalid AND a.attname = s.descriptor_column
                AND o.opcname LIKE '%cosine%') AS usable,
               (SELECT string_agg(i.indexrelid::regclass::text, ', ') FROM pg_index i
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                WHERE i.indrelid = c.oid AND NOT i.indisvalid AND a.attname = s.descriptor_column) AS broken
        FROM copymatch.reference_set s JOIN pg_class c ON c.oid = s.relation AND c.relkind IN ('r', 'm', 'p')
        ORDER BY s.name LOOP
        IF found.broken IS NOT NULL THEN
            RETURN QUERY SELECT "check", found.name, 'error',
                format('index %s is not valid: a build of it failed', found.broken),
                    'REINDEX INDEX CONCURRENTLY, or DROP INDEX and make it again.'::text;
        ELSIF found.usable > 0 THEN
            RETURN QUERY SELECT "check", found.name, 'ok', 'has an index for the cosine distance'::text, NULL::text;
        ELSIF found.reltuples >= 20000 THEN
            RETURN QUERY SELECT "check", found.name, 'warning',
                format('%s rows and no index for the cosine distance: every search reads them all',
                    found.reltuples::bigint),
                format('CREATE INDEX ON %s USING ivf (%I %s);', found.relation, found.descriptor_column,
                    copymatch.cosine_class(found.relation, found.descriptor_column));
        END IF;
    END LOOP;

    "check" := 'shard';
    FOR found IN
        SELECT v.srvname, coalesce(v.srvoptions, '{}') AS options,
               (SELECT split_part(o, '=', 2) FROM unnest(v.srvoptions) o WHERE o LIKE 'extensions=%') AS shipped,
               bool_or(a.atttypid <> '@extschema@.vector'::regtype) AS adopted
        FROM copymatch.reference_set s JOIN pg_class c ON c.oid = s.relation AND c.relkind IN ('p', 'f')
             CROSS JOIN LATERAL (SELECT c.oid AS leaf WHERE c.relkind = 'f'
                                 UNION ALL SELECT t.relid FROM pg_partition_tree(c.oid) t
                                 WHERE t.isleaf AND c.relkind = 'p') u
             JOIN pg_foreign_table f ON f.ftrelid = u.leaf JOIN pg_foreign_server v ON v.oid = f.ftserver
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = s.descriptor_column
             JOIN pg_foreign_data_wrapper w ON w.oid = v.srvfdw AND w.fdwname = 'postgres_fdw'
             GROUP BY v.oid ORDER BY v.srvname LOOP
        IF coalesce(found.shipped, '') !~ '(^|[, ])copymatch *(,|$)' OR found.adopted
                AND found.shipped !~ '(^|[, ])vector *(,|$)' THEN
            RETURN QUERY SELECT "check", found.srvname::text, 'error', CASE WHEN found.adopted
                    THEN 'the server lacks the option extensions with copymatch and vector: every descriptor is '
                         'fetched and sorted here'
                    ELSE 'the server lacks the option extensions: every descriptor is fetched and sorted here' END,
                format('ALTER SERVER %I OPTIONS (%s extensions %L);', found.srvname, CASE WHEN found.shipped IS NULL
                    THEN 'ADD' ELSE 'SET' END,
                    concat_ws(', ', nullif(found.shipped, ''),
                              CASE WHEN coalesce(found.shipped, '') !~ '(^|[, ])copymatch *(,|$)' THEN 'copymatch' END,
                              CASE WHEN found.adopted AND coalesce(found.shipped, '') !~ '(^|[, ])vector *(,|$)'
                                  THEN 'vector' END));
        ELSIF NOT 'async_capable=true' = ANY (found.options) THEN
            RETURN QUERY SELECT "check", found.srvname::text, 'warning',
                'the server lacks the option async_capable: shards are asked one after the other'::text,
                format('ALTER SERVER %I OPTIONS (ADD async_capable ''true'');', found.srvname);
        ELSE
            RETURN QUERY SELECT "check", found.srvname::text, 'ok', 'has the options that searches want'::text,
                NULL::text;
        END IF;
    END LOOP;

    "check" := 'trigger';
    FOR found IN
        SELECT t.tgname, t.tgrelid::regclass::text AS relation, t.tgenabled,
               EXISTS (SELECT FROM pg_subscription_rel r WHERE r.srrelid = t.tgrelid) AS subscribed
        FROM pg_trigger t WHERE t.tgfoid = '@extschema@.copy_maintain_descriptor()'::regprocedure AND t.tgparentid = 0
        ORDER BY 2, 1 LOOP
        IF found.tgenabled = 'D' THEN
            RETURN QUERY SELECT "check", found.relation, 'warning',
                format('trigger %I, which keeps the descriptors, is disabled', found.tgname),
                format('ALTER TABLE %s ENABLE TRIGGER %I; then SELECT * FROM copy_check_set(…)', found.relation,
                    found.tgname);
        ELSIF found.subscribed AND found.tgenabled = 'O' THEN
            RETURN QUERY SELECT "check", found.relation, 'warning',
                format('a subscription writes the table, and trigger %I does not fire for it', found.tgname),
                format('Where the publisher sends no descriptors: ALTER TABLE %s ENABLE ALWAYS TRIGGER %I; then '
                       'SELECT * FROM copy_check_set(…)', found.relation, found.tgname);
        END IF;
    END LOOP;

    "check" := 'flagging';
    FOR found IN SELECT f.relation, f.name, f.enabled FROM copymatch.flag_triggers() f ORDER BY f.relation::text,
            f.name LOOP
        subject := format('%s, trigger %I', found.relation, found.name);
        IF NOT found.enabled THEN
            RETURN QUERY SELECT "check", subject, 'warning', 'is disabled'::text,
                format('ALTER TABLE %s ENABLE TRIGGER %I;', found.relation, found.name);
            CONTINUE;
        END IF;
        BEGIN
            told := copymatch.flagging_health(found.relation, found.name);
            RETURN QUERY SELECT "check", subject, CASE WHEN told IS NULL THEN 'ok' ELSE 'error' END,
                coalesce(told, 'columns, set and rights are in order'), NULL::text;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS told = MESSAGE_TEXT, told_hint = PG_EXCEPTION_HINT;
            RETURN QUERY SELECT "check", subject, 'warning', 'could not be looked at: ' || told, nullif(told_hint, '');
        END;
    END LOOP;

    "check" := 'queue'; subject := 'workers';
    SELECT count(*) FILTER (WHERE q.state = 'failed') AS failed, count(*) FILTER (WHERE q.state = 'waiting') AS waiting,
           now() - min(q.enqueued) FILTER (WHERE q.state = 'waiting') AS age INTO found FROM copymatch.queue q;
    IF found.failed > 0 THEN
        RETURN QUERY SELECT "check", 'failed'::text, 'warning', format('%s uploads were given up', found.failed),
            'SELECT * FROM copymatch.queue WHERE state = ''failed'' says why; then copy_retry_queue() or '
            'copy_clear_queue().'::text;
    END IF;
    IF pg_is_in_recovery() THEN
        RETURN QUERY SELECT "check", subject, 'ok', 'a standby works no queue off'::text, NULL::text;
    ELSIF found.waiting > 0 AND workers = 0 THEN
        RETURN QUERY SELECT "check", subject, 'warning',
            format('%s uploads wait, the oldest for %s, and no worker runs', found.waiting,
                date_trunc('second', found.age)),
            format('Put %s into copymatch.queue_databases, with copymatch in shared_preload_libraries; or '
                   'SELECT copy_start_worker(), or CALL copy_process_queue() now and then.', current_database());
    ELSE
        RETURN QUERY SELECT "check", subject, 'ok', format('%s uploads wait, %s workers run', found.waiting, workers),
            NULL::text;
    END IF;

    "check" := 'settings';
    IF current_setting('copymatch.queue_databases', true) <> ''
            AND current_setting('shared_preload_libraries') !~ 'copymatch' THEN
        RETURN QUERY SELECT "check", 'copymatch.queue_databases'::text, 'error',
            'is set, but the server does not load copymatch when it starts: no worker reads it'::text,
            'shared_preload_libraries = ''copymatch'', and a restart.'::text;
    END IF;
    FOR found IN SELECT btrim(d.name) AS name
            FROM regexp_split_to_table(current_setting('copymatch.queue_databases', true), ',') AS d(name)
                 WHERE btrim(d.name) <> ''
                 AND NOT EXISTS (SELECT FROM pg_database p WHERE p.datname = btrim(d.name)) LOOP
        RETURN QUERY SELECT "check", 'copymatch.queue_databases'::text, 'error',
            format('names database "%s", which does not exist', found.name), NULL::text;
    END LOOP;
    IF current_setting('copymatch.probes')::integer > 0 THEN
        RETURN QUERY SELECT "check", 'copymatch.probes'::text, 'warning',
            format('is %s: copymatch.target_recall (%s) has no say', current_setting('copymatch.probes'),
                current_setting('copymatch.target_recall')),
            'RESET copymatch.probes;'::text;
    END IF;
    IF current_setting('session_replication_role') = 'replica' THEN
        RETURN QUERY SELECT "check", 'session_replication_role'::text, 'warning',
            'is replica in this session: ordinary triggers do not fire, no descriptor is kept and no upload '
            'flagged'::text, 'RESET session_replication_role;'::text;
    END IF;

    "check" := 'roles';
    FOR found IN SELECT r.rolname FROM pg_roles r
            WHERE r.rolname IN ('copymatch_admin', 'copymatch_reviewer', 'copymatch_reader')
                   AND (r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolbypassrls) LOOP
        RETURN QUERY SELECT "check", found.rolname::text, 'warning',
            'may log in, or more than a role for grants needs'::text,
            format('ALTER ROLE %I NOLOGIN NOSUPERUSER NOCREATEROLE NOBYPASSRLS;', found.rolname);
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.copy_doctor() IS
    'looks at everything that has to be in order: the extension''s version, the models (each embeds a picture), the '
    'embedding service, sets, their descriptors and indexes, servers of foreign partitions, triggers, flagging, the '
    'queue, settings that fight each other, roles. A row for each thing: ok, warning or error, with what to do. '
    'Tables are sampled with their owners'' rights; nothing is changed';
REVOKE ALL ON FUNCTION @extschema@.copy_doctor() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.copy_doctor() TO copymatch_admin;
