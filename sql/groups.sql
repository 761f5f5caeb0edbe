-- The filter's guard, and groups of sets.
CREATE FUNCTION copymatch.keep_filter() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Not where rows are inserted: a filter out of a dump is data, which every search judges.
    SELECT f.settled, coalesce(f.beyond, false) INTO NEW.filter, NEW.filter_beyond
        FROM copymatch.settle_filter(NEW.relation, NEW.filter) f;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION copymatch.keep_filter() FROM PUBLIC;
COMMENT ON FUNCTION copymatch.keep_filter() IS
    'trigger: no filter comes into the catalogue unchecked, whoever writes it';
CREATE TRIGGER filter BEFORE UPDATE OF filter ON copymatch.reference_set FOR EACH ROW
    WHEN (NEW.filter IS NOT NULL AND (OLD.filter IS NULL OR NEW.filter OPERATOR(pg_catalog.<>) OLD.filter))
    EXECUTE FUNCTION copymatch.keep_filter();
COMMENT ON TRIGGER filter ON copymatch.reference_set IS 'a filter runs with the rights of whoever searches';

CREATE FUNCTION @extschema@.copy_create_group(name text, members text[]) RETURNS void
    AS 'MODULE_PATHNAME', 'copy_create_group_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_create_group(text, text[]) IS
    'gives several sets one name: copy_match(image, reference_set => name) searches them all and returns the best, '
    'each row with its own set''s name';

CREATE FUNCTION @extschema@.copy_drop_group(name text) RETURNS void
    AS 'MODULE_PATHNAME', 'copy_drop_group_wrapper' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.copy_drop_group(text) IS 'forgets a group; its sets stay';
