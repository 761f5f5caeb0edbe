-- From 0.1.0 to 0.2.0, as 0.2.0 was released; frozen, but for names: each has its schema, and what has none
-- is PostgreSQL's own, so that no object of somebody else in the extension's schema is met.
SET LOCAL search_path = pg_catalog, pg_temp;
ALTER TABLE copymatch.reference_set
    ADD COLUMN further_key_columns name[] NOT NULL DEFAULT '{}',
    ADD COLUMN filter text,
    ADD COLUMN k integer CONSTRAINT reference_set_k_check CHECK (k BETWEEN 1 AND 10000),
    ADD COLUMN copy_probability double precision,
    ADD COLUMN review_probability double precision,
    ADD COLUMN negative boolean NOT NULL DEFAULT false,
    ADD COLUMN negatives text[],
    ADD CONSTRAINT reference_set_probability_check
        CHECK (copy_probability BETWEEN 0 AND 1 AND review_probability BETWEEN 0 AND 1 AND review_probability <= copy_probability);
DROP FUNCTION @extschema@.copy_match(bytea, text, integer);
DROP FUNCTION @extschema@.copy_match_descriptor(@extschema@.vector, text, integer, text);
DROP FUNCTION @extschema@.copy_create_set(text, regclass, name, name, name, text, text, boolean);
COMMENT ON COLUMN copymatch.reference_set.key_column IS 'column that identifies a reference; the first one of a composite key';
COMMENT ON COLUMN copymatch.reference_set.further_key_columns IS 'the other columns of a composite key';
COMMENT ON COLUMN copymatch.reference_set.filter IS 'SQL condition: which rows of the relation belong to the set; NULL: all';
COMMENT ON COLUMN copymatch.reference_set.k IS 'references that a search returns where the call names no number; NULL: 10';
COMMENT ON COLUMN copymatch.reference_set.copy_probability IS 'probability from which the verdict is copy; NULL: the calibration''s';
COMMENT ON COLUMN copymatch.reference_set.review_probability IS 'probability from which the verdict is review; NULL: the calibration''s';
COMMENT ON COLUMN copymatch.reference_set.negative IS 'templates, logos, blank frames: a copy of one of these explains a match in another set, which is then not raised';
COMMENT ON COLUMN copymatch.reference_set.negatives IS 'negative sets that apply to this one; NULL: those whose relation has the same owner';
DROP FUNCTION @extschema@.copy_index_stats(regclass);
CREATE FUNCTION @extschema@.copy_index_stats(
    index regclass,
    OUT rows bigint, OUT lists bigint, OUT branches bigint, OUT empty_lists bigint, OUT mean_list float8,
    OUT longest_list bigint, OUT imbalance float8, OUT free_slots bigint, OUT pages bigint, OUT centroid_pages bigint,
    OUT scan_pages bigint, OUT refine_pages bigint, OUT bytes bigint, OUT dimensions integer, OUT format_version integer,
    OUT probes bigint, OUT curve jsonb
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'copy_index_stats_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION @extschema@.copy_index_stats(regclass) IS 'what an ivf index is made of: lists and how evenly they are filled (imbalance 1: all alike), slots free for inserts (those of removed rows too), pages by kind, the version of the format on disk, the lists that a query probes at the present settings, and the recall measured by number of probes. For the table''s owner and members of pg_stat_scan_tables';
-- @model 0.1.0@

-- roles.sql
-- Roles for people: reader, reviewer, admin, each a member of the one before. They belong to the cluster, not to the database:
-- they are made where they are missing, other databases share them, and DROP EXTENSION leaves them.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN SELECT * FROM (VALUES
        ('copymatch_reader', 'may read findings, their history, the queue and the reports of copymatch'),
        ('copymatch_reviewer', 'may confirm, dismiss and reopen findings of copymatch'),
        ('copymatch_admin', 'may set up flagging triggers, work off and mend the queue of copymatch')) AS v(name, purpose) LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = wanted.name) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted.name);
                EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted.name, wanted.purpose);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database's CREATE EXTENSION was quicker
            END;
        END IF;
    END LOOP;
    IF NOT pg_catalog.pg_has_role('copymatch_reviewer', 'copymatch_reader', 'MEMBER') THEN
        GRANT copymatch_reader TO copymatch_reviewer;
    END IF;
    IF NOT pg_catalog.pg_has_role('copymatch_admin', 'copymatch_reviewer', 'MEMBER') THEN
        GRANT copymatch_reviewer TO copymatch_admin;
    END IF;
END $$;

-- set_tables.sql
-- What is kept beside a reference set: references out of use, groups of sets, re-embeddings under way.
CREATE TABLE copymatch.reference_status (
    reference_set text NOT NULL REFERENCES copymatch.reference_set ON UPDATE CASCADE ON DELETE CASCADE,
    reference     text NOT NULL,
    state         text NOT NULL CHECK (state IN ('disabled', 'quarantined')),
    reason        text,
    until         timestamptz,
    since         timestamptz NOT NULL DEFAULT now(),
    by            name NOT NULL DEFAULT current_user,
    PRIMARY KEY (reference_set, reference)
);
COMMENT ON TABLE copymatch.reference_status IS 'references that searches leave out; those without a row here are in use';
COMMENT ON COLUMN copymatch.reference_status.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.reference_status.reference IS 'the reference''s key as text, as copy_match gives it';
COMMENT ON COLUMN copymatch.reference_status.state IS 'disabled by a person, or quarantined because it matched too much';
COMMENT ON COLUMN copymatch.reference_status.reason IS 'why';
COMMENT ON COLUMN copymatch.reference_status.until IS 'when it is in use again; NULL: not before copy_enable_reference';
COMMENT ON COLUMN copymatch.reference_status.since IS 'since when it is out of use';
COMMENT ON COLUMN copymatch.reference_status.by IS 'who took it out of use';
ALTER TABLE copymatch.reference_status ENABLE ROW LEVEL SECURITY;
CREATE POLICY relation_reader ON copymatch.reference_status FOR SELECT
    USING (EXISTS (SELECT FROM copymatch.reference_set s WHERE s.name = reference_set AND pg_catalog.has_any_column_privilege(s.relation::oid, 'SELECT')));
CREATE POLICY relation_owner ON copymatch.reference_status
    USING (EXISTS (SELECT FROM copymatch.reference_set s JOIN pg_catalog.pg_class c ON c.oid = s.relation
                   WHERE s.name = reference_set AND pg_catalog.pg_has_role(c.relowner, 'USAGE')));
COMMENT ON POLICY relation_reader ON copymatch.reference_status IS 'keys of references are for those who may read the references';
COMMENT ON POLICY relation_owner ON copymatch.reference_status IS 'who owns the relation may take its references out of use';
GRANT SELECT, INSERT, UPDATE, DELETE ON copymatch.reference_status TO PUBLIC;

CREATE TABLE copymatch.reference_group (
    name       text PRIMARY KEY CHECK (name <> ''),
    members    text[] NOT NULL CHECK (cardinality(members) > 0),
    created    timestamptz NOT NULL DEFAULT now(),
    created_by name NOT NULL DEFAULT current_user
);
COMMENT ON TABLE copymatch.reference_group IS 'names under which several reference sets are searched at once';
COMMENT ON COLUMN copymatch.reference_group.name IS 'name that copy_match takes; a set of the same name goes before it';
COMMENT ON COLUMN copymatch.reference_group.members IS 'reference sets';
COMMENT ON COLUMN copymatch.reference_group.created IS 'when it was made';
COMMENT ON COLUMN copymatch.reference_group.created_by IS 'who made it';
ALTER TABLE copymatch.reference_group ENABLE ROW LEVEL SECURITY;
CREATE POLICY read_all ON copymatch.reference_group FOR SELECT USING (true);
CREATE POLICY maker ON copymatch.reference_group
    USING (pg_catalog.pg_has_role(created_by, 'USAGE')) WITH CHECK (pg_catalog.pg_has_role(created_by, 'USAGE'));
COMMENT ON POLICY read_all ON copymatch.reference_group IS 'the list of groups is no secret; a search needs the right to read every member';
COMMENT ON POLICY maker ON copymatch.reference_group IS 'who made a group may change and drop it';
GRANT SELECT, INSERT, UPDATE, DELETE ON copymatch.reference_group TO PUBLIC;

CREATE TABLE copymatch.reembedding (
    reference_set         text PRIMARY KEY REFERENCES copymatch.reference_set ON UPDATE CASCADE ON DELETE CASCADE,
    state                 text NOT NULL DEFAULT 'filling' CHECK (state IN ('filling', 'indexing', 'switched', 'reverted')),
    model                 text NOT NULL REFERENCES copymatch.model,
    calibration           bigint NOT NULL REFERENCES copymatch.calibration,
    descriptor_column     name NOT NULL,
    old_model             text NOT NULL REFERENCES copymatch.model,
    old_calibration       bigint NOT NULL REFERENCES copymatch.calibration,
    old_descriptor_column name NOT NULL,
    total                 bigint,
    done                  bigint NOT NULL DEFAULT 0,
    pass                  integer NOT NULL DEFAULT 1,
    done_in_pass          bigint NOT NULL DEFAULT 0,
    part                  regclass,
    position              tid,
    started               timestamptz NOT NULL DEFAULT now(),
    started_by            name NOT NULL DEFAULT current_user,
    resumed               timestamptz,
    done_before           bigint NOT NULL DEFAULT 0,
    updated               timestamptz,
    pid                   integer
);
COMMENT ON TABLE copymatch.reembedding IS 'sets that go over to another model: one row from the first CALL copy_reembed to copy_finish_reembed';
COMMENT ON COLUMN copymatch.reembedding.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.reembedding.state IS 'filling: the new column is being filled; indexing: it is full and waits for its index; switched: searches use it; reverted: searches use the old one again, the new one is kept current';
COMMENT ON COLUMN copymatch.reembedding.model IS 'the new model';
COMMENT ON COLUMN copymatch.reembedding.calibration IS 'the new calibration';
COMMENT ON COLUMN copymatch.reembedding.descriptor_column IS 'the new descriptor column';
COMMENT ON COLUMN copymatch.reembedding.old_model IS 'the model before';
COMMENT ON COLUMN copymatch.reembedding.old_calibration IS 'the calibration before';
COMMENT ON COLUMN copymatch.reembedding.old_descriptor_column IS 'the descriptor column before';
COMMENT ON COLUMN copymatch.reembedding.total IS 'images when it began; NULL before they are counted';
COMMENT ON COLUMN copymatch.reembedding.done IS 'images embedded, in committed batches';
COMMENT ON COLUMN copymatch.reembedding.pass IS 'number of the walk through the table; a pass that finds nothing left is the last';
COMMENT ON COLUMN copymatch.reembedding.done_in_pass IS 'images embedded in this pass';
COMMENT ON COLUMN copymatch.reembedding.part IS 'table or partition that the pass has reached';
COMMENT ON COLUMN copymatch.reembedding.position IS 'row that the pass has reached';
COMMENT ON COLUMN copymatch.reembedding.started IS 'when it began';
COMMENT ON COLUMN copymatch.reembedding.started_by IS 'who began it';
COMMENT ON COLUMN copymatch.reembedding.resumed IS 'when the latest CALL that fills began';
COMMENT ON COLUMN copymatch.reembedding.done_before IS 'images embedded before that CALL';
COMMENT ON COLUMN copymatch.reembedding.updated IS 'when the latest batch was committed';
COMMENT ON COLUMN copymatch.reembedding.pid IS 'backend that made the latest batch';
ALTER TABLE copymatch.reembedding ENABLE ROW LEVEL SECURITY;
CREATE POLICY read_all ON copymatch.reembedding FOR SELECT USING (true);
CREATE POLICY relation_owner ON copymatch.reembedding
    USING (EXISTS (SELECT FROM copymatch.reference_set s JOIN pg_catalog.pg_class c ON c.oid = s.relation
                   WHERE s.name = reference_set AND pg_catalog.pg_has_role(c.relowner, 'USAGE')));
COMMENT ON POLICY read_all ON copymatch.reembedding IS 'how far a re-embedding is, is no secret';
COMMENT ON POLICY relation_owner ON copymatch.reembedding IS 'who owns the relation may re-embed its references';
GRANT SELECT, INSERT, UPDATE, DELETE ON copymatch.reembedding TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('copymatch.reference_status', '');
SELECT pg_catalog.pg_extension_config_dump('copymatch.reference_group', '');
SELECT pg_catalog.pg_extension_config_dump('copymatch.reembedding', '');

-- embed.sql
-- Images to descriptors.
CREATE OR REPLACE FUNCTION @extschema@.copy_embed(image bytea, model text DEFAULT NULL) RETURNS @extschema@.vector
    AS 'MODULE_PATHNAME', 'copy_embed_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION @extschema@.copy_embed(bytea, text) IS 'descriptor (unit vector) of an image; NULL for NULL; an error with the reason for an image that cannot be read or has too little detail to be matched';

CREATE OR REPLACE FUNCTION @extschema@.copy_embed_batch(images bytea[], model text DEFAULT NULL) RETURNS @extschema@.vector[]
    AS 'MODULE_PATHNAME', 'copy_embed_batch_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 10000000;
COMMENT ON FUNCTION @extschema@.copy_embed_batch(bytea[], text) IS 'descriptors of several images, in their order, NULL for NULL; the network runs on several at once';

CREATE OR REPLACE FUNCTION @extschema@.copy_image_info(image bytea, OUT format text, OUT width integer, OUT height integer, OUT orientation integer,
                                OUT frames integer, OUT colour text, OUT bits_per_channel integer, OUT has_alpha boolean,
                                OUT detail real, OUT matchable boolean, OUT reason text)
    AS 'MODULE_PATHNAME', 'copy_image_info_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION @extschema@.copy_image_info(bytea) IS 'format, size as shown (after EXIF orientation), orientation (1 to 8), frames, colour, bits, transparency, detail, and whether the image can be matched (reason: why not)';

CREATE OR REPLACE FUNCTION @extschema@.copy_edit(image bytea, edit text, strength real DEFAULT 0.5, seed bigint DEFAULT 0) RETURNS bytea
    AS 'MODULE_PATHNAME', 'copy_edit_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION @extschema@.copy_edit(bytea, text, real, bigint) IS 'an edited copy (JPEG) as people make them, to test your own pictures with; edit: a name from copy_edits(); strength 0 to 1; the same seed gives the same bytes';

CREATE OR REPLACE FUNCTION @extschema@.copy_edits(OUT edit text, OUT description text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'copy_edits_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.copy_edits() IS 'the edits that copy_edit makes';

CREATE OR REPLACE FUNCTION @extschema@.copy_runtime(OUT model text, OUT requested_provider text, OUT provider text, OUT fallback_reason text,
                             OUT threads integer, OUT runtime_version text, OUT library text, OUT load_milliseconds double precision)
    AS 'MODULE_PATHNAME', 'copy_runtime_wrapper' LANGUAGE c VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.copy_runtime() IS 'which execution provider really runs the default model in this session, with which library and version; loads the model if it is not loaded';

CREATE OR REPLACE FUNCTION copymatch.inspect_model(weights bytea, manifest jsonb, background bytea, OUT name text, OUT version text,
                                        OUT dimensions integer, OUT sha256 bytea, OUT background_sha256 bytea)
    AS 'MODULE_PATHNAME', 'inspect_model_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.inspect_model(bytea, jsonb, bytea) IS 'loads a model, checks manifest, hash, inputs, outputs and parity vectors, and says what it is';
REVOKE ALL ON FUNCTION copymatch.inspect_model(bytea, jsonb, bytea) FROM PUBLIC;

CREATE OR REPLACE FUNCTION copymatch.check_calibration(calibration jsonb) RETURNS void
    AS 'MODULE_PATHNAME', 'check_calibration_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.check_calibration(jsonb) IS 'an error that names the field where a calibration is not valid';

CREATE OR REPLACE FUNCTION @extschema@.copy_add_model(name text, weights bytea, manifest jsonb, background bytea DEFAULT NULL, calibration jsonb DEFAULT NULL)
    RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
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
COMMENT ON FUNCTION @extschema@.copy_add_model(text, bytea, jsonb, bytea, jsonb) IS 'adds a model after loading and checking it: weights (ONNX), manifest, and, for copy_match, background descriptors and a calibration. The server executes what the weights say: superusers only, unless granted';
REVOKE ALL ON FUNCTION @extschema@.copy_add_model(text, bytea, jsonb, bytea, jsonb) FROM PUBLIC;

CREATE OR REPLACE FUNCTION @extschema@.copy_drop_model(name text) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
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
COMMENT ON FUNCTION @extschema@.copy_drop_model(text) IS 'removes a model that no reference set uses, and its calibrations';
REVOKE ALL ON FUNCTION @extschema@.copy_drop_model(text) FROM PUBLIC;

-- sets.sql
-- Reference sets: a table, its descriptor column, and the trigger that keeps the column current.
CREATE OR REPLACE FUNCTION @extschema@.copy_maintain_descriptor() RETURNS trigger
    AS 'MODULE_PATHNAME', 'copy_maintain_descriptor' LANGUAGE c;
COMMENT ON FUNCTION @extschema@.copy_maintain_descriptor() IS 'trigger (BEFORE INSERT OR UPDATE, FOR EACH ROW; argument: the set''s name): writes the descriptor of the row''s image when the image is new or changed';

CREATE OR REPLACE FUNCTION copymatch.embed_reference(image bytea, model text, reference text, total bigint) RETURNS @extschema@.vector
    AS 'MODULE_PATHNAME', 'embed_reference_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION copymatch.embed_reference(bytea, text, text, bigint) IS 'copy_embed for bulk work: an image that cannot be matched gives NULL and a WARNING that names the reference; progress is reported as NOTICEs (total: rows to come)';

CREATE OR REPLACE FUNCTION copymatch.default_set() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text;
    owner name;
    trusted boolean;
BEGIN
    -- Who names no set did not choose whose it is: only sets of those whom everybody here trusts, or of the caller's own roles.
    -- A superuser's roles are all roles: for one, a view of somebody else, whose functions would run as the superuser, is no such set.
    SELECT s.name, o.rolname,
           o.oid IS NULL OR o.rolsuper
           OR CASE WHEN me.rolsuper THEN c.relkind IN ('r', 'p') ELSE true END
              AND (o.oid = (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
                   OR NOT me.rolsuper AND pg_catalog.pg_has_role(o.oid, 'USAGE')
                   OR EXISTS (SELECT FROM pg_catalog.pg_roles a WHERE a.rolname = 'copymatch_admin' AND pg_catalog.pg_has_role(o.oid, a.oid, 'MEMBER')))
        INTO found, owner, trusted
        FROM copymatch.reference_set s JOIN pg_catalog.pg_roles me ON me.rolname = CURRENT_USER
             LEFT JOIN pg_catalog.pg_class c ON c.oid = s.relation LEFT JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
        WHERE s.is_default;
    IF found IS NULL THEN
        RAISE EXCEPTION 'there is no default reference set'
            USING ERRCODE = 'undefined_object',
                  HINT = 'Make one with copy_create_set, choose one with copy_default_set, or name one: copy_match(image, reference_set => ''…'').';
    END IF;
    IF NOT trusted THEN
        RAISE EXCEPTION 'the default reference set "%" is one of role "%"', found, owner
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = 'Others, superusers too, search it without naming it only where its owner is a superuser or (for a superuser: and it is a table) the owner of the database or a member of copymatch_admin.',
                  HINT = pg_catalog.format('If you trust that role, name the set: reference_set => %L. A superuser can choose another default with copy_default_set.', found);
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION copymatch.default_set() IS 'name of the set that copy_match takes when none is named: one whose relation belongs to a superuser, the owner of the database, a member of copymatch_admin, or a role of the caller''s; to a superuser, no view but another superuser''s';

CREATE OR REPLACE FUNCTION copymatch.find_set(name text) RETURNS copymatch.reference_set LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found copymatch.reference_set;
    known text;
BEGIN
    SELECT * INTO found FROM copymatch.reference_set s WHERE s.name = find_set.name;
    IF found.name IS NULL THEN
        SELECT pg_catalog.string_agg(pg_catalog.quote_ident(s.name), ', ' ORDER BY s.name) INTO known FROM copymatch.reference_set s;
        RAISE EXCEPTION 'reference set "%" does not exist', find_set.name
            USING ERRCODE = 'undefined_object',
                  HINT = coalesce('Existing sets: ' || known || '.', 'Make one with copy_create_set.');
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION copymatch.find_set(text) IS 'the record of a set, or an error that lists the existing ones';

CREATE OR REPLACE FUNCTION copymatch.require_column(relation regclass, col name, type_name text) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    actual text;
BEGIN
    SELECT pg_catalog.format_type(a.atttypid, NULL) INTO actual FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = relation AND a.attname = col AND a.attnum > 0 AND NOT a.attisdropped;
    IF actual IS NULL THEN
        RAISE EXCEPTION 'column "%" of relation % does not exist', col, relation USING ERRCODE = 'undefined_column';
    END IF;
    IF type_name IS NOT NULL AND actual <> type_name THEN
        RAISE EXCEPTION 'column "%" of relation % is of type %, not %', col, relation, actual, type_name USING ERRCODE = 'datatype_mismatch';
    END IF;
END $$;
COMMENT ON FUNCTION copymatch.require_column(regclass, name, text) IS 'an error unless the relation has this column, of this type';

CREATE OR REPLACE FUNCTION copymatch.check_filter(relation oid, filter text) RETURNS text
    AS 'MODULE_PATHNAME', 'check_filter_wrapper' LANGUAGE c STABLE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.check_filter(oid, text) IS 'a set''s filter in a form that means the same under every search path, or an error: it must be one condition over the relation''s columns, without subqueries and volatile functions, and with PostgreSQL''s own functions only unless a superuser sets it';

CREATE OR REPLACE FUNCTION copymatch.parse_key(relation regclass, key text) RETURNS name[] LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parsed name[];
    col name;
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = relation AND a.attname::text = key AND a.attnum > 0 AND NOT a.attisdropped) THEN
        RETURN ARRAY[key::name];
    END IF;
    -- Names as they are, separated by commas; one that has a comma itself in double quotes.
    SELECT pg_catalog.array_agg((CASE WHEN m[1] LIKE '"%' THEN pg_catalog.replace(pg_catalog.substr(m[1], 2, pg_catalog.length(m[1]) - 2), '""', '"')
                                      ELSE m[1] END)::name ORDER BY place) INTO parsed
        FROM pg_catalog.regexp_matches(key, '\s*("(?:[^"]|"")+"|[^,]*[^,\s])\s*(?:,|$)', 'g') WITH ORDINALITY AS found(m, place);
    IF parsed IS NULL THEN
        parsed := ARRAY[key::name];
    END IF;
    FOREACH col IN ARRAY parsed LOOP
        PERFORM copymatch.require_column(relation, col, NULL);
    END LOOP;
    RETURN parsed;
END $$;
COMMENT ON FUNCTION copymatch.parse_key(regclass, text) IS 'the key''s columns: one name, or several with commas between';

CREATE OR REPLACE FUNCTION copymatch.key_expression(key_column name, further name[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN pg_catalog.cardinality(further) = 0 THEN 'r.' || pg_catalog.quote_ident(key_column)
                ELSE (SELECT 'ROW(' || pg_catalog.string_agg('r.' || pg_catalog.quote_ident(u.col), ', ' ORDER BY u.place) || ')'
                      FROM pg_catalog.unnest(key_column || further) WITH ORDINALITY AS u(col, place)) END || '::pg_catalog.text'
$$;
COMMENT ON FUNCTION copymatch.key_expression(name, name[]) IS 'the key as text, in SQL over the alias r: the column''s text, or for a composite key that of ROW(…): (1,"x y")';

CREATE OR REPLACE FUNCTION @extschema@.copy_create_set(name text, relation regclass, key text, image name, descriptor name DEFAULT 'descriptor',
                                model text DEFAULT NULL, on_bad_image text DEFAULT 'error', embed boolean DEFAULT true,
                                filter text DEFAULT NULL, k integer DEFAULT NULL, negative boolean DEFAULT false)
    RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen record;
    calibration bigint;
    kind "char";
    owner oid;
    column_type text;
    vector_type text := pg_catalog.format_type('@extschema@.vector'::regtype, NULL);
    waiting bigint;
    embedded bigint := 0;
    keys name[];
    other record;
BEGIN
    IF copy_create_set.name IS NULL OR relation IS NULL OR key IS NULL OR copy_create_set.descriptor IS NULL THEN
        RAISE EXCEPTION 'copy_create_set needs a name, a relation, a key column and a descriptor column' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF copy_create_set.on_bad_image IS NULL OR copy_create_set.on_bad_image NOT IN ('error', 'skip') THEN
        RAISE EXCEPTION 'on_bad_image is "%"', copy_create_set.on_bad_image
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Choose error (refuse the row) or skip (keep the row without a descriptor, and warn).';
    END IF;
    IF copy_create_set.negative IS NULL THEN
        RAISE EXCEPTION 'negative is NULL' USING ERRCODE = 'null_value_not_allowed', HINT = 'true or false.';
    END IF;
    IF EXISTS (SELECT FROM copymatch.reference_set s WHERE s.name = copy_create_set.name)
       OR EXISTS (SELECT FROM copymatch.reference_group g WHERE g.name = copy_create_set.name) THEN
        RAISE EXCEPTION 'reference set "%" exists already', copy_create_set.name
            USING ERRCODE = 'duplicate_object', HINT = 'Choose another name, or drop it with copy_drop_set.';
    END IF;
    SELECT m.name, m.dimensions INTO chosen FROM copymatch.models m
        WHERE CASE WHEN copy_create_set.model IS NULL THEN m.is_default ELSE m.name = copy_create_set.model END;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model "%" does not exist', coalesce(copy_create_set.model, pg_catalog.current_setting('copymatch.default_model', true))
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM copymatch.models lists them.';
    END IF;
    SELECT pg_catalog.max(c.id) INTO calibration FROM copymatch.calibration c WHERE c.model = chosen.name AND c.reference_set IS NULL;
    IF calibration IS NULL THEN
        RAISE EXCEPTION 'model "%" has no calibration', chosen.name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Add the model with its background descriptors and a calibration.';
    END IF;
    SELECT c.relkind, c.relowner INTO kind, owner FROM pg_catalog.pg_class c WHERE c.oid = relation;
    IF NOT pg_catalog.pg_has_role(owner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of relation %', relation USING ERRCODE = 'insufficient_privilege';
    END IF;
    keys := copymatch.parse_key(relation, key);
    IF copy_create_set.image IS NOT NULL THEN
        PERFORM copymatch.require_column(relation, copy_create_set.image, 'bytea');
    END IF;

    SELECT pg_catalog.format_type(a.atttypid, NULL) INTO column_type FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = relation AND a.attname = copy_create_set.descriptor AND a.attnum > 0 AND NOT a.attisdropped;
    IF column_type IS NULL THEN
        IF kind NOT IN ('r', 'p') THEN
            RAISE EXCEPTION 'relation % has no column "%"', relation, copy_create_set.descriptor
                USING ERRCODE = 'undefined_column', HINT = 'A view or foreign table must bring its descriptors; a table gets the column from copy_create_set.';
        END IF;
        EXECUTE pg_catalog.format('ALTER TABLE %s ADD COLUMN %I @extschema@.vector(%s)', relation, copy_create_set.descriptor, chosen.dimensions);
        -- In the row, not out of line: the picture goes to TOAST, and a search reads descriptors without following pointers.
        IF chosen.dimensions <= 480 THEN
            EXECUTE pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE PLAIN', relation, copy_create_set.descriptor);
        END IF;
        EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', relation, copy_create_set.descriptor,
                                  pg_catalog.format('descriptor of the image by model %s; kept by copymatch', chosen.name));
    ELSIF column_type <> vector_type THEN
        RAISE EXCEPTION 'column "%" of relation % is of type %, not %', copy_create_set.descriptor, relation, column_type, vector_type
            USING ERRCODE = 'datatype_mismatch';
    END IF;

    SELECT s.name, s.model INTO other FROM copymatch.reference_set s
        WHERE s.relation = copy_create_set.relation AND s.descriptor_column = copy_create_set.descriptor AND s.model <> chosen.name LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'column "%" of relation % has the descriptors of model "%", for reference set "%"', copy_create_set.descriptor, relation, other.model, other.name
            USING ERRCODE = 'datatype_mismatch', HINT = 'Name another descriptor column, or the same model.';
    END IF;

    INSERT INTO copymatch.reference_set (name, relation, key_column, further_key_columns, image_column, descriptor_column, model, calibration,
                                         on_bad_image, is_default, filter, k, negative)
        VALUES (copy_create_set.name, copy_create_set.relation, keys[1], keys[2:], copy_create_set.image, copy_create_set.descriptor, chosen.name,
                calibration, copy_create_set.on_bad_image,
                NOT copy_create_set.negative AND NOT EXISTS (SELECT FROM copymatch.reference_set s WHERE s.is_default),
                copy_create_set.filter, copy_create_set.k, copy_create_set.negative);
    PERFORM copymatch.try_search(copy_create_set.name);

    IF copy_create_set.image IS NOT NULL AND kind IN ('r', 'p') THEN
        PERFORM copymatch.serve_columns(relation);
        EXECUTE pg_catalog.format('SELECT count(*) FROM %s WHERE %I IS NOT NULL AND %I IS NULL', relation, copy_create_set.image, copy_create_set.descriptor) INTO waiting;
        IF waiting > 0 AND copy_create_set.embed THEN
            EXECUTE copymatch.fill_statement(copy_create_set.name, waiting);
            EXECUTE pg_catalog.format('SELECT count(*) FROM %s WHERE %I IS NOT NULL AND %I IS NULL', relation, copy_create_set.image, copy_create_set.descriptor) INTO embedded;
            embedded := waiting - embedded;
            IF embedded < waiting THEN
                RAISE WARNING '% of % images of reference set "%" have no descriptor', waiting - embedded, waiting, copy_create_set.name
                    USING HINT = 'The warnings above say why; copy_image_info(image) says it for one image.';
            END IF;
        ELSIF waiting > 0 THEN
            RAISE NOTICE '% images wait to be embedded', waiting
                USING HINT = pg_catalog.format('CALL copy_fill_set(%L), then CREATE INDEX CONCURRENTLY ON %s USING ivf (%I vector_cosine_ops)',
                                               copy_create_set.name, relation, copy_create_set.descriptor);
        END IF;
    END IF;
    -- An index of a table that is still to be filled is better made afterwards.
    IF kind IN ('r', 'p') AND (embed OR coalesce(waiting, 0) = 0)
       AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = relation AND a.attname = copy_create_set.descriptor AND a.atttypmod BETWEEN 1 AND 4000)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                       JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                       JOIN pg_catalog.pg_am m ON m.oid = c.relam
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                       WHERE i.indrelid = relation AND a.attname = copy_create_set.descriptor AND m.amname = 'ivf') THEN
        EXECUTE pg_catalog.format('CREATE INDEX ON %s USING ivf (%I @extschema@.vector_cosine_ops)', relation, copy_create_set.descriptor);
    END IF;
    RETURN embedded;
END $$;
COMMENT ON FUNCTION @extschema@.copy_create_set(text, regclass, text, name, name, text, text, boolean, text, integer, boolean) IS 'makes a reference set of a table (key: a column, or several with commas between; filter: an SQL condition, which rows belong to it; k: rows that a search returns by default; negative: matches in other sets are explained by copies in this one): adds the descriptor column and the trigger that keeps it current, embeds what is there, builds an ivf index where there is none, and becomes the default set when it is the first. A table with very many images: embed => false, then CALL copy_fill_set(name) and CREATE INDEX CONCURRENTLY. Returns the number of images embedded';

CREATE OR REPLACE FUNCTION copymatch.trigger_name(reference_set text) RETURNS name LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
    $$ SELECT ('zz_copymatch_' || pg_catalog.left(pg_catalog.md5(reference_set), 12))::name $$;
COMMENT ON FUNCTION copymatch.trigger_name(text) IS 'name of the trigger that keeps a set''s descriptors: sorts after other triggers, and fits in an identifier whatever the set is called';

CREATE OR REPLACE FUNCTION copymatch.has_trigger(chosen copymatch.reference_set) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger t
                   WHERE t.tgrelid = chosen.relation AND t.tgname = copymatch.trigger_name(chosen.name) AND NOT t.tgisinternal)
$$;
COMMENT ON FUNCTION copymatch.has_trigger(copymatch.reference_set) IS 'whether the set''s own trigger is there: of several sets over one descriptor column one has it';

CREATE OR REPLACE FUNCTION copymatch.make_trigger(chosen copymatch.reference_set) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF copymatch.has_trigger(chosen) THEN
        RETURN;
    END IF;
    -- Triggers fire in the order of their names: this one must see the image as the table's other triggers leave it.
    EXECUTE pg_catalog.format('CREATE TRIGGER %I BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION @extschema@.copy_maintain_descriptor(%L)',
                              copymatch.trigger_name(chosen.name), chosen.relation, chosen.name);
    EXECUTE pg_catalog.format('COMMENT ON TRIGGER %I ON %s IS %L', copymatch.trigger_name(chosen.name), chosen.relation,
                              pg_catalog.format('keeps the descriptor of reference set %s current', chosen.name));
END $$;
COMMENT ON FUNCTION copymatch.make_trigger(copymatch.reference_set) IS 'makes the trigger that keeps the set''s descriptors current';

CREATE OR REPLACE FUNCTION copymatch.serve_columns(relation regclass) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set;
BEGIN
    -- Of the sets that share a column, one that is being re-embedded has a trigger in any case.
    FOR chosen IN
        SELECT s.* FROM copymatch.reference_set s
        WHERE s.relation = serve_columns.relation AND s.image_column IS NOT NULL
          AND NOT EXISTS (SELECT FROM copymatch.reference_set o
                          WHERE o.relation = s.relation AND o.image_column = s.image_column AND o.descriptor_column = s.descriptor_column
                            AND copymatch.has_trigger(o))
        ORDER BY s.created, s.name LOOP
        IF NOT EXISTS (SELECT FROM copymatch.reference_set o
                       WHERE o.relation = chosen.relation AND o.image_column = chosen.image_column AND o.descriptor_column = chosen.descriptor_column
                         AND copymatch.has_trigger(o)) THEN
            PERFORM copymatch.make_trigger(chosen);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION copymatch.serve_columns(regclass) IS 'sees to it that every descriptor column that a set searches is kept by one trigger, however many sets share it';

CREATE OR REPLACE FUNCTION copymatch.search_condition(chosen copymatch.reference_set) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    -- A subquery that stays one is asked for each row that comes, in the order of the index: k rows are found at any number of
    -- references out of use.
    SELECT coalesce('WHERE ' || nullif(pg_catalog.concat_ws(' AND ', '(' || chosen.filter || ')',
        CASE WHEN EXISTS (SELECT FROM copymatch.reference_status x WHERE x.reference_set = chosen.name) THEN
            pg_catalog.format('(SELECT true FROM copymatch.reference_status AS x WHERE x.reference_set = %L AND x.reference = %s AND (x.until IS NULL OR x.until > pg_catalog.now())) IS NULL',
                              chosen.name, copymatch.key_expression(chosen.key_column, chosen.further_key_columns)) END), ''), '')
$$;
COMMENT ON FUNCTION copymatch.search_condition(copymatch.reference_set) IS 'WHERE clause of a search in this set, over the alias r: its filter, and no reference that is disabled or quarantined; empty where all rows count';

CREATE OR REPLACE FUNCTION copymatch.try_search(reference_set text) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
BEGIN
    EXECUTE pg_catalog.format('SELECT %s FROM %s AS r %s LIMIT 0', copymatch.key_expression(chosen.key_column, chosen.further_key_columns),
                              chosen.relation, copymatch.search_condition(chosen));
END $$;
COMMENT ON FUNCTION copymatch.try_search(text) IS 'runs a search for no rows: an error where the caller may not read what the set''s key and filter name';

CREATE OR REPLACE FUNCTION copymatch.fill_statement(reference_set text, total bigint) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_catalog.format('UPDATE %1$s AS r SET %2$I = copymatch.embed_reference(r.%3$I, %4$L, %5$s, %6$s) WHERE r.%2$I IS NULL AND r.%3$I IS NOT NULL',
                             s.relation, s.descriptor_column, s.image_column, s.model, copymatch.key_expression(s.key_column, s.further_key_columns), total)
    FROM copymatch.reference_set s WHERE s.name = fill_statement.reference_set
$$;
COMMENT ON FUNCTION copymatch.fill_statement(text, bigint) IS 'the UPDATE that embeds the images of a set that have no descriptor';

CREATE OR REPLACE PROCEDURE @extschema@.copy_fill_set(reference_set text DEFAULT copymatch.default_set(), batch_pages integer DEFAULT 64) LANGUAGE plpgsql AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
    part regclass;
    pages bigint;
    page bigint;
    waiting bigint;
BEGIN
    IF batch_pages IS NULL OR batch_pages < 1 THEN
        RAISE EXCEPTION 'batch_pages is %', batch_pages USING ERRCODE = 'invalid_parameter_value', HINT = 'At least 1.';
    END IF;
    IF chosen.image_column IS NULL THEN
        RAISE EXCEPTION 'reference set "%" has no image column', chosen.name USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE pg_catalog.format('SELECT count(*) FROM %s WHERE %I IS NOT NULL AND %I IS NULL', chosen.relation, chosen.image_column, chosen.descriptor_column) INTO waiting;
    -- A table that is no partition tree is its own only leaf.
    FOR part IN SELECT p.relid FROM pg_catalog.pg_partition_tree(chosen.relation) p WHERE p.isleaf
                UNION ALL
                SELECT c.oid::regclass FROM pg_catalog.pg_class c
                WHERE c.oid = chosen.relation AND c.relkind = 'r' AND NOT c.relispartition LOOP
        -- Rows that the loop rewrites move behind this end; they have their descriptor already.
        pages := pg_catalog.pg_relation_size(part) / pg_catalog.current_setting('block_size')::bigint;
        page := 0;
        WHILE page < pages LOOP
            EXECUTE pg_catalog.format('UPDATE %1$s AS r SET %2$I = copymatch.embed_reference(r.%3$I, %4$L, %5$s, %6$s) WHERE r.%2$I IS NULL AND r.%3$I IS NOT NULL AND r.ctid >= %7$L AND r.ctid < %8$L',
                                      part, chosen.descriptor_column, chosen.image_column, chosen.model,
                                      copymatch.key_expression(chosen.key_column, chosen.further_key_columns), waiting,
                                      pg_catalog.format('(%s,0)', page), pg_catalog.format('(%s,0)', page + batch_pages));
            page := page + batch_pages;
            COMMIT;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON PROCEDURE @extschema@.copy_fill_set(text, integer) IS 'embeds the images of a set that have no descriptor, committing every batch_pages pages of the table: other sessions go on meanwhile, and after an interruption the next call goes on where it stopped';

CREATE OR REPLACE FUNCTION @extschema@.copy_default_set(name text) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM copymatch.find_set(copy_default_set.name);
    UPDATE copymatch.reference_set SET is_default = false WHERE is_default AND name <> copy_default_set.name;
    IF NOT EXISTS (SELECT FROM copymatch.reference_set s WHERE s.is_default AND s.name <> copy_default_set.name) THEN
        UPDATE copymatch.reference_set SET is_default = true WHERE name = copy_default_set.name AND NOT is_default;
        IF EXISTS (SELECT FROM copymatch.reference_set s WHERE s.name = copy_default_set.name AND s.is_default) THEN
            RETURN;
        END IF;
    END IF;
    RAISE EXCEPTION 'must own the relations of the present default set and of "%"', copy_default_set.name USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION @extschema@.copy_default_set(text) IS 'makes this the set that copy_match takes when none is named; needs ownership of its relation and of the present default''s';

CREATE OR REPLACE FUNCTION @extschema@.copy_alter_set(name text, filter text DEFAULT NULL, k integer DEFAULT NULL, copy_probability double precision DEFAULT NULL,
                               review_probability double precision DEFAULT NULL, negative boolean DEFAULT NULL, negatives text[] DEFAULT NULL,
                               on_bad_image text DEFAULT NULL, reset text[] DEFAULT '{}') RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_alter_set.name);
    unknown text;
BEGIN
    SELECT pg_catalog.string_agg(u.setting, ', ') INTO unknown FROM pg_catalog.unnest(reset) AS u(setting)
        WHERE u.setting NOT IN ('filter', 'k', 'copy_probability', 'review_probability', 'negatives');
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'reset names %', unknown
            USING ERRCODE = 'invalid_parameter_value', HINT = 'filter, k, copy_probability, review_probability and negatives have a default to go back to.';
    END IF;
    SELECT pg_catalog.string_agg(u.other, ', ') INTO unknown FROM pg_catalog.unnest(negatives) AS u(other)
        WHERE NOT EXISTS (SELECT FROM copymatch.reference_set s WHERE s.name = u.other AND s.negative);
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'there is no negative reference set %', unknown
            USING ERRCODE = 'undefined_object', HINT = 'Make one with copy_create_set(…, negative => true).';
    END IF;
    UPDATE copymatch.reference_set s SET
        filter = CASE WHEN 'filter' = ANY (reset) THEN NULL ELSE coalesce(copy_alter_set.filter, s.filter) END,
        k = CASE WHEN 'k' = ANY (reset) THEN NULL ELSE coalesce(copy_alter_set.k, s.k) END,
        copy_probability = CASE WHEN 'copy_probability' = ANY (reset) THEN NULL ELSE coalesce(copy_alter_set.copy_probability, s.copy_probability) END,
        review_probability = CASE WHEN 'review_probability' = ANY (reset) THEN NULL ELSE coalesce(copy_alter_set.review_probability, s.review_probability) END,
        negative = coalesce(copy_alter_set.negative, s.negative),
        negatives = CASE WHEN 'negatives' = ANY (reset) THEN NULL ELSE coalesce(copy_alter_set.negatives, s.negatives) END,
        on_bad_image = coalesce(copy_alter_set.on_bad_image, s.on_bad_image)
        WHERE s.name = chosen.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM copymatch.try_search(chosen.name);
END $$;
COMMENT ON FUNCTION @extschema@.copy_alter_set(text, text, integer, double precision, double precision, boolean, text[], text, text[]) IS 'changes a set: what is NULL stays as it is, what reset names goes back to its default (filter: all rows; k: 10; thresholds: the calibration''s; negatives: the negative sets of the same owner)';

CREATE OR REPLACE FUNCTION @extschema@.copy_drop_set(name text, drop_descriptors boolean DEFAULT false) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_drop_set.name);
    columns name[] := ARRAY[chosen.descriptor_column];
    col name;
    other text;
    gone bigint;
    is_there boolean := EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation);
BEGIN
    SELECT columns || ARRAY[r.descriptor_column, r.old_descriptor_column] INTO columns
        FROM copymatch.reembedding r WHERE r.reference_set = chosen.name;
    columns := coalesce(columns, ARRAY[chosen.descriptor_column]);
    IF drop_descriptors THEN
        SELECT s.name INTO other FROM copymatch.reference_set s
            WHERE s.relation = chosen.relation AND s.name <> chosen.name AND s.descriptor_column = ANY (columns) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'the descriptors of reference set "%" are also those of set "%"', chosen.name, other
                USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Drop the set without drop_descriptors.';
        END IF;
    END IF;
    IF is_there THEN
        EXECUTE pg_catalog.format('DROP TRIGGER IF EXISTS %I ON %s', copymatch.trigger_name(chosen.name), chosen.relation);
    END IF;
    DELETE FROM copymatch.reference_set s WHERE s.name = chosen.name;
    GET DIAGNOSTICS gone = ROW_COUNT;
    IF gone = 0 THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF is_there THEN
        IF drop_descriptors THEN
            FOR col IN SELECT a.attname FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = chosen.relation AND a.attname = ANY (columns) AND NOT a.attisdropped LOOP
                EXECUTE pg_catalog.format('ALTER TABLE %s DROP COLUMN %I', chosen.relation, col);
            END LOOP;
        END IF;
        PERFORM copymatch.serve_columns(chosen.relation);
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.copy_drop_set(text, boolean) IS 'forgets a reference set and drops its trigger; the table stays, its descriptor column too unless drop_descriptors';

CREATE OR REPLACE VIEW copymatch.reference_sets AS
    SELECT s.name, s.relation, s.key_column, s.image_column, s.descriptor_column, s.model, m.dimensions, s.calibration,
           s.on_bad_image, s.is_default,
           NOT EXISTS (SELECT FROM pg_catalog.unnest(ARRAY[s.key_column, s.image_column, s.descriptor_column] || s.further_key_columns) AS u(col)
                       WHERE u.col IS NOT NULL
                         AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                         WHERE a.attrelid = s.relation AND a.attname = u.col AND NOT a.attisdropped)) AS intact,
           s.created, s.created_by, s.further_key_columns, s.filter, s.k, s.copy_probability, s.review_probability, s.negative, s.negatives
    FROM copymatch.reference_set s JOIN copymatch.model m ON m.name = s.model;
COMMENT ON VIEW copymatch.reference_sets IS 'reference sets; intact says whether their relation and columns still exist';
GRANT SELECT ON copymatch.reference_sets TO PUBLIC;

-- matching.sql
-- Matching: nearest references by plain SQL under the caller's rights, descriptor stretching, probability, verdict.
CREATE OR REPLACE FUNCTION @extschema@.copy_match(image bytea, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT NULL,
                           skip integer DEFAULT 0, views text DEFAULT 'one')
    RETURNS TABLE (reference_set text, reference text, rank integer, similarity double precision, background double precision,
                   score double precision, probability double precision, verdict text, explanation text)
    AS 'MODULE_PATHNAME', 'copy_match_wrapper' LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 10;
COMMENT ON FUNCTION @extschema@.copy_match(bytea, text, integer, integer, text) IS 'the k references nearest to an image, best first: cosine similarity, mean similarity to the background, stretched score (comparable across images), probability of being a copy, verdict (copy, review, different), and why a match is not raised (explanation). reference_set: a set, a group of sets, or NULL: all sets whose relation the caller may read. k NULL: the set''s own number, or 10. skip: leaves out that many, best first, for the next page. views all: the eight orientations and the image without its border too, the best of them for each reference. NULL image: no rows';

CREATE OR REPLACE FUNCTION @extschema@.copy_match_descriptor(descriptor @extschema@.vector, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT NULL,
                                      model text DEFAULT NULL, skip integer DEFAULT 0)
    RETURNS TABLE (reference_set text, reference text, rank integer, similarity double precision, background double precision,
                   score double precision, probability double precision, verdict text, explanation text)
    AS 'MODULE_PATHNAME', 'copy_match_descriptor_wrapper' LANGUAGE c STABLE PARALLEL RESTRICTED COST 10000 ROWS 10;
COMMENT ON FUNCTION @extschema@.copy_match_descriptor(@extschema@.vector, text, integer, text, integer) IS 'copy_match for a stored descriptor; model: the one that made it, checked against the set''s';

CREATE OR REPLACE FUNCTION @extschema@.copy_stretch(similarity double precision, background double precision, reference_set text DEFAULT copymatch.default_set(),
                             OUT score double precision, OUT probability double precision, OUT verdict text)
    AS 'MODULE_PATHNAME', 'copy_stretch_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.copy_stretch(double precision, double precision, text) IS 'score, probability and verdict of a similarity found by other means, under a set''s calibration';

CREATE OR REPLACE FUNCTION @extschema@.copy_background(descriptor @extschema@.vector, model text DEFAULT NULL) RETURNS double precision
    AS 'MODULE_PATHNAME', 'copy_background_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION @extschema@.copy_background(@extschema@.vector, text) IS 'mean inner product of a descriptor with its nearest background descriptors (m of descriptor stretching): high means that many unrelated pictures look like it';

-- groups.sql
-- The filter's guard, and groups of sets.
CREATE FUNCTION copymatch.keep_filter() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.filter IS NOT NULL AND (TG_OP = 'INSERT' OR NEW.filter IS DISTINCT FROM OLD.filter OR NEW.relation <> OLD.relation) THEN
        NEW.filter := copymatch.check_filter(NEW.relation, NEW.filter);
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION copymatch.keep_filter() IS 'trigger: no filter comes into the catalogue unchecked, whoever writes it';
CREATE TRIGGER filter BEFORE INSERT OR UPDATE ON copymatch.reference_set FOR EACH ROW EXECUTE FUNCTION copymatch.keep_filter();
COMMENT ON TRIGGER filter ON copymatch.reference_set IS 'a filter runs with the rights of whoever searches';

CREATE FUNCTION @extschema@.copy_create_group(name text, members text[]) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    member text;
BEGIN
    IF copy_create_group.name IS NULL OR coalesce(pg_catalog.cardinality(members), 0) = 0 THEN
        RAISE EXCEPTION 'copy_create_group needs a name and members' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF EXISTS (SELECT FROM copymatch.reference_set s WHERE s.name = copy_create_group.name)
       OR EXISTS (SELECT FROM copymatch.reference_group g WHERE g.name = copy_create_group.name) THEN
        RAISE EXCEPTION 'reference set or group "%" exists already', copy_create_group.name
            USING ERRCODE = 'duplicate_object', HINT = 'Choose another name, or drop it with copy_drop_set or copy_drop_group.';
    END IF;
    FOREACH member IN ARRAY members LOOP
        IF (copymatch.find_set(member)).negative THEN
            RAISE EXCEPTION 'reference set "%" is negative', member
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Negative sets explain matches; they are not searched for copies in a group.';
        END IF;
    END LOOP;
    INSERT INTO copymatch.reference_group (name, members) VALUES (copy_create_group.name, copy_create_group.members);
END $$;
COMMENT ON FUNCTION @extschema@.copy_create_group(text, text[]) IS 'gives several sets one name: copy_match(image, reference_set => name) searches them all and returns the best, each row with its own set''s name';

CREATE FUNCTION @extschema@.copy_drop_group(name text) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM copymatch.reference_group g WHERE g.name = copy_drop_group.name) THEN
        RAISE EXCEPTION 'group "%" does not exist', copy_drop_group.name
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name, members FROM copymatch.reference_group lists them.';
    END IF;
    DELETE FROM copymatch.reference_group g WHERE g.name = copy_drop_group.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'must be the maker of group "%"', copy_drop_group.name USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.copy_drop_group(text) IS 'forgets a group; its sets stay';

-- references.sql
-- References out of use: disabled by a person, or quarantined because they match too much.
CREATE FUNCTION copymatch.has_reference(chosen copymatch.reference_set, reference text) RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    type_name text;
    found boolean;
BEGIN
    -- Compared as the column's own type, so that the key's index serves.
    IF pg_catalog.cardinality(chosen.further_key_columns) = 0 THEN
        SELECT pg_catalog.format_type(a.atttypid, NULL) INTO type_name FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = chosen.relation AND a.attname = chosen.key_column AND NOT a.attisdropped;
        EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM %s AS r WHERE r.%I = CAST($1 AS %s))', chosen.relation, chosen.key_column, type_name)
            INTO found USING reference;
    ELSE
        EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM %s AS r WHERE %s = $1)', chosen.relation,
                                  copymatch.key_expression(chosen.key_column, chosen.further_key_columns)) INTO found USING reference;
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION copymatch.has_reference(copymatch.reference_set, text) IS 'whether the set''s relation has a row with this key';

CREATE FUNCTION @extschema@.copy_disable_reference(reference_set text, reference text, reason text DEFAULT NULL, until timestamptz DEFAULT NULL,
                                       quarantine boolean DEFAULT false) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_disable_reference.reference_set);
    owned boolean;
BEGIN
    IF copy_disable_reference.reference IS NULL OR quarantine IS NULL THEN
        RAISE EXCEPTION 'copy_disable_reference needs a reference' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') INTO owned FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation;
    IF owned IS NOT TRUE THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT copymatch.has_reference(chosen, copy_disable_reference.reference) THEN
        RAISE EXCEPTION 'reference set "%" has no reference %', chosen.name, copy_disable_reference.reference
            USING ERRCODE = 'undefined_object', HINT = 'Give the key as copy_match returns it; that of a composite key looks like (1,"x y").';
    END IF;
    INSERT INTO copymatch.reference_status AS s (reference_set, reference, state, reason, until)
        VALUES (chosen.name, copy_disable_reference.reference, CASE WHEN quarantine THEN 'quarantined' ELSE 'disabled' END,
                copy_disable_reference.reason, copy_disable_reference.until)
        ON CONFLICT ON CONSTRAINT reference_status_pkey
        DO UPDATE SET state = excluded.state, reason = excluded.reason, until = excluded.until, since = excluded.since, by = excluded.by;
END $$;
COMMENT ON FUNCTION @extschema@.copy_disable_reference(text, text, text, timestamptz, boolean) IS 'takes a reference out of use: searches leave it out and still return k rows. until: when it comes back by itself; quarantine: recorded as one that matched too much';

CREATE FUNCTION @extschema@.copy_enable_reference(reference_set text, reference text) RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_enable_reference.reference_set);
    owned boolean;
BEGIN
    SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') INTO owned FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation;
    IF owned IS NOT TRUE THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM copymatch.reference_status s WHERE s.reference_set = chosen.name AND s.reference = copy_enable_reference.reference;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.copy_enable_reference(text, text) IS 'takes a disabled or quarantined reference into use again; returns whether it was out of use';

CREATE FUNCTION @extschema@.copy_quarantine(reference_set text DEFAULT NULL, within interval DEFAULT '1 day', at_least integer DEFAULT 100,
                                times double precision DEFAULT 10, history interval DEFAULT '30 days', until timestamptz DEFAULT NULL,
                                dry_run boolean DEFAULT false)
    RETURNS TABLE (set_name text, reference text, uploads bigint, usual double precision, reason text) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF within IS NULL OR within <= '0' OR history IS NULL OR history < '0' OR at_least IS NULL OR at_least < 1 OR times IS NULL OR times < 1 THEN
        RAISE EXCEPTION 'copy_quarantine needs a positive interval, at_least 1 or more and times 1 or more' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pg_catalog.to_regclass('copymatch.finding') IS NULL THEN
        RAISE EXCEPTION 'there are no findings to judge references by'
            USING ERRCODE = 'undefined_table', HINT = 'copy_quarantine reads copymatch.finding, which flagging fills.';
    END IF;
    IF copy_quarantine.reference_set IS NOT NULL THEN
        PERFORM copymatch.find_set(copy_quarantine.reference_set);
    END IF;
    FOR set_name, reference, uploads, usual IN EXECUTE
        -- Of the window: uploads found, and reviewers' opinion. Of the time before: uploads found in a window of that length.
        'WITH recent AS (
             SELECT f.reference_set, f.reference, pg_catalog.count(DISTINCT (f.relation, f.upload)) AS uploads,
                    pg_catalog.count(*) FILTER (WHERE f.state = ''confirmed'') AS confirmed,
                    pg_catalog.count(*) FILTER (WHERE f.state = ''dismissed'') AS dismissed
             FROM copymatch.finding f
             WHERE f.found > pg_catalog.now() - $2 AND f.verdict <> ''different'' AND ($1 IS NULL OR f.reference_set = $1)
             GROUP BY f.reference_set, f.reference HAVING pg_catalog.count(DISTINCT (f.relation, f.upload)) >= $3)
         SELECT r.reference_set, r.reference, r.uploads, b.usual
         FROM recent r
              JOIN copymatch.reference_set s ON s.name = r.reference_set
              JOIN pg_catalog.pg_class c ON c.oid = s.relation AND pg_catalog.pg_has_role(c.relowner, ''USAGE'')
              CROSS JOIN LATERAL (
                  SELECT pg_catalog.count(DISTINCT (f.relation, f.upload))
                         * extract(epoch FROM $2)::float8 / greatest(extract(epoch FROM $5)::float8, extract(epoch FROM $2)::float8) AS usual
                  FROM copymatch.finding f
                  WHERE f.reference_set = r.reference_set AND f.reference = r.reference AND f.verdict <> ''different''
                    AND f.found <= pg_catalog.now() - $2 AND f.found > pg_catalog.now() - $2 - $5) b
         WHERE r.uploads >= $4 * b.usual AND r.confirmed <= r.dismissed
           AND NOT EXISTS (SELECT FROM copymatch.reference_status x WHERE x.reference_set = r.reference_set AND x.reference = r.reference)
         ORDER BY r.uploads DESC, r.reference_set, r.reference'
        USING copy_quarantine.reference_set, within, at_least, times, history LOOP
        reason := pg_catalog.format('%s uploads within %s, usually %s', uploads, within, pg_catalog.round(usual::numeric, 1));
        IF NOT dry_run THEN
            INSERT INTO copymatch.reference_status AS s (reference_set, reference, state, reason, until)
                VALUES (copy_quarantine.set_name, copy_quarantine.reference, 'quarantined', copy_quarantine.reason, copy_quarantine.until);
            PERFORM pg_catalog.pg_notify('copymatch_quarantine', pg_catalog.left(pg_catalog.json_build_object(
                'reference_set', set_name, 'reference', reference, 'uploads', uploads, 'usual', usual)::text, 7900));
            RAISE WARNING 'reference % of set "%" is quarantined: %', reference, set_name, reason
                USING HINT = pg_catalog.format('Look at it, then copy_enable_reference(%L, %L) or leave it out.', set_name, reference);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.copy_quarantine(text, interval, integer, double precision, interval, timestamptz, boolean) IS 'takes references out of use that suddenly match everything: found for at_least uploads within the interval, times as many as usual in the history before it, and not more often confirmed than dismissed by reviewers. Reports each with a WARNING, a NOTIFY copymatch_quarantine and a row; of the sets that the caller owns. dry_run: only lists them';

-- batch.sql
-- A whole table against a set, in one statement.
CREATE FUNCTION copymatch.say_progress(total bigint, what text) RETURNS void
    AS 'MODULE_PATHNAME', 'say_progress_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.say_progress(bigint, text) IS 'counts one piece of the running statement''s work; every few seconds a NOTICE says how much is done, the rate and the remaining time';

CREATE FUNCTION copymatch.match_rows(uploads regclass, key text, source name, set_name text, wanted integer)
    RETURNS TABLE (upload text, reference_set text, reference text, rank integer, similarity double precision, background double precision,
                   score double precision, probability double precision, verdict text, explanation text) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(set_name);
    keys name[];
    source_type text;
    vector_type text := pg_catalog.format_type('@extschema@.vector'::regtype, NULL);
    descriptor text;
    total bigint;
BEGIN
    IF uploads IS NULL OR match_rows.key IS NULL OR source IS NULL THEN
        RAISE EXCEPTION 'copy_match_table needs a relation, its key and the column with its images or descriptors' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    keys := copymatch.parse_key(uploads, match_rows.key);
    PERFORM copymatch.require_column(uploads, source, NULL);
    SELECT pg_catalog.format_type(a.atttypid, NULL) INTO source_type FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = uploads AND a.attname = source AND a.attnum > 0 AND NOT a.attisdropped;
    IF source_type NOT IN ('bytea', vector_type) THEN
        RAISE EXCEPTION 'column "%" of relation % is of type %', source, uploads, source_type
            USING ERRCODE = 'datatype_mismatch', HINT = pg_catalog.format('It must hold images (bytea) or descriptors (%s).', vector_type);
    END IF;
    EXECUTE pg_catalog.format('SELECT count(*) FROM %s AS r WHERE r.%I IS NOT NULL', uploads, source) INTO total;
    -- An image that cannot be matched gives a WARNING that names it, and no rows; embed_reference counts the images itself.
    descriptor := CASE WHEN source_type = 'bytea'
        THEN pg_catalog.format('copymatch.embed_reference(r.%I, %L, %s, %s)', source, chosen.model, copymatch.key_expression(keys[1], keys[2:]), total)
        ELSE pg_catalog.format('r.%I', source) END;
    -- OFFSET 0 keeps the inner query one: each row is embedded and counted once.
    RETURN QUERY EXECUTE pg_catalog.format(
        'SELECT u.key, m.* FROM (SELECT %s AS key, %s AS descriptor%s FROM %s AS r WHERE r.%I IS NOT NULL OFFSET 0) AS u '
        'CROSS JOIN LATERAL @extschema@.copy_match_descriptor(u.descriptor, $1, $2, NULL, 0) AS m',
        copymatch.key_expression(keys[1], keys[2:]), descriptor,
        CASE WHEN source_type = 'bytea' THEN '' ELSE pg_catalog.format(', copymatch.say_progress(%s, ''descriptors matched'')', total) END,
        uploads, source)
        USING set_name, wanted;
END $$;
COMMENT ON FUNCTION copymatch.match_rows(regclass, text, name, text, integer) IS 'what copy_match_table runs';

CREATE FUNCTION @extschema@.copy_match_table(uploads regclass, key text, source name, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT NULL)
    RETURNS TABLE (upload text, reference_set text, reference text, rank integer, similarity double precision, background double precision,
                   score double precision, probability double precision, verdict text, explanation text)
    LANGUAGE sql VOLATILE ROWS 10000 SET search_path = pg_catalog, pg_temp AS $$ SELECT * FROM copymatch.match_rows($1, $2, $3, $4, $5) $$;
COMMENT ON FUNCTION @extschema@.copy_match_table(regclass, text, name, text, integer) IS 'matches every row of a relation against a set: key names its key, source its column with images (bytea) or descriptors. A nested loop over the rows, each a search through the set''s index. Says every few seconds how far it is; an image that cannot be matched gives a WARNING and no rows';

-- reembed.sql
-- Another model for a set, while it is searched: a second descriptor column, filled in committed batches, then a switch.
CREATE FUNCTION copymatch.begin_reembed(set_name text, new_model text, new_calibration bigint) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(set_name);
    kind "char";
    owned boolean;
    dims integer;
    other text;
    base text;
    col text;
    tried integer := 1;
BEGIN
    SELECT c.relkind, pg_catalog.pg_has_role(c.relowner, 'USAGE') INTO kind, owned FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation;
    IF owned IS NOT TRUE THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF chosen.image_column IS NULL OR kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'reference set "%" has no images in a table', chosen.name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Re-embed the tables behind it, and make the set again over their new columns.';
    END IF;
    IF new_model IS NULL THEN
        RAISE EXCEPTION 'copy_reembed needs a model' USING ERRCODE = 'null_value_not_allowed', HINT = 'SELECT name FROM copymatch.models lists them.';
    END IF;
    SELECT m.dimensions INTO dims FROM copymatch.model m WHERE m.name = new_model;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model "%" does not exist', new_model
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM copymatch.models lists them.';
    END IF;
    IF new_model = chosen.model THEN
        RAISE EXCEPTION 'the descriptors of reference set "%" are from model "%" already', chosen.name, new_model
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF new_calibration IS NULL THEN
        SELECT pg_catalog.max(c.id) INTO new_calibration FROM copymatch.calibration c WHERE c.model = new_model AND c.reference_set IS NULL;
        IF new_calibration IS NULL THEN
            RAISE EXCEPTION 'model "%" has no calibration', new_model
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Add the model with its background descriptors and a calibration.';
        END IF;
    ELSIF NOT EXISTS (SELECT FROM copymatch.calibration c WHERE c.id = new_calibration AND c.model = new_model
                     AND (c.reference_set IS NULL OR c.reference_set = chosen.name)) THEN
        RAISE EXCEPTION 'model "%" has no calibration %', new_model, new_calibration USING ERRCODE = 'undefined_object';
    END IF;
    SELECT p.relid::regclass::text INTO other FROM pg_catalog.pg_partition_tree(chosen.relation) p
        JOIN pg_catalog.pg_class c ON c.oid = p.relid WHERE c.relkind NOT IN ('r', 'p') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'partition % is no table', other USING ERRCODE = 'wrong_object_type';
    END IF;

    base := pg_catalog.left('descriptor_' || pg_catalog.translate(new_model, '.-', '__'), 60);
    col := base;
    WHILE EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = chosen.relation AND a.attname = col AND NOT a.attisdropped) LOOP
        tried := tried + 1;
        col := base || tried;
    END LOOP;
    -- The table is locked for a moment: whoever writes to it afterwards sees the row below, and keeps both columns.
    EXECUTE pg_catalog.format('ALTER TABLE %s ADD COLUMN %I @extschema@.vector(%s)', chosen.relation, col, dims);
    IF dims <= 480 THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE PLAIN', chosen.relation, col);
    END IF;
    EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', chosen.relation, col,
                              pg_catalog.format('descriptor of the image by model %s; kept by copymatch', new_model));
    PERFORM copymatch.make_trigger(chosen);
    INSERT INTO copymatch.reembedding (reference_set, model, calibration, descriptor_column, old_model, old_calibration, old_descriptor_column)
        VALUES (chosen.name, new_model, new_calibration, col, chosen.model, chosen.calibration, chosen.descriptor_column);
END $$;
COMMENT ON FUNCTION copymatch.begin_reembed(text, text, bigint) IS 'adds the new descriptor column and records the re-embedding';

CREATE FUNCTION copymatch.find_reembedding(set_name text) RETURNS copymatch.reembedding LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job copymatch.reembedding;
BEGIN
    PERFORM copymatch.find_set(set_name);
    SELECT * INTO job FROM copymatch.reembedding r WHERE r.reference_set = set_name FOR UPDATE;
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM copymatch.reembedding r WHERE r.reference_set = set_name) THEN
            RAISE EXCEPTION 'must own the relation of reference set "%"', set_name USING ERRCODE = 'insufficient_privilege';
        END IF;
        RAISE EXCEPTION 'reference set "%" is not being re-embedded', set_name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'CALL copy_reembed(set, model) begins it.';
    END IF;
    RETURN job;
END $$;
COMMENT ON FUNCTION copymatch.find_reembedding(text) IS 'the record of a set''s re-embedding, locked, or an error';

-- Embedding is dear, and PostgreSQL would compile each batch's plan for it.
CREATE FUNCTION copymatch.reembed_batch(set_name text, batch integer) RETURNS boolean LANGUAGE plpgsql VOLATILE SET jit = off SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(set_name);
    -- Two callers take turns: each batch reads where the last one ended.
    job copymatch.reembedding := copymatch.find_reembedding(set_name);
    key text := copymatch.key_expression(chosen.key_column, chosen.further_key_columns);
    leaves oid[];
    rows tid[];
    filled bigint;
BEGIN
    IF job.state <> 'filling' THEN
        RETURN false;
    END IF;
    IF job.total IS NULL THEN
        EXECUTE pg_catalog.format('SELECT count(*) FROM %s AS r WHERE r.%I IS NOT NULL', chosen.relation, chosen.image_column) INTO job.total;
    END IF;
    -- A table that is no partition tree is its own only leaf.
    SELECT pg_catalog.array_agg(u.leaf ORDER BY u.leaf) INTO leaves FROM (
        SELECT p.relid::oid FROM pg_catalog.pg_partition_tree(chosen.relation) p WHERE p.isleaf
        UNION SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation AND c.relkind = 'r') AS u(leaf);
    IF job.part IS NULL OR NOT job.part::oid = ANY (leaves) THEN
        job.part := leaves[1];
        job.position := '(0,0)';
    END IF;
    LOOP
        -- In the order of the table. Whoever could not be embedded in the first pass is not tried again; whoever has the old
        -- descriptor is.
        EXECUTE pg_catalog.format('SELECT pg_catalog.array_agg(u.ctid) FROM (SELECT r.ctid FROM ONLY %s AS r WHERE r.ctid > $1 AND r.%I IS NULL AND r.%I IS NOT NULL%s LIMIT $2) AS u',
                                  job.part, job.descriptor_column, chosen.image_column,
                                  CASE WHEN job.pass > 1 THEN pg_catalog.format(' AND r.%I IS NOT NULL', job.old_descriptor_column) ELSE '' END)
            INTO rows USING job.position, batch;
        EXIT WHEN rows IS NOT NULL;
        SELECT pg_catalog.min(u.leaf)::regclass INTO job.part FROM pg_catalog.unnest(leaves) AS u(leaf) WHERE u.leaf > job.part::oid;
        IF job.part IS NULL THEN
            -- Rows that others wrote anew meanwhile may lie behind: only a pass that finds nothing to do is the last.
            IF job.done_in_pass = 0 THEN
                job.state := 'indexing';
                EXIT;
            END IF;
            job.pass := job.pass + 1;
            job.done_in_pass := 0;
            job.part := leaves[1];
        END IF;
        job.position := '(0,0)';
    END LOOP;
    IF rows IS NOT NULL THEN
        -- A row whose image cannot be embedded is not written: it would come again behind the place that the pass has reached.
        EXECUTE pg_catalog.format('WITH embedded AS MATERIALIZED (SELECT r.ctid, copymatch.embed_reference(r.%3$I, %4$L, %5$s, %6$s) AS descriptor FROM ONLY %1$s AS r WHERE r.ctid = ANY ($1)), '
                                  'written AS (UPDATE ONLY %1$s AS r SET %2$I = e.descriptor FROM embedded e WHERE r.ctid = e.ctid AND r.%2$I IS NULL AND e.descriptor IS NOT NULL RETURNING 1) '
                                  'SELECT count(*) FROM written',
                                  job.part, job.descriptor_column, chosen.image_column, job.model, key, job.total)
            INTO filled USING rows;
        SELECT pg_catalog.max(u.place) INTO job.position FROM pg_catalog.unnest(rows) AS u(place);
        job.done := job.done + filled;
        job.done_in_pass := job.done_in_pass + filled;
    END IF;
    UPDATE copymatch.reembedding r
        SET state = job.state, total = job.total, done = job.done, pass = job.pass, done_in_pass = job.done_in_pass, part = job.part, position = job.position,
            updated = pg_catalog.clock_timestamp(), pid = pg_catalog.pg_backend_pid()
        WHERE r.reference_set = set_name;
    RETURN job.state = 'filling';
END $$;
COMMENT ON FUNCTION copymatch.reembed_batch(text, integer) IS 'embeds the next batch of a set''s images into the new column; false when none is left';

CREATE FUNCTION copymatch.missing_indexes(set_name text) RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    -- The new column needs an index on every leaf where the old one has one.
    WITH job AS (SELECT s.relation, r.* FROM copymatch.reembedding r JOIN copymatch.reference_set s ON s.name = r.reference_set WHERE r.reference_set = set_name),
         leaf AS (SELECT p.relid::oid AS oid FROM job, pg_catalog.pg_partition_tree(job.relation) p WHERE p.isleaf
                  UNION SELECT c.oid FROM job JOIN pg_catalog.pg_class c ON c.oid = job.relation AND c.relkind = 'r'),
         served AS (SELECT i.indrelid, a.attname, pg_catalog.bool_or(i.indisvalid) AS valid FROM leaf
                    JOIN pg_catalog.pg_index i ON i.indrelid = leaf.oid AND i.indpred IS NULL
                    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                    JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'ivf'
                    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    GROUP BY i.indrelid, a.attname)
    SELECT pg_catalog.array_agg(pg_catalog.format('CREATE INDEX CONCURRENTLY ON %s USING ivf (%I @extschema@.vector_cosine_ops)', leaf.oid::regclass, job.descriptor_column) ORDER BY leaf.oid)
    FROM job CROSS JOIN leaf
    WHERE EXISTS (SELECT FROM served s WHERE s.indrelid = leaf.oid AND s.attname = job.old_descriptor_column AND s.valid)
      AND NOT EXISTS (SELECT FROM served s WHERE s.indrelid = leaf.oid AND s.attname = job.descriptor_column AND s.valid)
$$;
COMMENT ON FUNCTION copymatch.missing_indexes(text) IS 'the statements that build the indexes which the new column of a re-embedding still lacks; NULL: none';

CREATE FUNCTION copymatch.fill_locked(chosen copymatch.reference_set, target name, other name, with_model text) RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing bigint;
BEGIN
    -- Readers go on, writers wait: after this nobody writes a row that has but one of the two descriptors.
    EXECUTE pg_catalog.format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', chosen.relation);
    EXECUTE pg_catalog.format('WITH embedded AS MATERIALIZED (SELECT r.tableoid, r.ctid, copymatch.embed_reference(r.%3$I, %4$L, %5$s, 0) AS descriptor FROM %1$s AS r WHERE r.%2$I IS NULL AND r.%6$I IS NOT NULL AND r.%3$I IS NOT NULL), '
                              'written AS (UPDATE %1$s AS r SET %2$I = e.descriptor FROM embedded e WHERE r.tableoid = e.tableoid AND r.ctid = e.ctid AND e.descriptor IS NOT NULL RETURNING 1) '
                              'SELECT (SELECT count(*) FROM embedded) - (SELECT count(*) FROM written)',
                              chosen.relation, target, chosen.image_column, with_model, copymatch.key_expression(chosen.key_column, chosen.further_key_columns), other)
        INTO missing;
    RETURN missing;
END $$;
COMMENT ON FUNCTION copymatch.fill_locked(copymatch.reference_set, name, name, text) IS 'locks a set''s table against writers and embeds what has one of two descriptors only; returns how many images the model refuses';

CREATE FUNCTION copymatch.switch_reembed(set_name text) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(set_name);
    job copymatch.reembedding := copymatch.find_reembedding(set_name);
    missing bigint;
BEGIN
    missing := copymatch.fill_locked(chosen, job.descriptor_column, job.old_descriptor_column, job.model);
    IF missing > 0 THEN
        RAISE WARNING '% references of set "%" have no descriptor by model "%"', missing, set_name, job.model
            USING HINT = 'The warnings above name them.';
    END IF;
    UPDATE copymatch.reference_set s SET model = job.model, calibration = job.calibration, descriptor_column = job.descriptor_column WHERE s.name = set_name;
    UPDATE copymatch.reembedding r SET state = 'switched', pid = pg_catalog.pg_backend_pid() WHERE r.reference_set = set_name;
END $$;
COMMENT ON FUNCTION copymatch.switch_reembed(text) IS 'lets a set be searched by its new column, model and calibration: all three from one commit on';

CREATE PROCEDURE @extschema@.copy_reembed(reference_set text, model text DEFAULT NULL, batch integer DEFAULT 100, calibration bigint DEFAULT NULL,
                              build_index boolean DEFAULT false) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    job copymatch.reembedding;
    statements text[];
    statement text;
BEGIN
    IF batch IS NULL OR batch < 1 THEN
        RAISE EXCEPTION 'batch is %', coalesce(batch::text, 'NULL') USING ERRCODE = 'invalid_parameter_value', HINT = 'Images to embed between two commits: at least 1.';
    END IF;
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'copy_reembed runs at READ COMMITTED only' USING ERRCODE = 'invalid_transaction_state', HINT = 'SET default_transaction_isolation = ''read committed''.';
    END IF;
    PERFORM copymatch.find_set(copy_reembed.reference_set);
    SELECT * INTO job FROM copymatch.reembedding r WHERE r.reference_set = copy_reembed.reference_set;
    IF NOT FOUND THEN
        PERFORM copymatch.begin_reembed(copy_reembed.reference_set, copy_reembed.model, copy_reembed.calibration);
        COMMIT;
    ELSIF copy_reembed.model <> job.model THEN
        RAISE EXCEPTION 'reference set "%" is being re-embedded with model "%"', copy_reembed.reference_set, job.model
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Finish that, or give it up with copy_revert_reembed.';
    ELSIF job.state = 'switched' THEN
        RAISE EXCEPTION 'reference set "%" uses the descriptors of model "%" already', copy_reembed.reference_set, job.model
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'copy_finish_reembed drops the old column, copy_revert_reembed switches back.';
    END IF;
    job := copymatch.find_reembedding(copy_reembed.reference_set);
    UPDATE copymatch.reembedding r SET resumed = pg_catalog.clock_timestamp(), updated = pg_catalog.clock_timestamp(), done_before = r.done
        WHERE r.reference_set = copy_reembed.reference_set AND r.state = 'filling';
    COMMIT;
    WHILE copymatch.reembed_batch(copy_reembed.reference_set, batch) LOOP
        COMMIT;
    END LOOP;
    COMMIT;
    statements := copymatch.missing_indexes(copy_reembed.reference_set);
    IF statements IS NOT NULL AND NOT build_index THEN
        RAISE NOTICE 'all images of reference set "%" are embedded; the new column needs its index', copy_reembed.reference_set
            USING HINT = pg_catalog.format(E'A procedure cannot build it without blocking writers. Run:\n%s;\nCALL copy_reembed(%L);',
                                           pg_catalog.array_to_string(statements, E';\n'), copy_reembed.reference_set);
        RETURN;
    END IF;
    FOREACH statement IN ARRAY coalesce(statements, '{}') LOOP
        EXECUTE pg_catalog.replace(statement, 'CREATE INDEX CONCURRENTLY ON ', 'CREATE INDEX ON ');
        COMMIT;
    END LOOP;
    PERFORM copymatch.switch_reembed(copy_reembed.reference_set);
    COMMIT;
    RAISE NOTICE 'reference set "%" uses model "%" now', copy_reembed.reference_set, (copymatch.find_set(copy_reembed.reference_set)).model
        USING HINT = pg_catalog.format('copy_finish_reembed(%1$L) drops the old column; until then copy_revert_reembed(%1$L) switches back.', copy_reembed.reference_set);
END $$;
COMMENT ON PROCEDURE @extschema@.copy_reembed(text, text, integer, bigint, boolean) IS 'goes over to another model while the set is searched and written: fills a new descriptor column, committing every batch images; after an interruption the next CALL goes on. When the column is full it either builds the index (build_index: writers wait) or ends with a NOTICE that has the CREATE INDEX CONCURRENTLY, and the next CALL switches. copymatch.progress shows how far it is';

CREATE FUNCTION @extschema@.copy_revert_reembed(reference_set text) RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
    job copymatch.reembedding := copymatch.find_reembedding(reference_set);
BEGIN
    IF job.state = 'switched' THEN
        PERFORM copymatch.fill_locked(chosen, job.old_descriptor_column, job.descriptor_column, job.old_model);
        UPDATE copymatch.reference_set s SET model = job.old_model, calibration = job.old_calibration, descriptor_column = job.old_descriptor_column
            WHERE s.name = chosen.name;
        UPDATE copymatch.reembedding r SET state = 'reverted' WHERE r.reference_set = chosen.name;
        RETURN 'reverted';
    END IF;
    DELETE FROM copymatch.reembedding r WHERE r.reference_set = chosen.name;
    EXECUTE pg_catalog.format('ALTER TABLE %s DROP COLUMN %I', chosen.relation, job.descriptor_column);
    RETURN 'dropped';
END $$;
COMMENT ON FUNCTION @extschema@.copy_revert_reembed(text) IS 'goes a step back. After the switch: searches use the old model, column and calibration again, both columns are kept current, and CALL copy_reembed switches anew (reverted). Before the switch, or a second time: the new column is dropped and the re-embedding forgotten (dropped)';

CREATE FUNCTION @extschema@.copy_finish_reembed(reference_set text) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
    job copymatch.reembedding := copymatch.find_reembedding(reference_set);
BEGIN
    IF job.state <> 'switched' THEN
        RAISE EXCEPTION 'reference set "%" does not use the new descriptors yet', chosen.name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'CALL copy_reembed goes on, copy_revert_reembed gives it up.';
    END IF;
    DELETE FROM copymatch.reembedding r WHERE r.reference_set = chosen.name;
    IF EXISTS (SELECT FROM copymatch.reference_set s WHERE s.relation = chosen.relation AND s.descriptor_column = job.old_descriptor_column)
       OR EXISTS (SELECT FROM copymatch.reembedding r JOIN copymatch.reference_set s ON s.name = r.reference_set
                  WHERE s.relation = chosen.relation AND job.old_descriptor_column IN (r.descriptor_column, r.old_descriptor_column)) THEN
        PERFORM copymatch.serve_columns(chosen.relation);
        RAISE NOTICE 'column "%" stays: other reference sets use it', job.old_descriptor_column;
    ELSE
        EXECUTE pg_catalog.format('ALTER TABLE %s DROP COLUMN %I', chosen.relation, job.old_descriptor_column);
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.copy_finish_reembed(text) IS 'ends a re-embedding: the old descriptor column goes, and with it its index, unless another set uses it';

CREATE VIEW copymatch.progress AS
    SELECT 're-embedding'::text AS job, r.reference_set, r.state, r.model, r.done, r.total,
           (pg_catalog.round(100.0 * r.done / nullif(r.total, 0), 1))::double precision AS percent,
           s.rate AS per_second,
           CASE WHEN r.state = 'filling' AND s.rate > 0 THEN pg_catalog.make_interval(secs => greatest(r.total - r.done, 0) / s.rate) END AS remaining,
           r.started, r.updated, a.pid
    FROM copymatch.reembedding r
         CROSS JOIN LATERAL (SELECT (r.done - r.done_before) / nullif(extract(epoch FROM r.updated - r.resumed)::double precision, 0)) AS s(rate)
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = r.pid AND a.datname = pg_catalog.current_database()
              AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = r.pid AND l.relation = 'copymatch.reembedding'::regclass AND l.mode = 'RowExclusiveLock');
COMMENT ON VIEW copymatch.progress IS 'long jobs and how far they are, by their last commit: images done, images a second and the remaining time at that rate; pid: the backend at work, NULL when none is';
GRANT SELECT ON copymatch.progress TO PUBLIC;

-- findings.sql
-- Findings and their review. Rows come from copymatch.record_findings alone; reviewers may UPDATE the columns state, note and
-- for_uploader, by the functions below or by hand: the triggers hold the rules either way, and policies that an operator adds
-- to copymatch.finding hold as well, since the functions run with the caller's rights.
CREATE TABLE copymatch.finding (
    id            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    found         timestamptz NOT NULL DEFAULT now(),
    reference_set text NOT NULL,
    relation      regclass NOT NULL,
    upload        text NOT NULL,
    reference     text NOT NULL,
    similarity    double precision NOT NULL,
    background    double precision NOT NULL,
    score         double precision NOT NULL,
    probability   double precision NOT NULL,
    verdict       text NOT NULL CHECK (verdict IN ('copy', 'review', 'different')),
    model         text NOT NULL,
    calibration   bigint NOT NULL,
    uploader      text,
    state         text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'confirmed', 'dismissed')),
    decided       timestamptz,
    decided_by    name,
    note          text,
    for_uploader  boolean NOT NULL DEFAULT false,
    changed       timestamptz,
    changed_by    name,
    CHECK ((state = 'open') = (decided IS NULL) AND (state = 'open') = (decided_by IS NULL)),
    CHECK (NOT for_uploader OR state = 'dismissed' AND uploader IS NOT NULL),
    UNIQUE (relation, upload, reference_set, reference)
);
COMMENT ON TABLE copymatch.finding IS 'uploads that resemble a reference, each with the state of its review';
COMMENT ON COLUMN copymatch.finding.id IS 'identifier, by which reviewers name it';
COMMENT ON COLUMN copymatch.finding.found IS 'when it was found';
COMMENT ON COLUMN copymatch.finding.reference_set IS 'the set of the reference';
COMMENT ON COLUMN copymatch.finding.relation IS 'table of the upload';
COMMENT ON COLUMN copymatch.finding.upload IS 'key of the upload as text; of a composite key the text of the row (times in UTC)';
COMMENT ON COLUMN copymatch.finding.reference IS 'key of the reference as text';
COMMENT ON COLUMN copymatch.finding.similarity IS 'cosine similarity';
COMMENT ON COLUMN copymatch.finding.background IS 'mean similarity of the upload to its nearest background descriptors';
COMMENT ON COLUMN copymatch.finding.score IS 'stretched score';
COMMENT ON COLUMN copymatch.finding.probability IS 'probability of being a copy';
COMMENT ON COLUMN copymatch.finding.verdict IS 'copy or review, by the calibration''s thresholds';
COMMENT ON COLUMN copymatch.finding.model IS 'model that made the descriptors';
COMMENT ON COLUMN copymatch.finding.calibration IS 'calibration that gave probability and verdict';
COMMENT ON COLUMN copymatch.finding.uploader IS 'who uploaded, where the trigger has the option uploader';
COMMENT ON COLUMN copymatch.finding.state IS 'open, confirmed or dismissed';
COMMENT ON COLUMN copymatch.finding.decided IS 'when it was confirmed or dismissed';
COMMENT ON COLUMN copymatch.finding.decided_by IS 'role that confirmed or dismissed it';
COMMENT ON COLUMN copymatch.finding.note IS 'the reviewer''s note';
COMMENT ON COLUMN copymatch.finding.for_uploader IS 'dismissed for everything that this uploader has of this reference';
COMMENT ON COLUMN copymatch.finding.changed IS 'when the state last changed; NULL: never';
COMMENT ON COLUMN copymatch.finding.changed_by IS 'role that last changed the state';
-- For lists of open findings, by age or by set, and for what one reference or uploader has.
CREATE INDEX finding_open ON copymatch.finding (found, id) WHERE state = 'open';
CREATE INDEX finding_reference ON copymatch.finding (reference_set, reference);
CREATE INDEX finding_uploader ON copymatch.finding (uploader, relation) WHERE uploader IS NOT NULL;
-- For reports over the last weeks, from the index alone. (A BRIN index would be smaller, but rows that reviews move and rows that
-- fill old pages soon make it match everywhere.)
CREATE INDEX finding_found ON copymatch.finding (found) INCLUDE (reference_set, reference, relation, uploader, state);

CREATE TABLE copymatch.finding_history (
    id         bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    finding    bigint NOT NULL,
    changed    timestamptz NOT NULL,
    changed_by name NOT NULL,
    login      name NOT NULL DEFAULT session_user,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    note       text
);
COMMENT ON TABLE copymatch.finding_history IS 'every change of a finding''s state; rows are added and never change';
COMMENT ON COLUMN copymatch.finding_history.id IS 'identifier';
COMMENT ON COLUMN copymatch.finding_history.finding IS 'the finding, which may be gone by now';
COMMENT ON COLUMN copymatch.finding_history.changed IS 'when';
COMMENT ON COLUMN copymatch.finding_history.changed_by IS 'who: the role under which it was done';
COMMENT ON COLUMN copymatch.finding_history.login IS 'the role that had logged in';
COMMENT ON COLUMN copymatch.finding_history.from_state IS 'state before';
COMMENT ON COLUMN copymatch.finding_history.to_state IS 'state after';
COMMENT ON COLUMN copymatch.finding_history.note IS 'note given with the change';
CREATE INDEX finding_history_finding ON copymatch.finding_history (finding);
CREATE INDEX finding_history_changed ON copymatch.finding_history (changed) INCLUDE (changed_by, to_state);

CREATE TABLE copymatch.dismissal (
    relation      regclass NOT NULL,
    upload        text,
    uploader      text,
    reference_set text NOT NULL,
    reference     text NOT NULL,
    finding       bigint NOT NULL,
    CHECK ((upload IS NULL) <> (uploader IS NULL))
);
COMMENT ON TABLE copymatch.dismissal IS 'what reviewers dismissed and is not to be raised again; kept when findings are deleted';
COMMENT ON COLUMN copymatch.dismissal.relation IS 'table of the upload';
COMMENT ON COLUMN copymatch.dismissal.upload IS 'the upload; NULL: whatever the uploader uploads';
COMMENT ON COLUMN copymatch.dismissal.uploader IS 'the uploader; NULL: this upload alone';
COMMENT ON COLUMN copymatch.dismissal.reference_set IS 'set of the reference';
COMMENT ON COLUMN copymatch.dismissal.reference IS 'the reference';
COMMENT ON COLUMN copymatch.dismissal.finding IS 'the finding that was dismissed';
CREATE UNIQUE INDEX dismissal_upload ON copymatch.dismissal (relation, upload, reference_set, reference) WHERE upload IS NOT NULL;
CREATE UNIQUE INDEX dismissal_uploader ON copymatch.dismissal (relation, uploader, reference_set, reference) WHERE uploader IS NOT NULL;
CREATE INDEX dismissal_finding ON copymatch.dismissal (finding);

-- Counts for the reports. Writers add rows to finding_delta, which takes no lock that another writer waits for; now and then
-- one of them folds these into finding_count. A row there is a day of UTC with the running counts at the end of each of its
-- quarters of an hour: a day of any time zone is a difference of two of them, and ten million findings are some thousand rows.
CREATE TABLE copymatch.finding_delta (
    quarter       timestamptz NOT NULL,
    reference_set text NOT NULL,
    verdict       text NOT NULL,
    state         text NOT NULL,
    model         text NOT NULL,
    findings      integer NOT NULL
);
COMMENT ON TABLE copymatch.finding_delta IS 'changes of the counts of findings that are not yet in copymatch.finding_count';
COMMENT ON COLUMN copymatch.finding_delta.quarter IS 'start of the quarter of an hour in which they were found: no time zone cuts one in two';
COMMENT ON COLUMN copymatch.finding_delta.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.finding_delta.verdict IS 'copy or review';
COMMENT ON COLUMN copymatch.finding_delta.state IS 'open, confirmed or dismissed';
COMMENT ON COLUMN copymatch.finding_delta.model IS 'the model';
COMMENT ON COLUMN copymatch.finding_delta.findings IS 'how many more, or fewer';
CREATE TABLE copymatch.finding_count (
    day           date NOT NULL,
    reference_set text NOT NULL,
    verdict       text NOT NULL,
    state         text NOT NULL,
    model         text NOT NULL,
    running       integer[] NOT NULL CHECK (array_ndims(running) = 1 AND array_lower(running, 1) = 1 AND array_length(running, 1) = 96),
    PRIMARY KEY (day, reference_set, verdict, state, model)
);
COMMENT ON TABLE copymatch.finding_count IS 'findings by day (of UTC), set, verdict, state and model, but for copymatch.finding_delta';
COMMENT ON COLUMN copymatch.finding_count.day IS 'the day, of UTC, on which they were found';
COMMENT ON COLUMN copymatch.finding_count.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.finding_count.verdict IS 'copy or review';
COMMENT ON COLUMN copymatch.finding_count.state IS 'open, confirmed or dismissed';
COMMENT ON COLUMN copymatch.finding_count.model IS 'the model';
COMMENT ON COLUMN copymatch.finding_count.running IS 'how many were found from the start of the day to the end of each of its 96 quarters of an hour; the last is the day''s count';
ALTER TABLE copymatch.finding_count SET (fillfactor = 70);

CREATE FUNCTION copymatch.guard_finding() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (NEW.id, NEW.found, NEW.reference_set, NEW.relation, NEW.upload, NEW.reference)
       IS DISTINCT FROM (OLD.id, OLD.found, OLD.reference_set, OLD.relation, OLD.upload, OLD.reference) THEN
        RAISE EXCEPTION 'finding % names an upload and a reference, and these never change', OLD.id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Only its review changes: copy_confirm, copy_dismiss, copy_reopen.';
    END IF;
    IF NEW.state = OLD.state THEN
        IF (NEW.decided, NEW.decided_by, NEW.changed, NEW.changed_by) IS DISTINCT FROM (OLD.decided, OLD.decided_by, OLD.changed, OLD.changed_by)
           OR OLD.state <> 'open' AND NEW IS DISTINCT FROM OLD THEN
            RAISE EXCEPTION 'finding % was % by % at %', OLD.id, OLD.state, OLD.decided_by, OLD.decided
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'copy_reopen opens it again.';
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.state <> 'open' AND NEW.state <> 'open' THEN
        RAISE EXCEPTION 'finding % was % by % at %', OLD.id, OLD.state, OLD.decided_by, OLD.decided
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'copy_reopen opens it again.';
    END IF;
    NEW.changed := pg_catalog.clock_timestamp();
    NEW.changed_by := current_user;
    NEW.decided := CASE WHEN NEW.state <> 'open' THEN NEW.changed END;
    NEW.decided_by := CASE WHEN NEW.state <> 'open' THEN NEW.changed_by END;
    NEW.for_uploader := NEW.for_uploader AND NEW.state = 'dismissed';
    RETURN NEW;
END $$;
COMMENT ON FUNCTION copymatch.guard_finding() IS 'trigger: a finding goes from open to confirmed or dismissed and back, with who and when, and nothing else about it changes';
CREATE TRIGGER guard BEFORE UPDATE ON copymatch.finding FOR EACH ROW EXECUTE FUNCTION copymatch.guard_finding();
COMMENT ON TRIGGER guard ON copymatch.finding IS 'the rules of review hold for whoever updates';

CREATE FUNCTION copymatch.fold_counts() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- One at a time; in a transaction with an old snapshot the fold would fail on rows that another one has changed since.
    IF current_setting('transaction_isolation') <> 'read committed' OR NOT pg_try_advisory_xact_lock('copymatch.finding_count'::regclass::oid::bigint) THEN
        RETURN;
    END IF;
    -- EXECUTE: as many rows as there are, not as many as there were when the session made its first plan.
    EXECUTE $fold$
        WITH taken AS (
            DELETE FROM copymatch.finding_delta RETURNING *
        ), quarters AS (
            SELECT (t.quarter AT TIME ZONE 'UTC')::date AS day, 1 + (extract(epoch FROM t.quarter) / 900)::bigint % 96 AS number,
                   t.reference_set, t.verdict, t.state, t.model, sum(t.findings) AS findings
            FROM taken t GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(t.findings) <> 0
        ), days AS (
            SELECT DISTINCT q.day, q.reference_set, q.verdict, q.state, q.model FROM quarters q
        ), running AS (
            SELECT day, d.reference_set, d.verdict, d.state, d.model, number,
                   sum(coalesce(q.findings, 0)) OVER (PARTITION BY day, d.reference_set, d.verdict, d.state, d.model ORDER BY number) AS findings
            FROM days d CROSS JOIN generate_series(1::bigint, 96) number
            LEFT JOIN quarters q USING (day, reference_set, verdict, state, model, number)
        )
        INSERT INTO copymatch.finding_count AS c (day, reference_set, verdict, state, model, running)
            SELECT r.day, r.reference_set, r.verdict, r.state, r.model, array_agg(r.findings::integer ORDER BY r.number)
            FROM running r GROUP BY 1, 2, 3, 4, 5
            ON CONFLICT (day, reference_set, verdict, state, model) DO UPDATE
                SET running = (SELECT array_agg(u.a + u.b ORDER BY u.number) FROM unnest(c.running, EXCLUDED.running) WITH ORDINALITY u(a, b, number))
    $fold$;
END $$;
COMMENT ON FUNCTION copymatch.fold_counts() IS 'moves copymatch.finding_delta into copymatch.finding_count; done now and then by whoever writes findings';
REVOKE ALL ON FUNCTION copymatch.fold_counts() FROM PUBLIC;

CREATE FUNCTION copymatch.quarter(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN pg_catalog.date_bin(interval '15 minutes', at, timestamptz '2000-01-01 00:00:00+00');
COMMENT ON FUNCTION copymatch.quarter(timestamptz) IS 'start of the quarter of an hour';

CREATE FUNCTION copymatch.count_findings() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE copymatch.finding_delta, copymatch.finding_count;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO copymatch.finding_delta
            SELECT copymatch.quarter(found), reference_set, verdict, state, model, -count(*) FROM old_rows GROUP BY 1, 2, 3, 4, 5;
    ELSE
        INSERT INTO copymatch.finding_delta
            SELECT copymatch.quarter(found), reference_set, verdict, state, model, count(*) FROM new_rows GROUP BY 1, 2, 3, 4, 5;
        IF EXISTS (SELECT FROM new_rows WHERE id % 4096 = 0) THEN
            PERFORM copymatch.fold_counts();
        END IF;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION copymatch.count_findings() IS 'trigger: keeps the counts for the reports';
CREATE TRIGGER count_new AFTER INSERT ON copymatch.finding REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION copymatch.count_findings();
CREATE TRIGGER count_gone AFTER DELETE ON copymatch.finding REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION copymatch.count_findings();
CREATE TRIGGER count_none AFTER TRUNCATE ON copymatch.finding FOR EACH STATEMENT EXECUTE FUNCTION copymatch.count_findings();
COMMENT ON TRIGGER count_new ON copymatch.finding IS 'counts for the reports';
COMMENT ON TRIGGER count_gone ON copymatch.finding IS 'counts for the reports';
COMMENT ON TRIGGER count_none ON copymatch.finding IS 'counts for the reports';

CREATE FUNCTION copymatch.recount() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    LOCK TABLE copymatch.finding IN SHARE MODE;
    DELETE FROM copymatch.finding_delta;
    DELETE FROM copymatch.finding_count;
    INSERT INTO copymatch.finding_delta
        SELECT copymatch.quarter(found), reference_set, verdict, state, model, count(*) FROM copymatch.finding GROUP BY 1, 2, 3, 4, 5;
    PERFORM copymatch.fold_counts();
END $$;
COMMENT ON FUNCTION copymatch.recount() IS 'counts all findings anew, for the case that they were loaded with triggers disabled; writers of findings wait meanwhile';
REVOKE ALL ON FUNCTION copymatch.recount() FROM PUBLIC;

CREATE FUNCTION copymatch.keep_history() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    -- EXECUTE: a plan that is kept from one decision would join a hundred thousand by nested loops.
    EXECUTE 'INSERT INTO copymatch.finding_history (finding, changed, changed_by, from_state, to_state, note)
        SELECT n.id, n.changed, n.changed_by, o.state, n.state, n.note
        FROM new_rows n JOIN old_rows o USING (id) WHERE n.state <> o.state ORDER BY n.id';
    INSERT INTO copymatch.finding_delta
        SELECT copymatch.quarter(found), reference_set, verdict, state, model, sum(sign)
        FROM (SELECT found, reference_set, verdict, state, model, 1 AS sign FROM new_rows
              UNION ALL SELECT found, reference_set, verdict, state, model, -1 FROM old_rows) AS both_rows
        GROUP BY 1, 2, 3, 4, 5 HAVING sum(sign) <> 0;
    EXECUTE 'DELETE FROM copymatch.dismissal d USING new_rows n WHERE d.finding = n.id AND n.state = ''open''';
    EXECUTE 'INSERT INTO copymatch.dismissal (relation, upload, reference_set, reference, finding)
        SELECT n.relation, n.upload, n.reference_set, n.reference, n.id FROM new_rows n JOIN old_rows o USING (id)
        WHERE n.state = ''dismissed'' AND o.state <> ''dismissed'' ON CONFLICT DO NOTHING';
    EXECUTE 'INSERT INTO copymatch.dismissal (relation, uploader, reference_set, reference, finding)
        SELECT n.relation, n.uploader, n.reference_set, n.reference, n.id FROM new_rows n JOIN old_rows o USING (id)
        WHERE n.state = ''dismissed'' AND o.state <> ''dismissed'' AND n.for_uploader ON CONFLICT DO NOTHING';
    IF EXISTS (SELECT FROM new_rows n WHERE n.id % 1024 = 0) THEN
        PERFORM copymatch.fold_counts();
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION copymatch.keep_history() IS 'trigger: writes history, dismissals and counts, to which reviewers themselves have no right';
CREATE TRIGGER keep_history AFTER UPDATE ON copymatch.finding REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION copymatch.keep_history();
COMMENT ON TRIGGER keep_history ON copymatch.finding IS 'history and dismissals follow the state';

CREATE FUNCTION copymatch.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'What reviewers did stays on record.';
END $$;
COMMENT ON FUNCTION copymatch.refuse_change() IS 'trigger: rows of this table are added, never changed or removed';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON copymatch.finding_history
    FOR EACH STATEMENT EXECUTE FUNCTION copymatch.refuse_change();
COMMENT ON TRIGGER append_only ON copymatch.finding_history IS 'the history is evidence';

CREATE FUNCTION copymatch.is_dismissed(relation regclass, upload text, uploader text, reference_set text, reference text)
    RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM copymatch.dismissal d WHERE d.relation = is_dismissed.relation AND d.upload = is_dismissed.upload
                       AND d.reference_set = is_dismissed.reference_set AND d.reference = is_dismissed.reference)
        OR EXISTS (SELECT FROM copymatch.dismissal d WHERE d.relation = is_dismissed.relation AND d.uploader = is_dismissed.uploader
                       AND d.reference_set = is_dismissed.reference_set AND d.reference = is_dismissed.reference)
$$;
COMMENT ON FUNCTION copymatch.is_dismissed(regclass, text, text, text, text) IS 'whether a reviewer dismissed this reference for this upload or this uploader';
REVOKE ALL ON FUNCTION copymatch.is_dismissed(regclass, text, text, text, text) FROM PUBLIC;

CREATE FUNCTION copymatch.record_findings(relation regclass, upload text, uploader text, reference_set text, reference text[],
                                          similarity double precision[], background double precision[], score double precision[],
                                          probability double precision[], verdict text[])
    RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    recorded bigint;
BEGIN
    WITH written AS (
        INSERT INTO copymatch.finding AS f (reference_set, relation, upload, reference, similarity, background, score, probability,
                                            verdict, model, calibration, uploader)
            SELECT s.name, record_findings.relation, record_findings.upload, m.reference, m.similarity, m.background, m.score, m.probability,
                   m.verdict, s.model, s.calibration, record_findings.uploader
            FROM unnest(record_findings.reference, record_findings.similarity, record_findings.background, record_findings.score,
                        record_findings.probability, record_findings.verdict)
                     AS m(reference, similarity, background, score, probability, verdict)
            JOIN copymatch.reference_set s ON s.name = record_findings.reference_set
            WHERE NOT copymatch.is_dismissed(record_findings.relation, record_findings.upload, record_findings.uploader, s.name, m.reference)
            ORDER BY m.probability DESC
            ON CONFLICT (relation, upload, reference_set, reference) DO UPDATE
                SET similarity = EXCLUDED.similarity, background = EXCLUDED.background, score = EXCLUDED.score,
                    probability = EXCLUDED.probability, verdict = EXCLUDED.verdict, model = EXCLUDED.model,
                    calibration = EXCLUDED.calibration, uploader = EXCLUDED.uploader
                WHERE f.state = 'open' AND (f.similarity, f.background, f.probability, f.verdict, f.model, f.calibration, f.uploader)
                      IS DISTINCT FROM (EXCLUDED.similarity, EXCLUDED.background, EXCLUDED.probability, EXCLUDED.verdict,
                                        EXCLUDED.model, EXCLUDED.calibration, EXCLUDED.uploader)
            RETURNING f.id, f.reference_set, f.relation, f.upload, f.reference, f.probability, f.verdict, f.uploader, f.xmax = 0 AS is_new
    ), told AS (
        SELECT w.id, json_build_object('id', w.id, 'reference_set', w.reference_set, 'relation', w.relation::text, 'upload', w.upload,
                                       'reference', w.reference, 'probability', w.probability, 'verdict', w.verdict,
                                       'uploader', w.uploader)::text AS payload
        FROM written w WHERE w.is_new
    )
    -- A payload ends below 8000 bytes; who gets the short one reads the finding by its id.
    SELECT count(pg_notify('copymatch_finding', CASE WHEN octet_length(t.payload) < 7900 THEN t.payload
                                                     ELSE json_build_object('id', t.id, 'truncated', true)::text END)) INTO recorded
        FROM told t;
    RETURN recorded;
END $$;
COMMENT ON FUNCTION copymatch.record_findings(regclass, text, text, text, text[], double precision[], double precision[], double precision[], double precision[], text[]) IS
    'writes what an upload resembles and NOTIFYs copymatch_finding; what was dismissed is left out, what is open already gets the new figures; the number of new findings';
REVOKE ALL ON FUNCTION copymatch.record_findings(regclass, text, text, text, text[], double precision[], double precision[], double precision[], double precision[], text[]) FROM PUBLIC;

-- Review.
CREATE FUNCTION copymatch.decide(finding bigint, new_state text, note text, for_uploader boolean) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    present copymatch.finding;
BEGIN
    UPDATE copymatch.finding f SET state = decide.new_state, note = decide.note, for_uploader = decide.for_uploader
        WHERE f.id = decide.finding AND (f.state = 'open') = (decide.new_state <> 'open');
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO present FROM copymatch.finding f WHERE f.id = decide.finding;
    IF present.id IS NULL THEN
        RAISE EXCEPTION 'there is no finding %', decide.finding
            USING ERRCODE = 'no_data_found', HINT = 'SELECT id FROM copymatch.finding lists those that you may see.';
    END IF;
    IF present.state = 'open' THEN
        RAISE EXCEPTION 'finding % is open', present.id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Confirm it with copy_confirm, or dismiss it with copy_dismiss.';
    END IF;
    RAISE EXCEPTION 'finding % was % by % at %', present.id, present.state, present.decided_by, present.decided
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'copy_reopen opens it again.';
END $$;
COMMENT ON FUNCTION copymatch.decide(bigint, text, text, boolean) IS 'changes the state of one finding, or says who was quicker';

CREATE FUNCTION copymatch.decide_all(findings bigint[], new_state text, note text, for_uploader boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    done bigint;
    wanted bigint := (SELECT pg_catalog.count(DISTINCT id) FROM pg_catalog.unnest(decide_all.findings) AS u(id));
BEGIN
    -- Locked in the order of their ids, so that two reviewers with overlapping lists wait instead of blocking each other.
    WITH locked AS MATERIALIZED (
        SELECT f.id FROM copymatch.finding f WHERE f.id = ANY (decide_all.findings) AND f.state = 'open' ORDER BY f.id FOR NO KEY UPDATE
    )
    UPDATE copymatch.finding f SET state = decide_all.new_state, note = decide_all.note, for_uploader = decide_all.for_uploader
        FROM locked l WHERE f.id = l.id;
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done < wanted THEN
        RAISE NOTICE '% of % findings were not open, or not there, and stay as they are', wanted - done, wanted;
    END IF;
    RETURN done;
END $$;
COMMENT ON FUNCTION copymatch.decide_all(bigint[], text, text, boolean) IS 'changes the state of those findings that are open; their number';

CREATE FUNCTION @extschema@.copy_confirm(finding bigint, note text DEFAULT NULL) RETURNS void LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT copymatch.decide($1, 'confirmed', $2, false)
$$;
COMMENT ON FUNCTION @extschema@.copy_confirm(bigint, text) IS 'an open finding is a copy indeed; an error that names who decided where somebody else was quicker';
CREATE FUNCTION @extschema@.copy_confirm(findings bigint[], note text DEFAULT NULL) RETURNS bigint LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT copymatch.decide_all($1, 'confirmed', $2, false)
$$;
COMMENT ON FUNCTION @extschema@.copy_confirm(bigint[], text) IS 'confirms those of the findings that are open; how many that were';

CREATE FUNCTION @extschema@.copy_dismiss(finding bigint, note text DEFAULT NULL, for_uploader boolean DEFAULT false) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF coalesce(copy_dismiss.for_uploader, false)
       AND EXISTS (SELECT FROM copymatch.finding f WHERE f.id = copy_dismiss.finding AND f.uploader IS NULL) THEN
        RAISE EXCEPTION 'finding % has no uploader', copy_dismiss.finding
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Triggers record one with the option ''uploader=column''.';
    END IF;
    PERFORM copymatch.decide(copy_dismiss.finding, 'dismissed', copy_dismiss.note, coalesce(copy_dismiss.for_uploader, false));
END $$;
COMMENT ON FUNCTION @extschema@.copy_dismiss(bigint, text, boolean) IS 'an open finding is no copy, or none that matters: the pair is not raised again; for_uploader: nor is the reference for anything else of this uploader';
CREATE FUNCTION @extschema@.copy_dismiss(findings bigint[], note text DEFAULT NULL) RETURNS bigint LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT copymatch.decide_all($1, 'dismissed', $2, false)
$$;
COMMENT ON FUNCTION @extschema@.copy_dismiss(bigint[], text) IS 'dismisses those of the findings that are open; how many that were';

CREATE FUNCTION @extschema@.copy_reopen(finding bigint, note text DEFAULT NULL) RETURNS void LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT copymatch.decide($1, 'open', $2, false)
$$;
COMMENT ON FUNCTION @extschema@.copy_reopen(bigint, text) IS 'opens a confirmed or dismissed finding again and forgets the dismissal';

GRANT SELECT ON copymatch.finding, copymatch.finding_history, copymatch.dismissal, copymatch.finding_count, copymatch.finding_delta TO copymatch_reader;
GRANT UPDATE (state, note, for_uploader) ON copymatch.finding TO copymatch_reviewer;
GRANT EXECUTE ON FUNCTION copymatch.recount(), copymatch.fold_counts() TO copymatch_admin;
REVOKE ALL ON FUNCTION copymatch.decide(bigint, text, text, boolean), copymatch.decide_all(bigint[], text, text, boolean),
    @extschema@.copy_confirm(bigint, text), @extschema@.copy_confirm(bigint[], text), @extschema@.copy_dismiss(bigint, text, boolean), @extschema@.copy_dismiss(bigint[], text),
    @extschema@.copy_reopen(bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION copymatch.decide(bigint, text, text, boolean), copymatch.decide_all(bigint[], text, text, boolean),
    @extschema@.copy_confirm(bigint, text), @extschema@.copy_confirm(bigint[], text), @extschema@.copy_dismiss(bigint, text, boolean), @extschema@.copy_dismiss(bigint[], text),
    @extschema@.copy_reopen(bigint, text) TO copymatch_reviewer;

-- The counts are made again by the triggers when findings are restored.
SELECT pg_catalog.pg_extension_config_dump('copymatch.finding', '');
SELECT pg_catalog.pg_extension_config_dump('copymatch.finding_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('copymatch.finding_history', '');
SELECT pg_catalog.pg_extension_config_dump('copymatch.finding_history_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('copymatch.dismissal', '');

-- flagging.sql
-- Flagging: the trigger, the queue of its asynchronous form, and what works it off.
CREATE TABLE copymatch.queue (
    id            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    relation      regclass NOT NULL,
    key           text[] NOT NULL,
    reference_set text NOT NULL,
    arguments     text[] NOT NULL,
    state         text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'failed')),
    attempts      integer NOT NULL DEFAULT 0,
    enqueued      timestamptz NOT NULL DEFAULT now(),
    next_try      timestamptz NOT NULL DEFAULT now(),
    last_error    text
);
COMMENT ON TABLE copymatch.queue IS 'uploads that wait to be matched, and those that were given up (state failed)';
COMMENT ON COLUMN copymatch.queue.id IS 'identifier';
COMMENT ON COLUMN copymatch.queue.relation IS 'table of the upload';
COMMENT ON COLUMN copymatch.queue.key IS 'the upload''s key, column by column, as text';
COMMENT ON COLUMN copymatch.queue.reference_set IS 'the set to match with';
COMMENT ON COLUMN copymatch.queue.arguments IS 'the trigger''s arguments';
COMMENT ON COLUMN copymatch.queue.state IS 'waiting, or failed: given up, until copy_retry_queue or a DELETE';
COMMENT ON COLUMN copymatch.queue.attempts IS 'how often it was begun';
COMMENT ON COLUMN copymatch.queue.enqueued IS 'when it was uploaded';
COMMENT ON COLUMN copymatch.queue.next_try IS 'not before';
COMMENT ON COLUMN copymatch.queue.last_error IS 'why the last try did not succeed';
CREATE INDEX queue_waiting ON copymatch.queue (next_try, id) WHERE state = 'waiting';
-- Rows come and go: vacuum by their number, not by a part of a table that is empty most of the time.
ALTER TABLE copymatch.queue SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_insert_scale_factor = 0,
                                 autovacuum_vacuum_insert_threshold = 100000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000);
GRANT SELECT ON copymatch.queue TO copymatch_reader;
GRANT INSERT, DELETE ON copymatch.queue TO copymatch_admin;
SELECT pg_catalog.pg_extension_config_dump('copymatch.queue', '');
SELECT pg_catalog.pg_extension_config_dump('copymatch.queue_id_seq', '');

CREATE FUNCTION @extschema@.copy_flag() RETURNS trigger AS 'MODULE_PATHNAME', 'copy_flag' LANGUAGE c
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION @extschema@.copy_flag() IS 'trigger (INSERT OR UPDATE, FOR EACH ROW; arguments: image column, key columns, reference set, then ''option=value''): flags uploads that resemble a reference. mode=async enqueues them instead, on_copy=reject refuses them. References are read with the rights of the table''s owner';
REVOKE ALL ON FUNCTION @extschema@.copy_flag() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.copy_flag() TO copymatch_admin;

CREATE FUNCTION copymatch.flag_options(arguments text[], OUT image text, OUT key text[], OUT reference_set text, OUT uploader text,
                                       OUT skip boolean, OUT review boolean, OUT k integer)
    AS 'MODULE_PATHNAME', 'flag_options_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.flag_options(text[]) IS 'reads the arguments of a copy_flag trigger; an error that names what is wrong with them';

CREATE FUNCTION copymatch.record_text(key text[]) RETURNS text
    AS 'MODULE_PATHNAME', 'record_text_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.record_text(text[]) IS 'a composite key as the text of its row';

CREATE FUNCTION copymatch.read_upload(relation oid, statement text, key text[], OUT image bytea, OUT uploader text)
    AS 'MODULE_PATHNAME', 'read_upload_wrapper' LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION copymatch.read_upload(oid, text, text[]) IS 'reads an upload with the rights of its table''s owner';
REVOKE ALL ON FUNCTION copymatch.read_upload(oid, text, text[]) FROM PUBLIC;

CREATE FUNCTION copymatch.embed_uploads(images bytea[], model text) RETURNS TABLE (descriptor @extschema@.vector, error text)
    AS 'MODULE_PATHNAME', 'embed_uploads_wrapper' LANGUAGE c STABLE STRICT;
COMMENT ON FUNCTION copymatch.embed_uploads(bytea[], text) IS 'descriptors of images in their order; where one cannot be matched, the reason in its place';

CREATE FUNCTION copymatch.match_upload(relation oid, descriptor @extschema@.vector, reference_set text, model text, k integer, review boolean)
    RETURNS TABLE (reference text, similarity double precision, background double precision, score double precision,
                   probability double precision, verdict text)
    AS 'MODULE_PATHNAME', 'match_upload_wrapper' LANGUAGE c STABLE STRICT SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION copymatch.match_upload(oid, @extschema@.vector, text, text, integer, boolean) IS 'what a descriptor resembles, with the rights of the owner of an uploads table';
REVOKE ALL ON FUNCTION copymatch.match_upload(oid, @extschema@.vector, text, text, integer, boolean) FROM PUBLIC;

CREATE FUNCTION copymatch.upload_statement(relation regclass, image text, key text[], uploader text) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing text;
    conditions text;
BEGIN
    SELECT u.col INTO missing FROM unnest(array_prepend(upload_statement.image, upload_statement.key) || upload_statement.uploader) AS u(col)
        WHERE u.col IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = upload_statement.relation AND a.attname = u.col
                                                    AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'column "%" of relation %, which its flagging trigger names, does not exist', missing, upload_statement.relation
            USING ERRCODE = 'undefined_column', HINT = 'After a rename, make the trigger again.';
    END IF;
    -- The equality of the key's own type, wherever that lives: an index can then serve it.
    SELECT string_agg(format('u.%I OPERATOR(%I.%s) $1[%s]::%s', u.col, n.nspname, o.oprname, u.number, format_type(a.atttypid, NULL)), ' AND ' ORDER BY u.number)
        INTO conditions
        FROM unnest(upload_statement.key) WITH ORDINALITY AS u(col, number)
        JOIN pg_attribute a ON a.attrelid = upload_statement.relation AND a.attname = u.col
        JOIN pg_type t ON t.oid = a.atttypid
        JOIN LATERAL (
            SELECT am.amopopr FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
                JOIN pg_amop am ON am.amopfamily = c.opcfamily AND am.amoplefttype = c.opcintype AND am.amoprighttype = c.opcintype AND am.amopstrategy = 3
            WHERE c.opcdefault AND c.opcintype = CASE
                WHEN t.typtype = 'd' THEN CASE t.typbasetype WHEN 'varchar'::regtype THEN 'text'::regtype::oid ELSE t.typbasetype END
                WHEN t.typtype = 'e' THEN 'anyenum'::regtype::oid
                WHEN t.oid = 'varchar'::regtype THEN 'text'::regtype::oid
                ELSE t.oid END
            LIMIT 1) eq ON true
        JOIN pg_operator o ON o.oid = eq.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
        HAVING count(*) = cardinality(upload_statement.key);
    IF conditions IS NULL THEN
        RAISE EXCEPTION 'a key column of relation % has a type without equality', upload_statement.relation
            USING ERRCODE = 'undefined_function', HINT = 'Use a key of a type that a btree index can hold.';
    END IF;
    RETURN format('SELECT u.%I, %s FROM %s u WHERE %s LIMIT 1', upload_statement.image,
                  CASE WHEN upload_statement.uploader IS NULL THEN 'NULL::text' ELSE format('u.%I::text', upload_statement.uploader) END,
                  (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.oid = upload_statement.relation), conditions);
END $$;
COMMENT ON FUNCTION copymatch.upload_statement(regclass, text, text[], text) IS 'the query that reads an upload by its key';

CREATE FUNCTION copymatch.queue_settings(OUT batch integer, OUT attempts integer, OUT retry_milliseconds integer)
    AS 'MODULE_PATHNAME', 'queue_settings_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.queue_settings() IS 'the settings copymatch.queue_batch, queue_attempts and queue_retry_delay';

CREATE FUNCTION copymatch.queue_delay(attempts integer) RETURNS interval LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT least((copymatch.queue_settings()).retry_milliseconds * interval '1 millisecond' * pg_catalog.power(2, least($1, 20) - 1), interval '1 hour')
$$;
COMMENT ON FUNCTION copymatch.queue_delay(integer) IS 'time to wait after so many tries';

CREATE FUNCTION copymatch.claim_batch(batch integer DEFAULT (copymatch.queue_settings()).batch)
    RETURNS bigint[] LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most integer := (copymatch.queue_settings()).attempts;
    first bigint;
    tried integer;
    claimed bigint[];
BEGIN
    LOOP
        SELECT q.id, q.attempts INTO first, tried FROM copymatch.queue q WHERE q.state = 'waiting' AND q.next_try <= now()
            ORDER BY q.next_try, q.id LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF first IS NULL THEN
            RETURN '{}';
        END IF;
        EXIT WHEN tried < most;
        -- Begun as often as it may be, and no answer: the server ended each time.
        UPDATE copymatch.queue q SET state = 'failed', last_error = coalesce(q.last_error, 'the server ended each time that this was worked on')
            WHERE q.id = first;
    END LOOP;
    -- What failed once is tried alone: it cannot take others with it again.
    WITH chosen AS (
        SELECT q.id FROM copymatch.queue q WHERE q.state = 'waiting' AND q.next_try <= now() AND (tried > 0 OR q.attempts = 0)
        ORDER BY q.next_try, q.id LIMIT CASE WHEN tried > 0 THEN 1 ELSE claim_batch.batch END FOR UPDATE SKIP LOCKED
    ), begun AS (
        UPDATE copymatch.queue q SET attempts = q.attempts + 1, next_try = clock_timestamp() + greatest(copymatch.queue_delay(q.attempts + 1), claim_batch.batch * interval '200 ms')
            FROM chosen c WHERE q.id = c.id RETURNING q.id
    )
    SELECT array_agg(b.id ORDER BY b.id) INTO claimed FROM begun b;
    RETURN coalesce(claimed, '{}');
END $$;
COMMENT ON FUNCTION copymatch.claim_batch(integer) IS 'marks the next entries of the queue as begun and gives their ids; committed before they are worked on, so that one that kills the server is given up in the end';
REVOKE ALL ON FUNCTION copymatch.claim_batch(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION copymatch.claim_batch(integer) TO copymatch_admin;

CREATE FUNCTION copymatch.queue_failed(ids bigint[], error text, final boolean) RETURNS void LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    UPDATE copymatch.queue SET last_error = $2,
        state = CASE WHEN $3 OR attempts >= (copymatch.queue_settings()).attempts THEN 'failed' ELSE 'waiting' END,
        next_try = pg_catalog.clock_timestamp() + copymatch.queue_delay(attempts)
    WHERE id = ANY ($1)
$$;
COMMENT ON FUNCTION copymatch.queue_failed(bigint[], text, boolean) IS 'notes why entries of the queue did not succeed; final: another try would not either';
REVOKE ALL ON FUNCTION copymatch.queue_failed(bigint[], text, boolean) FROM PUBLIC;

CREATE FUNCTION copymatch.flag_uploads(items copymatch.queue[], images bytea[], uploaders text[]) RETURNS void LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    embedded record;
    item copymatch.queue;
    options record;
    model text;
    message text;
    detail text;
BEGIN
    IF cardinality(items) IS NULL OR cardinality(items) = 0 THEN
        RETURN;
    END IF;
    model := (copymatch.find_set((items[1]).reference_set)).model;
    FOR embedded IN SELECT e.ordinality AS number, e.descriptor, e.error FROM copymatch.embed_uploads(images, model) WITH ORDINALITY e LOOP
        item := items[embedded.number];
        BEGIN
            options := copymatch.flag_options(item.arguments);
            IF embedded.error IS NOT NULL THEN
                IF options.skip THEN
                    RAISE WARNING 'upload % of % is not matched: %', array_to_string(item.key, ','), item.relation, embedded.error;
                    DELETE FROM copymatch.queue q WHERE q.id = item.id;
                ELSE
                    PERFORM copymatch.queue_failed(ARRAY[item.id], embedded.error, true);
                END IF;
                CONTINUE;
            END IF;
            PERFORM copymatch.record_findings(item.relation, CASE WHEN cardinality(item.key) = 1 THEN item.key[1] ELSE copymatch.record_text(item.key) END,
                                              uploaders[embedded.number], item.reference_set, array_agg(m.reference), array_agg(m.similarity),
                                              array_agg(m.background), array_agg(m.score), array_agg(m.probability), array_agg(m.verdict))
                FROM copymatch.match_upload(item.relation, embedded.descriptor, item.reference_set, model, options.k, options.review) m
                HAVING count(*) > 0;
            DELETE FROM copymatch.queue q WHERE q.id = item.id;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_HINT;
            PERFORM copymatch.queue_failed(ARRAY[item.id], concat_ws(' — ', message, nullif(detail, '')), false);
        END;
    END LOOP;
END $$;
COMMENT ON FUNCTION copymatch.flag_uploads(copymatch.queue[], bytea[], text[]) IS 'embeds images of one set together, and records and dequeues each; one that fails leaves the others alone';
REVOKE ALL ON FUNCTION copymatch.flag_uploads(copymatch.queue[], bytea[], text[]) FROM PUBLIC;

CREATE FUNCTION copymatch.process_claimed(ids bigint[]) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most_bytes constant bigint := 64 * 1024 * 1024;
    item copymatch.queue;
    options record;
    upload record;
    items copymatch.queue[] := '{}';
    images bytea[] := '{}';
    uploaders text[] := '{}';
    bytes bigint := 0;
    ended boolean := false;
    waiting refcursor;
    locked bigint;
    message text;
    detail text;
BEGIN
    -- Another session that looks for entries to claim holds a lock for a moment on those that were due when it began: not a reason
    -- to put them off. One that works on them, after the time set for that, is.
    FOR try IN 1..20 LOOP
        PERFORM FROM copymatch.queue q WHERE q.id = ANY (process_claimed.ids) AND q.state = 'waiting' ORDER BY q.id FOR UPDATE SKIP LOCKED;
        GET DIAGNOSTICS locked = ROW_COUNT;
        EXIT WHEN locked >= (SELECT count(*) FROM copymatch.queue q WHERE q.id = ANY (process_claimed.ids) AND q.state = 'waiting');
        PERFORM pg_sleep(0.005);
    END LOOP;
    OPEN waiting FOR SELECT * FROM copymatch.queue q WHERE q.id = ANY (process_claimed.ids) AND q.state = 'waiting'
        ORDER BY q.reference_set, q.id FOR UPDATE SKIP LOCKED;
    LOOP
        FETCH waiting INTO item;
        ended := NOT FOUND;
        IF cardinality(items) > 0 AND (ended OR bytes > most_bytes OR (items[1]).reference_set <> item.reference_set) THEN
            BEGIN
                PERFORM copymatch.flag_uploads(items, images, uploaders);
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_HINT;
                PERFORM copymatch.queue_failed((SELECT array_agg(i.id) FROM unnest(items) i), concat_ws(' — ', message, nullif(detail, '')), false);
            END;
            items := '{}';
            images := '{}';
            uploaders := '{}';
            bytes := 0;
        END IF;
        EXIT WHEN ended;
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = item.relation) THEN
                DELETE FROM copymatch.queue q WHERE q.id = item.id; -- with its table the upload is gone
                CONTINUE;
            END IF;
            options := copymatch.flag_options(item.arguments);
            upload := copymatch.read_upload(item.relation, copymatch.upload_statement(item.relation, options.image, options.key, options.uploader), item.key);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_HINT;
            PERFORM copymatch.queue_failed(ARRAY[item.id], concat_ws(' — ', message, nullif(detail, '')), false);
            CONTINUE;
        END;
        IF upload.image IS NULL THEN
            DELETE FROM copymatch.queue q WHERE q.id = item.id; -- deleted meanwhile, or its image was
            CONTINUE;
        END IF;
        items := array_append(items, item);
        images := array_append(images, upload.image);
        uploaders := array_append(uploaders, upload.uploader);
        bytes := bytes + octet_length(upload.image);
    END LOOP;
    CLOSE waiting;
    RETURN (SELECT count(*) FROM unnest(process_claimed.ids) i(id) WHERE NOT EXISTS (SELECT FROM copymatch.queue q WHERE q.id = i.id));
END $$;
COMMENT ON FUNCTION copymatch.process_claimed(bigint[]) IS 'matches claimed uploads: findings and the end of their entries in one transaction; the number that are done';
REVOKE ALL ON FUNCTION copymatch.process_claimed(bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION copymatch.process_claimed(bigint[]) TO copymatch_admin;

CREATE PROCEDURE @extschema@.copy_process_queue(batch integer DEFAULT NULL, max_batches integer DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
    size integer := coalesce(batch, (copymatch.queue_settings()).batch);
    ids bigint[];
    done integer := 0;
BEGIN
    IF size NOT BETWEEN 1 AND 1024 OR max_batches < 1 THEN
        RAISE EXCEPTION 'batch is %, max_batches is %', size, max_batches
            USING ERRCODE = 'invalid_parameter_value', HINT = 'batch: 1 to 1024 uploads; max_batches: at least 1, or NULL for as many as there are.';
    END IF;
    LOOP
        ids := copymatch.claim_batch(size);
        COMMIT;
        EXIT WHEN pg_catalog.cardinality(ids) = 0;
        PERFORM copymatch.process_claimed(ids);
        COMMIT;
        done := done + 1;
        EXIT WHEN done >= max_batches;
    END LOOP;
END $$;
COMMENT ON PROCEDURE @extschema@.copy_process_queue(integer, integer) IS 'works off the queue of uploads, committing every batch, until none is due or max_batches are done; several sessions and workers may do so at a time';

CREATE FUNCTION @extschema@.copy_start_worker() RETURNS integer AS 'MODULE_PATHNAME', 'copy_start_worker_wrapper' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION @extschema@.copy_start_worker() IS 'starts a background worker that works off this database''s queue until the server stops or pg_terminate_backend ends it; its process id';
REVOKE ALL ON FUNCTION @extschema@.copy_start_worker() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.copy_start_worker() TO copymatch_admin;

CREATE FUNCTION @extschema@.copy_retry_queue(relation regclass DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    again bigint;
BEGIN
    UPDATE copymatch.queue q SET state = 'waiting', attempts = 0, next_try = now()
        WHERE q.state = 'failed' AND (copy_retry_queue.relation IS NULL OR q.relation = copy_retry_queue.relation);
    GET DIAGNOSTICS again = ROW_COUNT;
    RETURN again;
END $$;
COMMENT ON FUNCTION @extschema@.copy_retry_queue(regclass) IS 'puts failed entries back into the queue, of one table or of all; their number';
REVOKE ALL ON FUNCTION @extschema@.copy_retry_queue(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.copy_retry_queue(regclass) TO copymatch_admin;

CREATE FUNCTION copymatch.flag_triggers() RETURNS TABLE (relation regclass, name name, arguments text[], enabled boolean) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.tgrelid::pg_catalog.regclass, t.tgname,
           (SELECT pg_catalog.array_agg(pg_catalog.convert_from(pg_catalog.decode(u.part, 'hex'), pg_catalog.getdatabaseencoding()) ORDER BY u.number)
            FROM pg_catalog.regexp_split_to_table(pg_catalog.regexp_replace(pg_catalog.encode(t.tgargs, 'hex'), '(..)', '\1 ', 'g'), '00 ')
                     WITH ORDINALITY AS u(part, number)
            WHERE u.number <= t.tgnargs),
           t.tgenabled <> 'D'
    FROM pg_catalog.pg_trigger t WHERE t.tgfoid = '@extschema@.copy_flag()'::pg_catalog.regprocedure AND t.tgparentid = 0
$$;
COMMENT ON FUNCTION copymatch.flag_triggers() IS 'the flagging triggers of this database and what they were told';

CREATE FUNCTION @extschema@.copy_flag_existing(relation regclass, trigger_name name DEFAULT NULL, condition text DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql VOLATILE
    SET datestyle = ISO SET intervalstyle = postgres SET extra_float_digits = 3 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen record;
    options record;
    found bigint;
    total bigint := 0;
BEGIN
    FOR chosen IN SELECT t.name, t.arguments FROM copymatch.flag_triggers() t
                  WHERE t.relation = copy_flag_existing.relation AND (copy_flag_existing.trigger_name IS NULL OR t.name = copy_flag_existing.trigger_name) LOOP
        options := copymatch.flag_options(chosen.arguments);
        EXECUTE pg_catalog.format(
            'INSERT INTO copymatch.queue (relation, key, reference_set, arguments) SELECT %L::pg_catalog.regclass, ARRAY[%s], %L, %L FROM %s u WHERE u.%I IS NOT NULL %s',
            copy_flag_existing.relation::oid, (SELECT pg_catalog.string_agg(CASE WHEN a.atttypid = 'timestamptz'::pg_catalog.regtype THEN pg_catalog.format('(u.%I AT TIME ZONE ''UTC'')::pg_catalog.text || ''+00''', k.col)
                                                                          ELSE pg_catalog.format('u.%I::pg_catalog.text', k.col) END, ', ' ORDER BY k.number)
                                               FROM pg_catalog.unnest(options.key) WITH ORDINALITY k(col, number)
                                               JOIN pg_catalog.pg_attribute a ON a.attrelid = copy_flag_existing.relation AND a.attname = k.col AND NOT a.attisdropped),
            options.reference_set, chosen.arguments, copy_flag_existing.relation, options.image,
            coalesce('AND (' || copy_flag_existing.condition || ')', ''));
        GET DIAGNOSTICS found = ROW_COUNT;
        total := total + found;
    END LOOP;
    IF chosen IS NULL THEN
        RAISE EXCEPTION 'relation % has no flagging trigger%', copy_flag_existing.relation, coalesce(' "' || copy_flag_existing.trigger_name || '"', '')
            USING ERRCODE = 'undefined_object', HINT = 'CREATE TRIGGER … EXECUTE FUNCTION copy_flag(…) says what to match with what.';
    END IF;
    RETURN total;
END $$;
COMMENT ON FUNCTION @extschema@.copy_flag_existing(regclass, name, text) IS 'enqueues uploads that are there already, as their flagging triggers would have: those from before a trigger, or, when references are new, earlier ones again; condition: SQL over the uploads, run with your rights; how many';
REVOKE ALL ON FUNCTION @extschema@.copy_flag_existing(regclass, name, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.copy_flag_existing(regclass, name, text) TO copymatch_admin;

-- reports.sql
-- Reports: views for people with BI tools, and the dashboard. Counts come from copymatch.finding_count, so that they take
-- milliseconds over many millions of findings; days are those of the session's time zone.
-- What both tables of counts hold, by the day of UTC: as differences `running[upto] - running[from]`, and what is not yet folded.
CREATE VIEW copymatch.report_daily AS
    WITH utc AS (
        SELECT DISTINCT c.day, c.day::timestamp AT TIME ZONE 'UTC' AS starts FROM copymatch.finding_count c
    ), pieces AS (
        -- Parts of a day of UTC that lie in one day here: two, or three where the clock is put forward at the wrong moment.
        SELECT u.day AS utc_day, l.day,
               greatest(0, least(96, ceil(extract(epoch FROM l.day::timestamptz - u.starts) / 900)))::int AS first,
               greatest(0, least(96, ceil(extract(epoch FROM (l.day + 1)::timestamptz - u.starts) / 900)))::int AS last
        FROM utc u, LATERAL (SELECT u.starts::date + n AS day FROM generate_series(0, 2) n) l
    ), counts AS (
        SELECT p.day, c.reference_set, c.verdict, c.state, coalesce(c.running[p.last], 0) - coalesce(c.running[p.first], 0) AS findings
        FROM copymatch.finding_count c JOIN pieces p ON p.utc_day = c.day AND p.first < p.last
        UNION ALL
        SELECT d.quarter::date, d.reference_set, d.verdict, d.state, d.findings FROM copymatch.finding_delta d
    )
    SELECT n.day, n.reference_set, n.verdict, n.state, sum(n.findings)::bigint AS findings
    FROM counts n GROUP BY 1, 2, 3, 4 HAVING sum(n.findings) <> 0;
COMMENT ON VIEW copymatch.report_daily IS 'findings by day (of the session''s time zone), set, verdict and state';

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
    ), n AS (
        SELECT r.*, (r.confirmed + r.dismissed)::double precision AS n,
               r.confirmed::double precision / nullif(r.confirmed + r.dismissed, 0) AS p FROM reviewed r
    )
    -- Wilson's score interval: right also for few reviews and for shares near 0 and 1.
    SELECT n.reference_set, n.verdict, n.model, n.confirmed, n.dismissed, n.open, n.p AS precision,
           CASE WHEN n.n > 0 THEN greatest(0, (n.p + 1.9208 / n.n - 1.96 * sqrt((n.p * (1 - n.p) + 0.9604 / n.n) / n.n)) / (1 + 3.8416 / n.n)) END AS precision_low,
           CASE WHEN n.n > 0 THEN least(1, (n.p + 1.9208 / n.n + 1.96 * sqrt((n.p * (1 - n.p) + 0.9604 / n.n) / n.n)) / (1 + 3.8416 / n.n)) END AS precision_high
    FROM (SELECT n.reference_set, n.verdict, n.model, n.confirmed, n.dismissed, n.open, nullif(n.n, 0) AS n, n.p FROM n) n
    WHERE n.confirmed + n.dismissed + n.open > 0;
COMMENT ON VIEW copymatch.report_precision IS 'by set, verdict and model: how many of the reviewed findings were confirmed, with the 95 % interval (Wilson)';

CREATE VIEW copymatch.report_references AS
    SELECT f.reference_set, f.reference, count(*) AS findings, count(*) FILTER (WHERE f.state = 'open') AS open,
           count(*) FILTER (WHERE f.state = 'confirmed') AS confirmed, count(*) FILTER (WHERE f.state = 'dismissed') AS dismissed,
           max(f.found) AS last_found
    FROM copymatch.finding f WHERE f.found >= now() - interval '30 days' GROUP BY 1, 2;
COMMENT ON VIEW copymatch.report_references IS 'references by their findings of the last 30 days';

CREATE VIEW copymatch.report_uploaders AS
    SELECT f.relation, f.uploader, count(*) AS findings, count(*) FILTER (WHERE f.state = 'open') AS open,
           count(*) FILTER (WHERE f.state = 'confirmed') AS confirmed, count(*) FILTER (WHERE f.state = 'dismissed') AS dismissed,
           max(f.found) AS last_found
    FROM copymatch.finding f WHERE f.found >= now() - interval '30 days' AND f.uploader IS NOT NULL GROUP BY 1, 2;
COMMENT ON VIEW copymatch.report_uploaders IS 'uploaders by their findings of the last 30 days';

CREATE VIEW copymatch.report_reviewers AS
    SELECT h.changed::date AS day, h.changed_by AS reviewer, count(*) FILTER (WHERE h.to_state = 'confirmed') AS confirmed,
           count(*) FILTER (WHERE h.to_state = 'dismissed') AS dismissed, count(*) FILTER (WHERE h.to_state = 'open') AS reopened
    FROM copymatch.finding_history h WHERE h.changed >= now() - interval '30 days' GROUP BY 1, 2;
COMMENT ON VIEW copymatch.report_reviewers IS 'what reviewers decided by day (of the session''s time zone), the last 30 days';

CREATE VIEW copymatch.report_open AS
    WITH quarters AS (
        -- Only the days in which an age may pass from one column to the next need be taken apart.
        SELECT c.reference_set, c.verdict, q.findings, (c.day::timestamp AT TIME ZONE 'UTC') + (q.number - 1) * interval '15 minutes' AS quarter
        FROM copymatch.finding_count c, LATERAL (
            SELECT s.number, c.running[s.number] - coalesce(c.running[s.number - 1], 0) AS findings FROM generate_series(1, 96) s(number)) q
        WHERE c.state = 'open' AND q.findings <> 0 AND c.day >= (now() AT TIME ZONE 'UTC')::date - 8
        UNION ALL
        -- Of an older day, the first quarter with findings stands for all.
        SELECT c.reference_set, c.verdict, c.running[96],
               (c.day::timestamp AT TIME ZONE 'UTC') + interval '15 minutes' * (SELECT count(*) FROM unnest(c.running) r(upto) WHERE r.upto = 0)
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
           coalesce(sum(c.findings) FILTER (WHERE c.age >= interval '1 hour' AND c.age < interval '1 day'), 0)::bigint AS under_a_day,
           coalesce(sum(c.findings) FILTER (WHERE c.age >= interval '1 day' AND c.age < interval '7 days'), 0)::bigint AS under_a_week,
           coalesce(sum(c.findings) FILTER (WHERE c.age >= interval '7 days'), 0)::bigint AS older,
           max(c.age) FILTER (WHERE c.findings > 0) AS oldest
    FROM c GROUP BY 1, 2 HAVING sum(c.findings) <> 0;
COMMENT ON VIEW copymatch.report_open IS 'open findings by set, verdict and age, to a quarter of an hour (oldest, where it is over a week, to a day)';

CREATE VIEW copymatch.report_queue AS
    SELECT q.relation, q.reference_set, count(*) FILTER (WHERE q.state = 'waiting') AS waiting,
           count(*) FILTER (WHERE q.state = 'waiting' AND q.attempts > 0) AS retrying, count(*) FILTER (WHERE q.state = 'failed') AS failed,
           coalesce(now() - min(q.enqueued) FILTER (WHERE q.state = 'waiting'), interval '0') AS lag,
           max(q.last_error) AS an_error
    FROM copymatch.queue q GROUP BY 1, 2;
COMMENT ON VIEW copymatch.report_queue IS 'by table and set: uploads that wait, how long the oldest does, those given up and one of their errors';

CREATE VIEW copymatch.report_models AS
    SELECT coalesce(m.name, c.model) AS model, m.version,
           (SELECT array_agg(s.name ORDER BY s.name) FROM copymatch.reference_set s WHERE s.model = m.name) AS reference_sets,
           coalesce(c.findings, 0)::bigint AS findings, c.first_found, c.last_found
    FROM copymatch.models m FULL JOIN (
        SELECT n.model, sum(n.findings) AS findings, min(n.first_found) AS first_found, max(n.last_found) AS last_found FROM (
            SELECT c.model, c.running[96] AS findings,
                   (c.day::timestamp AT TIME ZONE 'UTC') + interval '15 minutes' * (SELECT count(*) FROM unnest(c.running) r(upto) WHERE r.upto = 0) AS first_found,
                   (c.day::timestamp AT TIME ZONE 'UTC') + interval '15 minutes' * (SELECT count(*) FROM unnest(c.running) r(upto) WHERE r.upto <> c.running[96]) AS last_found
            FROM copymatch.finding_count c WHERE c.running[96] <> 0
            UNION ALL SELECT d.model, d.findings, d.quarter, d.quarter FROM copymatch.finding_delta d) n
        GROUP BY n.model HAVING sum(n.findings) <> 0) c ON c.model = m.name;
COMMENT ON VIEW copymatch.report_models IS 'models (those with findings even when they were dropped), the sets that use them, and the findings made with them (times to a quarter of an hour)';

GRANT SELECT ON copymatch.report_daily, copymatch.report_precision, copymatch.report_references, copymatch.report_uploaders,
    copymatch.report_reviewers, copymatch.report_open, copymatch.report_queue, copymatch.report_models TO copymatch_reader;
-- PostgreSQL 15 and later: policies on copymatch.finding hold for the reports too.
DO $$
DECLARE
    report text;
BEGIN
    IF pg_catalog.current_setting('server_version_num')::int >= 150000 THEN
        FOREACH report IN ARRAY ARRAY['daily', 'precision', 'references', 'uploaders', 'reviewers', 'open', 'queue', 'models'] LOOP
            EXECUTE pg_catalog.format('ALTER VIEW copymatch.%I SET (security_invoker = true)', 'report_' || report);
        END LOOP;
    END IF;
END $$;

CREATE FUNCTION @extschema@.copy_thumbnail(image bytea, side integer DEFAULT 160) RETURNS bytea
    AS 'MODULE_PATHNAME', 'copy_thumbnail_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION @extschema@.copy_thumbnail(bytea, integer) IS 'the image as a small JPEG whose longer side has this many pixels; smaller images keep their size';

CREATE FUNCTION copymatch.render_dashboard(data jsonb) RETURNS text
    AS 'MODULE_PATHNAME', 'render_dashboard_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.render_dashboard(jsonb) IS 'the HTML page of copymatch.dashboard(), every text escaped';

CREATE FUNCTION copymatch.thumbnail_of(relation regclass, image name, key name[], value text, side integer) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found bytea;
BEGIN
    -- With the caller's rights, and whatever goes wrong (no right, no row, no image) is a picture not shown.
    EXECUTE pg_catalog.format('SELECT @extschema@.copy_thumbnail(u.%I, %s) FROM %s u WHERE %s LIMIT 1', image, side, relation,
        (SELECT CASE WHEN pg_catalog.cardinality(key) = 1
                     THEN pg_catalog.format('u.%I = %L::%s', key[1], value, pg_catalog.min(pg_catalog.format_type(a.atttypid, NULL)))
                     ELSE pg_catalog.format('ROW(%s)::pg_catalog.text = %L', pg_catalog.string_agg(pg_catalog.format('u.%I', k.col), ', ' ORDER BY k.number), value) END
         FROM pg_catalog.unnest(key) WITH ORDINALITY k(col, number)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = relation AND a.attname = k.col AND NOT a.attisdropped)) INTO found;
    RETURN pg_catalog.translate(pg_catalog.encode(found, 'base64'), E'\n', '');
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $$;
COMMENT ON FUNCTION copymatch.thumbnail_of(regclass, name, name[], text, integer) IS 'a row''s image as a thumbnail in base64; NULL where the caller may not see it';

CREATE FUNCTION copymatch.dashboard(days integer DEFAULT 30, latest integer DEFAULT 12) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    data jsonb;
    pictures jsonb := '[]';
    finding record;
    uploads record;
    options record;
    reference record;
BEGIN
    IF days IS NULL OR days NOT BETWEEN 1 AND 366 OR latest IS NULL OR latest NOT BETWEEN 0 AND 200 THEN
        RAISE EXCEPTION 'days is %, latest is %', days, latest
            USING ERRCODE = 'invalid_parameter_value', HINT = 'days: 1 to 366; latest, the number of findings shown: 0 to 200.';
    END IF;
    FOR finding IN SELECT * FROM copymatch.finding f ORDER BY f.id DESC LIMIT latest LOOP
        SELECT t.arguments INTO uploads FROM copymatch.flag_triggers() t WHERE t.relation = finding.relation LIMIT 1;
        IF uploads.arguments IS NOT NULL THEN
            options := copymatch.flag_options(uploads.arguments);
        ELSE
            SELECT NULL::text AS image, NULL::text[] AS key INTO options;
        END IF;
        SELECT s.relation, s.image_column, array_prepend(s.key_column, s.further_key_columns) AS key INTO reference FROM copymatch.reference_set s WHERE s.name = finding.reference_set;
        pictures := pictures || jsonb_build_array(jsonb_build_object(
            'id', finding.id, 'found', to_char(finding.found, 'YYYY-MM-DD HH24:MI TZ'), 'reference_set', finding.reference_set,
            'upload', finding.upload, 'reference', finding.reference, 'probability', finding.probability, 'verdict', finding.verdict,
            'state', finding.state, 'uploader', finding.uploader, 'note', finding.note,
            'upload_image', copymatch.thumbnail_of(finding.relation, options.image::name, options.key::name[], finding.upload, 160),
            'reference_image', copymatch.thumbnail_of(reference.relation, reference.image_column, reference.key, finding.reference, 160)));
    END LOOP;
    SELECT jsonb_build_object(
        'database', current_database(), 'user', current_user, 'generated', to_char(now(), 'YYYY-MM-DD HH24:MI'),
        'time_zone', current_setting('timezone'),
        'totals', (SELECT jsonb_build_object(
                       'open', coalesce(sum(d.findings) FILTER (WHERE d.state = 'open'), 0),
                       'confirmed', coalesce(sum(d.findings) FILTER (WHERE d.state = 'confirmed'), 0),
                       'dismissed', coalesce(sum(d.findings) FILTER (WHERE d.state = 'dismissed'), 0)) FROM copymatch.report_daily d)
                  || (SELECT jsonb_build_object('waiting', coalesce(sum(q.waiting), 0), 'failed', coalesce(sum(q.failed), 0),
                          'lag', to_char(coalesce(max(q.lag), interval '0'), 'HH24:MI:SS')) FROM copymatch.report_queue q),
        'daily', (SELECT jsonb_agg(jsonb_build_object('day', g.day, 'open', coalesce(d.open, 0), 'confirmed', coalesce(d.confirmed, 0),
                                                      'dismissed', coalesce(d.dismissed, 0)) ORDER BY g.day)
                  FROM (SELECT current_date - n AS day FROM generate_series(0, dashboard.days - 1) n) g
                  LEFT JOIN (SELECT d.day, sum(d.findings) FILTER (WHERE d.state = 'open') AS open,
                                    sum(d.findings) FILTER (WHERE d.state = 'confirmed') AS confirmed,
                                    sum(d.findings) FILTER (WHERE d.state = 'dismissed') AS dismissed
                             FROM copymatch.report_daily d GROUP BY 1) d USING (day)),
        'precision', (SELECT coalesce(jsonb_agg(jsonb_build_object('reference_set', p.reference_set, 'verdict', p.verdict, 'reviewed', p.confirmed + p.dismissed,
                                                                   'precision', p.precision, 'low', p.precision_low, 'high', p.precision_high)
                                                ORDER BY p.reference_set, p.verdict), '[]')
                      FROM copymatch.report_precision p WHERE p.confirmed + p.dismissed > 0),
        'ages', (SELECT jsonb_build_array(
                     jsonb_build_object('name', 'under an hour', 'findings', coalesce(sum(o.under_an_hour), 0)),
                     jsonb_build_object('name', 'under a day', 'findings', coalesce(sum(o.under_a_day), 0)),
                     jsonb_build_object('name', 'under a week', 'findings', coalesce(sum(o.under_a_week), 0)),
                     jsonb_build_object('name', 'older', 'findings', coalesce(sum(o.older), 0))) FROM copymatch.report_open o),
        'references', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', r.reference || ' of ' || r.reference_set, 'findings', r.findings) ORDER BY r.findings DESC), '[]')
                       FROM (SELECT * FROM copymatch.report_references r ORDER BY r.findings DESC LIMIT 8) r),
        'uploaders', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', u.uploader, 'findings', u.findings) ORDER BY u.findings DESC), '[]')
                      FROM (SELECT * FROM copymatch.report_uploaders u ORDER BY u.findings DESC LIMIT 8) u),
        'reviewers', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', r.reviewer, 'findings', r.decided) ORDER BY r.decided DESC), '[]')
                      FROM (SELECT r.reviewer, sum(r.confirmed + r.dismissed) AS decided FROM copymatch.report_reviewers r GROUP BY 1 ORDER BY 2 DESC LIMIT 8) r),
        'findings', pictures) INTO data;
    RETURN copymatch.render_dashboard(data);
END $$;
COMMENT ON FUNCTION copymatch.dashboard(integer, integer) IS 'one self-contained HTML page: charts of the reports, and the latest findings with thumbnails where the caller may read the images';
REVOKE ALL ON FUNCTION copymatch.dashboard(integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION copymatch.dashboard(integer, integer) TO copymatch_reader;

-- evaluate.sql
-- Evaluation: the Image Similarity Challenge's metrics as aggregates, and benchmarks run end to end.
CREATE TYPE copymatch.operating_point AS (threshold double precision, "precision" double precision, recall double precision);
COMMENT ON TYPE copymatch.operating_point IS 'precision and recall of everything that scores at least threshold';
COMMENT ON COLUMN copymatch.operating_point.threshold IS 'the lowest score that is accepted';
COMMENT ON COLUMN copymatch.operating_point."precision" IS 'copies among what is accepted';
COMMENT ON COLUMN copymatch.operating_point.recall IS 'copies accepted, of all true pairs';

CREATE FUNCTION copymatch.prediction_accum(internal, double precision, boolean, bigint) RETURNS internal
    AS 'MODULE_PATHNAME', 'prediction_accum_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_accum(internal, double precision, boolean, bigint) IS 'transition function of copy_micro_ap and copy_precision_recall';
CREATE FUNCTION copymatch.prediction_accum(internal, double precision, boolean, bigint, double precision) RETURNS internal
    AS 'MODULE_PATHNAME', 'prediction_accum_precision_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_accum(internal, double precision, boolean, bigint, double precision) IS 'transition function of copy_recall_at_precision and copy_threshold_at_precision';
CREATE FUNCTION copymatch.prediction_combine(internal, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'prediction_combine_wrapper' LANGUAGE c IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_combine(internal, internal) IS 'combines what parallel workers gathered';
CREATE FUNCTION copymatch.prediction_serialize(internal) RETURNS bytea
    AS 'MODULE_PATHNAME', 'prediction_serialize_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_serialize(internal) IS 'a worker''s predictions, to be sent to the leader';
CREATE FUNCTION copymatch.prediction_deserialize(bytea, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'prediction_deserialize_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.prediction_deserialize(bytea, internal) IS 'a worker''s predictions, received by the leader';
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
COMMENT ON AGGREGATE @extschema@.copy_micro_ap(double precision, boolean, bigint) IS 'micro-average precision over all predictions of all queries, 0 to 1: score (higher is more alike), whether the pair is a true one, and the number of true pairs, found or not. Among equal scores the wrong ones come first. Rows with a NULL score or is_copy are not counted; NaN is an error; no true pairs: NULL';

CREATE AGGREGATE @extschema@.copy_recall_at_precision(score double precision, is_copy boolean, positives bigint, at_precision double precision) (
    SFUNC = copymatch.prediction_accum, STYPE = internal, FINALFUNC = copymatch.prediction_recall,
    COMBINEFUNC = copymatch.prediction_combine, SERIALFUNC = copymatch.prediction_serialize,
    DESERIALFUNC = copymatch.prediction_deserialize, PARALLEL = SAFE);
COMMENT ON AGGREGATE @extschema@.copy_recall_at_precision(double precision, boolean, bigint, double precision) IS 'the largest share of the true pairs that one threshold accepts while the precision of what it accepts is at least this one; 0 where it never is';

CREATE AGGREGATE @extschema@.copy_threshold_at_precision(score double precision, is_copy boolean, positives bigint, at_precision double precision) (
    SFUNC = copymatch.prediction_accum, STYPE = internal, FINALFUNC = copymatch.prediction_threshold,
    COMBINEFUNC = copymatch.prediction_combine, SERIALFUNC = copymatch.prediction_serialize,
    DESERIALFUNC = copymatch.prediction_deserialize, PARALLEL = SAFE);
COMMENT ON AGGREGATE @extschema@.copy_threshold_at_precision(double precision, boolean, bigint, double precision) IS 'the score from which upwards copy_recall_at_precision is reached; NULL where the precision never is';

CREATE AGGREGATE @extschema@.copy_precision_recall(score double precision, is_copy boolean, positives bigint) (
    SFUNC = copymatch.prediction_accum, STYPE = internal, FINALFUNC = copymatch.prediction_curve,
    COMBINEFUNC = copymatch.prediction_combine, SERIALFUNC = copymatch.prediction_serialize,
    DESERIALFUNC = copymatch.prediction_deserialize, PARALLEL = SAFE);
COMMENT ON AGGREGATE @extschema@.copy_precision_recall(double precision, boolean, bigint) IS 'the precision-recall curve: one point for each different score, from the highest down. As rows: SELECT (unnest(copy_precision_recall(score, is_copy, 100))).* FROM …';

CREATE FUNCTION @extschema@.copy_precision_recall(scores double precision[], are_copies boolean[], positives bigint)
    RETURNS TABLE (threshold double precision, "precision" double precision, recall double precision)
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF pg_catalog.cardinality(scores) <> pg_catalog.cardinality(are_copies) THEN
        RAISE EXCEPTION '% scores and % judgements', pg_catalog.cardinality(scores), pg_catalog.cardinality(are_copies)
            USING ERRCODE = 'array_subscript_error', HINT = 'Both arrays have one element for each prediction.';
    END IF;
    RETURN QUERY SELECT p.threshold, p.precision, p.recall
        FROM pg_catalog.unnest((SELECT @extschema@.copy_precision_recall(u.score, u.is_copy, copy_precision_recall.positives)
                                FROM ROWS FROM (pg_catalog.unnest(scores), pg_catalog.unnest(are_copies)) AS u(score, is_copy))) AS p;
END $$;
COMMENT ON FUNCTION @extschema@.copy_precision_recall(double precision[], boolean[], bigint) IS 'the precision-recall curve of two arrays, as rows from the highest threshold down';

CREATE FUNCTION copymatch.embed_query(image bytea, model text, query text, total bigint) RETURNS @extschema@.vector
    AS 'MODULE_PATHNAME', 'embed_query_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION copymatch.embed_query(bytea, text, text, bigint) IS 'copy_embed for benchmarks: an image that cannot be matched gives NULL and a WARNING; progress is reported as NOTICEs (total: images to come)';

CREATE FUNCTION copymatch.has_column(relation regclass, col name) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = relation AND a.attname = col AND a.attnum > 0 AND NOT a.attisdropped)
$$;
COMMENT ON FUNCTION copymatch.has_column(regclass, name) IS 'whether the relation has a column of this name';

CREATE FUNCTION copymatch.reference_query(reference_set text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation) THEN
        RAISE EXCEPTION 'the relation of reference set "%" no longer exists', chosen.name
            USING ERRCODE = 'undefined_table', HINT = 'Drop the set with copy_drop_set and make it again with copy_create_set.';
    END IF;
    RETURN pg_catalog.format('SELECT %s AS reference, %s AS image, r.%I AS descriptor FROM %s AS r %s',
                             copymatch.key_expression(chosen.key_column, chosen.further_key_columns),
                             coalesce('r.' || pg_catalog.quote_ident(chosen.image_column), 'NULL::pg_catalog.bytea'),
                             chosen.descriptor_column, chosen.relation, copymatch.search_condition(chosen));
END $$;
COMMENT ON FUNCTION copymatch.reference_query(text) IS 'a SELECT of a set''s references that are in use: reference (key as text), image, descriptor';

CREATE FUNCTION @extschema@.copy_evaluate_matches(queries regclass, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT 10)
    RETURNS TABLE (query bigint, edit text, truth text, rank integer, reference text, similarity double precision,
                   background double precision, score double precision, probability double precision, verdict text, is_copy boolean)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_evaluate_matches.reference_set);
    image text := 'NULL::pg_catalog.bytea';
    descriptor text := 'NULL::@extschema@.vector';
    edit text := 'NULL::pg_catalog.text';
    total bigint;
    absent record;
BEGIN
    IF queries IS NULL THEN
        RAISE EXCEPTION 'queries is NULL' USING ERRCODE = 'null_value_not_allowed', HINT = 'Name a table or view with columns reference and image (or descriptor).';
    END IF;
    IF k IS NULL OR k < 1 OR k > 10000 THEN
        RAISE EXCEPTION 'k is %', k USING ERRCODE = 'invalid_parameter_value', HINT = 'k is the number of references per query, 1 to 10000.';
    END IF;
    IF NOT copymatch.has_column(queries, 'reference') THEN
        RAISE EXCEPTION 'relation % has no column "reference"', queries
            USING ERRCODE = 'undefined_column', HINT = 'It holds the key of the reference of which the query is a copy, NULL where it is a copy of nothing.';
    END IF;
    IF copymatch.has_column(queries, 'image') THEN
        PERFORM copymatch.require_column(queries, 'image', 'bytea');
        image := 'q.image';
    END IF;
    IF copymatch.has_column(queries, 'descriptor') THEN
        PERFORM copymatch.require_column(queries, 'descriptor', pg_catalog.format_type('@extschema@.vector'::regtype, NULL));
        descriptor := 'q.descriptor';
    ELSIF NOT copymatch.has_column(queries, 'image') THEN
        RAISE EXCEPTION 'relation % has neither column "image" nor "descriptor"', queries
            USING ERRCODE = 'undefined_column', HINT = 'image: bytea; descriptor: vector, as copy_embed made it.';
    END IF;
    IF copymatch.has_column(queries, 'edit') THEN
        edit := 'q.edit::pg_catalog.text';
    END IF;
    EXECUTE pg_catalog.format('SELECT count(*) FROM %s q', queries) INTO total;
    EXECUTE pg_catalog.format('SELECT count(*) AS missing, min(q.reference::pg_catalog.text) AS one FROM %s q
                               WHERE q.reference IS NOT NULL AND q.reference::pg_catalog.text NOT IN (SELECT r.reference FROM (%s) r WHERE r.reference IS NOT NULL)',
                              queries, copymatch.reference_query(chosen.name)) INTO absent;
    IF absent.missing > 0 THEN
        RAISE WARNING '% queries are copies of references that set "%" does not hold, such as %', absent.missing, chosen.name, absent.one
            USING HINT = 'They count as not found.';
    END IF;
    RETURN QUERY EXECUTE pg_catalog.format($q$
        WITH numbered AS MATERIALIZED (
            SELECT pg_catalog.row_number() OVER () AS query, %1$s AS edit, q.reference::pg_catalog.text AS truth, %2$s AS image, %3$s AS descriptor FROM %4$s q),
        embedded AS MATERIALIZED (
            SELECT n.query, n.edit, n.truth, coalesce(n.descriptor, copymatch.embed_query(n.image, %5$L, n.query::pg_catalog.text, %6$s)) AS descriptor FROM numbered n)
        SELECT e.query, e.edit, e.truth, m.rank, m.reference, m.similarity, m.background, m.score, m.probability, m.verdict,
               CASE WHEN m.rank IS NOT NULL THEN coalesce(m.reference = e.truth, false) END
        FROM embedded e LEFT JOIN LATERAL @extschema@.copy_match_descriptor(e.descriptor, %7$L, %8$s) m ON true
        ORDER BY e.query, m.rank$q$,
        edit, image, descriptor, queries, chosen.model, total, chosen.name, k);
END $$;
COMMENT ON FUNCTION @extschema@.copy_evaluate_matches(regclass, text, integer) IS 'every query of a benchmark matched against a set: one row for each reference found, or one with a NULL rank where nothing was. queries: a table or view with columns reference (key of the true one, NULL: copy of nothing), image (bytea) or descriptor (vector), and optionally edit (name+name+…)';

CREATE FUNCTION @extschema@.copy_evaluate(queries regclass, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT 10)
    RETURNS TABLE (edit text, query_count bigint, copy_count bigint, recall_at_1 double precision, micro_ap double precision,
                   stretched_micro_ap double precision, recall_at_p90 double precision, stretched_recall_at_p90 double precision,
                   true_copy bigint, false_copy bigint, true_review bigint, false_review bigint)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH answers AS MATERIALIZED (
        SELECT * FROM @extschema@.copy_evaluate_matches(copy_evaluate.queries, copy_evaluate.reference_set, copy_evaluate.k)),
    kinds AS MATERIALIZED (
        SELECT q.query, q.truth, u.edit
        FROM (SELECT DISTINCT a.query, a.truth, a.edit FROM answers a) q,
             LATERAL (SELECT NULL::text UNION SELECT nullif(pg_catalog.btrim(s.one), '') FROM pg_catalog.unnest(pg_catalog.string_to_array(q.edit, '+')) AS s(one)) AS u(edit)),
    sizes AS (
        SELECT c.edit, pg_catalog.count(*) AS queries, pg_catalog.count(c.truth) AS copies FROM kinds c GROUP BY c.edit),
    figures AS (
        SELECT c.edit, s.queries, s.copies,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.is_copy) AS first,
               @extschema@.copy_micro_ap(a.similarity, a.is_copy, s.copies) AS plain,
               @extschema@.copy_micro_ap(a.score, a.is_copy, s.copies) AS stretched,
               @extschema@.copy_recall_at_precision(a.similarity, a.is_copy, s.copies, 0.9) AS plain_p90,
               @extschema@.copy_recall_at_precision(a.score, a.is_copy, s.copies, 0.9) AS stretched_p90,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.verdict = 'copy' AND a.is_copy) AS true_copy,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.verdict = 'copy' AND NOT a.is_copy) AS false_copy,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.verdict = 'review' AND a.is_copy) AS true_review,
               pg_catalog.count(*) FILTER (WHERE a.rank = 1 AND a.verdict = 'review' AND NOT a.is_copy) AS false_review
        FROM kinds c JOIN sizes s ON s.edit IS NOT DISTINCT FROM c.edit JOIN answers a ON a.query = c.query
        GROUP BY c.edit, s.queries, s.copies)
    SELECT f.edit, f.queries, f.copies, f.first / nullif(f.copies, 0)::double precision, f.plain, f.stretched, f.plain_p90, f.stretched_p90,
           f.true_copy, f.false_copy, f.true_review, f.false_review
    FROM figures f ORDER BY f.edit NULLS FIRST;
END $$;
COMMENT ON FUNCTION @extschema@.copy_evaluate(regclass, text, integer) IS 'a benchmark run end to end: first a row for all queries (edit NULL), then one for each kind of edit (a query with several counts in each). recall_at_1; micro-average precision and recall at 90 % precision over the k best references of each query, by similarity and by stretched score; and how the best references'' verdicts stand to the truth (false_…: false alarms). queries: see copy_evaluate_matches';

-- calibrate.sql
-- Calibration: from judged pairs to probabilities and thresholds that hold what they promise.
-- What a set's own calibration records beside a model's. Here, not in catalogue.sql, so that an upgrade runs it too.
ALTER TABLE copymatch.calibration
    ADD COLUMN reference_set text,
    ADD COLUMN version integer CONSTRAINT calibration_version_check CHECK (version > 0),
    ADD COLUMN source text NOT NULL DEFAULT 'model' CONSTRAINT calibration_source_check CHECK (source IN ('model', 'labels', 'findings', 'edits')),
    ADD COLUMN copy_precision double precision NOT NULL DEFAULT 0.99 CONSTRAINT calibration_copy_precision_check CHECK (copy_precision > 0 AND copy_precision < 1),
    ADD COLUMN review_precision double precision NOT NULL DEFAULT 0.90 CONSTRAINT calibration_review_precision_check CHECK (review_precision > 0 AND review_precision < 1),
    ADD COLUMN confidence double precision CONSTRAINT calibration_confidence_check CHECK (confidence > 0 AND confidence < 1),
    ADD CONSTRAINT calibration_set_version_check CHECK ((reference_set IS NULL) = (version IS NULL)),
    ADD CONSTRAINT calibration_set_version UNIQUE (reference_set, version);
COMMENT ON COLUMN copymatch.calibration.reference_set IS 'the set for which copy_calibrate made it; NULL: the model''s own';
COMMENT ON COLUMN copymatch.calibration.version IS 'number among those of its set, from 1';
COMMENT ON COLUMN copymatch.calibration.source IS 'what it was made from: the model''s training, labels, reviewed findings, or edits of the set''s references';
COMMENT ON COLUMN copymatch.calibration.copy_precision IS 'precision wanted of the verdict copy';
COMMENT ON COLUMN copymatch.calibration.review_precision IS 'precision wanted of the verdicts copy and review together';
COMMENT ON COLUMN copymatch.calibration.confidence IS 'confidence with which the thresholds hold it on the evidence; NULL: not bounded';
ALTER TABLE copymatch.calibration ENABLE ROW LEVEL SECURITY;
CREATE POLICY read_all ON copymatch.calibration FOR SELECT USING (true);
CREATE POLICY set_owner ON copymatch.calibration FOR INSERT WITH CHECK (
    EXISTS (SELECT FROM copymatch.reference_set s JOIN pg_catalog.pg_class c ON c.oid = s.relation
            WHERE s.name = calibration.reference_set AND s.model = calibration.model AND pg_catalog.pg_has_role(c.relowner, 'USAGE')));
COMMENT ON POLICY read_all ON copymatch.calibration IS 'calibrations are no secret';
COMMENT ON POLICY set_owner ON copymatch.calibration IS 'who owns a set''s relation may calibrate the set';
GRANT INSERT (model, background_sha256, neighbours, factor, clamp_low, clamp_high, intercept, similarity_weight, background_weight, copy_probability,
              review_probability, evidence, reference_set, version, source, copy_precision, review_precision, confidence) ON copymatch.calibration TO PUBLIC;

CREATE FUNCTION copymatch.fit_calibration(similarity double precision[], background double precision[], is_copy boolean[], judged boolean[],
                                          copy_precision double precision, review_precision double precision, confidence double precision) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'fit_calibration_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.fit_calibration(double precision[], double precision[], boolean[], boolean[], double precision, double precision, double precision) IS 'logistic fit of is_copy over similarity and background on the pairs that are not judged, and on those that are the lowest thresholds whose precision is at least the one asked for with this confidence (Clopper and Pearson''s lower bound); with evidence';

CREATE FUNCTION copymatch.proportion_interval(correct bigint, total bigint, confidence double precision DEFAULT 0.95, OUT low double precision, OUT high double precision)
    AS 'MODULE_PATHNAME', 'proportion_interval_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.proportion_interval(bigint, bigint, double precision) IS 'Clopper and Pearson''s exact two-sided confidence interval of a proportion';

CREATE FUNCTION copymatch.labels_needed(precision_wanted double precision, confidence double precision DEFAULT 0.95) RETURNS bigint
    AS 'MODULE_PATHNAME', 'labels_needed_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.labels_needed(double precision, double precision) IS 'how many judged matches without one error it takes to promise a precision with this confidence';

CREATE FUNCTION copymatch.background_of(descriptor @extschema@.vector, model text, neighbours integer) RETURNS double precision
    AS 'MODULE_PATHNAME', 'background_of_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION copymatch.background_of(@extschema@.vector, text, integer) IS 'mean inner product of a unit descriptor with this many nearest background descriptors of the model';

CREATE FUNCTION copymatch.background_sample(model text, neighbours integer, count integer, seed bigint)
    RETURNS TABLE (descriptor @extschema@.vector, background double precision)
    AS 'MODULE_PATHNAME', 'background_sample_wrapper' LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 10000 ROWS 1000;
COMMENT ON FUNCTION copymatch.background_sample(text, integer, integer, bigint) IS 'a seeded sample of the model''s background descriptors, each with its background similarity to the others: queries that are copies of nothing';

CREATE FUNCTION copymatch.owned_set(reference_set text) RETURNS copymatch.reference_set LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = chosen.relation AND pg_catalog.pg_has_role(c.relowner, 'USAGE')) THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege',
              HINT = 'Ask its owner: a set''s calibration decides every verdict on it.';
    END IF;
    RETURN chosen;
END $$;
COMMENT ON FUNCTION copymatch.owned_set(text) IS 'the record of a set whose calibration the caller may choose';

-- Pairs of numbers, as arrays. One variable each, because plpgsql appends to such in place.
CREATE FUNCTION copymatch.edited_pairs(reference_set text, copies integer, unrelated integer, duplicate_similarity double precision, seed bigint,
                                       OUT similarity double precision[], OUT background double precision[], OUT is_copy boolean[], OUT judged boolean[],
                                       OUT clamp double precision[], OUT evidence jsonb)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(edited_pairs.reference_set);
    calibration copymatch.calibration;
    strengths CONSTANT real[] := '{0.3,0.6,1.0}';
    kinds text[];
    available bigint;
    sample record;
    number integer := 0;
    refused integer := 0;
    duplicates integer := 0;
    recalled integer := 0;
    per_reference integer;
    chance bigint;
    edited bytea;
    made text;
    query @extschema@.vector;
    own double precision;
    m double precision;
    other double precision;
    same text[];
    all_m double precision[] := '{}';
    started timestamptz := pg_catalog.clock_timestamp();
    said timestamptz := pg_catalog.clock_timestamp();
BEGIN
    IF chosen.image_column IS NULL THEN
        RAISE EXCEPTION 'reference set "%" has no image column, so no edited copies can be made', chosen.name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Give labelled pairs: copy_calibrate(reference_set, labels => ''…'').';
    END IF;
    SELECT * INTO calibration FROM copymatch.calibration c WHERE c.id = chosen.calibration;
    SELECT pg_catalog.array_agg(e.edit ORDER BY e.edit) INTO kinds FROM @extschema@.copy_edits() e;
    similarity := '{}'; background := '{}'; is_copy := '{}'; judged := '{}';
    EXECUTE pg_catalog.format('SELECT count(*) FROM (%s) r WHERE r.image IS NOT NULL AND r.descriptor IS NOT NULL', copymatch.reference_query(chosen.name)) INTO available;
    IF available < 40 THEN
        RAISE EXCEPTION 'reference set "%" has % references with image and descriptor, too few to calibrate on', chosen.name, available
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'At least 40 are needed; keep the model''s calibration until there are more.';
    END IF;
    -- A small set gives several edits of each reference, a large one a seeded sample.
    per_reference := pg_catalog.ceil(copies::double precision / available)::integer;
    FOR sample IN EXECUTE pg_catalog.format(
        'SELECT s.reference, s.image, s.descriptor, s.place, n.n FROM (
             SELECT r.*, row_number() OVER (ORDER BY hashtextextended(r.reference, %2$s), r.reference) AS place FROM (%1$s) r
             WHERE r.image IS NOT NULL AND r.descriptor IS NOT NULL) s, generate_series(1, %3$s) n
         WHERE s.place <= %4$s ORDER BY n.n, s.place LIMIT %4$s', copymatch.reference_query(chosen.name), seed, per_reference, copies) LOOP
        number := number + 1;
        IF pg_catalog.clock_timestamp() - said > interval '5 s' THEN
            said := pg_catalog.clock_timestamp();
            RAISE NOTICE '% of % edited copies matched, about % s to go', number - 1, copies,
                  pg_catalog.round(extract(epoch FROM said - started) * (copies - number + 1) / (number - 1));
        END IF;
        BEGIN
            made := sample.reference || ':' || sample.n;
            chance := pg_catalog.hashtextextended(made, seed + 1) & 9223372036854775807;
            edited := @extschema@.copy_edit(sample.image, kinds[1 + chance % pg_catalog.cardinality(kinds)], strengths[1 + number % 3], chance);
            -- A third is edited twice, as people do.
            IF chance / 64 % 3 = 0 THEN
                edited := @extschema@.copy_edit(edited, kinds[1 + chance / 4096 % pg_catalog.cardinality(kinds)], strengths[1 + number % 3], chance);
            END IF;
            query := @extschema@.copy_embed(edited, chosen.model);
        EXCEPTION WHEN data_exception OR invalid_binary_representation OR program_limit_exceeded OR feature_not_supported THEN
            refused := refused + 1;
            CONTINUE;
        END;
        own := 1 - (sample.descriptor OPERATOR(@extschema@.<=>) query);
        m := copymatch.background_of(query, chosen.model, calibration.neighbours);
        all_m := all_m || m;
        -- The nearest reference that is not the same picture again.
        SELECT pg_catalog.array_agg(d.reference) INTO same FROM @extschema@.copy_match_descriptor(sample.descriptor, chosen.name, 20) d
            WHERE d.similarity >= edited_pairs.duplicate_similarity AND d.reference <> sample.reference;
        duplicates := duplicates + coalesce(pg_catalog.cardinality(same), 0);
        SELECT f.similarity INTO other FROM @extschema@.copy_match_descriptor(query, chosen.name, 25) f
            WHERE f.reference <> sample.reference AND f.reference <> ALL (coalesce(same, '{}')) ORDER BY f.rank LIMIT 1;
        -- As a user meets it: the best match, right or wrong; the half that fits the curve also sees what stands beside a copy.
        IF other IS NULL OR own >= other THEN
            recalled := recalled + 1;
            similarity := similarity || own; background := background || m; is_copy := is_copy || true; judged := judged || (sample.place % 2 = 0);
        END IF;
        IF other IS NOT NULL AND (own < other OR sample.place % 2 = 1) THEN
            similarity := similarity || other; background := background || m; is_copy := is_copy || false; judged := judged || (sample.place % 2 = 0);
        END IF;
    END LOOP;
    -- The background's pictures are none of the references: the tail of false positives.
    FOR sample IN SELECT b.descriptor, b.background, f.similarity, pg_catalog.row_number() OVER () AS place
                  FROM copymatch.background_sample(chosen.model, calibration.neighbours, unrelated, seed) b,
                       LATERAL (SELECT f.similarity FROM @extschema@.copy_match_descriptor(b.descriptor, chosen.name, 1) f ORDER BY f.rank LIMIT 1) f LOOP
        all_m := all_m || sample.background;
        similarity := similarity || sample.similarity; background := background || sample.background;
        is_copy := is_copy || false; judged := judged || (sample.place % 2 = 0);
    END LOOP;
    SELECT ARRAY[greatest(pg_catalog.percentile_cont(0.01) WITHIN GROUP (ORDER BY u.m), 0.001),
                 least(greatest(pg_catalog.percentile_cont(0.99) WITHIN GROUP (ORDER BY u.m), 0.001), 1)] INTO clamp FROM pg_catalog.unnest(all_m) AS u(m);
    evidence := pg_catalog.jsonb_build_object('seed', seed, 'references', available, 'copies', number - refused, 'unrelated', pg_catalog.cardinality(all_m) - (number - refused),
        'refused', refused, 'near_duplicates', duplicates, 'strengths', strengths,
        'recall_at_1', recalled / nullif(number - refused, 0)::double precision,
        'note', 'edits of the set''s own references by copy_edit, a third of them edited twice; top-1 neighbours; background descriptors as queries that are copies of nothing; one half fits the curve, the other sets the thresholds');
END $$;
COMMENT ON FUNCTION copymatch.edited_pairs(text, integer, integer, double precision, bigint) IS 'judged pairs without a person: seeded edits of a sample of the set''s references, and background descriptors, each with its best reference';

CREATE FUNCTION copymatch.labelled_pairs(reference_set text, labels regclass, OUT similarity double precision[], OUT background double precision[],
                                         OUT is_copy boolean[], OUT judged boolean[], OUT evidence jsonb)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(labelled_pairs.reference_set);
    pairs text;
    descriptor text;
    total bigint;
    taken bigint;
BEGIN
    PERFORM copymatch.require_column(labels, 'is_copy', 'boolean');
    EXECUTE pg_catalog.format('SELECT count(*) FROM %s', labels) INTO total;
    IF copymatch.has_column(labels, 'similarity') THEN
        PERFORM copymatch.require_column(labels, 'background', NULL);
        pairs := pg_catalog.format('SELECT l.similarity::double precision AS similarity, l.background::double precision AS background, l.is_copy, %s AS reference FROM %s l',
                                   CASE WHEN copymatch.has_column(labels, 'reference') THEN 'l.reference::pg_catalog.text' ELSE 'NULL::pg_catalog.text' END, labels);
    ELSE
        IF NOT copymatch.has_column(labels, 'reference') OR NOT (copymatch.has_column(labels, 'image') OR copymatch.has_column(labels, 'descriptor')) THEN
            RAISE EXCEPTION 'relation % does not hold labels', labels USING ERRCODE = 'undefined_column',
                  HINT = 'Columns: similarity, background, is_copy (as copy_match gave them); or image (or descriptor), reference (the key), is_copy.';
        END IF;
        descriptor := CASE WHEN copymatch.has_column(labels, 'descriptor') THEN 'l.descriptor'
                           ELSE pg_catalog.format('copymatch.embed_query(l.image, %L, l.reference::pg_catalog.text, %s)', chosen.model, total) END;
        pairs := pg_catalog.format(
            'SELECT 1 - (r.descriptor OPERATOR(@extschema@.<=>) d.descriptor) AS similarity, copymatch.background_of(d.descriptor, %1$L, %2$s) AS background, d.is_copy, d.reference
             FROM (SELECT l.reference::pg_catalog.text AS reference, l.is_copy, %3$s AS descriptor FROM %4$s l OFFSET 0) d JOIN (%5$s) r ON r.reference = d.reference',
            chosen.model, (SELECT c.neighbours FROM copymatch.calibration c WHERE c.id = chosen.calibration), descriptor, labels, copymatch.reference_query(chosen.name));
    END IF;
    -- By reference where there is one, so that no picture is on both sides; else every second one of each class.
    EXECUTE pg_catalog.format(
        'SELECT array_agg(h.similarity), array_agg(h.background), array_agg(h.is_copy), array_agg(h.judged), count(*) FROM (
             SELECT p.similarity, p.background, p.is_copy,
                    CASE WHEN p.reference IS NULL THEN row_number() OVER (PARTITION BY p.is_copy, p.reference IS NULL ORDER BY md5(p.similarity || '' '' || p.background)) %% 2 = 0
                         ELSE dense_rank() OVER (ORDER BY md5(p.reference)) %% 2 = 0 END AS judged
             FROM (%s) p WHERE p.similarity IS NOT NULL AND p.background IS NOT NULL AND p.is_copy IS NOT NULL) h', pairs)
        INTO similarity, background, is_copy, judged, taken;
    similarity := coalesce(similarity, '{}'); background := coalesce(background, '{}'); is_copy := coalesce(is_copy, '{}'); judged := coalesce(judged, '{}');
    evidence := pg_catalog.jsonb_build_object('labels', labels::text, 'pairs', taken, 'ignored', greatest(total - taken, 0),
        'note', 'labelled pairs; one half, by reference where given, fits the curve, the other sets the thresholds');
END $$;
COMMENT ON FUNCTION copymatch.labelled_pairs(text, regclass) IS 'judged pairs out of a table of labels; rows with a NULL are ignored';

CREATE FUNCTION copymatch.reviewed_pairs(reference_set text, OUT similarity double precision[], OUT background double precision[], OUT is_copy boolean[],
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
        SELECT coalesce(pg_catalog.array_agg(h.similarity), '{}'), coalesce(pg_catalog.array_agg(h.background), '{}'), coalesce(pg_catalog.array_agg(h.confirmed), '{}'),
               coalesce(pg_catalog.array_agg(h.judged), '{}'), pg_catalog.min(h.decided), pg_catalog.max(h.decided)
            INTO similarity, background, is_copy, judged, earliest, latest
            FROM (SELECT f.similarity, f.background, f.state = 'confirmed' AS confirmed, f.decided,
                         pg_catalog.dense_rank() OVER (ORDER BY pg_catalog.md5(f.reference)) % 2 = 0 AS judged
                  FROM copymatch.finding f
                  WHERE f.reference_set = chosen.name AND f.model = chosen.model AND f.state IN ('confirmed', 'dismissed')
                    AND f.similarity IS NOT NULL AND f.background IS NOT NULL) h;
    END IF;
    evidence := pg_catalog.jsonb_build_object('findings', pg_catalog.cardinality(similarity), 'decided', pg_catalog.jsonb_build_array(earliest, latest),
        'note', 'reviewed findings, which lie above the review threshold of their time: nothing below it is known; one half of the references fits the curve, the other sets the thresholds');
END $$;
COMMENT ON FUNCTION copymatch.reviewed_pairs(text) IS 'judged pairs out of the findings of a set that somebody confirmed or dismissed';

CREATE FUNCTION @extschema@.copy_calibrate(reference_set text DEFAULT copymatch.default_set(), labels regclass DEFAULT NULL, copy_precision double precision DEFAULT 0.99,
                               review_precision double precision DEFAULT 0.90, confidence double precision DEFAULT 0.95, source text DEFAULT NULL,
                               copies integer DEFAULT 2000, unrelated integer DEFAULT 2000, duplicate_similarity double precision DEFAULT 0.95,
                               seed bigint DEFAULT 0, apply boolean DEFAULT true)
    RETURNS copymatch.calibration LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.owned_set(copy_calibrate.reference_set);
    old copymatch.calibration;
    result copymatch.calibration;
    pairs record;
    reviewed record;
    kind text := coalesce(copy_calibrate.source, CASE WHEN labels IS NOT NULL THEN 'labels' END);
    fitted jsonb;
    clamp double precision[];
    confirmed bigint;
BEGIN
    IF copy_calibrate.copy_precision IS NULL OR copy_calibrate.review_precision IS NULL OR copy_calibrate.confidence IS NULL OR copies IS NULL OR unrelated IS NULL
       OR duplicate_similarity IS NULL OR seed IS NULL OR apply IS NULL THEN
        RAISE EXCEPTION 'an argument of copy_calibrate is NULL' USING ERRCODE = 'null_value_not_allowed', HINT = 'Only labels and source may be NULL.';
    END IF;
    IF NOT (copy_calibrate.copy_precision > 0 AND copy_calibrate.copy_precision < 1 AND copy_calibrate.review_precision > 0
            AND copy_calibrate.review_precision <= copy_calibrate.copy_precision AND copy_calibrate.confidence >= 0.5 AND copy_calibrate.confidence < 1) THEN
        RAISE EXCEPTION 'copy_precision %, review_precision % and confidence % do not go together', copy_calibrate.copy_precision, copy_calibrate.review_precision, copy_calibrate.confidence
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Above 0 and below 1, review_precision at most copy_precision, confidence at least 0.5.';
    END IF;
    IF copies < 40 OR copies > 1000000 OR unrelated < 40 OR unrelated > 1000000 THEN
        RAISE EXCEPTION 'copies is %, unrelated is %', copies, unrelated USING ERRCODE = 'invalid_parameter_value', HINT = 'Each lies between 40 and 1000000.';
    END IF;
    IF kind NOT IN ('labels', 'findings', 'edits') OR (kind = 'labels') <> (labels IS NOT NULL) THEN
        RAISE EXCEPTION 'source is "%", labels is %', kind, coalesce(labels::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'labels => a table for labelled pairs; source => ''findings'' or ''edits'' without one; neither: findings where enough are reviewed, else edits.';
    END IF;
    SELECT * INTO old FROM copymatch.calibration c WHERE c.id = chosen.calibration;
    clamp := ARRAY[old.clamp_low, old.clamp_high];
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
            RAISE NOTICE 'calibrating on %: % findings are confirmed, % dismissed', CASE kind WHEN 'edits' THEN 'edited copies of the references' ELSE 'reviewed findings' END,
                  confirmed, pg_catalog.cardinality(reviewed.is_copy) - confirmed;
        END IF;
    END IF;
    IF kind = 'labels' THEN
        SELECT * INTO pairs FROM copymatch.labelled_pairs(chosen.name, labels);
    ELSIF kind = 'findings' THEN
        pairs := reviewed;
    ELSE
        SELECT * INTO pairs FROM copymatch.edited_pairs(chosen.name, copies, unrelated, duplicate_similarity, seed);
        clamp := pairs.clamp;
    END IF;
    fitted := copymatch.fit_calibration(pairs.similarity, pairs.background, pairs.is_copy, pairs.judged,
                                        copy_calibrate.copy_precision, copy_calibrate.review_precision, copy_calibrate.confidence);
    IF (fitted->>'reversed')::boolean THEN
        RAISE WARNING 'in these labels copies are no more alike than others' USING HINT = 'Is is_copy the wrong way round? The similarity was given no weight.';
    END IF;
    IF NOT (fitted->>'copy_held')::boolean THEN
        RAISE WARNING 'the judged pairs do not suffice to promise a precision of % for verdict copy, only %', copy_calibrate.copy_precision,
              pg_catalog.round((fitted#>>'{evidence,threshold_half,copy,precision_at_least}')::numeric, 3)
            USING HINT = pg_catalog.format('It takes %s copies above the threshold without an error, and twice as many pairs in all; or ask for a lower precision or confidence.',
                                           copymatch.labels_needed(copy_calibrate.copy_precision, copy_calibrate.confidence));
    END IF;
    IF NOT (fitted->>'review_held')::boolean THEN
        RAISE WARNING 'the judged pairs do not suffice to promise a precision of % for verdict review, only %', copy_calibrate.review_precision,
              pg_catalog.round((fitted#>>'{evidence,threshold_half,review,precision_at_least}')::numeric, 3)
            USING HINT = pg_catalog.format('It takes %s copies above the threshold without an error, and twice as many pairs in all; or ask for a lower precision or confidence.',
                                           copymatch.labels_needed(copy_calibrate.review_precision, copy_calibrate.confidence));
    END IF;
    -- One writer a set, so that versions do not collide.
    PERFORM FROM copymatch.reference_set s WHERE s.name = chosen.name FOR UPDATE;
    INSERT INTO copymatch.calibration (model, background_sha256, neighbours, factor, clamp_low, clamp_high, intercept, similarity_weight, background_weight,
                                       copy_probability, review_probability, evidence, reference_set, version, source, copy_precision, review_precision, confidence)
        SELECT old.model, old.background_sha256, old.neighbours, old.factor, clamp[1], clamp[2], (fitted->>'intercept')::double precision,
               (fitted->>'similarity_weight')::double precision, (fitted->>'background_weight')::double precision,
               (fitted->>'copy_probability')::double precision, (fitted->>'review_probability')::double precision,
               pairs.evidence || (fitted->'evidence'), chosen.name,
               1 + coalesce((SELECT pg_catalog.max(c.version) FROM copymatch.calibration c WHERE c.reference_set = chosen.name), 0),
               kind, copy_calibrate.copy_precision, copy_calibrate.review_precision, copy_calibrate.confidence
        RETURNING * INTO result;
    IF apply THEN
        PERFORM @extschema@.copy_use_calibration(chosen.name, result.id);
    END IF;
    RETURN result;
END $$;
COMMENT ON FUNCTION @extschema@.copy_calibrate(text, regclass, double precision, double precision, double precision, text, integer, integer, double precision, bigint, boolean) IS 'fits the probability of a copy and chooses the thresholds of the verdicts copy and review so that their precision is at least the one asked for with this confidence; writes a new, immutable calibration of the set with its evidence, and switches the set to it (apply => false: does not). From labels: a table or view with similarity, background, is_copy, or image (or descriptor), reference, is_copy. Without labels from reviewed findings where they suffice, else from seeded edits of the set''s own references (copies) and background descriptors (unrelated). The precision holds where uploads are mixed as the pairs are. References at least duplicate_similarity alike count as the same picture. Needs ownership of the set''s relation';

CREATE FUNCTION @extschema@.copy_use_calibration(reference_set text, id bigint) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.owned_set(copy_use_calibration.reference_set);
    wanted copymatch.calibration;
    known text;
BEGIN
    SELECT * INTO wanted FROM copymatch.calibration c
        WHERE c.id = copy_use_calibration.id AND c.model = chosen.model AND (c.reference_set IS NULL OR c.reference_set = chosen.name);
    IF wanted.id IS NULL THEN
        SELECT pg_catalog.string_agg(c.id::text, ', ' ORDER BY c.id) INTO known FROM copymatch.calibration c
            WHERE c.model = chosen.model AND (c.reference_set IS NULL OR c.reference_set = chosen.name);
        RAISE EXCEPTION 'calibration % is none of reference set "%"', copy_use_calibration.id, chosen.name
            USING ERRCODE = 'undefined_object', HINT = 'Those for its model are: ' || coalesce(known, 'none') || '.';
    END IF;
    UPDATE copymatch.reference_set s SET calibration = wanted.id WHERE s.name = chosen.name;
    IF chosen.copy_probability IS NOT NULL OR chosen.review_probability IS NOT NULL THEN
        RAISE WARNING 'reference set "%" has thresholds of its own, which go before those of calibration %', chosen.name, wanted.id
            USING HINT = 'Set its copy_probability and review_probability to NULL for the calibration''s.';
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.copy_use_calibration(text, bigint) IS 'makes this the calibration of the set: an earlier version, or the model''s own; needs ownership of the set''s relation';

CREATE FUNCTION @extschema@.copy_calibration_report(reference_set text DEFAULT copymatch.default_set(), since timestamptz DEFAULT '-infinity')
    RETURNS TABLE (tier text, calibration bigint, reviewed bigint, confirmed bigint, predicted double precision, observed double precision,
                   observed_low double precision, observed_high double precision, wanted double precision,
                   calibration_error double precision, drift boolean, reason text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_calibration_report.reference_set);
    used copymatch.calibration;
BEGIN
    IF pg_catalog.to_regclass('copymatch.finding') IS NULL THEN
        RAISE EXCEPTION 'there are no findings to report on' USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Flag uploads with copy_flag, and review what it finds.';
    END IF;
    SELECT * INTO used FROM copymatch.calibration c WHERE c.id = chosen.calibration;
    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT f.verdict, f.probability, f.state = 'confirmed' AS confirmed
        FROM copymatch.finding f
        WHERE f.reference_set = chosen.name AND f.calibration = used.id AND f.state IN ('confirmed', 'dismissed') AND f.verdict IN ('copy', 'review')
          AND f.decided >= copy_calibration_report.since),
    tiers AS (
        SELECT t.tier, t.place, t.wanted, j.probability, j.confirmed
        FROM (VALUES ('copy', 1, used.copy_precision), ('review', 2, NULL::double precision), ('all', 3, used.review_precision)) AS t(tier, place, wanted)
        LEFT JOIN judged j ON t.tier = 'all' OR j.verdict = t.tier),
    errors AS (
        SELECT b.tier, pg_catalog.sum(b.apart) AS apart
        FROM (SELECT t.tier, pg_catalog.abs(pg_catalog.sum(t.probability) - pg_catalog.count(*) FILTER (WHERE t.confirmed)) AS apart
              FROM tiers t WHERE t.probability IS NOT NULL GROUP BY t.tier, least(pg_catalog.floor(t.probability * 10), 9)) b
        GROUP BY b.tier),
    figures AS (
        SELECT t.tier, t.place, t.wanted, pg_catalog.count(t.probability) AS reviewed, pg_catalog.count(*) FILTER (WHERE t.confirmed) AS confirmed, pg_catalog.avg(t.probability) AS predicted
        FROM tiers t GROUP BY t.tier, t.place, t.wanted),
    bounds AS (
        SELECT f.*, i.low, i.high, f.confirmed / nullif(f.reviewed, 0)::double precision AS observed, e.apart / nullif(f.reviewed, 0) AS error,
               CASE WHEN i.high < f.wanted THEN pg_catalog.format('precision is at most %s, and %s was wanted', pg_catalog.round(i.high::numeric, 3), pg_catalog.round(f.wanted::numeric, 3))
                    WHEN f.predicted > i.high THEN pg_catalog.format('probabilities average %s, and at most %s are copies', pg_catalog.round(f.predicted::numeric, 3), pg_catalog.round(i.high::numeric, 3))
                    WHEN f.predicted < i.low THEN pg_catalog.format('probabilities average %s, and at least %s are copies', pg_catalog.round(f.predicted::numeric, 3), pg_catalog.round(i.low::numeric, 3))
               END AS reason
        FROM figures f CROSS JOIN LATERAL copymatch.proportion_interval(f.confirmed, f.reviewed) i LEFT JOIN errors e ON e.tier = f.tier)
    SELECT b.tier, used.id, b.reviewed, b.confirmed, b.predicted, b.observed, CASE WHEN b.reviewed > 0 THEN b.low END, CASE WHEN b.reviewed > 0 THEN b.high END,
           b.wanted, b.error, b.reviewed > 0 AND b.reason IS NOT NULL,
           CASE WHEN b.reviewed = 0 THEN 'nothing reviewed yet' ELSE coalesce(b.reason, 'holds') END
    FROM bounds b ORDER BY b.place;
END $$;
COMMENT ON FUNCTION @extschema@.copy_calibration_report(text, timestamptz) IS 'how a set''s present calibration holds on the findings that were made with it and reviewed (since then): by verdict and for both together, predicted precision (mean probability), observed precision with its 95 % interval, the precision wanted, expected calibration error, and whether it has drifted, and why: the interval excludes what was wanted or predicted';

-- explain.sql
-- Why two pictures match.
CREATE FUNCTION @extschema@.copy_explain(image bytea, reference_image bytea) RETURNS bytea
    AS 'MODULE_PATHNAME', 'copy_explain_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000000;
COMMENT ON FUNCTION @extschema@.copy_explain(bytea, bytea) IS 'a PNG for a reviewer: image and reference side by side, at most 512 pixels a side each; the regions that agree in full colour within a green line, the rest faded, threads between some of the places that agree; both as they are where nothing does. Found by local keypoints, not by the network, so that it is a second opinion. Mirrored copies too. Reads the given bytes only';

CREATE FUNCTION @extschema@.copy_explain_matches(image bytea, reference_image bytea, OUT agrees boolean, OUT matched integer, OUT inliers integer,
                                     OUT mirrored boolean, OUT transform double precision[], OUT regions jsonb)
    AS 'MODULE_PATHNAME', 'copy_explain_matches_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000000;
COMMENT ON FUNCTION @extschema@.copy_explain_matches(bytea, bytea) IS 'copy_explain for programs: whether any region agrees; keypoints that are each other''s best match, and those that one transform explains; whether the copy is mirrored; transform {a,b,c,d,e,f} from the reference''s pixels to the image''s (x'' = ax + by + c, y'' = dx + ey + f; NULL where nothing agrees); regions, the largest first, as [left, top, width, height] in pixels of image and reference';
