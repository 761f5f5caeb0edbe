-- Calibration: from judged pairs to probabilities and thresholds that hold what they promise.
-- What a set's own calibration records beside a model's. Here, not in catalogue.sql, so that an upgrade runs it too.
ALTER TABLE copymatch.calibration
    ADD COLUMN reference_set text,
    ADD COLUMN version integer CONSTRAINT calibration_version_check CHECK (version > 0),
    ADD COLUMN source text NOT NULL DEFAULT 'model' CONSTRAINT calibration_source_check
        CHECK (source IN ('model', 'labels', 'findings', 'edits')),
    ADD COLUMN copy_precision double precision NOT NULL DEFAULT 0.99 CONSTRAINT calibration_copy_precision_check
        CHECK (copy_precision > 0 AND copy_precision < 1),
    ADD COLUMN review_precision double precision NOT NULL DEFAULT 0.90 CONSTRAINT calibration_review_precision_check
        CHECK (review_precision > 0 AND review_precision < 1),
    ADD COLUMN confidence double precision CONSTRAINT calibration_confidence_check
        CHECK (confidence > 0 AND confidence < 1),
    ADD CONSTRAINT calibration_set_version_check CHECK ((reference_set IS NULL) = (version IS NULL)),
    ADD CONSTRAINT calibration_set_version UNIQUE (reference_set, version);
COMMENT ON COLUMN copymatch.calibration.reference_set IS
    'the set for which copy_calibrate made it; NULL: the model''s own';
COMMENT ON COLUMN copymatch.calibration.version IS 'number among those of its set, from 1';
COMMENT ON COLUMN copymatch.calibration.source IS
    'what it was made from: the model''s training, labels, reviewed findings, or edits of the set''s references';
COMMENT ON COLUMN copymatch.calibration.copy_precision IS 'precision wanted of the verdict copy';
COMMENT ON COLUMN copymatch.calibration.review_precision IS 'precision wanted of the verdicts copy and review together';
COMMENT ON COLUMN copymatch.calibration.confidence IS
    'confidence with which the thresholds hold it on the evidence; NULL: not bounded';
ALTER TABLE copymatch.calibration ENABLE ROW LEVEL SECURITY;
CREATE POLICY read_all ON copymatch.calibration FOR SELECT USING (true);
COMMENT ON POLICY read_all ON copymatch.calibration IS 'calibrations are no secret';

CREATE FUNCTION copymatch.fit_calibration(
    similarity double precision[], background double precision[], is_copy boolean[], judged boolean[],
    copy_precision double precision, review_precision double precision, confidence double precision)
    RETURNS jsonb AS 'MODULE_PATHNAME', 'fit_calibration_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.fit_calibration(
    double precision[], double precision[], boolean[], boolean[], double precision, double precision,
    double precision) IS
    'logistic fit of is_copy over similarity and background on the pairs that are not judged, and on those that are '
    'the lowest thresholds whose precision is at least the one asked for with this confidence (Clopper and Pearson''s '
    'lower bound); with evidence';

CREATE FUNCTION copymatch.labels_needed(precision_wanted double precision, confidence double precision DEFAULT 0.95)
    RETURNS bigint AS 'MODULE_PATHNAME', 'labels_needed_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.labels_needed(double precision, double precision) IS
    'how many judged matches without one error it takes to promise a precision with this confidence';

CREATE FUNCTION copymatch.calibration_background(descriptor @extschema@.vector, calibration bigint)
    RETURNS double precision
    AS 'MODULE_PATHNAME', 'calibration_background_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION copymatch.calibration_background(@extschema@.vector, bigint) IS
    'mean inner product of a unit descriptor with its nearest among the background descriptors that a calibration was '
    'measured with';

CREATE FUNCTION copymatch.calibration_background_sample(calibration bigint, count integer, seed bigint)
    RETURNS TABLE (descriptor @extschema@.vector, background double precision)
    AS 'MODULE_PATHNAME', 'calibration_background_sample_wrapper'
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 10000 ROWS 1000;
COMMENT ON FUNCTION copymatch.calibration_background_sample(bigint, integer, bigint) IS
    'a seeded sample of the background descriptors that a calibration was measured with, each with its background '
    'similarity to the others: queries that are copies of nothing';

CREATE FUNCTION copymatch.owned_set(reference_set text)
    RETURNS copymatch.reference_set LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation
            AND pg_catalog.pg_has_role(c.relowner, 'USAGE')) THEN
        PERFORM copymatch.refuse('42501', pg_catalog.format('must own the relation of reference set "%s"', chosen.name),
            'Ask its owner: a set''s calibration decides every verdict on it.');
    END IF;
    RETURN chosen;
END $$;
COMMENT ON FUNCTION copymatch.owned_set(text) IS 'the record of a set whose calibration the caller may choose';

CREATE FUNCTION copymatch.labelled_references(reference_set text, keys text[])
    RETURNS TABLE (reference text, descriptor @extschema@.vector)
    AS 'MODULE_PATHNAME', 'labelled_references_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 10000 ROWS 1000;
COMMENT ON FUNCTION copymatch.labelled_references(text, text[]) IS
    'references of a set by their keys, read with the rights of the owner of its relation, which the caller must have';

CREATE FUNCTION copymatch.labelled_pairs(
    reference_set text, labels regclass, OUT similarity double precision[], OUT background double precision[],
    OUT is_copy boolean[], OUT judged boolean[], OUT evidence jsonb)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(labelled_pairs.reference_set);
    pairs text;
    described text;
    total bigint;
    taken bigint;
BEGIN
    PERFORM copymatch.require_column(labels, 'is_copy', 'boolean');
    SELECT c.number INTO total
        FROM copymatch.read_and_release(pg_catalog.format('SELECT count(*) FROM %s', labels)) AS c(number bigint);
    IF copymatch.has_column(labels, 'similarity') THEN
        PERFORM copymatch.require_column(labels, 'background', NULL);
        pairs := pg_catalog.format('SELECT l.similarity::double precision AS similarity, l.background::double '
                                   'precision AS background, l.is_copy, %s AS reference FROM %s l',
                                   CASE WHEN copymatch.has_column(labels, 'reference')
                                       THEN 'copymatch.key_text(l.reference)' ELSE 'NULL::pg_catalog.text' END, labels);
    ELSE
        IF NOT copymatch.has_column(labels, 'reference')
                OR NOT (copymatch.has_column(labels, 'image') OR copymatch.has_column(labels, 'descriptor')) THEN
            PERFORM copymatch.refuse('42703', pg_catalog.format('relation %s does not hold labels', labels),
                'Columns: similarity, background, is_copy (as copy_match gave them); or image (or descriptor), '
                'reference (the key), is_copy.');
        END IF;
        -- Embedding takes its time: once for each label, and no lock on labels or references is held meanwhile.
        described := CASE WHEN copymatch.has_column(labels, 'descriptor')
            THEN pg_catalog.format('SELECT copymatch.key_text(l.reference) AS reference, l.is_copy, l.descriptor '
                                   'FROM %s l', labels)
            ELSE pg_catalog.format('SELECT l.reference, l.is_copy,
                                    copymatch.embed_query(l.image, %L, l.reference, %s) AS descriptor
                                    FROM copymatch.read_and_release(%L) AS l(reference text, is_copy boolean,
                                        image bytea)', chosen.model, total,
                                   pg_catalog.format('SELECT copymatch.key_text(l.reference), l.is_copy, l.image '
                                       'FROM %s l', labels)) END;
        pairs := pg_catalog.format(
            'WITH d AS MATERIALIZED (%1$s),
                  r AS MATERIALIZED (SELECT r.reference, r.descriptor
                  FROM copymatch.labelled_references(%2$L, ARRAY(SELECT DISTINCT d.reference FROM d)) r),
                  p AS MATERIALIZED (SELECT 1 - (r.descriptor OPERATOR(@extschema@.<=>) d.descriptor) AS similarity,
                                            copymatch.calibration_background(d.descriptor, %3$s) AS background,
                                            d.is_copy, d.reference
                                     FROM d JOIN r ON r.reference = d.reference)
             SELECT * FROM p',
            described, chosen.name, chosen.calibration);
    END IF;
    -- By reference where there is one, so that no picture is on both sides; else every second one of each class.
    EXECUTE pg_catalog.format(
        'SELECT array_agg(h.similarity), array_agg(h.background), array_agg(h.is_copy), array_agg(h.judged), count(*)
             FROM (
             SELECT p.similarity, p.background, p.is_copy,
                    CASE WHEN p.reference IS NULL THEN row_number()
                        OVER (PARTITION BY p.is_copy, p.reference IS NULL
                        ORDER BY md5(p.similarity || '' '' || p.background)) %% 2 = 0
                         ELSE dense_rank() OVER (ORDER BY md5(p.reference)) %% 2 = 0 END AS judged
             FROM (%s) p WHERE p.similarity IS NOT NULL AND p.background IS NOT NULL AND p.is_copy IS NOT NULL) h',
                 pairs)
        INTO similarity, background, is_copy, judged, taken;
    similarity := coalesce(similarity, '{}'); background := coalesce(background, '{}');
    is_copy := coalesce(is_copy, '{}'); judged := coalesce(judged, '{}');
    evidence := pg_catalog.jsonb_build_object('labels', labels::text, 'pairs', taken, 'ignored',
        greatest(total - taken, 0),
        'note', 'labelled pairs; one half, by reference where given, fits the curve, the other sets the thresholds');
END $$;
COMMENT ON FUNCTION copymatch.labelled_pairs(text, regclass) IS
    'judged pairs out of a table of labels; rows with a NULL are ignored';

CREATE FUNCTION copymatch.reviewed_pairs(
    reference_set text, OUT similarity double precision[], OUT background double precision[], OUT is_copy boolean[],
    OUT judged boolean[], OUT evidence jsonb)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reviewed_pairs.reference_set);
    earliest timestamptz;
    latest timestamptz;
BEGIN
    similarity := '{}'; background := '{}'; is_copy := '{}'; judged := '{}';
    IF pg_catalog.to_regclass('copymatch.finding') IS NOT NULL THEN
        SELECT coalesce(pg_catalog.array_agg(h.similarity), '{}'), coalesce(pg_catalog.array_agg(h.background), '{}'),
               coalesce(pg_catalog.array_agg(h.confirmed), '{}'),
               coalesce(pg_catalog.array_agg(h.judged), '{}'), pg_catalog.min(h.decided), pg_catalog.max(h.decided)
            INTO similarity, background, is_copy, judged, earliest, latest
            FROM (SELECT f.similarity, f.background, f.state = 'confirmed' AS confirmed, f.decided,
                         pg_catalog.dense_rank() OVER (ORDER BY pg_catalog.md5(f.reference)) % 2 = 0 AS judged
                  FROM copymatch.finding f
                  WHERE f.set_id = chosen.id AND f.model = chosen.model AND f.state IN ('confirmed', 'dismissed')
                    AND f.similarity IS NOT NULL AND f.background IS NOT NULL
                    -- Backgrounds are compared with those of the same descriptors alone.
                    AND f.calibration IN (
                        SELECT k.id FROM copymatch.calibration k JOIN copymatch.calibration own
                            ON own.background_sha256 = k.background_sha256 WHERE own.id = chosen.calibration)) h;
    END IF;
    evidence := pg_catalog.jsonb_build_object('findings', pg_catalog.cardinality(similarity), 'decided',
        pg_catalog.jsonb_build_array(earliest, latest),
        'note', 'reviewed findings, which lie above the review threshold of their time: nothing below it is known; one '
                'half of the references fits the curve, the other sets the thresholds');
END $$;
COMMENT ON FUNCTION copymatch.reviewed_pairs(text) IS
    'judged pairs out of the findings of a set that somebody confirmed or dismissed';

CREATE FUNCTION copymatch.record_calibration(
    reference_set text, source text, labels regclass, copy_precision double precision,
    review_precision double precision, confidence double precision, copies integer, unrelated integer,
    duplicate_similarity double precision, seed bigint, OUT id bigint, OUT fitted jsonb)
    AS 'MODULE_PATHNAME', 'record_calibration_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.record_calibration(
    text, text, regclass, double precision, double precision, double precision, integer, integer, double precision,
    bigint) IS
    'writer behind copy_calibrate: gathers the pairs with the caller''s rights, fits them, and writes the set''s next '
    'calibration as the extension''s owner; the caller must own the set''s relation';

CREATE FUNCTION copymatch.use_calibration(reference_set text, id bigint) RETURNS boolean
    AS 'MODULE_PATHNAME', 'use_calibration_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.use_calibration(text, bigint) IS
    'writer behind copy_use_calibration: false where the calibration is none of the set''s nor its model''s; the '
    'caller must own the set''s relation';

CREATE FUNCTION @extschema@.copy_calibrate(
    reference_set text DEFAULT copymatch.default_set(), labels regclass DEFAULT NULL,
    copy_precision double precision DEFAULT 0.99, review_precision double precision DEFAULT 0.90,
    confidence double precision DEFAULT 0.95, source text DEFAULT NULL, copies integer DEFAULT 2000,
    unrelated integer DEFAULT 2000, duplicate_similarity double precision DEFAULT 0.95, seed bigint DEFAULT 0,
    apply boolean DEFAULT true)
    RETURNS copymatch.calibration LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.owned_set(copy_calibrate.reference_set);
    result copymatch.calibration;
    written record;
    reviewed record;
    kind text := coalesce(copy_calibrate.source, CASE WHEN labels IS NOT NULL THEN 'labels' END);
    fitted jsonb;
    confirmed bigint;
BEGIN
    IF copy_calibrate.copy_precision IS NULL OR copy_calibrate.review_precision IS NULL
       OR copy_calibrate.confidence IS NULL OR copies IS NULL OR unrelated IS NULL
       OR duplicate_similarity IS NULL OR seed IS NULL OR apply IS NULL THEN
        PERFORM copymatch.refuse('22004', 'an argument of copy_calibrate is NULL',
            'Only labels and source may be NULL.');
    END IF;
    IF NOT (copy_calibrate.copy_precision > 0 AND copy_calibrate.copy_precision < 1
            AND copy_calibrate.review_precision > 0
            AND copy_calibrate.review_precision <= copy_calibrate.copy_precision AND copy_calibrate.confidence >= 0.5
            AND copy_calibrate.confidence < 1) THEN
        PERFORM copymatch.refuse('22023',
            pg_catalog.format('copy_precision %s, review_precision %s and confidence %s do not go together',
                copy_calibrate.copy_precision, copy_calibrate.review_precision, copy_calibrate.confidence),
            'Above 0 and below 1, review_precision at most copy_precision, confidence at least 0.5.');
    END IF;
    IF copies < 40 OR copies > 1000000 OR unrelated < 40 OR unrelated > 1000000 THEN
        PERFORM copymatch.refuse('22023', pg_catalog.format('copies is %s, unrelated is %s', copies, unrelated),
            'Each lies between 40 and 1000000.');
    END IF;
    IF kind NOT IN ('labels', 'findings', 'edits') OR (kind = 'labels') <> (labels IS NOT NULL) THEN
        PERFORM copymatch.refuse('22023',
            pg_catalog.format('source is "%s", labels is %s', coalesce(kind, 'NULL'), coalesce(labels::text, 'NULL')),
            'labels => a table for labelled pairs; source => ''findings'' or ''edits'' without one; neither: findings '
            'where enough are reviewed, else edits.');
    END IF;
    -- Findings that the caller may not read are none; asked for by name they are an error.
    IF kind IS NULL AND pg_catalog.to_regclass('copymatch.finding') IS NOT NULL
       AND NOT pg_catalog.has_table_privilege(pg_catalog.to_regclass('copymatch.finding')::oid, 'SELECT') THEN
        kind := 'edits';
    END IF;
    IF kind IS NULL OR kind = 'findings' THEN
        SELECT * INTO reviewed FROM copymatch.reviewed_pairs(chosen.name);
        SELECT pg_catalog.count(*) FILTER (WHERE u.c) INTO confirmed FROM pg_catalog.unnest(reviewed.is_copy) AS u(c);
        IF kind IS NULL AND pg_catalog.cardinality(reviewed.is_copy) - confirmed >= 40
           AND confirmed >= 2 * copymatch.labels_needed(copy_calibrate.copy_precision, copy_calibrate.confidence) THEN
            kind := 'findings';
        END IF;
        kind := coalesce(kind, 'edits');
        IF copy_calibrate.source IS NULL THEN
            RAISE NOTICE 'calibrating on %: % findings are confirmed, % dismissed', CASE kind
                WHEN 'edits' THEN 'edited copies of the references' ELSE 'reviewed findings' END,
                  confirmed, pg_catalog.cardinality(reviewed.is_copy) - confirmed;
        END IF;
    END IF;
    SELECT * INTO written FROM copymatch.record_calibration(chosen.name, kind, labels, copy_calibrate.copy_precision,
                                                            copy_calibrate.review_precision,
                                                            copy_calibrate.confidence, copies, unrelated,
                                                            duplicate_similarity, seed);
    fitted := written.fitted;
    IF (fitted->>'reversed')::boolean THEN
        RAISE WARNING 'in these labels copies are no more alike than others'
            USING HINT = 'Is is_copy the wrong way round? The similarity was given no weight.';
    END IF;
    IF NOT (fitted->>'copy_held')::boolean THEN
        RAISE WARNING 'the judged pairs do not suffice to promise a precision of % for verdict copy, only %',
              copy_calibrate.copy_precision,
              pg_catalog.round((fitted#>>'{evidence,threshold_half,copy,precision_at_least}')::numeric, 3)
            USING HINT = pg_catalog.format('It takes %s copies above the threshold without an error, and twice as many '
                                           'pairs in all; or ask for a lower precision or confidence.',
                                           copymatch.labels_needed(copy_calibrate.copy_precision,
                                               copy_calibrate.confidence));
    END IF;
    IF NOT (fitted->>'verified_held')::boolean THEN
        RAISE WARNING 'comparing pictures does not suffice on this set to promise a precision of % for verdict copy, '
                      'only %: % verdicts were right, % wrong', copy_calibrate.copy_precision,
              pg_catalog.round((fitted#>>'{verified,precision_at_least}')::numeric, 3), fitted#>>'{verified,right}',
              (fitted#>>'{verified,wrong}')::bigint + (fitted#>>'{verified,strangers_wrong}')::bigint
            USING HINT = CASE WHEN (fitted#>>'{verified,wrong}')::bigint
                + (fitted#>>'{verified,strangers_wrong}')::bigint > 0
                THEN 'Pictures of one kind are taken for each other. Raise copy_probability (copy_alter_set), keep '
                     'several references of the kind, or have a person look (verdict=review in flagging).'
                ELSE pg_catalog.format('It takes %s such verdicts without an error: more copies.',
                    copymatch.labels_needed(copy_calibrate.copy_precision, copy_calibrate.confidence)) END;
    END IF;
    IF NOT (fitted->>'review_held')::boolean THEN
        RAISE WARNING 'the judged pairs do not suffice to promise a precision of % for verdict review, only %',
              copy_calibrate.review_precision,
              pg_catalog.round((fitted#>>'{evidence,threshold_half,review,precision_at_least}')::numeric, 3)
            USING HINT = pg_catalog.format('It takes %s copies above the threshold without an error, and twice as many '
                                           'pairs in all; or ask for a lower precision or confidence.',
                                           copymatch.labels_needed(copy_calibrate.review_precision,
                                               copy_calibrate.confidence));
    END IF;
    SELECT * INTO result FROM copymatch.calibration c WHERE c.id = written.id;
    IF (result.evidence->>'near_duplicates')::bigint > 0 THEN
        RAISE NOTICE 'references of set "%" are near-duplicates of each other (similarity at least %), and were taken '
                     'for the same picture: % of them met', chosen.name,
              duplicate_similarity, result.evidence->>'near_duplicates'
            USING HINT = 'The calibration''s evidence names some (near_duplicate_examples). Where they are different '
                         'pictures of one kind, ask for a higher duplicate_similarity: they are what a stranger is '
                         'taken for.';
    END IF;
    IF apply THEN
        PERFORM @extschema@.copy_use_calibration(chosen.name, result.id);
    END IF;
    RETURN result;
END $$;
COMMENT ON FUNCTION @extschema@.copy_calibrate(
    text, regclass, double precision, double precision, double precision, text, integer, integer, double precision,
    bigint, boolean) IS
    'fits the probability of a copy and chooses the thresholds of the verdicts copy and review so that their precision '
    'is at least the one asked for with this confidence; writes a new, immutable calibration of the set with its '
    'evidence, and switches the set to it (apply => false: does not). From labels: a table or view with similarity, '
    'background, is_copy, or image (or descriptor), reference, is_copy. Without labels from reviewed findings where '
    'they suffice, else from seeded edits of the set''s own references (copies) and background descriptors '
    '(unrelated). The precision holds where uploads are mixed as the pairs are. References at least '
    'duplicate_similarity alike count as the same picture. Needs ownership of the set''s relation';

CREATE FUNCTION @extschema@.copy_use_calibration(reference_set text, id bigint)
    RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.owned_set(copy_use_calibration.reference_set);
    known text;
BEGIN
    IF NOT coalesce(copymatch.use_calibration(chosen.name, copy_use_calibration.id), false) THEN
        SELECT pg_catalog.string_agg(c.id::text, ', ' ORDER BY c.id) INTO known FROM copymatch.calibration c
            WHERE c.model = chosen.model AND (c.reference_set IS NULL OR c.reference_set = chosen.name);
        PERFORM copymatch.refuse('42704',
            pg_catalog.format('calibration %s is none of reference set "%s"', copy_use_calibration.id, chosen.name),
            'Those for its model are: ' || coalesce(known, 'none') || '.');
    END IF;
    IF chosen.copy_probability IS NOT NULL OR chosen.review_probability IS NOT NULL THEN
        RAISE WARNING 'reference set "%" has thresholds of its own, which go before those of calibration %',
            chosen.name, copy_use_calibration.id
            USING HINT = 'Set its copy_probability and review_probability to NULL for the calibration''s.';
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.copy_use_calibration(text, bigint) IS
    'makes this the calibration of the set: an earlier version, or the model''s own; needs '
    'ownership of the set''s relation';

CREATE FUNCTION @extschema@.copy_calibration_report(
    reference_set text DEFAULT copymatch.default_set(), since timestamptz DEFAULT '-infinity')
    RETURNS TABLE (tier text, calibration bigint, reviewed bigint, confirmed bigint, predicted double precision,
        observed double precision, observed_low double precision, observed_high double precision,
        wanted double precision, calibration_error double precision, drift boolean, reason text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_calibration_report.reference_set);
    used copymatch.calibration;
BEGIN
    IF pg_catalog.to_regclass('copymatch.finding') IS NULL THEN
        PERFORM copymatch.refuse('55000', 'there are no findings to report on',
            'Flag uploads with copy_flag, and review what it finds.');
    END IF;
    SELECT * INTO used FROM copymatch.calibration c WHERE c.id = chosen.calibration;
    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT f.verdict, f.probability, f.state = 'confirmed' AS confirmed
        FROM copymatch.finding f
        WHERE f.set_id = chosen.id AND f.calibration = used.id AND f.state IN ('confirmed', 'dismissed')
          AND f.verdict IN ('copy', 'review')
          AND f.decided >= copy_calibration_report.since),
    tiers AS (
        SELECT t.tier, t.place, t.wanted, j.probability, j.confirmed
        FROM (VALUES ('copy', 1, used.copy_precision), ('review', 2, NULL::double precision),
            ('all', 3, used.review_precision)) AS t(tier, place, wanted)
        LEFT JOIN judged j ON t.tier = 'all' OR j.verdict = t.tier),
    errors AS (
        SELECT b.tier, pg_catalog.sum(b.apart) AS apart
        FROM (SELECT t.tier,
              pg_catalog.abs(pg_catalog.sum(t.probability) - pg_catalog.count(*) FILTER (WHERE t.confirmed)) AS apart
              FROM tiers t WHERE t.probability IS NOT NULL GROUP BY t.tier,
                  least(pg_catalog.floor(t.probability * 10), 9)) b
        GROUP BY b.tier),
    figures AS (
        SELECT t.tier, t.place, t.wanted, pg_catalog.count(t.probability) AS reviewed, pg_catalog.count(*)
            FILTER (WHERE t.confirmed) AS confirmed, pg_catalog.avg(t.probability) AS predicted
        FROM tiers t GROUP BY t.tier, t.place, t.wanted),
    bounds AS (
        SELECT f.*, i.low, i.high, f.confirmed / nullif(f.reviewed, 0)::double precision AS observed,
               e.apart / nullif(f.reviewed, 0) AS error,
               CASE WHEN i.high < f.wanted
                   THEN pg_catalog.format('precision is at most %s, and %s was wanted',
                       pg_catalog.round(i.high::numeric, 3), pg_catalog.round(f.wanted::numeric, 3))
                    WHEN f.predicted > i.high
                        THEN pg_catalog.format('probabilities average %s, and at most %s are copies',
                            pg_catalog.round(f.predicted::numeric, 3), pg_catalog.round(i.high::numeric, 3))
                    WHEN f.predicted < i.low
                        THEN pg_catalog.format('probabilities average %s, and at least %s are copies',
                            pg_catalog.round(f.predicted::numeric, 3), pg_catalog.round(i.low::numeric, 3))
               END AS reason
        FROM figures f CROSS JOIN LATERAL copymatch.proportion_interval(f.confirmed, f.reviewed) i
        LEFT JOIN errors e ON e.tier = f.tier)
    SELECT b.tier, used.id, b.reviewed, b.confirmed, b.predicted, b.observed, CASE WHEN b.reviewed > 0 THEN b.low END,
           CASE WHEN b.reviewed > 0 THEN b.high END,
           b.wanted, b.error, b.reviewed > 0 AND b.reason IS NOT NULL,
           CASE WHEN b.reviewed = 0 THEN 'nothing reviewed yet' ELSE coalesce(b.reason, 'holds') END
    FROM bounds b ORDER BY b.place;
END $$;
COMMENT ON FUNCTION @extschema@.copy_calibration_report(text, timestamptz) IS
    'how a set''s present calibration holds on the findings that were made with it and reviewed (since then): by '
    'verdict and for both together, predicted precision (mean probability), observed precision with its 95 % '
    'interval, the precision wanted, expected calibration error, and whether it has drifted, and why: the interval '
    'excludes what was wanted or predicted';
