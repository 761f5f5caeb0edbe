-- Tables that are dropped: what copymatch knows of them names them by number, which a dump would carry to another
-- server, where the number is some other table's. So it goes with the table; a finding that somebody decided about is
-- kept with the table's name.
CREATE FUNCTION copymatch.forget_relation(relation oid, name text) RETURNS void LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM copymatch.queue q WHERE forget_relation.relation IN (q.relation, q.trigger_relation);
    DELETE FROM copymatch.dismissal d WHERE d.relation = forget_relation.relation;
    DELETE FROM copymatch.refusal r WHERE r.relation = forget_relation.relation;
    WITH gone AS (
        DELETE FROM copymatch.finding f WHERE f.relation = forget_relation.relation RETURNING f.*)
    INSERT INTO copymatch.dropped_finding (finding, relation, was)
        SELECT g.id, forget_relation.name, to_jsonb(g) - 'relation' FROM gone g WHERE g.state <> 'open'
        ON CONFLICT DO NOTHING;
    DELETE FROM copymatch.reference_set s WHERE s.relation = forget_relation.relation;
END $$;
COMMENT ON FUNCTION copymatch.forget_relation(oid, text) IS
    'removes what names a relation that is no more; keeps findings that were decided, with its name';
REVOKE ALL ON FUNCTION copymatch.forget_relation(oid, text) FROM PUBLIC;

-- With the extension's rights: who drops a table need not have any on copymatch's tables. Nobody calls
-- it but the event trigger.
CREATE FUNCTION copymatch.forget_dropped() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM copymatch.forget_relation(d.objid, d.object_identity) FROM pg_event_trigger_dropped_objects() d
        WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0
              AND d.object_type IN ('table', 'foreign table', 'view', 'materialized view');
END $$;
COMMENT ON FUNCTION copymatch.forget_dropped() IS 'event trigger: copymatch forgets tables that are dropped';
REVOKE ALL ON FUNCTION copymatch.forget_dropped() FROM PUBLIC;

CREATE EVENT TRIGGER copymatch_forget_dropped ON sql_drop EXECUTE FUNCTION copymatch.forget_dropped();
COMMENT ON EVENT TRIGGER copymatch_forget_dropped IS 'copymatch forgets tables that are dropped';

-- What was dropped before, and what no event trigger saw (a temporary table at the end of its session).
SELECT copymatch.forget_relation(o.relation, o.relation::text)
    FROM (SELECT f.relation::oid FROM copymatch.finding f UNION SELECT q.relation::oid FROM copymatch.queue q
          UNION SELECT q.trigger_relation::oid FROM copymatch.queue q WHERE q.trigger_relation IS NOT NULL
          UNION SELECT d.relation::oid FROM copymatch.dismissal d UNION SELECT r.relation::oid FROM copymatch.refusal r
          UNION SELECT s.relation::oid FROM copymatch.reference_set s) AS o(relation)
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) o.relation);
SELECT pg_catalog.pg_extension_config_dump('copymatch.finding',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('copymatch.dismissal',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('copymatch.refusal',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('copymatch.queue',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)
    AND (trigger_relation IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = trigger_relation))');
SELECT pg_catalog.pg_extension_config_dump('copymatch.reference_set',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('copymatch.reference_status',
    'WHERE reference_set IN (SELECT s.name FROM copymatch.reference_set s JOIN pg_catalog.pg_class c '
    'ON c.oid = s.relation)');
SELECT pg_catalog.pg_extension_config_dump('copymatch.reembedding',
    'WHERE reference_set IN (SELECT s.name FROM copymatch.reference_set s JOIN pg_catalog.pg_class c '
    'ON c.oid = s.relation)');
