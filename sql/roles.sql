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
