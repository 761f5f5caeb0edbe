-- The access method ivf and its operator classes. The callbacks are in src/ivf, what they do in crates/ivf.

CREATE FUNCTION @extschema@.ivf_handler(internal) RETURNS index_am_handler
    AS 'MODULE_PATHNAME', 'ivf_handler' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_handler(internal) IS 'handler of the access method ivf';

CREATE ACCESS METHOD ivf TYPE INDEX HANDLER @extschema@.ivf_handler;
COMMENT ON ACCESS METHOD ivf IS 'inverted lists of quantised vectors: the nearest vectors, approximately';

-- What carries a distance bound to the index (src/ivf/bound.rs). True of every row: its own condition decides.

CREATE FUNCTION @extschema@.ivf_within(@extschema@.vector, float8) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ivf_within' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_within(@extschema@.vector, float8) IS
    'internal: tells an ivf index a distance bound; always true';

CREATE FUNCTION @extschema@.ivf_within(@extschema@.halfvec, float8) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ivf_within' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_within(@extschema@.halfvec, float8) IS
    'internal: tells an ivf index a distance bound; always true';

CREATE OPERATOR @extschema@.<~ (LEFTARG = @extschema@.vector, RIGHTARG = float8, FUNCTION = @extschema@.ivf_within);
COMMENT ON OPERATOR @extschema@.<~ (@extschema@.vector, float8) IS
    'internal: tells an ivf index a distance bound; always true';

CREATE OPERATOR @extschema@.<~ (LEFTARG = @extschema@.halfvec, RIGHTARG = float8, FUNCTION = @extschema@.ivf_within);
COMMENT ON OPERATOR @extschema@.<~ (@extschema@.halfvec, float8) IS
    'internal: tells an ivf index a distance bound; always true';

CREATE FUNCTION @extschema@.ivf_within(bit, float8) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ivf_within' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_within(bit, float8) IS 'internal: tells an ivf index a distance bound; always true';

CREATE OPERATOR @extschema@.<~ (LEFTARG = bit, RIGHTARG = float8, FUNCTION = @extschema@.ivf_within);
COMMENT ON OPERATOR @extschema@.<~ (bit, float8) IS 'internal: tells an ivf index a distance bound; always true';

-- Operator classes. Support function 1 names element type and metric.

CREATE FUNCTION @extschema@.ivf_vector_l2(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_vector_l2' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_vector_l2(internal) IS 'what vector_l2_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_vector_ip(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_vector_ip' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_vector_ip(internal) IS 'what vector_ip_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_vector_cosine(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_vector_cosine' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_vector_cosine(internal) IS 'what vector_cosine_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_halfvec_l2(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_halfvec_l2' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_halfvec_l2(internal) IS 'what halfvec_l2_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_halfvec_ip(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_halfvec_ip' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_halfvec_ip(internal) IS 'what halfvec_ip_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_halfvec_cosine(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_halfvec_cosine' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_halfvec_cosine(internal) IS 'what halfvec_cosine_ops is to the access method ivf';

CREATE OPERATOR CLASS @extschema@.vector_l2_ops DEFAULT FOR TYPE @extschema@.vector USING ivf AS
    OPERATOR 1 @extschema@.<-> (@extschema@.vector, @extschema@.vector) FOR ORDER BY float_ops,
    OPERATOR 2 @extschema@.<~ (@extschema@.vector, float8),
    FUNCTION 1 @extschema@.ivf_vector_l2(internal);
COMMENT ON OPERATOR CLASS @extschema@.vector_l2_ops USING ivf IS 'nearest by Euclidean distance (<->)';
COMMENT ON OPERATOR FAMILY @extschema@.vector_l2_ops USING ivf IS 'nearest by Euclidean distance (<->)';

CREATE OPERATOR CLASS @extschema@.vector_ip_ops FOR TYPE @extschema@.vector USING ivf AS
    OPERATOR 1 @extschema@.<#> (@extschema@.vector, @extschema@.vector) FOR ORDER BY float_ops,
    OPERATOR 2 @extschema@.<~ (@extschema@.vector, float8),
    FUNCTION 1 @extschema@.ivf_vector_ip(internal);
COMMENT ON OPERATOR CLASS @extschema@.vector_ip_ops USING ivf IS 'nearest by inner product (<#>)';
COMMENT ON OPERATOR FAMILY @extschema@.vector_ip_ops USING ivf IS 'nearest by inner product (<#>)';

CREATE OPERATOR CLASS @extschema@.vector_cosine_ops FOR TYPE @extschema@.vector USING ivf AS
    OPERATOR 1 @extschema@.<=> (@extschema@.vector, @extschema@.vector) FOR ORDER BY float_ops,
    OPERATOR 2 @extschema@.<~ (@extschema@.vector, float8),
    FUNCTION 1 @extschema@.ivf_vector_cosine(internal);
COMMENT ON OPERATOR CLASS @extschema@.vector_cosine_ops USING ivf IS 'nearest by cosine distance (<=>)';
COMMENT ON OPERATOR FAMILY @extschema@.vector_cosine_ops USING ivf IS 'nearest by cosine distance (<=>)';

CREATE OPERATOR CLASS @extschema@.halfvec_l2_ops DEFAULT FOR TYPE @extschema@.halfvec USING ivf AS
    OPERATOR 1 @extschema@.<-> (@extschema@.halfvec, @extschema@.halfvec) FOR ORDER BY float_ops,
    OPERATOR 2 @extschema@.<~ (@extschema@.halfvec, float8),
    FUNCTION 1 @extschema@.ivf_halfvec_l2(internal);
COMMENT ON OPERATOR CLASS @extschema@.halfvec_l2_ops USING ivf IS 'nearest by Euclidean distance (<->)';
COMMENT ON OPERATOR FAMILY @extschema@.halfvec_l2_ops USING ivf IS 'nearest by Euclidean distance (<->)';

CREATE OPERATOR CLASS @extschema@.halfvec_ip_ops FOR TYPE @extschema@.halfvec USING ivf AS
    OPERATOR 1 @extschema@.<#> (@extschema@.halfvec, @extschema@.halfvec) FOR ORDER BY float_ops,
    OPERATOR 2 @extschema@.<~ (@extschema@.halfvec, float8),
    FUNCTION 1 @extschema@.ivf_halfvec_ip(internal);
COMMENT ON OPERATOR CLASS @extschema@.halfvec_ip_ops USING ivf IS 'nearest by inner product (<#>)';
COMMENT ON OPERATOR FAMILY @extschema@.halfvec_ip_ops USING ivf IS 'nearest by inner product (<#>)';

CREATE OPERATOR CLASS @extschema@.halfvec_cosine_ops FOR TYPE @extschema@.halfvec USING ivf AS
    OPERATOR 1 @extschema@.<=> (@extschema@.halfvec, @extschema@.halfvec) FOR ORDER BY float_ops,
    OPERATOR 2 @extschema@.<~ (@extschema@.halfvec, float8),
    FUNCTION 1 @extschema@.ivf_halfvec_cosine(internal);
COMMENT ON OPERATOR CLASS @extschema@.halfvec_cosine_ops USING ivf IS 'nearest by cosine distance (<=>)';
COMMENT ON OPERATOR FAMILY @extschema@.halfvec_cosine_ops USING ivf IS 'nearest by cosine distance (<=>)';

CREATE FUNCTION @extschema@.ivf_bit_hamming(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_bit_hamming' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_bit_hamming(internal) IS 'what bit_hamming_ops is to the access method ivf';

CREATE OPERATOR CLASS @extschema@.bit_hamming_ops DEFAULT FOR TYPE bit USING ivf AS
    OPERATOR 1 @extschema@.<~> (bit, bit) FOR ORDER BY float_ops,
    OPERATOR 2 @extschema@.<~ (bit, float8),
    FUNCTION 1 @extschema@.ivf_bit_hamming(internal);
COMMENT ON OPERATOR CLASS @extschema@.bit_hamming_ops USING ivf IS 'nearest by Hamming distance (<~>)';
COMMENT ON OPERATOR FAMILY @extschema@.bit_hamming_ops USING ivf IS 'nearest by Hamming distance (<~>)';

-- Filter columns: what stands behind the vector, USING ivf (descriptor, tenant, created). The values lie beside the
-- codes (src/ivf/filters.rs); text as a hash, for equality. Support function 1 names the type.

CREATE FUNCTION @extschema@.ivf_filter_bool(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_filter_bool' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_filter_bool(internal) IS 'what bool_filter_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_filter_int2(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_filter_int2' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_filter_int2(internal) IS 'what int2_filter_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_filter_int4(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_filter_int4' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_filter_int4(internal) IS 'what int4_filter_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_filter_int8(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_filter_int8' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_filter_int8(internal) IS 'what int8_filter_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_filter_date(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_filter_date' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_filter_date(internal) IS 'what date_filter_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_filter_timestamp(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_filter_timestamp' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_filter_timestamp(internal) IS
    'what timestamp_filter_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_filter_timestamptz(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_filter_timestamptz' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_filter_timestamptz(internal) IS
    'what timestamptz_filter_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_filter_uuid(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_filter_uuid' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_filter_uuid(internal) IS 'what uuid_filter_ops is to the access method ivf';

CREATE FUNCTION @extschema@.ivf_filter_text(internal) RETURNS integer
    AS 'MODULE_PATHNAME', 'ivf_filter_text' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.ivf_filter_text(internal) IS 'what text_filter_ops is to the access method ivf';

CREATE OPERATOR FAMILY @extschema@.integer_filter_ops USING ivf;
COMMENT ON OPERATOR FAMILY @extschema@.integer_filter_ops USING ivf IS 'conditions on integers beside a vector';

CREATE OPERATOR FAMILY @extschema@.datetime_filter_ops USING ivf;
COMMENT ON OPERATOR FAMILY @extschema@.datetime_filter_ops USING ivf IS 'conditions on dates and times beside a vector';

CREATE OPERATOR CLASS @extschema@.bool_filter_ops DEFAULT FOR TYPE bool USING ivf AS
    OPERATOR 3 pg_catalog.< (bool, bool),
    OPERATOR 4 pg_catalog.<= (bool, bool),
    OPERATOR 5 pg_catalog.= (bool, bool),
    OPERATOR 6 pg_catalog.>= (bool, bool),
    OPERATOR 7 pg_catalog.> (bool, bool),
    FUNCTION 1 @extschema@.ivf_filter_bool(internal);
COMMENT ON OPERATOR CLASS @extschema@.bool_filter_ops USING ivf IS 'conditions on bool beside a vector';
COMMENT ON OPERATOR FAMILY @extschema@.bool_filter_ops USING ivf IS 'conditions on bool beside a vector';

CREATE OPERATOR CLASS @extschema@.int2_filter_ops DEFAULT FOR TYPE int2 USING ivf
    FAMILY @extschema@.integer_filter_ops AS
    OPERATOR 3 pg_catalog.< (int2, int2),
    OPERATOR 4 pg_catalog.<= (int2, int2),
    OPERATOR 5 pg_catalog.= (int2, int2),
    OPERATOR 6 pg_catalog.>= (int2, int2),
    OPERATOR 7 pg_catalog.> (int2, int2),
    FUNCTION 1 @extschema@.ivf_filter_int2(internal);
COMMENT ON OPERATOR CLASS @extschema@.int2_filter_ops USING ivf IS 'conditions on int2 beside a vector';

CREATE OPERATOR CLASS @extschema@.int4_filter_ops DEFAULT FOR TYPE int4 USING ivf
    FAMILY @extschema@.integer_filter_ops AS
    OPERATOR 3 pg_catalog.< (int4, int4),
    OPERATOR 4 pg_catalog.<= (int4, int4),
    OPERATOR 5 pg_catalog.= (int4, int4),
    OPERATOR 6 pg_catalog.>= (int4, int4),
    OPERATOR 7 pg_catalog.> (int4, int4),
    FUNCTION 1 @extschema@.ivf_filter_int4(internal);
COMMENT ON OPERATOR CLASS @extschema@.int4_filter_ops USING ivf IS 'conditions on int4 beside a vector';

CREATE OPERATOR CLASS @extschema@.int8_filter_ops DEFAULT FOR TYPE int8 USING ivf
    FAMILY @extschema@.integer_filter_ops AS
    OPERATOR 3 pg_catalog.< (int8, int8),
    OPERATOR 4 pg_catalog.<= (int8, int8),
    OPERATOR 5 pg_catalog.= (int8, int8),
    OPERATOR 6 pg_catalog.>= (int8, int8),
    OPERATOR 7 pg_catalog.> (int8, int8),
    FUNCTION 1 @extschema@.ivf_filter_int8(internal);
COMMENT ON OPERATOR CLASS @extschema@.int8_filter_ops USING ivf IS 'conditions on int8 beside a vector';

CREATE OPERATOR CLASS @extschema@.date_filter_ops DEFAULT FOR TYPE date USING ivf
    FAMILY @extschema@.datetime_filter_ops AS
    OPERATOR 3 pg_catalog.< (date, date),
    OPERATOR 4 pg_catalog.<= (date, date),
    OPERATOR 5 pg_catalog.= (date, date),
    OPERATOR 6 pg_catalog.>= (date, date),
    OPERATOR 7 pg_catalog.> (date, date),
    FUNCTION 1 @extschema@.ivf_filter_date(internal);
COMMENT ON OPERATOR CLASS @extschema@.date_filter_ops USING ivf IS 'conditions on date beside a vector';

CREATE OPERATOR CLASS @extschema@.timestamp_filter_ops DEFAULT FOR TYPE timestamp USING ivf
    FAMILY @extschema@.datetime_filter_ops AS
    OPERATOR 3 pg_catalog.< (timestamp, timestamp),
    OPERATOR 4 pg_catalog.<= (timestamp, timestamp),
    OPERATOR 5 pg_catalog.= (timestamp, timestamp),
    OPERATOR 6 pg_catalog.>= (timestamp, timestamp),
    OPERATOR 7 pg_catalog.> (timestamp, timestamp),
    FUNCTION 1 @extschema@.ivf_filter_timestamp(internal);
COMMENT ON OPERATOR CLASS @extschema@.timestamp_filter_ops USING ivf IS 'conditions on timestamp beside a vector';

CREATE OPERATOR CLASS @extschema@.timestamptz_filter_ops DEFAULT FOR TYPE timestamptz USING ivf
    FAMILY @extschema@.datetime_filter_ops AS
    OPERATOR 3 pg_catalog.< (timestamptz, timestamptz),
    OPERATOR 4 pg_catalog.<= (timestamptz, timestamptz),
    OPERATOR 5 pg_catalog.= (timestamptz, timestamptz),
    OPERATOR 6 pg_catalog.>= (timestamptz, timestamptz),
    OPERATOR 7 pg_catalog.> (timestamptz, timestamptz),
    FUNCTION 1 @extschema@.ivf_filter_timestamptz(internal);
COMMENT ON OPERATOR CLASS @extschema@.timestamptz_filter_ops USING ivf IS 'conditions on timestamptz beside a vector';

CREATE OPERATOR CLASS @extschema@.uuid_filter_ops DEFAULT FOR TYPE uuid USING ivf AS
    OPERATOR 3 pg_catalog.< (uuid, uuid),
    OPERATOR 4 pg_catalog.<= (uuid, uuid),
    OPERATOR 5 pg_catalog.= (uuid, uuid),
    OPERATOR 6 pg_catalog.>= (uuid, uuid),
    OPERATOR 7 pg_catalog.> (uuid, uuid),
    FUNCTION 1 @extschema@.ivf_filter_uuid(internal);
COMMENT ON OPERATOR CLASS @extschema@.uuid_filter_ops USING ivf IS 'conditions on uuid beside a vector';
COMMENT ON OPERATOR FAMILY @extschema@.uuid_filter_ops USING ivf IS 'conditions on uuid beside a vector';

CREATE OPERATOR CLASS @extschema@.text_filter_ops DEFAULT FOR TYPE text USING ivf AS
    OPERATOR 5 pg_catalog.= (text, text),
    FUNCTION 1 @extschema@.ivf_filter_text(internal);
COMMENT ON OPERATOR CLASS @extschema@.text_filter_ops USING ivf IS 'conditions on text beside a vector (equality)';
COMMENT ON OPERATOR FAMILY @extschema@.text_filter_ops USING ivf IS 'conditions on text beside a vector (equality)';

ALTER OPERATOR FAMILY @extschema@.integer_filter_ops USING ivf ADD
    OPERATOR 3 pg_catalog.< (int2, int4),
    OPERATOR 4 pg_catalog.<= (int2, int4),
    OPERATOR 5 pg_catalog.= (int2, int4),
    OPERATOR 6 pg_catalog.>= (int2, int4),
    OPERATOR 7 pg_catalog.> (int2, int4),
    OPERATOR 3 pg_catalog.< (int2, int8),
    OPERATOR 4 pg_catalog.<= (int2, int8),
    OPERATOR 5 pg_catalog.= (int2, int8),
    OPERATOR 6 pg_catalog.>= (int2, int8),
    OPERATOR 7 pg_catalog.> (int2, int8),
    OPERATOR 3 pg_catalog.< (int4, int2),
    OPERATOR 4 pg_catalog.<= (int4, int2),
    OPERATOR 5 pg_catalog.= (int4, int2),
    OPERATOR 6 pg_catalog.>= (int4, int2),
    OPERATOR 7 pg_catalog.> (int4, int2),
    OPERATOR 3 pg_catalog.< (int4, int8),
    OPERATOR 4 pg_catalog.<= (int4, int8),
    OPERATOR 5 pg_catalog.= (int4, int8),
    OPERATOR 6 pg_catalog.>= (int4, int8),
    OPERATOR 7 pg_catalog.> (int4, int8),
    OPERATOR 3 pg_catalog.< (int8, int2),
    OPERATOR 4 pg_catalog.<= (int8, int2),
    OPERATOR 5 pg_catalog.= (int8, int2),
    OPERATOR 6 pg_catalog.>= (int8, int2),
    OPERATOR 7 pg_catalog.> (int8, int2),
    OPERATOR 3 pg_catalog.< (int8, int4),
    OPERATOR 4 pg_catalog.<= (int8, int4),
    OPERATOR 5 pg_catalog.= (int8, int4),
    OPERATOR 6 pg_catalog.>= (int8, int4),
    OPERATOR 7 pg_catalog.> (int8, int4);

-- A timestamp or a date compared with a timestamptz is left to the executor: where clocks are set back, the order of
-- the one is not that of the other.
ALTER OPERATOR FAMILY @extschema@.datetime_filter_ops USING ivf ADD
    OPERATOR 3 pg_catalog.< (date, timestamp),
    OPERATOR 4 pg_catalog.<= (date, timestamp),
    OPERATOR 5 pg_catalog.= (date, timestamp),
    OPERATOR 6 pg_catalog.>= (date, timestamp),
    OPERATOR 7 pg_catalog.> (date, timestamp),
    OPERATOR 3 pg_catalog.< (timestamp, date),
    OPERATOR 4 pg_catalog.<= (timestamp, date),
    OPERATOR 5 pg_catalog.= (timestamp, date),
    OPERATOR 6 pg_catalog.>= (timestamp, date),
    OPERATOR 7 pg_catalog.> (timestamp, date),
    OPERATOR 3 pg_catalog.< (timestamptz, date),
    OPERATOR 4 pg_catalog.<= (timestamptz, date),
    OPERATOR 5 pg_catalog.= (timestamptz, date),
    OPERATOR 6 pg_catalog.>= (timestamptz, date),
    OPERATOR 7 pg_catalog.> (timestamptz, date),
    OPERATOR 3 pg_catalog.< (timestamptz, timestamp),
    OPERATOR 4 pg_catalog.<= (timestamptz, timestamp),
    OPERATOR 5 pg_catalog.= (timestamptz, timestamp),
    OPERATOR 6 pg_catalog.>= (timestamptz, timestamp),
    OPERATOR 7 pg_catalog.> (timestamptz, timestamp);

-- What a DBA asks of an index. Both are for its table's owner and for members of pg_stat_scan_tables.

CREATE FUNCTION @extschema@.copy_index_check(
    index regclass, heap_agreement boolean DEFAULT false,
    OUT block bigint, OUT problem text
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'copy_index_check_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION @extschema@.copy_index_check(regclass, boolean) IS
    'checks an ivf index as amcheck does a btree: one row for each problem with the block where it is, none when the '
    'index is sound. heap_agreement also looks for every visible row of the table. For the table''s owner and '
    'members of pg_stat_scan_tables';

CREATE FUNCTION @extschema@.copy_index_stats(
    index regclass, OUT rows bigint, OUT lists bigint, OUT branches bigint, OUT empty_lists bigint,
    OUT mean_list float8, OUT longest_list bigint, OUT imbalance float8, OUT free_slots bigint, OUT pages bigint,
    OUT centroid_pages bigint, OUT scan_pages bigint, OUT refine_pages bigint, OUT bytes bigint, OUT dimensions integer,
    OUT format_version integer, OUT probes bigint, OUT curve jsonb)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'copy_index_stats_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION @extschema@.copy_index_stats(regclass) IS
    'what an ivf index is made of: lists and how evenly they are filled (imbalance 1: all alike), slots free for '
    'inserts (those of removed rows too), pages by kind, the version of the format on disk, the lists that a query '
    'probes at the present settings, and the recall measured by number of probes. For the table''s owner and '
    'members of pg_stat_scan_tables';

CREATE FUNCTION @extschema@.copy_index_dimensions(index regclass) RETURNS integer
    AS 'MODULE_PATHNAME', 'copy_index_dimensions_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.copy_index_dimensions(regclass) IS
    'the dimensions of the vectors of an ivf index, NULL where it cannot be read. For the table''s owner and '
    'members of pg_stat_scan_tables';

-- ALTER COLUMN ... TYPE vector takes the column's dimensions away and leaves the index as it is, since its rows are the
-- same. The next rebuild (REINDEX, TRUNCATE, VACUUM FULL, a restore) would not know them any more: the index keeps them
-- as an option of its own. Runs with the rights of who alters the table; the owner of the table owns its indexes.
CREATE FUNCTION @extschema@.copy_keep_index_dimensions() RETURNS event_trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    lacking record;
BEGIN
    FOR lacking IN
        WITH RECURSIVE tree AS (
            SELECT c.objid AS relation FROM pg_catalog.pg_event_trigger_ddl_commands() c
            WHERE c.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            UNION
            SELECT h.inhrelid FROM tree t JOIN pg_catalog.pg_inherits h ON h.inhparent = t.relation)
        SELECT i.indexrelid::pg_catalog.regclass AS index, @extschema@.copy_index_dimensions(i.indexrelid) AS dimensions
        FROM tree t
        JOIN pg_catalog.pg_index i ON i.indrelid = t.relation AND i.indisvalid
        JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
        JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'ivf'
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indexrelid AND a.attnum = 1 AND a.atttypmod < 0
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions) o WHERE o.option_name = 'dimensions')
    LOOP
        IF lacking.dimensions IS NOT NULL THEN
            EXECUTE pg_catalog.format('ALTER INDEX %s SET (dimensions = %s)', lacking.index, lacking.dimensions);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.copy_keep_index_dimensions() IS
    'event trigger: an ivf index keeps its dimensions where ALTER TABLE takes them from its column';

CREATE EVENT TRIGGER copymatch_keep_index_dimensions ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION @extschema@.copy_keep_index_dimensions();
COMMENT ON EVENT TRIGGER copymatch_keep_index_dimensions IS
    'an ivf index keeps its dimensions where ALTER TABLE takes them from its column';
