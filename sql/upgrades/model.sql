-- The library carries another model now. The one before has become an ordinary model of the catalogue, with a
-- calibration of its own; sets stay with it until copy_reembed.
DO $$
DECLARE
    carried record;
    moved bigint;
BEGIN
    SELECT * INTO carried FROM copymatch.builtin_model();
    IF EXISTS (SELECT FROM copymatch.model m WHERE m.built_in AND m.sha256 <> carried.sha256) THEN
        RAISE EXCEPTION 'the built-in model of this catalogue is of no released version'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Install the library that this catalogue was made with, and re-embed its sets with a model '
                       'added by copy_add_model.';
    END IF;
    IF EXISTS (SELECT FROM copymatch.model m WHERE m.built_in) THEN
        RETURN;
    END IF;
    INSERT INTO copymatch.calibration (model, background_sha256, neighbours, factor, clamp_low, clamp_high, intercept,
                                       similarity_weight, background_weight, copy_probability, review_probability,
                                       evidence, created, created_by)
        SELECT model, background_sha256, neighbours, factor, clamp_low, clamp_high, intercept,
               similarity_weight, background_weight, copy_probability, review_probability, evidence, created, created_by
        FROM copymatch.calibration WHERE id = 0
        RETURNING id INTO moved;
    UPDATE copymatch.reference_set SET calibration = moved WHERE calibration = 0;
    DELETE FROM copymatch.calibration WHERE id = 0;
    INSERT INTO copymatch.model (name, version, dimensions, sha256, manifest, background_sha256, built_in)
        VALUES (carried.name, carried.version, carried.dimensions, carried.sha256, carried.manifest,
            carried.background_sha256, true);
    INSERT INTO copymatch.calibration (id, model, background_sha256, neighbours, factor, clamp_low, clamp_high,
                                       intercept,
                                       similarity_weight, background_weight, copy_probability, review_probability,
                                       evidence, built_in)
        SELECT 0, carried.name, carried.background_sha256, c.neighbours, c.factor, (c.clamp->>0)::float8,
               (c.clamp->>1)::float8, c.intercept,
               c.similarity_weight, c.background_weight, c.copy_probability, c.review_probability, c.evidence, true
        FROM pg_catalog.jsonb_to_record(carried.calibration) AS c(neighbours int, factor float8, clamp jsonb,
             intercept float8, similarity_weight float8,
             background_weight float8, copy_probability float8, review_probability float8, evidence jsonb);
END $$;
