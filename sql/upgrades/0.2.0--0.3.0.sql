-- From 0.2.0 to 0.3.0. Here stands what scripts/upgrade_sql.py cannot derive: changes of tables, functions and views
-- whose parameters, result or columns changed (dropped here, made anew behind), and data that moves. One section for
-- each change. Each name has its schema, and what has none is PostgreSQL's own, so that no object of somebody else in
-- the extension's schema is met.
SET LOCAL search_path = pg_catalog, pg_temp;

-- Where somebody had operators or functions in the extension's schema that fitted better than PostgreSQL's, earlier
-- versions bound checks, policies, defaults, indexes and views to them: these go back to PostgreSQL's own.
DO $$
DECLARE
    bound record;
    told record;
    definition text;
BEGIN
    CREATE TEMPORARY TABLE copymatch_bound ON COMMIT DROP AS
        WITH members AS (
            SELECT d.classid, d.objid FROM pg_depend d
            WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
            AND d.refobjid = (SELECT e.oid FROM pg_extension e WHERE e.extname = 'copymatch')),
        tables AS (SELECT m.objid AS oid FROM members m WHERE m.classid = 'pg_class'::regclass),
        parts AS (
            SELECT m.classid, m.objid FROM members m
            UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k JOIN tables t ON t.oid = k.conrelid
            UNION ALL SELECT 'pg_policy'::regclass, p.oid FROM pg_policy p JOIN tables t ON t.oid = p.polrelid
            UNION ALL SELECT 'pg_attrdef'::regclass, a.oid FROM pg_attrdef a JOIN tables t ON t.oid = a.adrelid
            UNION ALL SELECT 'pg_rewrite'::regclass, r.oid FROM pg_rewrite r JOIN tables t ON t.oid = r.ev_class
            UNION ALL SELECT 'pg_trigger'::regclass, g.oid FROM pg_trigger g JOIN tables t ON t.oid = g.tgrelid
            UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index i JOIN tables t ON t.oid = i.indrelid)
        SELECT DISTINCT p.classid, p.objid, x.written, x.meant
        FROM parts p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid,
             LATERAL (SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS written,
                      format('OPERATOR(pg_catalog.%s)', o.oprname) AS meant
                      FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
                      WHERE d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
                      UNION ALL
                      SELECT format('%I.%I(', n.nspname, f.proname), format('pg_catalog.%I(', f.proname)
                      FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
                      WHERE d.refclassid = 'pg_proc'::regclass AND f.oid = d.refobjid) x
        WHERE d.refobjid >= 16384 AND (d.refclassid, d.refobjid) NOT IN (SELECT m.classid, m.objid FROM members m);
    FOR bound IN SELECT DISTINCT b.classid, b.objid FROM copymatch_bound b LOOP
        SELECT k.conrelid::regclass AS tab, k.conname AS name, pg_get_constraintdef(k.oid) AS one, NULL AS two INTO told
            FROM pg_constraint k
            WHERE bound.classid = 'pg_constraint'::regclass AND k.oid = bound.objid
        UNION ALL SELECT p.polrelid::regclass, p.polname, pg_get_expr(p.polqual, p.polrelid),
            pg_get_expr(p.polwithcheck, p.polrelid) FROM pg_policy p
            WHERE bound.classid = 'pg_policy'::regclass AND p.oid = bound.objid
        UNION ALL SELECT a.adrelid::regclass, c.attname, pg_get_expr(a.adbin, a.adrelid), NULL
            FROM pg_attrdef a JOIN pg_attribute c ON c.attrelid = a.adrelid AND c.attnum = a.adnum
            WHERE bound.classid = 'pg_attrdef'::regclass AND a.oid = bound.objid
        UNION ALL SELECT r.ev_class::regclass, r.rulename, pg_get_viewdef(r.ev_class),
            array_to_string(c.reloptions, ', ')
            FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class AND c.relkind = 'v'
            WHERE bound.classid = 'pg_rewrite'::regclass AND r.oid = bound.objid
        UNION ALL SELECT i.indexrelid::regclass, NULL, pg_get_indexdef(i.indexrelid), NULL FROM pg_index i
            WHERE bound.classid = 'pg_class'::regclass AND i.indexrelid = bound.objid
        UNION ALL SELECT NULL, f.proname, pg_get_functiondef(f.oid), NULL FROM pg_proc f
            WHERE bound.classid = 'pg_proc'::regclass AND f.oid = bound.objid AND f.prokind IN ('f', 'p');
        CONTINUE WHEN NOT FOUND;
        told.one := coalesce(told.one, ''); told.two := coalesce(told.two, '');
        FOR definition IN SELECT b.written FROM copymatch_bound b WHERE b.classid = bound.classid
                AND b.objid = bound.objid LOOP
            SELECT replace(told.one, b.written, b.meant), replace(told.two, b.written, b.meant) INTO told.one, told.two
                FROM copymatch_bound b WHERE b.classid = bound.classid AND b.objid = bound.objid
                AND b.written = definition;
        END LOOP;
        CASE bound.classid::regclass::text
            WHEN 'pg_constraint' THEN
                EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', told.tab, told.name,
                    told.name, told.one);
            WHEN 'pg_policy' THEN
                EXECUTE format('ALTER POLICY %I ON %s', told.name, told.tab) || CASE WHEN told.one <> ''
                    THEN format(' USING (%s)', told.one) ELSE '' END
                    || CASE WHEN told.two <> '' THEN format(' WITH CHECK (%s)', told.two) ELSE '' END;
            WHEN 'pg_attrdef' THEN EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', told.tab, told.name,
                told.one);
            WHEN 'pg_rewrite' THEN
                EXECUTE format('CREATE OR REPLACE VIEW %s %s AS %s', told.tab, CASE WHEN told.two <> ''
                    THEN format('WITH (%s)', told.two) ELSE '' END, told.one);
            WHEN 'pg_class' THEN EXECUTE format('DROP INDEX %s', told.tab); EXECUTE told.one;
            ELSE EXECUTE told.one;
        END CASE;
        RAISE WARNING '% was bound to objects of somebody else, and is no more',
            pg_describe_object(bound.classid, bound.objid, 0);
    END LOOP;
    DROP TABLE copymatch_bound;
END $$;

-- Calibrations are written by functions only, which set who made them and what they were measured on.
DROP POLICY set_owner ON copymatch.calibration;
REVOKE ALL ON copymatch.calibration FROM PUBLIC;
-- What was inserted by hand before may say of itself what nobody measured. It stays, since findings name
-- it; whose it is, is told.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT c.id, c.reference_set, c.created_by, s.calibration OPERATOR(pg_catalog.=) c.id AS used
                 FROM copymatch.calibration c
                 JOIN copymatch.reference_set s ON s.name OPERATOR(pg_catalog.=) c.reference_set
                      LEFT JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) s.relation::pg_catalog.oid
                      LEFT JOIN pg_catalog.pg_roles m ON m.rolname OPERATOR(pg_catalog.=) c.created_by
                 WHERE NOT coalesce(m.rolsuper OR pg_catalog.pg_has_role(m.oid, r.relowner, 'USAGE'), false)
                 ORDER BY c.id LOOP
        RAISE WARNING 'calibration % of reference set "%" was made by role "%", which does not own the set', found.id,
            found.reference_set, found.created_by
            USING DETAIL = CASE WHEN found.used THEN 'The set uses it.' ELSE 'The set does not use it.' END,
                  HINT = pg_catalog.format('Where this is not wanted: '
                                           'SELECT copy_calibrate(%L), or copy_use_calibration with another.',
                                           found.reference_set);
    END LOOP;
END $$;

-- Flagging: entries name their trigger, nobody writes the queue by hand, and the loop is the library's. Entries that
-- wait find their trigger by its arguments.
ALTER TABLE copymatch.queue ADD COLUMN trigger_relation regclass, ADD COLUMN trigger_name name;
REVOKE INSERT, DELETE ON copymatch.queue FROM copymatch_admin;
DROP PROCEDURE @extschema@.copy_process_queue(integer, integer);
DROP FUNCTION copymatch.process_claimed(bigint[]);
DROP FUNCTION copymatch.flag_uploads(copymatch.queue[], bytea[], text[]);
DROP FUNCTION copymatch.queue_failed(bigint[], text, boolean);
DROP FUNCTION copymatch.claim_batch(integer);
DROP FUNCTION copymatch.queue_delay(integer);
DROP FUNCTION copymatch.queue_settings();
DROP FUNCTION copymatch.upload_statement(regclass, text, text[], text);
DROP FUNCTION copymatch.embed_uploads(bytea[], text);
DROP FUNCTION copymatch.read_upload(oid, text, text[]);
DROP FUNCTION copymatch.record_text(text[]);
DROP FUNCTION @extschema@.copy_flag_existing(regclass, name, text);
-- The library makes the edited copies of a calibration.
DROP FUNCTION copymatch.edited_pairs(text, integer, integer, double precision, bigint);
-- Backgrounds are those that a calibration was measured with.
DROP FUNCTION copymatch.background_of(@extschema@.vector, text, integer);
DROP FUNCTION copymatch.background_sample(text, integer, integer, bigint);
-- The evidence is verification's, and one column more.
DROP FUNCTION @extschema@.copy_explain_matches(bytea, bytea);
DROP FUNCTION copymatch.record_findings(regclass, text, text, text, text[], double precision[], double precision[],
    double precision[], double precision[], text[]);
DROP FUNCTION copymatch.thumbnail_of(regclass, name, name[], text, integer);
-- A trigger does not tell who made it. Those that its table's owner could not have made stay, and are named.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT t.tgname, c.oid::pg_catalog.regclass AS relation, c.relowner::pg_catalog.regrole AS owner
                 FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
                 WHERE t.tgfoid OPERATOR(pg_catalog.=)
                     '@extschema@.copy_flag()'::pg_catalog.regprocedure::pg_catalog.oid
                   AND t.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                   AND NOT pg_catalog.has_function_privilege(c.relowner, t.tgfoid, 'EXECUTE') LOOP
        RAISE NOTICE 'flagging trigger "%" on table % was not made by its owner, role %', found.tgname, found.relation,
            found.owner
            USING HINT = 'It stays. If you do not know it, drop it: it reads references with that role''s rights.';
    END LOOP;
END $$;

-- References are searched as the owner of the uploads, and from now on only where that role has reason to trust theirs.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT f.name, f.relation, u.relowner::pg_catalog.regrole AS uploads_owner, s.name AS set_name,
            r.relowner::pg_catalog.regrole AS references_owner
                 FROM copymatch.flag_triggers() f
                 JOIN pg_catalog.pg_class u ON u.oid OPERATOR(pg_catalog.=) f.relation::pg_catalog.oid
                      JOIN copymatch.reference_set s ON s.name OPERATOR(pg_catalog.=) f.arguments[3]
                      JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) s.relation::pg_catalog.oid
                      JOIN pg_catalog.pg_roles uo ON uo.oid OPERATOR(pg_catalog.=) u.relowner
                      JOIN pg_catalog.pg_roles ro ON ro.oid OPERATOR(pg_catalog.=) r.relowner
                 WHERE f.enabled AND NOT ro.rolsuper
                 AND (uo.rolsuper OR NOT pg_catalog.pg_has_role(u.relowner, r.relowner, 'USAGE')) LOOP
        RAISE WARNING 'flagging trigger "%" on table % searches reference set "%" of role %, which role %, the owner '
                      'of the uploads, has no reason to trust: uploads will fail',
                found.name, found.relation, found.set_name, found.references_owner, found.uploads_owner
            USING HINT = pg_catalog.format('If that role is trusted: '
                                           'SELECT copy_alter_set(%L, trusted => true) once the update is done.',
                                           found.set_name);
    END LOOP;
END $$;

-- Sets have numbers, which groups and negatives refer to; sets and groups share one namespace (copymatch.set_name).
ALTER TABLE copymatch.reference_set
    ADD COLUMN id bigint GENERATED BY DEFAULT AS IDENTITY CONSTRAINT reference_set_id_key UNIQUE,
    ADD COLUMN negative_ids bigint[],
    ADD COLUMN filter_beyond boolean NOT NULL DEFAULT false,
    ADD COLUMN trusted_relation pg_catalog.regclass,
    ADD COLUMN trusted_owner pg_catalog.regrole;
ALTER TABLE copymatch.reference_group
    ADD COLUMN member_ids bigint[],
    ADD COLUMN owner pg_catalog.regrole;
DROP FUNCTION copymatch.check_filter(oid, text);
DROP TRIGGER filter ON copymatch.reference_set;
CREATE TRIGGER filter BEFORE UPDATE OF filter ON copymatch.reference_set FOR EACH ROW
    WHEN (NEW.filter IS NOT NULL AND (OLD.filter IS NULL OR NEW.filter OPERATOR(pg_catalog.<>) OLD.filter))
    EXECUTE FUNCTION copymatch.keep_filter();
DO $upgrade$
DECLARE
    clash record;
    other text;
    path CONSTANT text := pg_catalog.current_setting('search_path');
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    FOR clash IN SELECT g.name FROM copymatch.reference_group g JOIN copymatch.reference_set s ON s.name = g.name
            ORDER BY g.name LOOP
        other := clash.name || ' (group)';
        WHILE EXISTS (SELECT FROM copymatch.reference_group g WHERE g.name = other)
                OR EXISTS (SELECT FROM copymatch.reference_set s WHERE s.name = other) LOOP
            other := other || '''';
        END LOOP;
        UPDATE copymatch.reference_group g SET name = other WHERE g.name = clash.name;
        RAISE WARNING 'group "%" has the name of a reference set; it is renamed to "%"', clash.name, other;
    END LOOP;
    UPDATE copymatch.reference_group g
        SET member_ids =
            (SELECT array_agg(coalesce((SELECT s.id FROM copymatch.reference_set s WHERE s.name = m.member), 0)
                ORDER BY m.place)
                          FROM unnest(g.members) WITH ORDINALITY AS m(member, place)),
            owner = to_regrole(quote_ident(g.created_by));
    UPDATE copymatch.reference_set p
        SET negative_ids = ARRAY(SELECT s.id FROM copymatch.reference_set s WHERE s.name = ANY (p.negatives))
        WHERE p.negatives IS NOT NULL;
    -- Filters of others are judged when they run; one of a superuser's relation was a superuser's.
    UPDATE copymatch.reference_set s SET filter_beyond = true
        FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner WHERE c.oid = s.relation AND o.rolsuper
        AND s.filter IS NOT NULL;
    PERFORM set_config('search_path', path, true);
END $upgrade$;

-- Findings and dismissals refer to sets by number: one that is made under a dropped set's name inherits none.
DROP FUNCTION copymatch.is_dismissed(regclass, text, text, text, text);
DROP INDEX copymatch.dismissal_upload, copymatch.dismissal_uploader;
ALTER TABLE copymatch.finding DISABLE TRIGGER guard, DISABLE TRIGGER keep_history;
ALTER TABLE copymatch.finding ADD COLUMN set_id bigint;
ALTER TABLE copymatch.dismissal ADD COLUMN set_id bigint;
UPDATE copymatch.finding f SET set_id = s.id FROM copymatch.reference_set s
    WHERE s.name OPERATOR(pg_catalog.=) f.reference_set;
UPDATE copymatch.dismissal d SET set_id = s.id FROM copymatch.reference_set s
    WHERE s.name OPERATOR(pg_catalog.=) d.reference_set;
ALTER TABLE copymatch.finding DROP CONSTRAINT finding_relation_upload_reference_set_reference_key,
    ADD CONSTRAINT finding_pair UNIQUE (relation, upload, set_id, reference);
ALTER TABLE copymatch.finding ENABLE TRIGGER guard, ENABLE TRIGGER keep_history;
CREATE UNIQUE INDEX dismissal_upload ON copymatch.dismissal (relation, upload, set_id, reference)
    WHERE upload IS NOT NULL;
CREATE UNIQUE INDEX dismissal_uploader ON copymatch.dismissal (relation, uploader, set_id, reference)
    WHERE uploader IS NOT NULL;

-- Sets, groups, references out of use and re-embeddings are written by functions only.
DROP POLICY read_all ON copymatch.reference_set;
DROP POLICY relation_owner ON copymatch.reference_set;
ALTER TABLE copymatch.reference_set DISABLE ROW LEVEL SECURITY;
DROP POLICY read_all ON copymatch.reference_group;
DROP POLICY maker ON copymatch.reference_group;
ALTER TABLE copymatch.reference_group DISABLE ROW LEVEL SECURITY;
DROP POLICY read_all ON copymatch.reembedding;
DROP POLICY relation_owner ON copymatch.reembedding;
ALTER TABLE copymatch.reembedding DISABLE ROW LEVEL SECURITY;
DROP POLICY relation_reader ON copymatch.reference_status;
DROP POLICY relation_owner ON copymatch.reference_status;
REVOKE INSERT, UPDATE, DELETE ON copymatch.reference_set, copymatch.reference_group, copymatch.reembedding,
    copymatch.reference_status FROM PUBLIC;
DROP FUNCTION copymatch.make_trigger(copymatch.reference_set);
DROP FUNCTION copymatch.serve_columns(regclass);
DROP FUNCTION copymatch.try_search(text);
DROP FUNCTION copymatch.fill_statement(text, bigint);
DROP FUNCTION copymatch.has_reference(copymatch.reference_set, text);
DROP FUNCTION copymatch.begin_reembed(text, text, bigint);
DROP FUNCTION copymatch.find_reembedding(text);
DROP FUNCTION copymatch.fill_locked(copymatch.reference_set, name, name, text);
DROP FUNCTION @extschema@.copy_alter_set(text, text, integer, double precision, double precision, boolean, text[], text,
    text[]);

-- copy_image_info has a column more (frame), and no error for images that cannot be read.
DROP FUNCTION @extschema@.copy_image_info(bytea);

-- Verification: sets say where their sketches lie (CALL copy_fill_set makes them), searches what
-- the pictures have in common.
ALTER TABLE copymatch.reference_set
    ADD COLUMN sketch_column name,
    ADD COLUMN verify text NOT NULL DEFAULT 'auto'
        CONSTRAINT reference_set_verify_check CHECK (verify OPERATOR(pg_catalog.=) ANY (ARRAY['auto', 'off', 'all']));
DROP FUNCTION @extschema@.copy_create_set(text, regclass, text, name, name, text, text, boolean, text, integer,
    boolean);
DROP FUNCTION @extschema@.copy_match(bytea, text, integer, integer, text);
DROP FUNCTION @extschema@.copy_match_descriptor(@extschema@.vector, text, integer, text, integer);
DROP FUNCTION @extschema@.copy_match_table(regclass, text, name, text, integer);
DROP FUNCTION copymatch.match_rows(regclass, text, name, text, integer);
DROP FUNCTION @extschema@.copy_evaluate(regclass, text, integer);
DROP FUNCTION @extschema@.copy_evaluate_matches(regclass, text, integer);

-- Views name relations by text.
DROP VIEW copymatch.report_uploaders;
DROP VIEW copymatch.report_queue;
DROP VIEW copymatch.reference_sets;
