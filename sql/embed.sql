-- Images to descriptors.
CREATE FUNCTION @extschema@.copy_embed(image bytea, model text DEFAULT NULL) RETURNS @extschema@.vector
    AS 'MODULE_PATHNAME', 'copy_embed_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION @extschema@.copy_embed(bytea, text) IS
    'descriptor (unit vector) of an image; NULL for NULL; an error with the reason for an image that cannot be read or '
    'has too little detail to be matched';

CREATE FUNCTION @extschema@.copy_sketch(image bytea, model text DEFAULT NULL) RETURNS bytea
    AS 'MODULE_PATHNAME', 'copy_sketch_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION @extschema@.copy_sketch(bytea, text) IS
    'what verification needs of a reference, at most 8 KB: local features and a small grey picture. Kept beside the '
    'descriptor by copymatch; for views and foreign tables that bring their own. model: the one whose descriptors lie '
    'beside it (the image is decoded as for that one). NULL for NULL';

CREATE FUNCTION @extschema@.copy_embed_batch(images bytea[], model text DEFAULT NULL) RETURNS @extschema@.vector[]
    AS 'MODULE_PATHNAME', 'copy_embed_batch_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 10000000;
COMMENT ON FUNCTION @extschema@.copy_embed_batch(bytea[], text) IS
    'descriptors of several images, in their order, NULL for NULL; the network runs on several at once';

CREATE FUNCTION @extschema@.copy_image_info(
    image bytea, OUT format text, OUT width integer, OUT height integer, OUT orientation integer, OUT frames integer,
    OUT colour text, OUT bits_per_channel integer, OUT has_alpha boolean, OUT detail real, OUT matchable boolean,
    OUT reason text, OUT frame integer)
    AS 'MODULE_PATHNAME', 'copy_image_info_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION @extschema@.copy_image_info(bytea) IS
    'format, size as shown (after orientation), orientation (1 to 8), frames, colour, bits, transparency, detail, and '
    'whether the image can be matched (reason: why not; also for images that cannot be read, with NULL for what is '
    'not known); frame: the one that stands for an animation';

CREATE FUNCTION @extschema@.copy_edit(image bytea, edit text, strength real DEFAULT 0.5, seed bigint DEFAULT 0)
    RETURNS bytea AS 'MODULE_PATHNAME', 'copy_edit_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION @extschema@.copy_edit(bytea, text, real, bigint) IS
    'an edited copy (JPEG) as people make them, to test your own pictures with; edit: a name from copy_edits(); '
    'strength 0 to 1; the same seed gives the same bytes';

CREATE FUNCTION @extschema@.copy_edits(OUT edit text, OUT description text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'copy_edits_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.copy_edits() IS 'the edits that copy_edit makes';

CREATE FUNCTION @extschema@.copy_runtime(
    OUT model text, OUT requested_provider text, OUT provider text, OUT fallback_reason text, OUT threads integer,
    OUT runtime_version text, OUT library text, OUT load_milliseconds double precision)
    AS 'MODULE_PATHNAME', 'copy_runtime_wrapper' LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.copy_runtime() IS
    'which execution provider really runs the default model in this session, with which library and version; loads the '
    'model if it is not loaded';

CREATE FUNCTION copymatch.inspect_model(
    weights bytea, manifest jsonb, background bytea, OUT name text, OUT version text, OUT dimensions integer,
    OUT sha256 bytea, OUT background_sha256 bytea)
    AS 'MODULE_PATHNAME', 'inspect_model_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.inspect_model(bytea, jsonb, bytea) IS
    'loads a model, checks manifest, hash, inputs, outputs and parity vectors, and says what it is';
REVOKE ALL ON FUNCTION copymatch.inspect_model(bytea, jsonb, bytea) FROM PUBLIC;

CREATE FUNCTION copymatch.check_calibration(calibration jsonb) RETURNS void
    AS 'MODULE_PATHNAME', 'check_calibration_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.check_calibration(jsonb) IS
    'an error that names the field where a calibration is not valid';

CREATE FUNCTION copymatch.calibration_weights(calibration jsonb)
    RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE WHEN pg_catalog.jsonb_exists(calibration, 'lead')
                THEN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
                    'lead', calibration OPERATOR(pg_catalog.->) 'lead',
                    'verified', calibration OPERATOR(pg_catalog.->) 'verified')) END;
END;
COMMENT ON FUNCTION copymatch.calibration_weights(jsonb) IS
    'the part of a calibration that weighs standing and evidence; NULL where it has none';

CREATE FUNCTION @extschema@.copy_add_model(
    name text, weights bytea, manifest jsonb, background bytea DEFAULT NULL, calibration jsonb DEFAULT NULL)
    RETURNS text AS 'MODULE_PATHNAME', 'copy_add_model_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_add_model(text, bytea, jsonb, bytea, jsonb) IS
    'adds a model after loading and checking it: weights (ONNX), manifest, and, for copy_match, background descriptors '
    'and a calibration. The server executes what the weights say: superusers only, unless granted';
REVOKE ALL ON FUNCTION @extschema@.copy_add_model(text, bytea, jsonb, bytea, jsonb) FROM PUBLIC;

CREATE FUNCTION @extschema@.copy_drop_model(name text) RETURNS void
    AS 'MODULE_PATHNAME', 'copy_drop_model_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_drop_model(text) IS
    'removes a model that no reference set uses, and its calibrations';
REVOKE ALL ON FUNCTION @extschema@.copy_drop_model(text) FROM PUBLIC;
