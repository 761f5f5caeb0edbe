-- Sets over other servers. A shard is asked by an aggregate over no row, which postgres_fdw ships as
-- a whole; see src/sharding.
CREATE FUNCTION copymatch.shard_skip(state boolean, place tid) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT state;
END;
COMMENT ON FUNCTION copymatch.shard_skip(boolean, tid) IS 'transition function of shard_answer, which looks at no row';

CREATE FUNCTION copymatch.shard_answer_final(state boolean, question jsonb, payload bytea) RETURNS bytea
    AS 'MODULE_PATHNAME', 'shard_answer_final_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION copymatch.shard_answer_final(boolean, jsonb, bytea) IS 'final function of shard_answer';

CREATE AGGREGATE copymatch.shard_answer(question jsonb, payload bytea ORDER BY tid) (
    SFUNC = copymatch.shard_skip, STYPE = boolean, FINALFUNC = copymatch.shard_answer_final);
COMMENT ON AGGREGATE copymatch.shard_answer(jsonb, bytea ORDER BY tid) IS
    'what a coordinator asks a shard by way of postgres_fdw, over no row of its foreign table: the nearest references '
    'of a descriptor, what verification compares, or a report, with the rights of the role that asks there. An error '
    'where the shard''s copymatch is older than the coordinator''s, or its descriptors are of '
    'another model than the set''s';

CREATE FUNCTION @extschema@.copy_shard_check(reference_set text DEFAULT copymatch.default_set())
    RETURNS TABLE (part regclass, server text, remote_relation text, status text, problem text, mend text,
        reachable boolean, version text, model text, model_sha256 text, model_agrees boolean, index text, rows bigint,
        without_descriptor bigint, options text[])
    AS 'MODULE_PATHNAME', 'copy_shard_check_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_shard_check(text) IS
    'looks at every part of a set over several servers, foreign or local: a row for each, ok, warning or error, what '
    'is wrong and the statements that mend it, with the server where they are to be run. Whether the server answers, '
    'the version of copymatch there, the model of the descriptors and its hash, whether that is the set''s model '
    '(NULL: no set there says), the index, rows and rows without descriptor as ANALYZE counted them, the options of '
    'server and foreign table. Shards are asked with the caller''s rights, by way of postgres_fdw';

CREATE FUNCTION @extschema@.copy_create_shard_indexes(
    reference_set text DEFAULT copymatch.default_set(), run boolean DEFAULT false)
    RETURNS TABLE (part regclass, server text, statement text, done boolean)
    AS 'MODULE_PATHNAME', 'copy_create_shard_indexes_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_create_shard_indexes(text, boolean) IS
    'the statements that make the indexes which parts of a set lack, and the servers where they are to be run. run: '
    'runs them, on other servers by way of dblink (which must be installed) with the caller''s user mapping; not '
    'concurrently, so that writers wait';
