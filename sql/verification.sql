-- Verification: what a calibration weighs beyond similarity and background, and the built-in one that does.
ALTER TABLE copymatch.calibration
    ADD COLUMN weights jsonb;
COMMENT ON COLUMN copymatch.calibration.weights IS 'since version 2 of the record: weights of the standing among the query''s other references (lead) and of what verification finds (verified), both logistic; NULL: similarity and background alone decide';

-- The row that catalogue.sql made, or, in an update, that the section by hand made way for.
DELETE FROM copymatch.calibration WHERE id OPERATOR(pg_catalog.=) 0;
INSERT INTO copymatch.calibration (id, model, background_sha256, neighbours, factor, clamp_low, clamp_high, intercept, similarity_weight,
                                   background_weight, copy_probability, review_probability, evidence, built_in, weights)
    SELECT 0, b.name, b.background_sha256, c.neighbours, c.factor, (c.clamp OPERATOR(pg_catalog.->>) 0)::pg_catalog.float8,
           (c.clamp OPERATOR(pg_catalog.->>) 1)::pg_catalog.float8, c.intercept, c.similarity_weight, c.background_weight, c.copy_probability,
           c.review_probability, c.evidence, true, copymatch.calibration_weights(b.calibration)
    FROM copymatch.builtin_model() b,
         pg_catalog.jsonb_to_record(b.calibration) AS c(neighbours int, factor float8, clamp jsonb, intercept float8, similarity_weight float8,
             background_weight float8, copy_probability float8, review_probability float8, evidence jsonb);
