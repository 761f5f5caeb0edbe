-- Evaluation: the Image Similarity Challenge's metrics as aggregates, and benchmarks run end to end.
CREATE TYPE copymatch.operating_point AS (threshold double precision, "precision" double precision,
    recall double precision);
COMMENT ON TYPE copymatch.operating_point IS 'precision and recall of everything that scores at least threshold';
COMMENT ON COLUMN copymatch.operating_point.threshold IS 'the lowest score that is accepted';
COMMENT ON COLUMN copymatch.operating_point."precision" IS 'copies among what is accepted';
COMMENT ON COLUMN copymatch.operating_point.recall IS 'copies accepted, of all true pairs';

CREATE FUNCTION copymatch.prediction_accum(internal, double precision, boolean, bigint) RETURNS internal
    AS 'MODULE_PATHNAME', 'prediction_accum_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_accum(internal, double precision, boolean, bigint) IS
    'transition function of copy_micro_ap and copy_precision_recall';
CREATE FUNCTION copymatch.prediction_accum(internal, double precision, boolean, bigint, double precision)
    RETURNS internal AS 'MODULE_PATHNAME', 'prediction_accum_precision_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_accum(internal, double precision, boolean, bigint, double precision) IS
    'transition function of copy_recall_at_precision and copy_threshold_at_precision';
CREATE FUNCTION copymatch.prediction_combine(internal, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'prediction_combine_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_combine(internal, internal) IS 'combines what parallel workers gathered';
CREATE FUNCTION copymatch.prediction_serialize(internal) RETURNS bytea
    AS 'MODULE_PATHNAME', 'prediction_serialize_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_serialize(internal) IS 'a worker''s predictions, to be sent to the leader';
CREATE FUNCTION copymatch.prediction_deserialize(bytea, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'prediction_deserialize_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_deserialize(bytea, internal) IS
    'a worker''s predictions, received by the leader';
CREATE FUNCTION copymatch.prediction_micro_ap(internal) RETURNS double precision
    AS 'MODULE_PATHNAME', 'prediction_micro_ap_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_micro_ap(internal) IS 'final function of copy_micro_ap';
CREATE FUNCTION copymatch.prediction_recall(internal) RETURNS double precision
    AS 'MODULE_PATHNAME', 'prediction_recall_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_recall(internal) IS 'final function of copy_recall_at_precision';
CREATE FUNCTION copymatch.prediction_threshold(internal) RETURNS double precision
    AS 'MODULE_PATHNAME', 'prediction_threshold_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_threshold(internal) IS 'final function of copy_threshold_at_precision';
CREATE FUNCTION copymatch.prediction_curve(internal) RETURNS copymatch.operating_point[]
    AS 'MODULE_PATHNAME', 'prediction_curve_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_curve(internal) IS 'final function of copy_precision_recall';

CREATE AGGREGATE @extschema@.copy_micro_ap(score double precision, is_copy boolean, positives bigint) (
    SFUNC = copymatch.prediction_accum, STYPE = internal, FINALFUNC = copymatch.prediction_micro_ap,
    COMBINEFUNC = copymatch.prediction_combine, SERIALFUNC = copymatch.prediction_serialize,
    DESERIALFUNC = copymatch.prediction_deserialize, PARALLEL = SAFE);
COMMENT ON AGGREGATE @extschema@.copy_micro_ap(double precision, boolean, bigint) IS
    'micro-average precision over all predictions of all queries, 0 to 1: score (higher is more alike), whether the '
    'pair is a true one, and the number of true pairs, found or not. Among equal scores the wrong ones come first. '
    'Rows with a NULL score or is_copy are not counted; NaN is an error; no true pairs: NULL';

CREATE AGGREGATE @extschema@.copy_recall_at_precision(score double precision, is_copy boolean, positives bigint,
    at_precision double precision) (
    SFUNC = copymatch.prediction_accum, STYPE = internal, FINALFUNC = copymatch.prediction_recall,
    COMBINEFUNC = copymatch.prediction_combine, SERIALFUNC = copymatch.prediction_serialize,
    DESERIALFUNC = copymatch.prediction_deserialize, PARALLEL = SAFE);
COMMENT ON AGGREGATE @extschema@.copy_recall_at_precision(double precision, boolean, bigint, double precision) IS
    'the largest share of the true pairs that one threshold accepts while the precision of what it accepts is at least '
    'this one; 0 where it never is';

CREATE AGGREGATE @extschema@.copy_threshold_at_precision(score double precision, is_copy boolean, positives bigint,
    at_precision double precision) (
    SFUNC = copymatch.prediction_accum, STYPE = internal, FINALFUNC = copymatch.prediction_threshold,
    COMBINEFUNC = copymatch.prediction_combine, SERIALFUNC = copymatch.prediction_serialize,
    DESERIALFUNC = copymatch.prediction_deserialize, PARALLEL = SAFE);
COMMENT ON AGGREGATE @extschema@.copy_threshold_at_precision(double precision, boolean, bigint, double precision) IS
    'the score from which upwards copy_recall_at_precision is reached; NULL where the precision never is';

CREATE AGGREGATE @extschema@.copy_precision_recall(score double precision, is_copy boolean, positives bigint) (
    SFUNC = copymatch.prediction_accum, STYPE = internal, FINALFUNC = copymatch.prediction_curve,
    COMBINEFUNC = copymatch.prediction_combine, SERIALFUNC = copymatch.prediction_serialize,
    DESERIALFUNC = copymatch.prediction_deserialize, PARALLEL = SAFE);
COMMENT ON AGGREGATE @extschema@.copy_precision_recall(double precision, boolean, bigint) IS
    'the precision-recall curve: one point for each different score, from the highest down. As rows: SELECT '
    '(unnest(copy_precision_recall(score, is_copy, 100))).* FROM …';

CREATE FUNCTION @extschema@.copy_precision_recall(scores double precision[], are_copies boolean[], positives bigint)
    RETURNS TABLE (threshold double precision, "precision" double precision, recall double precision)
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF pg_catalog.cardinality(scores) <> pg_catalog.cardinality(are_copies) THEN
        PERFORM copymatch.refuse('2202E',
            pg_catalog.format('%s scores and %s judgements', pg_catalog.cardinality(scores),
                pg_catalog.cardinality(are_copies)),
            'Both arrays have one element for each prediction.');
    END IF;
    RETURN QUERY SELECT p.threshold, p.precision, p.recall
        FROM pg_catalog.unnest((SELECT @extschema@.copy_precision_recall(u.score, u.is_copy,
            copy_precision_recall.positives)
                                FROM ROWS
                                FROM (pg_catalog.unnest(scores), pg_catalog.unnest(are_copies)) AS u(score, is_copy)))
                                    AS p;
END $$;
COMMENT ON FUNCTION @extschema@.copy_precision_recall(double precision[], boolean[], bigint) IS
    'the precision-recall curve of two arrays, as rows from the highest threshold down';

CREATE FUNCTION copymatch.embed_query(image bytea, model text, query text, total bigint) RETURNS @extschema@.vector
    AS 'MODULE_PATHNAME', 'embed_query_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION copymatch.embed_query(bytea, text, text, bigint) IS
    'copy_embed for benchmarks: an image that cannot be matched gives NULL and a WARNING; progress is reported as '
    'NOTICEs (total: images to come)';

CREATE FUNCTION copymatch.has_column(relation regclass, col name) RETURNS boolean LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = relation AND a.attname = col AND a.attnum > 0 AND NOT a.attisdropped);
END;
COMMENT ON FUNCTION copymatch.has_column(regclass, name) IS 'whether the relation has a column of this name';

CREATE FUNCTION copymatch.reference_query(reference_set text)
    RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation) THEN
        PERFORM copymatch.refuse('42P01',
            pg_catalog.format('the relation of reference set "%s" no longer exists', chosen.name),
            'Drop the set with copy_drop_set and make it again with copy_create_set.');
    END IF;
    RETURN pg_catalog.format('SELECT %s AS reference, %s AS image, r.%I::@extschema@.vector AS descriptor '
                             'FROM %s AS r %s',
                             copymatch.key_expression(chosen.key_column, chosen.further_key_columns),
                             coalesce('r.' || pg_catalog.quote_ident(chosen.image_column), 'NULL::pg_catalog.bytea'),
                             chosen.descriptor_column, chosen.relation, copymatch.search_condition(chosen));
END $$;
COMMENT ON FUNCTION copymatch.reference_query(text) IS
    'a SELECT of a set''s references that are in use: reference (key as text), image, descriptor';

CREATE FUNCTION copymatch.read_and_release(statement text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'read_and_release' LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 10000 ROWS 1000;
COMMENT ON FUNCTION copymatch.read_and_release(text) IS
    'the rows of a query, run with the caller''s rights, read to the end and kept; the locks on what it reads are '
    'released at once, so that nobody waits for what is computed of them';

CREATE FUNCTION @extschema@.copy_evaluate_matches(
    queries regclass, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT 10,
    verify text DEFAULT NULL)
    RETURNS TABLE (query bigint, edit text, truth text, rank integer, reference text, similarity double precision,
        background double precision, score double precision, probability double precision, verdict text,
        is_copy boolean, verified boolean, inliers integer, agreement double precision)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_evaluate_matches.reference_set);
    image text := 'NULL::pg_catalog.bytea';
    descriptor text := 'NULL::@extschema@.vector';
    edit text := 'NULL::pg_catalog.text';
    reading text;
    total bigint;
    absent record;
BEGIN
    IF queries IS NULL THEN
        PERFORM copymatch.refuse('22004', 'queries is NULL',
            'Name a table or view with columns reference and image (or descriptor).');
    END IF;
    IF k IS NULL OR k < 1 OR k > 10000 THEN
        PERFORM copymatch.refuse('22023', pg_catalog.format('k is %s', coalesce(k::text, 'NULL')),
            'k is the number of references per query, 1 to 10000.');
    END IF;
    IF NOT copymatch.has_column(queries, 'reference') THEN
        PERFORM copymatch.refuse('42703', pg_catalog.format('relation %s has no column "reference"', queries),
            'It holds the key of the reference of which the query is a copy, NULL where it is a copy of nothing.');
    END IF;
    IF copymatch.has_column(queries, 'image') THEN
        PERFORM copymatch.require_column(queries, 'image', 'bytea');
        image := 'q.image';
    END IF;
    IF copymatch.has_column(queries, 'descriptor') THEN
        PERFORM copymatch.require_descriptors(queries, 'descriptor');
        descriptor := 'q.descriptor::@extschema@.vector';
    ELSIF NOT copymatch.has_column(queries, 'image') THEN
        PERFORM copymatch.refuse('42703',
            pg_catalog.format('relation %s has neither column "image" nor "descriptor"', queries),
            'image: bytea; descriptor: vector, as copy_embed made it.');
    END IF;
    IF copymatch.has_column(queries, 'edit') THEN
        edit := 'q.edit::pg_catalog.text';
    END IF;
    -- Embedding takes its time: no lock on queries or references is held meanwhile.
    SELECT r.statement INTO reading
        FROM copymatch.read_and_release(pg_catalog.format('SELECT copymatch.reference_query(%L)',
            chosen.name)) AS r(statement text);
    SELECT * INTO absent FROM copymatch.read_and_release(pg_catalog.format(
        'SELECT count(*) FILTER (WHERE q.reference IS NOT NULL AND r.reference IS NULL),
         min(q.reference) FILTER (WHERE r.reference IS NULL), count(*)
         FROM (SELECT copymatch.key_text(q.reference) AS reference FROM %s q) q
         LEFT JOIN (SELECT DISTINCT r.reference FROM (%s) r) r ON r.reference = q.reference',
        queries, reading)) AS a(missing bigint, one text, total bigint);
    total := absent.total;
    IF absent.missing > 0 THEN
        RAISE WARNING '% queries are copies of references that set "%" does not hold, such as %', absent.missing,
            chosen.name, absent.one
            USING HINT = 'They count as not found.';
    END IF;
    RETURN QUERY
        SELECT (m.key->>0)::bigint, m.key->>1, m.key->>2, m.rank, m.reference, m.similarity, m.background, m.score,
               m.probability, m.verdict,
               CASE WHEN m.rank IS NOT NULL THEN coalesce(m.reference = m.key->>2, false) END,
               m.verified, m.inliers, m.agreement
        FROM (SELECT f.upload::jsonb AS key, f.* FROM copymatch.match_each(pg_catalog.format($q$
            WITH numbered AS MATERIALIZED (
                SELECT pg_catalog.row_number() OVER () AS query,
                    q.* FROM copymatch.read_and_release(%1$L) AS q(edit text, truth text, image bytea,
                        descriptor @extschema@.vector)),
            embedded AS MATERIALIZED (
                SELECT n.query, n.edit, n.truth, n.image,
                    coalesce(n.descriptor,
                        copymatch.embed_query(n.image, %2$L, n.query::pg_catalog.text, %3$s)) AS descriptor
                FROM numbered n)
            SELECT pg_catalog.jsonb_build_array(e.query, e.edit, e.truth)::pg_catalog.text, e.descriptor, e.image
            FROM embedded e
            WHERE (SELECT pg_catalog.count(*) FROM embedded) > 0 -- all are embedded before the first search$q$,
            pg_catalog.format('SELECT %s, copymatch.key_text(q.reference), %s, %s FROM %s q', edit, image, descriptor,
                queries), chosen.model, total),
            image <> 'NULL::pg_catalog.bytea', chosen.name, k, copy_evaluate_matches.verify, NULL, false, NULL, NULL,
            true) AS f) AS m
        ORDER BY 1, m.rank;
END $$;
COMMENT ON FUNCTION @extschema@.copy_evaluate_matches(regclass, text, integer, text) IS
    'every query of a benchmark matched against a set: one row for each reference found, or one with a NULL rank where '
    'nothing was. queries: a table or view with columns reference (key of the true one, NULL: copy of nothing), image '
    '(bytea) or descriptor (vector), and optionally edit (name+name+…); those with an image are verified as '
    'copy_match does it (verify)';

CREATE FUNCTION @extschema@.copy_evaluate(
    queries regclass, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT 10,
    verify text DEFAULT NULL)
    RETURNS TABLE (edit text, query_count bigint, copy_count bigint, recall_at_1 double precision,
        micro_ap double precision, stretched_micro_ap double precision, recall_at_p90 double precision,
        stretched_recall_at_p90 double precision, true_copy bigint, false_copy bigint, true_review bigint,
        false_review bigint) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH answers AS MATERIALIZED (
        SELECT * FROM @extschema@.copy_evaluate_matches(copy_evaluate.queries, copy_evaluate.reference_set,
            copy_evaluate.k, copy_evaluate.verify)),
    kinds AS MATERIALIZED (
        SELECT q.query, q.truth, u.edit
        FROM (SELECT DISTINCT a.query, a.truth, a.edit FROM answers a) q,
             LATERAL (SELECT NULL::text UNION SELECT nullif(pg_catalog.btrim(s.one), '')
                 FROM pg_catalog.unnest(pg_catalog.string_to_array(q.edit, '+')) AS s(one)) AS u(edit)),
    sizes AS (
        SELECT c.edit, pg_catalog.count(*) AS queries, pg_catalog.count(c.truth) AS copies FROM kinds c
            GROUP BY c.edit),
    figures AS (
        SELECT c.edit, s.queries, s.copies,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.is_copy) AS first,
               @extschema@.copy_micro_ap(a.similarity, a.is_copy, s.copies) AS plain,
               @extschema@.copy_micro_ap(a.score, a.is_copy, s.copies) AS stretched,
               @extschema@.copy_recall_at_precision(a.similarity, a.is_copy, s.copies,
                   0.9::double precision) AS plain_p90,
               @extschema@.copy_recall_at_precision(a.score, a.is_copy, s.copies,
                   0.9::double precision) AS stretched_p90,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.verdict = 'copy' AND a.is_copy) AS true_copy,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.verdict = 'copy' AND NOT a.is_copy) AS false_copy,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.verdict = 'review' AND a.is_copy) AS true_review,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.verdict = 'review' AND NOT a.is_copy) AS false_review
        FROM kinds c JOIN sizes s ON s.edit IS NOT DISTINCT FROM c.edit JOIN answers a ON a.query = c.query
        GROUP BY c.edit, s.queries, s.copies)
    SELECT f.edit, f.queries, f.copies, f.first / nullif(f.copies, 0)::double precision, f.plain, f.stretched,
           f.plain_p90, f.stretched_p90,
           f.true_copy, f.false_copy, f.true_review, f.false_review
    FROM figures f ORDER BY f.edit NULLS FIRST;
END $$;
COMMENT ON FUNCTION @extschema@.copy_evaluate(regclass, text, integer, text) IS
    'a benchmark run end to end: first a row for all queries (edit NULL), then one for each kind of edit (a query with '
    'several counts in each). recall_at_1; micro-average precision and recall at 90 % precision over the k best '
    'references of each query, by similarity and by score (the paper''s stretched one with verify off, or where '
    'nothing can be verified); and how the best references'' verdicts stand to the truth (false_…: false alarms). '
    'queries: see copy_evaluate_matches';
