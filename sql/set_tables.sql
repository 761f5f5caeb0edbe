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
COMMENT ON TABLE copymatch.reference_status IS
    'references that searches leave out; those without a row here are in use';
COMMENT ON COLUMN copymatch.reference_status.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.reference_status.reference IS 'the reference''s key as text, as copy_match gives it';
COMMENT ON COLUMN copymatch.reference_status.state IS
    'disabled by a person, or quarantined because it matched too much';
COMMENT ON COLUMN copymatch.reference_status.reason IS 'why';
COMMENT ON COLUMN copymatch.reference_status.until IS 'when it is in use again; NULL: not before copy_enable_reference';
COMMENT ON COLUMN copymatch.reference_status.since IS 'since when it is out of use';
COMMENT ON COLUMN copymatch.reference_status.by IS 'who took it out of use';
ALTER TABLE copymatch.reference_status ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION copymatch.sees_reference(reference_set text, reference text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'sees_reference_wrapper' LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION copymatch.sees_reference(text, text) IS
    'policy: whether the caller owns the set''s relation, or sees the reference in it; of relations of roles that the '
    'caller has no reason to trust: false';
CREATE POLICY reference_reader ON copymatch.reference_status
    FOR SELECT USING (copymatch.sees_reference(reference_set, reference));
COMMENT ON POLICY reference_reader ON copymatch.reference_status IS
    'who sees a reference in its relation may see that it is out of use';
GRANT SELECT ON copymatch.reference_status TO PUBLIC;

CREATE TABLE copymatch.reference_group (
    name       text PRIMARY KEY CHECK (name OPERATOR(pg_catalog.<>) ''),
    members    text[] NOT NULL CHECK (pg_catalog.cardinality(members) OPERATOR(pg_catalog.>) 0),
    created    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by name NOT NULL DEFAULT current_user,
    -- Since 0.3.0.
    member_ids bigint[],
    owner      regrole
);
COMMENT ON TABLE copymatch.reference_group IS 'names under which several reference sets are searched at once';
COMMENT ON COLUMN copymatch.reference_group.name IS 'name that copy_match takes';
COMMENT ON COLUMN copymatch.reference_group.members IS 'reference sets, by their names when the group was made';
COMMENT ON COLUMN copymatch.reference_group.created IS 'when it was made';
COMMENT ON COLUMN copymatch.reference_group.created_by IS 'who made it';
COMMENT ON COLUMN copymatch.reference_group.member_ids IS
    'numbers of the members, 0 where there was none of that name; NULL: not looked up yet, in '
    'a dump of an older version';
COMMENT ON COLUMN copymatch.reference_group.owner IS 'the role that made it and may drop it';
GRANT SELECT ON copymatch.reference_group TO PUBLIC;

CREATE TABLE copymatch.reembedding (
    reference_set         text PRIMARY KEY REFERENCES copymatch.reference_set ON UPDATE CASCADE ON DELETE CASCADE,
    state                 text NOT NULL DEFAULT 'filling'
        CHECK (state IN ('filling', 'indexing', 'switched', 'reverted')),
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
COMMENT ON TABLE copymatch.reembedding IS
    'sets that go over to another model: one row from the first CALL copy_reembed to copy_finish_reembed';
COMMENT ON COLUMN copymatch.reembedding.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.reembedding.state IS
    'filling: the new column is being filled; indexing: it is full and waits for its index; switched: searches use it; '
    'reverted: searches use the old one again, the new one is kept current';
COMMENT ON COLUMN copymatch.reembedding.model IS 'the new model';
COMMENT ON COLUMN copymatch.reembedding.calibration IS 'the new calibration';
COMMENT ON COLUMN copymatch.reembedding.descriptor_column IS 'the new descriptor column';
COMMENT ON COLUMN copymatch.reembedding.old_model IS 'the model before';
COMMENT ON COLUMN copymatch.reembedding.old_calibration IS 'the calibration before';
COMMENT ON COLUMN copymatch.reembedding.old_descriptor_column IS 'the descriptor column before';
COMMENT ON COLUMN copymatch.reembedding.total IS 'images when it began; NULL before they are counted';
COMMENT ON COLUMN copymatch.reembedding.done IS 'images embedded, in committed batches';
COMMENT ON COLUMN copymatch.reembedding.pass IS
    'number of the walk through the table; a pass that finds nothing left is the last';
COMMENT ON COLUMN copymatch.reembedding.done_in_pass IS 'images embedded in this pass';
COMMENT ON COLUMN copymatch.reembedding.part IS 'table or partition that the pass has reached';
COMMENT ON COLUMN copymatch.reembedding.position IS 'row that the pass has reached';
COMMENT ON COLUMN copymatch.reembedding.started IS 'when it began';
COMMENT ON COLUMN copymatch.reembedding.started_by IS 'who began it';
COMMENT ON COLUMN copymatch.reembedding.resumed IS 'when the latest CALL that fills began';
COMMENT ON COLUMN copymatch.reembedding.done_before IS 'images embedded before that CALL';
COMMENT ON COLUMN copymatch.reembedding.updated IS 'when the latest batch was committed';
COMMENT ON COLUMN copymatch.reembedding.pid IS 'backend that made the latest batch';
GRANT SELECT ON copymatch.reembedding TO PUBLIC;

CREATE TABLE copymatch.filling (
    reference_set text PRIMARY KEY REFERENCES copymatch.reference_set ON UPDATE CASCADE ON DELETE CASCADE,
    model         text NOT NULL,
    total         bigint NOT NULL,
    done          bigint NOT NULL,
    skipped       bigint NOT NULL,
    started       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated       timestamptz NOT NULL DEFAULT clock_timestamp(),
    pid           integer NOT NULL
);
COMMENT ON TABLE copymatch.filling IS 'sets that copy_fill_set is filling: one row until it is done';
COMMENT ON COLUMN copymatch.filling.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.filling.model IS 'its model';
COMMENT ON COLUMN copymatch.filling.total IS 'images without a descriptor when the latest CALL began';
COMMENT ON COLUMN copymatch.filling.done IS 'images that it has embedded, in committed batches';
COMMENT ON COLUMN copymatch.filling.skipped IS 'images that it could not embed';
COMMENT ON COLUMN copymatch.filling.started IS 'when that CALL began';
COMMENT ON COLUMN copymatch.filling.updated IS 'when the latest batch was committed';
COMMENT ON COLUMN copymatch.filling.pid IS 'backend that made the latest batch';
GRANT SELECT ON copymatch.filling TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('copymatch.reference_status', '');
SELECT pg_catalog.pg_extension_config_dump('copymatch.reference_group', '');
SELECT pg_catalog.pg_extension_config_dump('copymatch.reembedding', '');

-- Names: one namespace for sets and groups, and what refers to a set does so by its number.
CREATE FUNCTION copymatch.keep_name() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    grouped boolean := TG_TABLE_NAME = 'reference_group';
    other text;
BEGIN
    IF TG_OP IN ('DELETE', 'UPDATE') THEN
        DELETE FROM copymatch.set_name s WHERE s.name = OLD.name;
        IF TG_OP = 'DELETE' THEN
            RETURN NULL;
        END IF;
    END IF;
    -- A dump of a version that let a group have a set's name: the group makes way.
    IF NOT grouped AND NEW.created <> now()
            AND EXISTS (SELECT FROM copymatch.set_name s WHERE s.name = NEW.name AND s.is_group) THEN
        other := NEW.name || ' (group)';
        UPDATE copymatch.reference_group g SET name = other WHERE g.name = NEW.name;
        RAISE WARNING 'group "%" has the name of a reference set; it is renamed to "%"', NEW.name, other;
    END IF;
    INSERT INTO copymatch.set_name (name, is_group) VALUES (NEW.name, grouped) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        PERFORM copymatch.refuse('42710', pg_catalog.format('reference set or group "%s" exists already', NEW.name),
            'Choose another name, or drop it with copy_drop_set or copy_drop_group.');
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION copymatch.keep_name() IS 'trigger: keeps copymatch.set_name';
REVOKE ALL ON FUNCTION copymatch.keep_name() FROM PUBLIC;
CREATE TRIGGER name AFTER INSERT OR UPDATE OF name OR DELETE ON copymatch.reference_set
    FOR EACH ROW EXECUTE FUNCTION copymatch.keep_name();
CREATE TRIGGER name AFTER INSERT OR UPDATE OF name OR DELETE ON copymatch.reference_group
    FOR EACH ROW EXECUTE FUNCTION copymatch.keep_name();
COMMENT ON TRIGGER name ON copymatch.reference_set IS 'sets and groups share one namespace';
COMMENT ON TRIGGER name ON copymatch.reference_group IS 'sets and groups share one namespace';

CREATE FUNCTION copymatch.bind_names() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Rows of an older version's dump name sets; a set that was made after them is another one, and 0 is none.
    UPDATE copymatch.reference_group g
        SET member_ids =
            (SELECT array_agg(coalesce((SELECT s.id FROM copymatch.reference_set s WHERE s.name = m.member
                AND s.created <= g.created), 0)
                                           ORDER BY m.place)
                          FROM unnest(g.members) WITH ORDINALITY AS m(member, place)),
            owner = coalesce(g.owner, to_regrole(quote_ident(g.created_by)))
        WHERE g.member_ids IS NULL AND EXISTS (SELECT FROM copymatch.reference_set);
    UPDATE copymatch.reference_set p
        SET negative_ids = ARRAY(SELECT s.id FROM copymatch.reference_set s WHERE s.name = ANY (p.negatives))
        WHERE p.negatives IS NOT NULL AND p.negative_ids IS NULL;
    IF to_regclass('copymatch.finding') IS NOT NULL THEN
        UPDATE copymatch.finding f SET set_id = s.id FROM copymatch.reference_set s
            WHERE f.set_id IS NULL AND s.name = f.reference_set AND s.created < now();
        UPDATE copymatch.dismissal d SET set_id = s.id FROM copymatch.reference_set s
            WHERE d.set_id IS NULL AND s.name = d.reference_set AND s.created < now();
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION copymatch.bind_names() IS
    'trigger: groups, negatives, findings and dismissals of an older version''s dump refer to '
    'sets by number from now on';
REVOKE ALL ON FUNCTION copymatch.bind_names() FROM PUBLIC;
CREATE TRIGGER names AFTER INSERT ON copymatch.reference_set FOR EACH STATEMENT EXECUTE FUNCTION copymatch.bind_names();
CREATE TRIGGER names AFTER INSERT ON copymatch.reference_group FOR EACH STATEMENT
    EXECUTE FUNCTION copymatch.bind_names();
COMMENT ON TRIGGER names ON copymatch.reference_set IS 'whoever takes over a dropped set''s name inherits nothing';
COMMENT ON TRIGGER names ON copymatch.reference_group IS 'whoever takes over a dropped set''s name inherits nothing';
-- None in a new installation; an update brings its sets and groups.
INSERT INTO copymatch.set_name (name, is_group)
    SELECT s.name, false FROM copymatch.reference_set s UNION ALL SELECT g.name, true FROM copymatch.reference_group g;
