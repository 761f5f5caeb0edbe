-- From 0.2.0 to 0.3.0. Here stands what scripts/upgrade_sql.py cannot derive: changes of tables, functions and views whose parameters,
-- result or columns changed (dropped here, made anew behind), and data that moves. One section for each change.

-- Where somebody had operators or functions in the extension's schema that fitted better than PostgreSQL's, earlier versions bound
-- checks, policies, defaults, indexes and views to them: these go back to PostgreSQL's own.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    bound record;
    told record;
    definition text;
BEGIN
    CREATE TEMPORARY TABLE copymatch_bound ON COMMIT DROP AS
        WITH members AS (
            SELECT d.classid, d.objid FROM pg_depend d
            WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT e.oid FROM pg_extension e WHERE e.extname = 'copymatch')),
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
             LATERAL (SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS written, format('OPERATOR(pg_catalog.%s)', o.oprname) AS meant
                      FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
                      UNION ALL
                      SELECT format('%I.%I(', n.nspname, f.proname), format('pg_catalog.%I(', f.proname)
                      FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace WHERE d.refclassid = 'pg_proc'::regclass AND f.oid = d.refobjid) x
        WHERE d.refobjid >= 16384 AND (d.refclassid, d.refobjid) NOT IN (SELECT m.classid, m.objid FROM members m);
    FOR bound IN SELECT DISTINCT b.classid, b.objid FROM copymatch_bound b LOOP
        SELECT k.conrelid::regclass AS tab, k.conname AS name, pg_get_constraintdef(k.oid) AS one, NULL AS two INTO told FROM pg_constraint k
            WHERE bound.classid = 'pg_constraint'::regclass AND k.oid = bound.objid
        UNION ALL SELECT p.polrelid::regclass, p.polname, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid) FROM pg_policy p
            WHERE bound.classid = 'pg_policy'::regclass AND p.oid = bound.objid
        UNION ALL SELECT a.adrelid::regclass, c.attname, pg_get_expr(a.adbin, a.adrelid), NULL
            FROM pg_attrdef a JOIN pg_attribute c ON c.attrelid = a.adrelid AND c.attnum = a.adnum
            WHERE bound.classid = 'pg_attrdef'::regclass AND a.oid = bound.objid
        UNION ALL SELECT r.ev_class::regclass, r.rulename, pg_get_viewdef(r.ev_class), array_to_string(c.reloptions, ', ')
            FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class AND c.relkind = 'v'
            WHERE bound.classid = 'pg_rewrite'::regclass AND r.oid = bound.objid
        UNION ALL SELECT i.indexrelid::regclass, NULL, pg_get_indexdef(i.indexrelid), NULL FROM pg_index i
            WHERE bound.classid = 'pg_class'::regclass AND i.indexrelid = bound.objid
        UNION ALL SELECT NULL, f.proname, pg_get_functiondef(f.oid), NULL FROM pg_proc f
            WHERE bound.classid = 'pg_proc'::regclass AND f.oid = bound.objid AND f.prokind IN ('f', 'p');
        CONTINUE WHEN NOT FOUND;
        told.one := coalesce(told.one, ''); told.two := coalesce(told.two, '');
        FOR definition IN SELECT b.written FROM copymatch_bound b WHERE b.classid = bound.classid AND b.objid = bound.objid LOOP
            SELECT replace(told.one, b.written, b.meant), replace(told.two, b.written, b.meant) INTO told.one, told.two
                FROM copymatch_bound b WHERE b.classid = bound.classid AND b.objid = bound.objid AND b.written = definition;
        END LOOP;
        CASE bound.classid::regclass::text
            WHEN 'pg_constraint' THEN
                EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', told.tab, told.name, told.name, told.one);
            WHEN 'pg_policy' THEN
                EXECUTE format('ALTER POLICY %I ON %s', told.name, told.tab) || CASE WHEN told.one <> '' THEN format(' USING (%s)', told.one) ELSE '' END
                    || CASE WHEN told.two <> '' THEN format(' WITH CHECK (%s)', told.two) ELSE '' END;
            WHEN 'pg_attrdef' THEN EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', told.tab, told.name, told.one);
            WHEN 'pg_rewrite' THEN
                EXECUTE format('CREATE OR REPLACE VIEW %s %s AS %s', told.tab, CASE WHEN told.two <> '' THEN format('WITH (%s)', told.two) ELSE '' END, told.one);
            WHEN 'pg_class' THEN EXECUTE format('DROP INDEX %s', told.tab); EXECUTE told.one;
            ELSE EXECUTE told.one;
        END CASE;
        RAISE WARNING '% was bound to objects of somebody else, and is no more', pg_describe_object(bound.classid, bound.objid, 0);
    END LOOP;
    DROP TABLE copymatch_bound;
END $$;
SET LOCAL search_path = @extschema@, pg_temp;

-- Calibrations are written by functions only, which set who made them and what they were measured on.
DROP POLICY set_owner ON copymatch.calibration;
REVOKE ALL ON copymatch.calibration FROM PUBLIC;

-- Flagging: entries name their trigger, nobody writes the queue by hand, and the loop is the library's. Entries that wait find their
-- trigger by its arguments.
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
DROP FUNCTION copymatch.record_findings(regclass, text, text, text, text[], double precision[], double precision[], double precision[], double precision[], text[]);
DROP FUNCTION copymatch.thumbnail_of(regclass, name, name[], text, integer);
-- A trigger does not tell who made it. Those that its table's owner could not have made stay, and are named.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT t.tgname, c.oid::pg_catalog.regclass AS relation, c.relowner::pg_catalog.regrole AS owner
                 FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
                 WHERE t.tgfoid OPERATOR(pg_catalog.=) '@extschema@.copy_flag()'::pg_catalog.regprocedure::pg_catalog.oid
                   AND t.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                   AND NOT pg_catalog.has_function_privilege(c.relowner, t.tgfoid, 'EXECUTE') LOOP
        RAISE NOTICE 'flagging trigger "%" on table % was not made by its owner, role %', found.tgname, found.relation, found.owner
            USING HINT = 'It stays. If you do not know it, drop it: it reads references with that role''s rights.';
    END LOOP;
END $$;

-- Verification: sets say where their sketches lie, and the built-in calibration weighs them. The one before has become an ordinary one;
-- sets stay with it until copy_fill_set makes their sketches.
ALTER TABLE copymatch.reference_set
    ADD COLUMN sketch_column name,
    ADD COLUMN verify text NOT NULL DEFAULT 'auto' CONSTRAINT reference_set_verify_check CHECK (verify OPERATOR(pg_catalog.=) ANY (ARRAY['auto', 'off', 'all']));
DROP FUNCTION @extschema@.copy_create_set(text, regclass, text, name, name, text, text, boolean, text, integer, boolean);
DROP FUNCTION @extschema@.copy_alter_set(text, text, integer, double precision, double precision, boolean, text[], text, text[]);
DROP FUNCTION copymatch.fill_statement(text, bigint);
DROP FUNCTION @extschema@.copy_match(bytea, text, integer, integer, text);
DROP FUNCTION @extschema@.copy_match_table(regclass, text, name, text, integer);
DROP FUNCTION copymatch.match_rows(regclass, text, name, text, integer);
DROP FUNCTION @extschema@.copy_evaluate(regclass, text, integer);
DROP FUNCTION @extschema@.copy_evaluate_matches(regclass, text, integer);
DO $$
DECLARE
    moved bigint;
BEGIN
    INSERT INTO copymatch.calibration (model, background_sha256, neighbours, factor, clamp_low, clamp_high, intercept,
                                       similarity_weight, background_weight, copy_probability, review_probability, evidence, created, created_by)
        SELECT c.model, c.background_sha256, c.neighbours, c.factor, c.clamp_low, c.clamp_high, c.intercept, c.similarity_weight,
               c.background_weight, c.copy_probability, c.review_probability, c.evidence, c.created, c.created_by
        FROM copymatch.calibration c WHERE c.id = 0
        RETURNING id INTO moved;
    UPDATE copymatch.reference_set SET calibration = moved WHERE calibration = 0;
    UPDATE copymatch.reembedding SET calibration = moved WHERE calibration = 0;
    UPDATE copymatch.reembedding SET old_calibration = moved WHERE old_calibration = 0;
END $$;
