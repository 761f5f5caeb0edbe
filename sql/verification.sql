-- Verification: what a calibration weighs beyond similarity and background. Here, not in catalogue.sql, so
-- that an upgrade runs it too.
ALTER TABLE copymatch.calibration
    ADD COLUMN weights jsonb;
COMMENT ON COLUMN copymatch.calibration.weights IS
    'since version 2 of the record: weights of the standing among the query''s other references (lead) and of what '
    'verification finds, with thresholds of its own (verified), both logistic; NULL: similarity '
    'and background alone decide';

-- The built-in one has had them from the beginning, or gets them now; what it says of descriptors alone stays as it is.
ALTER TABLE copymatch.calibration DISABLE TRIGGER immutable;
UPDATE copymatch.calibration SET weights = copymatch.calibration_weights(b.calibration)
    FROM copymatch.builtin_model() b
    WHERE calibration.id OPERATOR(pg_catalog.=) 0 AND calibration.model OPERATOR(pg_catalog.=) b.name
      AND calibration.background_sha256 OPERATOR(pg_catalog.=) b.background_sha256;
ALTER TABLE copymatch.calibration ENABLE TRIGGER immutable;
