-- From 0.1.0 to 0.2.0. scripts/upgrade_sql.sh appends sql/*.sql: what 0.1.0 had as functions and views is replaced, what it
-- lacked is made. Here stands what cannot be replaced: new columns of its tables, and functions whose result or parameters
-- changed.
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
DROP FUNCTION copy_match(bytea, text, integer);
DROP FUNCTION copy_match_descriptor(vector, text, integer, text);
DROP FUNCTION copy_create_set(text, regclass, name, name, name, text, text, boolean);
COMMENT ON COLUMN copymatch.reference_set.key_column IS 'column that identifies a reference; the first one of a composite key';
COMMENT ON COLUMN copymatch.reference_set.further_key_columns IS 'the other columns of a composite key';
COMMENT ON COLUMN copymatch.reference_set.filter IS 'SQL condition: which rows of the relation belong to the set; NULL: all';
COMMENT ON COLUMN copymatch.reference_set.k IS 'references that a search returns where the call names no number; NULL: 10';
COMMENT ON COLUMN copymatch.reference_set.copy_probability IS 'probability from which the verdict is copy; NULL: the calibration''s';
COMMENT ON COLUMN copymatch.reference_set.review_probability IS 'probability from which the verdict is review; NULL: the calibration''s';
COMMENT ON COLUMN copymatch.reference_set.negative IS 'templates, logos, blank frames: a copy of one of these explains a match in another set, which is then not raised';
COMMENT ON COLUMN copymatch.reference_set.negatives IS 'negative sets that apply to this one; NULL: those whose relation has the same owner';
DROP FUNCTION copy_index_stats(regclass);
CREATE FUNCTION copy_index_stats(
    index regclass,
    OUT rows bigint, OUT lists bigint, OUT branches bigint, OUT empty_lists bigint, OUT mean_list float8,
    OUT longest_list bigint, OUT imbalance float8, OUT free_slots bigint, OUT pages bigint, OUT centroid_pages bigint,
    OUT scan_pages bigint, OUT refine_pages bigint, OUT bytes bigint, OUT dimensions integer, OUT format_version integer,
    OUT probes bigint, OUT curve jsonb
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'copy_index_stats_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION copy_index_stats(regclass) IS 'what an ivf index is made of: lists and how evenly they are filled (imbalance 1: all alike), slots free for inserts (those of removed rows too), pages by kind, the version of the format on disk, the lists that a query probes at the present settings, and the recall measured by number of probes. For the table''s owner and members of pg_stat_scan_tables';
