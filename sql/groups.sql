-- The filter's guard, and groups of sets.
CREATE FUNCTION copymatch.keep_filter() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Not where rows are inserted: a filter out of a dump is data, which every search judges.
    SELECT f.settled, coalesce(f.beyond, false) INTO NEW.filter, NEW.filter_beyond FROM copymatch.settle_filter(NEW.relation, NEW.filter) f;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION copymatch.keep_filter() IS 'trigger: no filter comes into the catalogue unchecked, whoever writes it';
CREATE TRIGGER filter BEFORE UPDATE OF filter ON copymatch.reference_set FOR EACH ROW WHEN (NEW.filter IS NOT NULL)
    EXECUTE FUNCTION copymatch.keep_filter();
COMMENT ON TRIGGER filter ON copymatch.reference_set IS 'a filter runs with the rights of whoever searches';

CREATE FUNCTION copy_create_group(name text, members text[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
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
COMMENT ON FUNCTION copy_create_group(text, text[]) IS 'gives several sets one name: copy_match(image, reference_set => name) searches them all and returns the best, each row with its own set''s name';

CREATE FUNCTION copy_drop_group(name text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
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
COMMENT ON FUNCTION copy_drop_group(text) IS 'forgets a group; its sets stay';
