-- Reports: views for people with BI tools, and the dashboard. Counts come from copymatch.finding_count, so that they
-- take milliseconds over many millions of findings; days are those of the session's time zone.
-- What both tables of counts hold, by the day of UTC: as differences `running[upto] - running[from]`,
-- and what is not yet folded.
CREATE VIEW copymatch.report_daily AS
    WITH utc AS (
        SELECT DISTINCT c.day, c.day::timestamp AT TIME ZONE 'UTC' AS starts FROM copymatch.finding_count c
    ), pieces AS (
        -- Parts of a day of UTC that lie in one day here: two, or three where the clock is put
        -- forward at the wrong moment.
        SELECT u.day AS utc_day, l.day,
               greatest(0, least(96, ceil(extract(epoch FROM l.day::timestamptz - u.starts) / 900)))::int AS first,
               greatest(0, least(96, ceil(extract(epoch FROM (l.day + 1)::timestamptz - u.starts) / 900)))::int AS last
        FROM utc u, LATERAL (SELECT u.starts::date + n AS day FROM generate_series(0, 2) n) l
    ), counts AS (
        SELECT p.day, c.reference_set, c.verdict, c.state,
            coalesce(c.running[p.last], 0) - coalesce(c.running[p.first], 0) AS findings
        FROM copymatch.finding_count c JOIN pieces p ON p.utc_day = c.day AND p.first < p.last
        UNION ALL
        SELECT d.quarter::date, d.reference_set, d.verdict, d.state, d.findings FROM copymatch.finding_delta d
    )
    SELECT n.day, n.reference_set, n.verdict, n.state, sum(n.findings)::bigint AS findings
    FROM counts n GROUP BY 1, 2, 3, 4 HAVING sum(n.findings) <> 0;
COMMENT ON VIEW copymatch.report_daily IS 'findings by day (of the session''s time zone), set, verdict and state';

CREATE FUNCTION copymatch.proportion_interval(
    correct bigint, total bigint, confidence double precision DEFAULT 0.95, OUT low double precision,
    OUT high double precision)
    AS 'MODULE_PATHNAME', 'proportion_interval_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.proportion_interval(bigint, bigint, double precision) IS
    'Clopper and Pearson''s exact two-sided confidence interval of a proportion';

CREATE VIEW copymatch.report_precision AS
    WITH counts AS (
        SELECT c.reference_set, c.verdict, c.model, c.state, c.running[96] AS findings FROM copymatch.finding_count c
        UNION ALL SELECT d.reference_set, d.verdict, d.model, d.state, d.findings FROM copymatch.finding_delta d
    ), reviewed AS (
        SELECT c.reference_set, c.verdict, c.model,
               coalesce(sum(c.findings) FILTER (WHERE c.state = 'confirmed'), 0)::bigint AS confirmed,
               coalesce(sum(c.findings) FILTER (WHERE c.state = 'dismissed'), 0)::bigint AS dismissed,
               coalesce(sum(c.findings) FILTER (WHERE c.state = 'open'), 0)::bigint AS open
        FROM counts c GROUP BY 1, 2, 3
    )
    SELECT r.reference_set, r.verdict, r.model, r.confirmed, r.dismissed, r.open,
           r.confirmed::double precision / nullif(r.confirmed + r.dismissed, 0) AS precision, i.low AS precision_low,
               i.high AS precision_high
    FROM reviewed r
         LEFT JOIN LATERAL copymatch.proportion_interval(r.confirmed, r.confirmed + r.dismissed) i
             ON r.confirmed + r.dismissed > 0
    WHERE r.confirmed + r.dismissed + r.open > 0;
COMMENT ON VIEW copymatch.report_precision IS
    'by set, verdict and model: how many of the reviewed findings were confirmed, with the 95 % interval (Clopper and '
    'Pearson''s, as in copy_calibration_report)';

CREATE VIEW copymatch.report_references AS
    SELECT f.reference_set, f.reference, count(*) AS findings, count(*) FILTER (WHERE f.state = 'open') AS open,
           count(*) FILTER (WHERE f.state = 'confirmed') AS confirmed,
               count(*) FILTER (WHERE f.state = 'dismissed') AS dismissed,
           max(f.found) AS last_found
    FROM (
        SELECT n.reference_set, n.reference, n.state, n.found FROM copymatch.finding n
        UNION ALL
        SELECT d.was ->> 'reference_set', d.was ->> 'reference', d.was ->> 'state', (d.was ->> 'found')::timestamptz
        FROM copymatch.dropped_finding d WHERE d.dropped >= now() - interval '30 days'
    ) f WHERE f.found >= now() - interval '30 days' GROUP BY 1, 2;
COMMENT ON VIEW copymatch.report_references IS 'references by their findings of the last 30 days';

CREATE VIEW copymatch.report_uploaders AS
    SELECT f.relation, f.uploader, count(*) AS findings, count(*) FILTER (WHERE f.state = 'open') AS open,
           count(*) FILTER (WHERE f.state = 'confirmed') AS confirmed,
               count(*) FILTER (WHERE f.state = 'dismissed') AS dismissed,
           max(f.found) AS last_found
    FROM (
        SELECT n.relation::text AS relation, n.uploader, n.state, n.found FROM copymatch.finding n
        UNION ALL
        SELECT d.relation, d.was ->> 'uploader', d.was ->> 'state', (d.was ->> 'found')::timestamptz
        FROM copymatch.dropped_finding d WHERE d.dropped >= now() - interval '30 days'
    ) f WHERE f.found >= now() - interval '30 days' AND f.uploader IS NOT NULL GROUP BY 1, 2;
COMMENT ON VIEW copymatch.report_uploaders IS
    'uploaders by their findings of the last 30 days; of a table that was dropped, by its last name';

CREATE VIEW copymatch.report_reviewers AS
    SELECT h.changed::date AS day, h.changed_by AS reviewer,
           count(*) FILTER (WHERE h.to_state = 'confirmed') AS confirmed,
           count(*) FILTER (WHERE h.to_state = 'dismissed') AS dismissed,
               count(*) FILTER (WHERE h.to_state = 'open') AS reopened
    FROM copymatch.finding_history h WHERE h.changed >= now() - interval '30 days' GROUP BY 1, 2;
COMMENT ON VIEW copymatch.report_reviewers IS
    'what reviewers decided by day (of the session''s time zone), the last 30 days';

CREATE VIEW copymatch.report_open AS
    WITH quarters AS (
        -- Only the days in which an age may pass from one column to the next need be taken apart.
        SELECT c.reference_set, c.verdict, q.findings,
            (c.day::timestamp AT TIME ZONE 'UTC') + (q.number - 1) * interval '15 minutes' AS quarter
        FROM copymatch.finding_count c, LATERAL (
            SELECT s.number, c.running[s.number] - coalesce(c.running[s.number - 1], 0) AS findings
                FROM generate_series(1, 96) s(number)) q
        WHERE c.state = 'open' AND q.findings <> 0 AND c.day >= (now() AT TIME ZONE 'UTC')::date - 8
        UNION ALL
        -- Of an older day, the first quarter with findings stands for all.
        SELECT c.reference_set, c.verdict, c.running[96],
               (c.day::timestamp AT TIME ZONE 'UTC') + interval '15 minutes' * (SELECT count(*)
                   FROM unnest(c.running) r(upto) WHERE r.upto = 0)
        FROM copymatch.finding_count c
        WHERE c.state = 'open' AND c.running[96] <> 0 AND c.day < (now() AT TIME ZONE 'UTC')::date - 8
        UNION ALL
        SELECT d.reference_set, d.verdict, d.findings, d.quarter FROM copymatch.finding_delta d WHERE d.state = 'open'
    ), c AS (
        -- What is folded and what is not, together: a finding that was decided is plus one there and minus one here.
        SELECT q.reference_set, q.verdict, sum(q.findings) AS findings, now() - q.quarter AS age
        FROM quarters q GROUP BY q.reference_set, q.verdict, q.quarter HAVING sum(q.findings) <> 0
    )
    SELECT c.reference_set, c.verdict, sum(c.findings)::bigint AS findings,
           coalesce(sum(c.findings) FILTER (WHERE c.age < interval '1 hour'), 0)::bigint AS under_an_hour,
           coalesce(sum(c.findings)
               FILTER (WHERE c.age >= interval '1 hour' AND c.age < interval '1 day'), 0)::bigint AS under_a_day,
           coalesce(sum(c.findings)
               FILTER (WHERE c.age >= interval '1 day' AND c.age < interval '7 days'), 0)::bigint AS under_a_week,
           coalesce(sum(c.findings) FILTER (WHERE c.age >= interval '7 days'), 0)::bigint AS older,
           max(c.age) FILTER (WHERE c.findings > 0) AS oldest
    FROM c GROUP BY 1, 2 HAVING sum(c.findings) <> 0;
COMMENT ON VIEW copymatch.report_open IS
    'open findings by set, verdict and age, to a quarter of an hour (oldest, where it is over a week, to a day)';

CREATE VIEW copymatch.report_queue AS
    SELECT q.relation::text AS relation, q.reference_set, count(*) FILTER (WHERE q.state = 'waiting') AS waiting,
           count(*) FILTER (WHERE q.state = 'waiting' AND q.last_error IS NOT NULL) AS retrying,
               count(*) FILTER (WHERE q.state = 'failed') AS failed,
           coalesce(now() - min(q.enqueued) FILTER (WHERE q.state = 'waiting'), interval '0') AS lag,
           max(q.last_error) AS an_error
    FROM copymatch.queue q GROUP BY 1, 2;
COMMENT ON VIEW copymatch.report_queue IS
    'by table and set: uploads that wait, how long the oldest does, those given up and one of their errors';

CREATE VIEW copymatch.report_models AS
    SELECT coalesce(m.name, c.model) AS model, m.version,
           (SELECT array_agg(s.name ORDER BY s.name) FROM copymatch.reference_set s
               WHERE s.model = m.name) AS reference_sets,
           coalesce(c.findings, 0)::bigint AS findings, c.first_found, c.last_found
    FROM copymatch.models m FULL JOIN (
        SELECT n.model, sum(n.findings) AS findings, min(n.first_found) AS first_found, max(n.last_found) AS last_found
            FROM (
            SELECT c.model, c.running[96] AS findings,
                   (c.day::timestamp AT TIME ZONE 'UTC') + interval '15 minutes' * (SELECT count(*)
                       FROM unnest(c.running) r(upto) WHERE r.upto = 0) AS first_found,
                   (c.day::timestamp AT TIME ZONE 'UTC') + interval '15 minutes' * (SELECT count(*)
                       FROM unnest(c.running) r(upto) WHERE r.upto <> c.running[96]) AS last_found
            FROM copymatch.finding_count c WHERE c.running[96] <> 0
            UNION ALL SELECT d.model, d.findings, d.quarter, d.quarter FROM copymatch.finding_delta d) n
        GROUP BY n.model HAVING sum(n.findings) <> 0) c ON c.model = m.name;
COMMENT ON VIEW copymatch.report_models IS
    'models (those with findings even when they were dropped), the sets that use them, and the findings made with them '
    '(times to a quarter of an hour)';

GRANT SELECT ON copymatch.report_daily, copymatch.report_precision, copymatch.report_references,
    copymatch.report_uploaders,
    copymatch.report_reviewers, copymatch.report_open, copymatch.report_queue, copymatch.report_models
        TO copymatch_reader;
-- PostgreSQL 15 and later: policies on copymatch.finding hold for the reports too.
DO $$
DECLARE
    report text;
BEGIN
    IF pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 150000 THEN
        FOREACH report IN ARRAY ARRAY['daily', 'precision', 'references', 'uploaders', 'reviewers', 'open', 'queue',
            'models'] LOOP
            EXECUTE pg_catalog.format('ALTER VIEW copymatch.%I SET (security_invoker = true)', 'report_' || report);
        END LOOP;
    ELSE
        -- Not a NOTICE, which CREATE EXTENSION does not show.
        RAISE WARNING USING ERRCODE = '0A000',
            MESSAGE = 'row-level security does not reach the views copymatch.report_* in PostgreSQL 14',
            DETAIL = 'They read with the rights of the extension''s owner; from PostgreSQL 15 on with those of whoever '
                     'asks.',
            HINT = 'Grant copymatch_reader only to roles that may see what the reports say of all findings.';
    END IF;
END $$;

CREATE FUNCTION @extschema@.copy_thumbnail(image bytea, side integer DEFAULT 160) RETURNS bytea
    AS 'MODULE_PATHNAME', 'copy_thumbnail_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION @extschema@.copy_thumbnail(bytea, integer) IS
    'the image as a small JPEG whose longer side has this many pixels; smaller images keep their size';

CREATE FUNCTION copymatch.render_dashboard(data jsonb) RETURNS text
    AS 'MODULE_PATHNAME', 'render_dashboard_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.render_dashboard(jsonb) IS 'the HTML page of copymatch.dashboard(), every text escaped';

CREATE FUNCTION copymatch.thumbnail_of(relation regclass, image text, key text[], value text, side integer) RETURNS text
    AS 'MODULE_PATHNAME', 'thumbnail_of_wrapper' LANGUAGE c STABLE STRICT;
COMMENT ON FUNCTION copymatch.thumbnail_of(regclass, text, text[], text, integer) IS
    'a row''s image as a thumbnail in base64; NULL where the caller may not see it: read with the rights of the '
    'table''s owner where the caller may read the table, and out of others'' views and past others'' policies never';

CREATE FUNCTION copymatch.dashboard(days integer DEFAULT 30, latest integer DEFAULT 12)
    RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    data jsonb;
    pictures jsonb := '[]';
    finding record;
    uploads record;
    options record;
    reference record;
BEGIN
    IF days IS NULL OR days NOT BETWEEN 1 AND 366 OR latest IS NULL OR latest NOT BETWEEN 0 AND 200 THEN
        PERFORM copymatch.refuse('22023',
            pg_catalog.format('days is %s, latest is %s', coalesce(days::text, 'NULL'), coalesce(latest::text, 'NULL')),
            'days: 1 to 366; latest, the number of findings shown: 0 to 200.');
    END IF;
    FOR finding IN SELECT * FROM copymatch.finding f ORDER BY f.id DESC LIMIT latest LOOP
        SELECT t.arguments INTO uploads FROM copymatch.flag_triggers() t WHERE t.relation = finding.relation
            ORDER BY t.arguments[3] = finding.reference_set DESC, t.name LIMIT 1;
        IF uploads.arguments IS NOT NULL THEN
            options := copymatch.flag_options(uploads.arguments);
        ELSE
            SELECT NULL::text AS image, NULL::text[] AS key INTO options;
        END IF;
        SELECT s.relation, s.image_column, array_prepend(s.key_column, s.further_key_columns) AS key INTO reference
            FROM copymatch.reference_set s WHERE s.id = finding.set_id;
        pictures := pictures || jsonb_build_array(jsonb_build_object(
            'id', finding.id, 'found', to_char(finding.found, 'YYYY-MM-DD HH24:MI TZ'),
            'reference_set', finding.reference_set, 'upload', finding.upload, 'reference', finding.reference,
            'probability', finding.probability, 'verdict', finding.verdict,
            'state', finding.state, 'uploader', finding.uploader, 'note', finding.note,
            'upload_image', copymatch.thumbnail_of(finding.relation, options.image, options.key, finding.upload, 160),
            'reference_image', copymatch.thumbnail_of(reference.relation, reference.image_column::text,
                                                      reference.key::text[], finding.reference, 160)));
    END LOOP;
    SELECT jsonb_build_object(
        'database', current_database(), 'user', current_user, 'generated', to_char(now(), 'YYYY-MM-DD HH24:MI'),
        'time_zone', current_setting('timezone'),
        'totals', (SELECT jsonb_build_object(
                       'open', coalesce(sum(d.findings) FILTER (WHERE d.state = 'open'), 0),
                       'confirmed', coalesce(sum(d.findings) FILTER (WHERE d.state = 'confirmed'), 0),
                       'dismissed', coalesce(sum(d.findings) FILTER (WHERE d.state = 'dismissed'), 0))
                   FROM copymatch.report_daily d)
                  || (SELECT jsonb_build_object(
                          'waiting', coalesce(sum(q.waiting), 0), 'failed', coalesce(sum(q.failed), 0),
                          'lag', to_char(coalesce(max(q.lag), interval '0'), 'HH24:MI:SS'))
                      FROM copymatch.report_queue q),
        'daily', (SELECT jsonb_agg(jsonb_build_object(
                             'day', g.day, 'open', coalesce(d.open, 0), 'confirmed', coalesce(d.confirmed, 0),
                             'dismissed', coalesce(d.dismissed, 0)) ORDER BY g.day)
                  FROM (SELECT current_date - n AS day FROM generate_series(0, dashboard.days - 1) n) g
                  LEFT JOIN (SELECT d.day, sum(d.findings) FILTER (WHERE d.state = 'open') AS open,
                                    sum(d.findings) FILTER (WHERE d.state = 'confirmed') AS confirmed,
                                    sum(d.findings) FILTER (WHERE d.state = 'dismissed') AS dismissed
                             FROM copymatch.report_daily d GROUP BY 1) d USING (day)),
        'precision', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                                 'reference_set', p.reference_set, 'verdict', p.verdict,
                                 'reviewed', p.confirmed + p.dismissed, 'precision', p.precision,
                                 'low', p.precision_low, 'high', p.precision_high)
                             ORDER BY p.reference_set, p.verdict), '[]')
                      FROM copymatch.report_precision p WHERE p.confirmed + p.dismissed > 0),
        'ages', (SELECT jsonb_build_array(
                     jsonb_build_object('name', 'under an hour', 'findings', coalesce(sum(o.under_an_hour), 0)),
                     jsonb_build_object('name', 'under a day', 'findings', coalesce(sum(o.under_a_day), 0)),
                     jsonb_build_object('name', 'under a week', 'findings', coalesce(sum(o.under_a_week), 0)),
                     jsonb_build_object('name', 'older', 'findings', coalesce(sum(o.older), 0)))
                 FROM copymatch.report_open o),
        'references', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                                  'name', r.reference || ' of ' || r.reference_set, 'findings', r.findings)
                              ORDER BY r.findings DESC), '[]')
                       FROM (SELECT * FROM copymatch.report_references r ORDER BY r.findings DESC LIMIT 8) r),
        'uploaders', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', u.uploader, 'findings', u.findings)
                             ORDER BY u.findings DESC), '[]')
                      FROM (SELECT * FROM copymatch.report_uploaders u ORDER BY u.findings DESC LIMIT 8) u),
        'reviewers', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', r.reviewer, 'findings', r.decided)
                             ORDER BY r.decided DESC), '[]')
                      FROM (SELECT r.reviewer, sum(r.confirmed + r.dismissed) AS decided
                            FROM copymatch.report_reviewers r GROUP BY 1 ORDER BY 2 DESC LIMIT 8) r),
        'findings', pictures) INTO data;
    RETURN copymatch.render_dashboard(data);
END $$;
COMMENT ON FUNCTION copymatch.dashboard(integer, integer) IS
    'one self-contained HTML page: charts of the reports, and the latest findings with thumbnails where the '
    'caller may read the images';
REVOKE ALL ON FUNCTION copymatch.dashboard(integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION copymatch.dashboard(integer, integer) TO copymatch_reader;
