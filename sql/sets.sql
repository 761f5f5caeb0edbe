-- Reference sets: a table, its descriptor column, and the trigger that keeps the column current.
CREATE FUNCTION @extschema@.copy_maintain_descriptor() RETURNS trigger
    AS 'MODULE_PATHNAME', 'copy_maintain_descriptor' LANGUAGE c;
COMMENT ON FUNCTION @extschema@.copy_maintain_descriptor() IS
    'trigger (BEFORE INSERT OR UPDATE, FOR EACH ROW; argument: the name of a set over this table): writes the '
    'descriptor of the row''s image when the image is new or changed';

CREATE FUNCTION copymatch.embed_reference(image bytea, model text, reference text, total bigint)
    RETURNS @extschema@.vector
    AS 'MODULE_PATHNAME', 'embed_reference_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION copymatch.embed_reference(bytea, text, text, bigint) IS
    'copy_embed for bulk work: an image that cannot be matched gives NULL and a WARNING that names the reference; '
    'progress is reported as NOTICEs (total: rows to come)';

CREATE FUNCTION copymatch.describe_reference(
    image bytea, model text, reference text, total bigint, want_descriptor boolean, want_sketch boolean,
    OUT descriptor @extschema@.vector, OUT sketch bytea)
    AS 'MODULE_PATHNAME', 'describe_reference_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000;
COMMENT ON FUNCTION copymatch.describe_reference(bytea, text, text, bigint, boolean, boolean) IS
    'descriptor and sketch for bulk work, from one decoded image, each only where it is wanted: an image that cannot '
    'be matched gives NULLs and a WARNING that names the reference; progress is reported as '
    'NOTICEs (total: rows to come)';

CREATE FUNCTION copymatch.default_set() RETURNS text
    AS 'MODULE_PATHNAME', 'default_set_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.default_set() IS
    'name of the set that copy_match takes when none is named: an error unless its relation belongs to a superuser or, '
    'for others than superusers, to a role of the caller''s, or a superuser declared the set trusted';

CREATE FUNCTION copymatch.find_set(name text) RETURNS copymatch.reference_set
    AS 'MODULE_PATHNAME', 'find_set_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.find_set(text) IS 'the record of a set, or an error that lists some of the existing ones';

CREATE FUNCTION copymatch.require_column(relation regclass, col name, type_name text) RETURNS void
    AS 'MODULE_PATHNAME', 'require_column_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.require_column(regclass, name, text) IS
    'an error unless the relation has this column, of this type';

CREATE FUNCTION copymatch.settle_filter(relation oid, filter text, OUT settled text, OUT beyond boolean)
    AS 'MODULE_PATHNAME', 'settle_filter_wrapper' LANGUAGE c STABLE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.settle_filter(oid, text) IS
    'a set''s filter in a form that means the same under every search path, or an error: it must be one condition over '
    'the relation''s columns, without subqueries and volatile functions, and with PostgreSQL''s own types, operators '
    'and plain functions only unless a superuser sets it (beyond: it does have others)';

CREATE FUNCTION copymatch.reference_in_use(set_id bigint, reference text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'reference_in_use_wrapper' LANGUAGE c STABLE PARALLEL RESTRICTED COST 10;
COMMENT ON FUNCTION copymatch.reference_in_use(bigint, text) IS
    'condition of a search: whether this reference is not disabled or quarantined. Called by hand it knows what '
    'copymatch.reference_status shows to the caller';

CREATE FUNCTION copymatch.parse_key(relation regclass, key text) RETURNS name[]
    AS 'MODULE_PATHNAME', 'parse_key_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.parse_key(regclass, text) IS
    'the key''s columns: one name, or several with commas between';

CREATE FUNCTION copymatch.key_text(value anyelement) RETURNS text
    AS 'MODULE_PATHNAME', 'key_text_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.key_text(anyelement) IS
    'what value::text gives where TimeZone is UTC, DateStyle ISO, bytea_output hex and so on: one text for one key, '
    'whatever the session''s settings are';

CREATE FUNCTION copymatch.key_expression(key_column name, further name[])
    RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT pg_catalog.concat('copymatch.key_text(',
        CASE WHEN pg_catalog.cardinality(further) OPERATOR(pg_catalog.=) 0
            THEN pg_catalog.concat('r.', pg_catalog.quote_ident(key_column))
             ELSE (SELECT pg_catalog.concat('ROW(',
                 pg_catalog.string_agg(pg_catalog.concat('r.', pg_catalog.quote_ident(u.col)), ', ' ORDER BY u.place),
                 ')')
                   FROM pg_catalog.unnest(pg_catalog.array_prepend(key_column, further))
                       WITH ORDINALITY AS u(col, place)) END, ')');
END;
COMMENT ON FUNCTION copymatch.key_expression(name, name[]) IS
    'the key as text, in SQL over the alias r: the column''s text, or for a composite key that of ROW(…): (1,"x y"); '
    'the same in every session';

CREATE FUNCTION copymatch.holds_descriptors(kind oid) RETURNS boolean
    AS 'MODULE_PATHNAME', 'holds_descriptors_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.holds_descriptors(oid) IS
    'whether columns of this type can hold descriptors: vector, or pgvector''s vector where '
    'copymatch_pgvector is installed';

CREATE FUNCTION copymatch.require_descriptors(relation oid, column_name name) RETURNS void
    AS 'MODULE_PATHNAME', 'require_descriptors_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION copymatch.require_descriptors(oid, name) IS
    'an error unless the relation has this column, and it can hold descriptors';

-- The classes of both types are of one family.
CREATE FUNCTION copymatch.cosine_class(relation oid, column_name name)
    RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT pg_catalog.format('%I.%I', n.nspname, c.opcname)
                     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_opclass c ON c.opcintype = a.atttypid
                          JOIN pg_catalog.pg_namespace n ON n.oid = c.opcnamespace
                          JOIN pg_catalog.pg_opclass o ON o.opcfamily = c.opcfamily AND o.opcname = 'vector_cosine_ops'
                               AND o.opcintype = '@extschema@.vector'::pg_catalog.regtype
                     WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped LIMIT 1),
                         '@extschema@.vector_cosine_ops')
$$;
COMMENT ON FUNCTION copymatch.cosine_class(oid, name) IS
    'the operator class of ivf by which a column of descriptors is searched, with its schema';

CREATE FUNCTION @extschema@.copy_create_set(
    name text, relation regclass, key text, image name, descriptor name DEFAULT 'descriptor', model text DEFAULT NULL,
    on_bad_image text DEFAULT 'error', embed boolean DEFAULT true, filter text DEFAULT NULL, k integer DEFAULT NULL,
    negative boolean DEFAULT false, verify boolean DEFAULT true)
    RETURNS bigint AS 'MODULE_PATHNAME', 'copy_create_set_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_create_set(
    text, regclass, text, name, name, text, text, boolean, text, integer, boolean, boolean) IS
    'makes a reference set of a table (key: a column, or several with commas between; filter: an SQL condition, which '
    'rows belong to it; k: rows that a search returns by default; negative: matches in other sets are explained by '
    'copies in this one; verify: keep sketches, too, so that searches compare the pictures themselves): adds the '
    'columns for descriptor and sketch and the trigger that keeps them current, embeds what is there, builds an ivf '
    'index where there is none, and becomes the default set when it is the first. A table with very many images: '
    'embed => false, then CALL copy_fill_set(name) and CREATE INDEX CONCURRENTLY. Returns the '
    'number of images embedded';

CREATE FUNCTION copymatch.trigger_name(reference_set text) RETURNS name LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT pg_catalog.concat('zz_copymatch_', pg_catalog.left(pg_catalog.md5(reference_set), 12))::name;
END;
COMMENT ON FUNCTION copymatch.trigger_name(text) IS
    'name of the trigger that keeps a set''s descriptors: sorts after other triggers, and fits in an identifier '
    'whatever the set is called';

CREATE FUNCTION copymatch.has_trigger(chosen copymatch.reference_set) RETURNS boolean LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger t
                   WHERE t.tgrelid = chosen.relation AND t.tgname = copymatch.trigger_name(chosen.name)
                   AND NOT t.tgisinternal);
END;
COMMENT ON FUNCTION copymatch.has_trigger(copymatch.reference_set) IS
    'whether the set''s own trigger is there: of several sets over one descriptor column one has it';

CREATE FUNCTION copymatch.current_filter(set_id bigint) RETURNS text
    AS 'MODULE_PATHNAME', 'current_filter_wrapper' LANGUAGE c STABLE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION copymatch.current_filter(bigint) IS
    'the filter of a set in parentheses, judged anew: an error where it is no longer allowed, NULL where it has none';

CREATE FUNCTION copymatch.search_condition(chosen copymatch.reference_set)
    RETURNS text LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT pg_catalog.concat('WHERE ', copymatch.current_filter(chosen.id) OPERATOR(pg_catalog.||) ' AND ',
        pg_catalog.format('copymatch.reference_in_use(%L, %s)', chosen.id,
            copymatch.key_expression(chosen.key_column, chosen.further_key_columns)));
END;
COMMENT ON FUNCTION copymatch.search_condition(copymatch.reference_set) IS
    'WHERE clause of a search in this set, over the alias r: its filter, and no reference that '
    'is disabled or quarantined';

-- Embedding is dear, and PostgreSQL would compile each row's plan for it.
CREATE FUNCTION copymatch.fill_batch(reference_set text, place text, batch_pages integer) RETURNS text
    AS 'MODULE_PATHNAME', 'fill_batch_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE SET jit = off;
COMMENT ON FUNCTION copymatch.fill_batch(text, text, integer) IS
    'embeds the next images of a set''s table, for about two seconds and within so many pages, as the table''s owner, '
    'and says where it goes on (place), NULL at the end; the caller must own the table';

CREATE PROCEDURE @extschema@.copy_fill_set(
    reference_set text DEFAULT copymatch.default_set(), batch_pages integer DEFAULT 64)
    AS 'MODULE_PATHNAME', 'copy_fill_set_wrapper' LANGUAGE c;
COMMENT ON PROCEDURE @extschema@.copy_fill_set(text, integer) IS
    'embeds the images of a set that have no descriptor, and makes sketches where there are none (a set of an earlier '
    'version gets the column for them, one with verify off does not), committing every two seconds, 1000 rows, or '
    'batch_pages pages of the table, whichever comes first: other sessions go on meanwhile, copymatch.progress shows '
    'how far it is, and after an interruption the next call goes on where it stopped. Not inside a transaction block';

CREATE FUNCTION @extschema@.copy_default_set(name text) RETURNS void
    AS 'MODULE_PATHNAME', 'copy_default_set_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_default_set(text) IS
    'makes this the set that copy_match takes when none is named; needs ownership of its relation and '
    'of the present default''s';

CREATE FUNCTION @extschema@.copy_alter_set(
    name text, filter text DEFAULT NULL, k integer DEFAULT NULL, copy_probability double precision DEFAULT NULL,
    review_probability double precision DEFAULT NULL, negative boolean DEFAULT NULL, negatives text[] DEFAULT NULL,
    on_bad_image text DEFAULT NULL, reset text[] DEFAULT '{}', trusted boolean DEFAULT NULL, verify text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME', 'copy_alter_set_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_alter_set(
    text, text, integer, double precision, double precision, boolean, text[], text, text[], boolean, text) IS
    'changes a set (verify: what searches of it do that do not say, auto, all or off; where it was made without '
    'sketches, CALL copy_fill_set makes them): what is NULL stays as it is, what reset names goes back to its default '
    '(filter: all rows; k: 10; thresholds: the calibration''s; negatives: the negative sets of the same owner). '
    'trusted, for superusers only: everybody, superusers too, may come to this set without naming it (all sets, '
    'groups, negatives, triggers), as long as its relation and that one''s owner stay the same';

CREATE FUNCTION @extschema@.copy_set_columns(
    reference_set text, image name DEFAULT NULL, descriptor name DEFAULT NULL, key text DEFAULT NULL,
    sketch name DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME', 'copy_set_columns_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_set_columns(text, name, name, text, name) IS
    'names a set''s columns anew after they were renamed in its relation (NULL: as it is); the set keeps its '
    'calibration, its groups and its references out of use';

CREATE FUNCTION @extschema@.copy_drop_set(name text, drop_descriptors boolean DEFAULT false) RETURNS void
    AS 'MODULE_PATHNAME', 'copy_drop_set_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_drop_set(text, boolean) IS
    'forgets a reference set and drops its trigger; the table stays, its columns for descriptor and sketch '
    'too unless drop_descriptors';

CREATE VIEW copymatch.reference_sets AS
    SELECT s.name, s.relation::text AS relation, s.key_column, s.image_column, s.descriptor_column, s.model,
           m.dimensions, s.calibration,
           s.on_bad_image, s.is_default,
           NOT EXISTS (SELECT FROM pg_catalog.unnest(ARRAY[s.key_column, s.image_column, s.descriptor_column,
               s.sketch_column] || s.further_key_columns) AS u(col)
                       WHERE u.col IS NOT NULL
                         AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                         WHERE a.attrelid = s.relation AND a.attname = u.col
                                         AND NOT a.attisdropped)) AS intact,
           s.created, s.created_by, s.further_key_columns, s.filter, s.k, s.copy_probability, s.review_probability,
               s.negative, s.negatives,
           s.id, s.trusted_relation IS NOT NULL AND s.trusted_relation = s.relation
                 AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.relation
                     AND c.relowner = s.trusted_owner) AS trusted,
           s.sketch_column, s.verify
    FROM copymatch.reference_set s JOIN copymatch.model m ON m.name = s.model;
COMMENT ON VIEW copymatch.reference_sets IS
    'reference sets; intact says whether their relation and columns still exist, trusted whether '
    'a superuser declared it so';
GRANT SELECT ON copymatch.reference_sets TO PUBLIC;
