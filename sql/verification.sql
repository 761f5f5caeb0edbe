-- Verification: what a calibration weighs beyond similarity and background. Here, not in catalogue.sql, so
-- that an upgrade runs it too.
ALTER TABLE copymatch.calibration
    ADD COLUMN weights jsonb;
COMMENT ON COLUMN copymatch.calibration.weights IS
    'since version 2 of the record: weights of the standing among the query''s other references (lead) and of what '
    'verification finds, with thresholds of its own (verified), both logistic; NULL: similarity '
    'and background alone decide';

-- Of an upgrade: the built-in model's background knows pages beside photographs, and its calibration weighs what
-- verification finds. Sets that follow the built-in calibration follow it; findings go on to name the record that they
-- were judged by, and a set's own calibration keeps the background that it was measured with.
ALTER TABLE copymatch.calibration DISABLE TRIGGER immutable;
DO $$
DECLARE
    carried record;
    earlier bigint;
BEGIN
    SELECT * INTO carried FROM copymatch.builtin_model();
    IF EXISTS (SELECT FROM copymatch.model m WHERE m.built_in AND m.sha256 OPERATOR(pg_catalog.=) carried.sha256
               AND m.background_sha256 OPERATOR(pg_catalog.<>) carried.background_sha256) THEN
        INSERT INTO copymatch.calibration (model, background_sha256, neighbours, factor, clamp_low, clamp_high,
                                           intercept, similarity_weight, background_weight, copy_probability,
                                           review_probability, evidence, created, created_by)
            SELECT model, background_sha256, neighbours, factor, clamp_low, clamp_high, intercept, similarity_weight,
                   background_weight, copy_probability, review_probability, evidence, created, created_by
            FROM copymatch.calibration WHERE id OPERATOR(pg_catalog.=) 0
            RETURNING id INTO earlier;
        ALTER TABLE copymatch.finding DISABLE TRIGGER guard;
        UPDATE copymatch.finding SET calibration = earlier WHERE calibration OPERATOR(pg_catalog.=) 0;
        ALTER TABLE copymatch.finding ENABLE TRIGGER guard;
        UPDATE copymatch.model SET background_sha256 = carried.background_sha256, manifest = carried.manifest
            WHERE built_in;
    END IF;
    UPDATE copymatch.calibration k
        SET background_sha256 = carried.background_sha256, neighbours = c.neighbours, factor = c.factor,
            clamp_low = (c.clamp OPERATOR(pg_catalog.->>) 0)::float8,
            clamp_high = (c.clamp OPERATOR(pg_catalog.->>) 1)::float8,
            intercept = c.intercept, similarity_weight = c.similarity_weight,
            background_weight = c.background_weight, copy_probability = c.copy_probability,
            review_probability = c.review_probability, evidence = c.evidence,
            weights = copymatch.calibration_weights(carried.calibration)
        FROM pg_catalog.jsonb_to_record(carried.calibration) AS c(neighbours int, factor float8, clamp jsonb,
             intercept float8, similarity_weight float8, background_weight float8, copy_probability float8,
             review_probability float8, evidence jsonb)
        WHERE k.id OPERATOR(pg_catalog.=) 0 AND k.model OPERATOR(pg_catalog.=) carried.name;
END $$;
ALTER TABLE copymatch.calibration ENABLE TRIGGER immutable;
