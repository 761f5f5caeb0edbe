-- Roles for people: reader, reviewer, admin, each a member of the one before. They belong to the cluster, not to the
-- database: they are made where they are missing, other databases share them, and DROP EXTENSION leaves them.
DO $$
DECLARE
    wanted record;
    role record;
    told name[] := '{}';
    members name[];
BEGIN
    FOR wanted IN SELECT * FROM (VALUES
        ('copymatch_reader', 'may read findings, their history, the queue and the reports of copymatch'),
        ('copymatch_reviewer', 'may confirm, dismiss and reopen findings of copymatch'),
        ('copymatch_admin', 'may set up flagging triggers, work off and mend the queue of copymatch')) AS v(name,
        purpose) LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = wanted.name) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted.name);
                EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted.name, wanted.purpose);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database's CREATE EXTENSION was quicker
            END;
        END IF;
    END LOOP;
    -- A role of this name that was there before has what is granted to it below: whoever may act as it is named. A
    -- member of several is named with the one that may most.
    FOR role IN SELECT r.oid, r.rolname, r.rolcanlogin, r.rolsuper OR r.rolcreaterole OR r.rolcreatedb
            OR r.rolreplication OR r.rolbypassrls AS more
                FROM pg_catalog.unnest('{copymatch_admin,copymatch_reviewer,copymatch_reader}'::name[])
                    WITH ORDINALITY AS u(name, place)
                JOIN pg_catalog.pg_roles r ON r.rolname = u.name ORDER BY u.place LOOP
        SELECT pg_catalog.array_agg(m.rolname ORDER BY m.rolname) INTO members FROM pg_catalog.pg_roles m
            WHERE NOT m.rolsuper AND m.oid <> role.oid AND pg_catalog.pg_has_role(m.oid, role.oid, 'MEMBER')
              AND m.rolname NOT IN ('copymatch_admin', 'copymatch_reviewer') AND m.rolname <> ALL (told);
        IF members IS NOT NULL THEN
            told := told || members;
            RAISE WARNING 'role "%" existed before, and has members: %', role.rolname,
                (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(u.name), ', ')
                    FROM pg_catalog.unnest(members) AS u(name))
                USING DETAIL = 'They now have what copymatch grants to this role in this database.',
                      HINT = pg_catalog.format('Where this is not wanted: REVOKE %I FROM …', role.rolname);
        END IF;
        IF role.rolcanlogin OR role.more THEN
            RAISE WARNING 'role "%" existed before, and may %', role.rolname,
                CASE WHEN NOT role.more THEN 'log in' WHEN role.rolcanlogin THEN 'log in, and more'
                    ELSE 'more than a role for grants needs' END
                USING DETAIL = 'It now has what copymatch grants to it in this database.',
                      HINT = pg_catalog.format('Where this is not wanted: ALTER ROLE %I NOLOGIN NOSUPERUSER '
                                               'NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS', role.rolname);
        END IF;
    END LOOP;
    IF NOT pg_catalog.pg_has_role('copymatch_reviewer', 'copymatch_reader', 'MEMBER') THEN
        GRANT copymatch_reader TO copymatch_reviewer;
    END IF;
    IF NOT pg_catalog.pg_has_role('copymatch_admin', 'copymatch_reviewer', 'MEMBER') THEN
        GRANT copymatch_reviewer TO copymatch_admin;
    END IF;
END $$;
