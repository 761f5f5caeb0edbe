-- Reference sets: a table, its descriptor column, and the trigger that keeps the column current.
CREATE FUNCTION copy_maintain_descriptor() RETURNS trigger
    AS 'MODULE_PATHNAME', 'copy_maintain_descriptor' LANGUAGE c;
COMMENT ON FUNCTION copy_maintain_descriptor() IS 'trigger (BEFORE INSERT OR UPDATE, FOR EACH ROW; argument: the set''s name): writes the descriptor of the row''s image when the image is new or changed';

CREATE FUNCTION copymatch.embed_reference(image bytea, model text, reference text, total bigint) RETURNS vector
    AS 'MODULE_PATHNAME', 'embed_reference_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION copymatch.embed_reference(bytea, text, text, bigint) IS 'copy_embed for bulk work: an image that cannot be matched gives NULL and a WARNING that names the reference; progress is reported as NOTICEs (total: rows to come)';

CREATE FUNCTION copymatch.describe_reference(image bytea, model text, reference text, total bigint, want_descriptor boolean, want_sketch boolean,
                                             OUT descriptor vector, OUT sketch bytea)
    AS 'MODULE_PATHNAME', 'describe_reference_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION copymatch.describe_reference(bytea, text, text, bigint, boolean, boolean) IS 'descriptor and sketch for bulk work, from one decoded image, each only where it is wanted: an image that cannot be matched gives NULLs and a WARNING that names the reference; progress is reported as NOTICEs (total: rows to come)';

CREATE FUNCTION copymatch.default_set() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
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

CREATE FUNCTION copymatch.find_set(name text) RETURNS copymatch.reference_set LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
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

CREATE FUNCTION copymatch.require_column(relation regclass, col name, type_name text) RETURNS void LANGUAGE plpgsql STABLE AS $$
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

CREATE FUNCTION copymatch.check_filter(relation oid, filter text) RETURNS text
    AS 'MODULE_PATHNAME', 'check_filter_wrapper' LANGUAGE c STABLE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.check_filter(oid, text) IS 'a set''s filter in a form that means the same under every search path, or an error: it must be one condition over the relation''s columns, without subqueries and volatile functions, and with PostgreSQL''s own functions only unless a superuser sets it';

CREATE FUNCTION copymatch.parse_key(relation regclass, key text) RETURNS name[] LANGUAGE plpgsql STABLE AS $$
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

CREATE FUNCTION copymatch.key_expression(key_column name, further name[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN pg_catalog.cardinality(further) = 0 THEN 'r.' || pg_catalog.quote_ident(key_column)
                ELSE (SELECT 'ROW(' || pg_catalog.string_agg('r.' || pg_catalog.quote_ident(u.col), ', ' ORDER BY u.place) || ')'
                      FROM pg_catalog.unnest(key_column || further) WITH ORDINALITY AS u(col, place)) END || '::pg_catalog.text'
$$;
COMMENT ON FUNCTION copymatch.key_expression(name, name[]) IS 'the key as text, in SQL over the alias r: the column''s text, or for a composite key that of ROW(…): (1,"x y")';

CREATE FUNCTION copy_create_set(name text, relation regclass, key text, image name, descriptor name DEFAULT 'descriptor',
                                model text DEFAULT NULL, on_bad_image text DEFAULT 'error', embed boolean DEFAULT true,
                                filter text DEFAULT NULL, k integer DEFAULT NULL, negative boolean DEFAULT false, verify boolean DEFAULT true)
    RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chosen record;
    calibration bigint;
    kind "char";
    generated name;
    owner oid;
    column_type text;
    vector_type text := pg_catalog.format_type('@extschema@.vector'::regtype, NULL);
    waiting bigint;
    embedded bigint := 0;
    keys name[];
    other record;
    sketch name;
    missing text;
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
        -- The trigger that keeps the descriptor is a BEFORE trigger: generated columns have no value yet, and cannot be given one.
        SELECT a.attname INTO generated FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = relation AND a.attname IN (copy_create_set.image, copy_create_set.descriptor) AND a.attgenerated <> ''
            ORDER BY a.attname = copy_create_set.image DESC LIMIT 1;
        IF FOUND AND kind IN ('r', 'p') THEN
            RAISE EXCEPTION 'column "%" of relation % is generated: copymatch cannot keep descriptors with it', generated, relation
                USING ERRCODE = 'feature_not_supported', DETAIL = 'PostgreSQL computes generated columns after the trigger that embeds the image.',
                      HINT = 'Name ordinary columns; or image => NULL, where something else keeps the descriptors.';
        END IF;
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
    IF copy_create_set.verify THEN
        sketch := copymatch.add_sketch_column(relation, copy_create_set.descriptor, copy_create_set.image IS NOT NULL);
    END IF;

    SELECT s.name, s.model INTO other FROM copymatch.reference_set s
        WHERE s.relation = copy_create_set.relation AND s.descriptor_column = copy_create_set.descriptor AND s.model <> chosen.name LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'column "%" of relation % has the descriptors of model "%", for reference set "%"', copy_create_set.descriptor, relation, other.model, other.name
            USING ERRCODE = 'datatype_mismatch', HINT = 'Name another descriptor column, or the same model.';
    END IF;

    INSERT INTO copymatch.reference_set (name, relation, key_column, further_key_columns, image_column, descriptor_column, model, calibration,
                                         on_bad_image, is_default, filter, k, negative, sketch_column, verify)
        VALUES (copy_create_set.name, copy_create_set.relation, keys[1], keys[2:], copy_create_set.image, copy_create_set.descriptor, chosen.name,
                calibration, copy_create_set.on_bad_image,
                NOT copy_create_set.negative AND NOT EXISTS (SELECT FROM copymatch.reference_set s WHERE s.is_default),
                copy_create_set.filter, copy_create_set.k, copy_create_set.negative, sketch,
                CASE WHEN copy_create_set.verify IS NOT TRUE THEN 'off' ELSE 'auto' END);
    PERFORM copymatch.try_search(copy_create_set.name);

    IF copy_create_set.image IS NOT NULL AND kind IN ('r', 'p') THEN
        PERFORM copymatch.serve_columns(relation);
        missing := copymatch.missing_condition(copy_create_set.image, copy_create_set.descriptor, sketch);
        EXECUTE pg_catalog.format('SELECT count(*) FROM %s AS r WHERE %s', relation, missing) INTO waiting;
        IF waiting > 0 AND copy_create_set.embed THEN
            EXECUTE copymatch.fill_statement(copy_create_set.name, waiting);
            EXECUTE pg_catalog.format('SELECT count(*) FROM %s AS r WHERE %s', relation, missing) INTO embedded;
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
COMMENT ON FUNCTION copy_create_set(text, regclass, text, name, name, text, text, boolean, text, integer, boolean, boolean) IS 'makes a reference set of a table (key: a column, or several with commas between; filter: an SQL condition, which rows belong to it; k: rows that a search returns by default; negative: matches in other sets are explained by copies in this one; verify: keep sketches, too, so that searches compare the pictures themselves): adds the columns for descriptor and sketch and the trigger that keeps them current, embeds what is there, builds an ivf index where there is none, and becomes the default set when it is the first. A table with very many images: embed => false, then CALL copy_fill_set(name) and CREATE INDEX CONCURRENTLY. Returns the number of images embedded';

CREATE FUNCTION copymatch.trigger_name(reference_set text) RETURNS name LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT ('zz_copymatch_' || pg_catalog.left(pg_catalog.md5(reference_set), 12))::name $$;
COMMENT ON FUNCTION copymatch.trigger_name(text) IS 'name of the trigger that keeps a set''s descriptors: sorts after other triggers, and fits in an identifier whatever the set is called';

CREATE FUNCTION copymatch.has_trigger(chosen copymatch.reference_set) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger t
                   WHERE t.tgrelid = chosen.relation AND t.tgname = copymatch.trigger_name(chosen.name) AND NOT t.tgisinternal)
$$;
COMMENT ON FUNCTION copymatch.has_trigger(copymatch.reference_set) IS 'whether the set''s own trigger is there: of several sets over one descriptor column one has it';

CREATE FUNCTION copymatch.make_trigger(chosen copymatch.reference_set) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
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

CREATE FUNCTION copymatch.serve_columns(relation regclass) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
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

CREATE FUNCTION copymatch.search_condition(chosen copymatch.reference_set) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    -- A subquery that stays one is asked for each row that comes, in the order of the index: k rows are found at any number of
    -- references out of use.
    SELECT coalesce('WHERE ' || nullif(pg_catalog.concat_ws(' AND ', '(' || chosen.filter || ')',
        CASE WHEN EXISTS (SELECT FROM copymatch.reference_status x WHERE x.reference_set = chosen.name) THEN
            pg_catalog.format('(SELECT true FROM copymatch.reference_status AS x WHERE x.reference_set = %L AND x.reference = %s AND (x.until IS NULL OR x.until > pg_catalog.now())) IS NULL',
                              chosen.name, copymatch.key_expression(chosen.key_column, chosen.further_key_columns)) END), ''), '')
$$;
COMMENT ON FUNCTION copymatch.search_condition(copymatch.reference_set) IS 'WHERE clause of a search in this set, over the alias r: its filter, and no reference that is disabled or quarantined; empty where all rows count';

CREATE FUNCTION copymatch.try_search(reference_set text) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
BEGIN
    EXECUTE pg_catalog.format('SELECT %s FROM %s AS r %s LIMIT 0', copymatch.key_expression(chosen.key_column, chosen.further_key_columns),
                              chosen.relation, copymatch.search_condition(chosen));
END $$;
COMMENT ON FUNCTION copymatch.try_search(text) IS 'runs a search for no rows: an error where the caller may not read what the set''s key and filter name';

CREATE FUNCTION copymatch.add_sketch_column(relation regclass, descriptor name, from_images boolean) RETURNS name LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sketch name := left(descriptor, 56) || '_sketch';
    found text;
    kind "char";
BEGIN
    SELECT format_type(a.atttypid, NULL) INTO found FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attname = sketch AND a.attnum > 0 AND NOT a.attisdropped;
    IF found = 'bytea' THEN
        RETURN sketch;
    ELSIF found IS NOT NULL THEN
        RAISE EXCEPTION 'column "%" of relation % is of type %, not bytea', sketch, relation, found
            USING ERRCODE = 'datatype_mismatch', HINT = 'The sketches would lie there. Rename it, or make the set with verify => false.';
    END IF;
    SELECT c.relkind INTO kind FROM pg_class c WHERE c.oid = relation;
    -- A view or foreign table brings its sketches, or has none.
    IF kind NOT IN ('r', 'p') OR NOT from_images THEN
        RETURN NULL;
    END IF;
    EXECUTE format('ALTER TABLE %s ADD COLUMN %I pg_catalog.bytea', relation, sketch);
    -- Most of it is compressed already.
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE EXTERNAL', relation, sketch);
    EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, sketch, 'sketch of the image, for verification; kept by copymatch');
    RETURN sketch;
END $$;
COMMENT ON FUNCTION copymatch.add_sketch_column(regclass, name, boolean) IS 'name of the column with the sketches beside a descriptor column, made where a table has none; NULL: there is none to be';

CREATE FUNCTION copymatch.missing_condition(image name, descriptor name, sketch name) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE WHEN sketch IS NULL THEN pg_catalog.format('r.%I IS NOT NULL AND r.%I IS NULL', image, descriptor)
                ELSE pg_catalog.format('r.%I IS NOT NULL AND (r.%I IS NULL OR r.%I IS NULL)', image, descriptor, sketch) END;
END;
COMMENT ON FUNCTION copymatch.missing_condition(name, name, name) IS 'which rows, over the alias r, have an image but not all that is kept of it';

CREATE FUNCTION copymatch.fill_statement(reference_set text, total bigint, part regclass DEFAULT NULL) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
    target text := coalesce(part, chosen.relation)::text;
    missing text := copymatch.missing_condition(chosen.image_column, chosen.descriptor_column, chosen.sketch_column);
    key text := copymatch.key_expression(chosen.key_column, chosen.further_key_columns);
BEGIN
    IF chosen.sketch_column IS NULL THEN
        RETURN format('UPDATE %s AS r SET %I = copymatch.embed_reference(r.%I, %L, %s, %s) WHERE %s',
                      target, chosen.descriptor_column, chosen.image_column, chosen.model, key, total, missing);
    END IF;
    RETURN format('UPDATE %1$s AS r SET (%2$I, %3$I) = (SELECT coalesce(r.%2$I, d.descriptor), coalesce(r.%3$I, d.sketch) '
                  'FROM copymatch.describe_reference(r.%4$I, %5$L, %6$s, %7$s, r.%2$I IS NULL, r.%3$I IS NULL) AS d) WHERE %8$s',
                  target, chosen.descriptor_column, chosen.sketch_column, chosen.image_column, chosen.model, key, total, missing);
END $$;
COMMENT ON FUNCTION copymatch.fill_statement(text, bigint, regclass) IS 'the UPDATE that embeds the images of a set, or of one of its partitions, that have no descriptor or no sketch';

CREATE FUNCTION copymatch.begin_sketches(reference_set text) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(reference_set);
    sketch name;
    newest bigint;
BEGIN
    IF chosen.verify = 'off' OR chosen.sketch_column IS NOT NULL THEN
        RETURN;
    END IF;
    sketch := copymatch.add_sketch_column(chosen.relation, chosen.descriptor_column, chosen.image_column IS NOT NULL);
    -- The model's own calibration that weighs what is found; one of the set's own stays.
    SELECT max(c.id) INTO newest FROM copymatch.calibration c
        WHERE c.model = chosen.model AND c.reference_set IS NULL AND c.weights IS NOT NULL;
    IF newest IS NULL OR EXISTS (SELECT FROM copymatch.calibration c WHERE c.id = chosen.calibration AND (c.weights IS NOT NULL OR c.reference_set IS NOT NULL)) THEN
        newest := chosen.calibration;
    END IF;
    UPDATE copymatch.reference_set s SET sketch_column = sketch, calibration = newest WHERE s.name = chosen.name AND sketch IS NOT NULL;
    IF FOUND AND newest <> chosen.calibration THEN
        RAISE NOTICE 'reference set "%" uses calibration % of its model now', chosen.name, newest
            USING HINT = format('It weighs what verification finds; copy_use_calibration(%L, %s) goes back.', chosen.name, chosen.calibration);
    END IF;
END $$;
COMMENT ON FUNCTION copymatch.begin_sketches(text) IS 'gives a set that is to be verified and has no sketches a column for them, and a calibration of its model that weighs them';

CREATE PROCEDURE copy_fill_set(reference_set text DEFAULT copymatch.default_set(), batch_pages integer DEFAULT 64) LANGUAGE plpgsql AS $$
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
    PERFORM copymatch.begin_sketches(chosen.name);
    chosen := copymatch.find_set(chosen.name);
    EXECUTE pg_catalog.format('SELECT count(*) FROM %s AS r WHERE %s', chosen.relation,
                              copymatch.missing_condition(chosen.image_column, chosen.descriptor_column, chosen.sketch_column)) INTO waiting;
    COMMIT;
    -- A table that is no partition tree is its own only leaf.
    FOR part IN SELECT p.relid FROM pg_catalog.pg_partition_tree(chosen.relation) p WHERE p.isleaf
                UNION ALL
                SELECT c.oid::regclass FROM pg_catalog.pg_class c
                WHERE c.oid = chosen.relation AND c.relkind = 'r' AND NOT c.relispartition LOOP
        -- Rows that the loop rewrites move behind this end; they have their descriptor already.
        pages := pg_catalog.pg_relation_size(part) / pg_catalog.current_setting('block_size')::bigint;
        page := 0;
        WHILE page < pages LOOP
            EXECUTE pg_catalog.format('%s AND r.ctid >= %L AND r.ctid < %L', copymatch.fill_statement(chosen.name, waiting, part),
                                      pg_catalog.format('(%s,0)', page), pg_catalog.format('(%s,0)', page + batch_pages));
            page := page + batch_pages;
            COMMIT;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON PROCEDURE copy_fill_set(text, integer) IS 'embeds the images of a set that have no descriptor, and sketches those that have no sketch (a set of an earlier version gets the column for them; one with verify off does not), committing every batch_pages pages of the table: other sessions go on meanwhile, and after an interruption the next call goes on where it stopped';

CREATE FUNCTION copy_default_set(name text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
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
COMMENT ON FUNCTION copy_default_set(text) IS 'makes this the set that copy_match takes when none is named; needs ownership of its relation and of the present default''s';

CREATE FUNCTION copy_alter_set(name text, filter text DEFAULT NULL, k integer DEFAULT NULL, copy_probability double precision DEFAULT NULL,
                               review_probability double precision DEFAULT NULL, negative boolean DEFAULT NULL, negatives text[] DEFAULT NULL,
                               on_bad_image text DEFAULT NULL, reset text[] DEFAULT '{}', verify text DEFAULT NULL) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chosen copymatch.reference_set := copymatch.find_set(copy_alter_set.name);
    unknown text;
BEGIN
    IF copy_alter_set.verify NOT IN ('auto', 'off', 'all') THEN
        RAISE EXCEPTION 'verify is "%"', copy_alter_set.verify USING ERRCODE = 'invalid_parameter_value', HINT = 'Choose auto, all or off.';
    END IF;
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
        on_bad_image = coalesce(copy_alter_set.on_bad_image, s.on_bad_image),
        verify = coalesce(copy_alter_set.verify, s.verify)
        WHERE s.name = chosen.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'must own the relation of reference set "%"', chosen.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM copymatch.try_search(chosen.name);
END $$;
COMMENT ON FUNCTION copy_alter_set(text, text, integer, double precision, double precision, boolean, text[], text, text[], text) IS 'changes a set (verify: what searches do that do not say, auto, all or off; where it was off from the beginning, CALL copy_fill_set makes the sketches): what is NULL stays as it is, what reset names goes back to its default (filter: all rows; k: 10; thresholds: the calibration''s; negatives: the negative sets of the same owner)';

CREATE FUNCTION copy_drop_set(name text, drop_descriptors boolean DEFAULT false) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
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
    -- A sketch serves every set over these images.
    IF chosen.sketch_column IS NOT NULL AND NOT EXISTS (SELECT FROM copymatch.reference_set s
            WHERE s.relation = chosen.relation AND s.name <> chosen.name AND s.sketch_column = chosen.sketch_column) THEN
        columns := columns || chosen.sketch_column;
    END IF;
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
COMMENT ON FUNCTION copy_drop_set(text, boolean) IS 'forgets a reference set and drops its trigger; the table stays, its descriptor column too unless drop_descriptors';

CREATE VIEW copymatch.reference_sets AS
    SELECT s.name, s.relation, s.key_column, s.image_column, s.descriptor_column, s.model, m.dimensions, s.calibration,
           s.on_bad_image, s.is_default,
           NOT EXISTS (SELECT FROM pg_catalog.unnest(ARRAY[s.key_column, s.image_column, s.descriptor_column] || s.further_key_columns) AS u(col)
                       WHERE u.col IS NOT NULL
                         AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                         WHERE a.attrelid = s.relation AND a.attname = u.col AND NOT a.attisdropped)) AS intact,
           s.created, s.created_by, s.further_key_columns, s.filter, s.k, s.copy_probability, s.review_probability, s.negative, s.negatives,
           s.sketch_column, s.verify
    FROM copymatch.reference_set s JOIN copymatch.model m ON m.name = s.model;
COMMENT ON VIEW copymatch.reference_sets IS 'reference sets; intact says whether their relation and columns still exist';
GRANT SELECT ON copymatch.reference_sets TO PUBLIC;
