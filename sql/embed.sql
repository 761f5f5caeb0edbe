-- Images to descriptors.
CREATE FUNCTION copy_embed(image bytea, model text DEFAULT NULL) RETURNS vector
    AS 'MODULE_PATHNAME', 'copy_embed_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION copy_embed(bytea, text) IS 'descriptor (unit vector) of an image; NULL for NULL; an error with the reason for an image that cannot be read or has too little detail to be matched';

CREATE FUNCTION copy_embed_batch(images bytea[], model text DEFAULT NULL) RETURNS vector[]
    AS 'MODULE_PATHNAME', 'copy_embed_batch_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 10000000;
COMMENT ON FUNCTION copy_embed_batch(bytea[], text) IS 'descriptors of several images, in their order, NULL for NULL; the network runs on several at once';

CREATE FUNCTION copy_image_info(image bytea, OUT format text, OUT width integer, OUT height integer, OUT orientation integer,
                                OUT frames integer, OUT colour text, OUT bits_per_channel integer, OUT has_alpha boolean,
                                OUT detail real, OUT matchable boolean, OUT reason text)
    AS 'MODULE_PATHNAME', 'copy_image_info_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION copy_image_info(bytea) IS 'format, size as shown (after EXIF orientation), orientation (1 to 8), frames, colour, bits, transparency, detail, and whether the image can be matched (reason: why not)';

CREATE FUNCTION copy_edit(image bytea, edit text, strength real DEFAULT 0.5, seed bigint DEFAULT 0) RETURNS bytea
    AS 'MODULE_PATHNAME', 'copy_edit_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION copy_edit(bytea, text, real, bigint) IS 'an edited copy (JPEG) as people make them, to test your own pictures with; edit: a name from copy_edits(); strength 0 to 1; the same seed gives the same bytes';

CREATE FUNCTION copy_edits(OUT edit text, OUT description text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'copy_edits_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copy_edits() IS 'the edits that copy_edit makes';

CREATE FUNCTION copy_runtime(OUT model text, OUT requested_provider text, OUT provider text, OUT fallback_reason text,
                             OUT threads integer, OUT runtime_version text, OUT library text, OUT load_milliseconds double precision)
    AS 'MODULE_PATHNAME', 'copy_runtime_wrapper' LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION copy_runtime() IS 'which execution provider really runs the default model in this session, with which library and version; loads the model if it is not loaded';

CREATE FUNCTION copymatch.inspect_model(weights bytea, manifest jsonb, background bytea, OUT name text, OUT version text,
                                        OUT dimensions integer, OUT sha256 bytea, OUT background_sha256 bytea)
    AS 'MODULE_PATHNAME', 'inspect_model_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.inspect_model(bytea, jsonb, bytea) IS 'loads a model, checks manifest, hash, inputs, outputs and parity vectors, and says what it is';
REVOKE ALL ON FUNCTION copymatch.inspect_model(bytea, jsonb, bytea) FROM PUBLIC;

CREATE FUNCTION copymatch.check_calibration(calibration jsonb) RETURNS void
    AS 'MODULE_PATHNAME', 'check_calibration_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.check_calibration(jsonb) IS 'an error that names the field where a calibration is not valid';

CREATE FUNCTION copy_add_model(name text, weights bytea, manifest jsonb, background bytea DEFAULT NULL, calibration jsonb DEFAULT NULL)
    RETURNS text LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    found record;
BEGIN
    IF copy_add_model.name IS NULL OR copy_add_model.weights IS NULL OR copy_add_model.manifest IS NULL THEN
        RAISE EXCEPTION 'copy_add_model needs a name, weights and a manifest' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF (copy_add_model.background IS NULL) <> (copy_add_model.calibration IS NULL) THEN
        RAISE EXCEPTION 'background and calibration belong together: give both, or neither'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Without them copy_embed works with this model, and copy_match does not.';
    END IF;
    SELECT * INTO found FROM copymatch.inspect_model(copy_add_model.weights, copy_add_model.manifest, copy_add_model.background);
    IF found.name <> copy_add_model.name THEN
        RAISE EXCEPTION 'the manifest is that of model "%", not "%"', found.name, copy_add_model.name
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the name that the manifest states.';
    END IF;
    IF EXISTS (SELECT FROM copymatch.model m WHERE m.name = found.name) THEN
        RAISE EXCEPTION 'model "%" exists already', found.name
            USING ERRCODE = 'duplicate_object', HINT = 'Models are immutable: descriptors would silently change their meaning. Choose another name.';
    END IF;
    PERFORM copymatch.check_calibration(copy_add_model.calibration);
    INSERT INTO copymatch.model (name, version, dimensions, sha256, manifest, weights, background, background_sha256)
        VALUES (found.name, found.version, found.dimensions, found.sha256, copy_add_model.manifest, copy_add_model.weights,
                copy_add_model.background, found.background_sha256);
    IF copy_add_model.calibration IS NOT NULL THEN
        INSERT INTO copymatch.calibration (model, background_sha256, neighbours, factor, clamp_low, clamp_high, intercept,
                                           similarity_weight, background_weight, copy_probability, review_probability, evidence)
            SELECT found.name, found.background_sha256, c.neighbours, c.factor, (c.clamp->>0)::float8, (c.clamp->>1)::float8,
                   c.intercept, c.similarity_weight, c.background_weight, c.copy_probability, c.review_probability, c.evidence
            FROM pg_catalog.jsonb_to_record(copy_add_model.calibration) AS c(neighbours int, factor float8, clamp jsonb, intercept float8,
                 similarity_weight float8, background_weight float8, copy_probability float8, review_probability float8, evidence jsonb);
    END IF;
    RETURN found.name;
END $$;
COMMENT ON FUNCTION copy_add_model(text, bytea, jsonb, bytea, jsonb) IS 'adds a model after loading and checking it: weights (ONNX), manifest, and, for copy_match, background descriptors and a calibration. The server executes what the weights say: superusers only, unless granted';
REVOKE ALL ON FUNCTION copy_add_model(text, bytea, jsonb, bytea, jsonb) FROM PUBLIC;

CREATE FUNCTION copy_drop_model(name text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    model record;
    sets text;
BEGIN
    SELECT m.name, m.built_in INTO model FROM copymatch.model m WHERE m.name = copy_drop_model.name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model "%" does not exist', copy_drop_model.name
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM copymatch.models lists them.';
    END IF;
    IF model.built_in THEN
        RAISE EXCEPTION 'model "%" is built into the extension', model.name USING ERRCODE = 'dependent_objects_still_exist';
    END IF;
    SELECT pg_catalog.string_agg(pg_catalog.quote_ident(s.name), ', ' ORDER BY s.name) INTO sets
        FROM copymatch.reference_set s
        WHERE s.model = model.name
           OR EXISTS (SELECT FROM copymatch.reembedding r WHERE r.reference_set = s.name AND model.name IN (r.model, r.old_model));
    IF sets IS NOT NULL THEN
        RAISE EXCEPTION 'model "%" is in use', model.name
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = 'Reference sets: ' || sets, HINT = 'Drop these sets with copy_drop_set, or end their re-embedding with copy_finish_reembed, first.';
    END IF;
    DELETE FROM copymatch.calibration c WHERE c.model = model.name;
    DELETE FROM copymatch.model m WHERE m.name = model.name;
END $$;
COMMENT ON FUNCTION copy_drop_model(text) IS 'removes a model that no reference set uses, and its calibrations';
REVOKE ALL ON FUNCTION copy_drop_model(text) FROM PUBLIC;
