-- What every view has: a comment on each column, and the rights of who reads it.
COMMENT ON COLUMN copymatch.models.name IS 'name by which sets and copy_embed refer to the model';
COMMENT ON COLUMN copymatch.models.version IS 'the manifest''s version';
COMMENT ON COLUMN copymatch.models.dimensions IS 'number of elements of its descriptors';
COMMENT ON COLUMN copymatch.models.built_in IS 'part of the extension''s library';
COMMENT ON COLUMN copymatch.models.sha256 IS 'SHA-256 of the weights in hexadecimal';
COMMENT ON COLUMN copymatch.models.weight_bytes IS 'size of the weights; NULL: built in';
COMMENT ON COLUMN copymatch.models.has_background IS
    'whether it has background descriptors, without which copy_match does not work with it';
COMMENT ON COLUMN copymatch.models.is_default IS 'whether copy_embed takes it where none is named';
COMMENT ON COLUMN copymatch.models.reference_sets IS 'number of sets that use it';
COMMENT ON COLUMN copymatch.models.manifest IS 'input sizes, normalisation, resize filter, output, parity vectors';
COMMENT ON COLUMN copymatch.models.created IS 'when it was added';
COMMENT ON COLUMN copymatch.models.created_by IS 'who added it';

COMMENT ON COLUMN copymatch.reference_sets.name IS 'name that copy_match takes';
COMMENT ON COLUMN copymatch.reference_sets.relation IS
    'table, partitioned table, view or foreign table with the references';
COMMENT ON COLUMN copymatch.reference_sets.key_column IS
    'column that identifies a reference; the first one of a composite key';
COMMENT ON COLUMN copymatch.reference_sets.image_column IS
    'bytea column with the image; NULL where only descriptors are kept';
COMMENT ON COLUMN copymatch.reference_sets.descriptor_column IS 'vector column with the descriptor';
COMMENT ON COLUMN copymatch.reference_sets.model IS 'model that made the descriptors';
COMMENT ON COLUMN copymatch.reference_sets.dimensions IS 'number of elements of the descriptors';
COMMENT ON COLUMN copymatch.reference_sets.calibration IS 'calibration for scores and verdicts';
COMMENT ON COLUMN copymatch.reference_sets.on_bad_image IS 'what the trigger does with an image that cannot be matched';
COMMENT ON COLUMN copymatch.reference_sets.is_default IS 'whether copy_match takes it where none is named';
COMMENT ON COLUMN copymatch.reference_sets.intact IS 'whether the relation still has all columns that the set names';
COMMENT ON COLUMN copymatch.reference_sets.created IS 'when it was made';
COMMENT ON COLUMN copymatch.reference_sets.created_by IS 'who made it';
COMMENT ON COLUMN copymatch.reference_sets.further_key_columns IS 'the other columns of a composite key';
COMMENT ON COLUMN copymatch.reference_sets.filter IS
    'SQL condition: which rows of the relation belong to the set; NULL: all';
COMMENT ON COLUMN copymatch.reference_sets.k IS
    'references that a search returns where the call names no number; NULL: 10';
COMMENT ON COLUMN copymatch.reference_sets.copy_probability IS
    'probability from which the verdict is copy; NULL: the calibration''s';
COMMENT ON COLUMN copymatch.reference_sets.review_probability IS
    'probability from which the verdict is review; NULL: the calibration''s';
COMMENT ON COLUMN copymatch.reference_sets.negative IS
    'whether a copy of one of its references explains a match in another set';
COMMENT ON COLUMN copymatch.reference_sets.negatives IS
    'negative sets that apply to this one; NULL: those whose relation has the same owner';
COMMENT ON COLUMN copymatch.reference_sets.id IS 'number of the set, which stays when it is renamed';
COMMENT ON COLUMN copymatch.reference_sets.trusted IS
    'whether a superuser declared it trusted, for its relation and owner as they are now';
COMMENT ON COLUMN copymatch.reference_sets.sketch_column IS
    'bytea column with the references'' sketches, which verification compares; NULL: there is none';
COMMENT ON COLUMN copymatch.reference_sets.verify IS
    'what a search does that does not say: auto, all or off, see copy_match';

COMMENT ON COLUMN copymatch.progress.job IS 'what is under way';
COMMENT ON COLUMN copymatch.progress.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.progress.state IS
    'how far it has come: see copymatch.reembedding; of copy_fill_set always filling';
COMMENT ON COLUMN copymatch.progress.model IS 'the model that embeds';
COMMENT ON COLUMN copymatch.progress.done IS 'images done: embedded, or skipped';
COMMENT ON COLUMN copymatch.progress.total IS 'images in all; NULL before they are counted';
COMMENT ON COLUMN copymatch.progress.percent IS 'done of total';
COMMENT ON COLUMN copymatch.progress.per_second IS 'images embedded a second since the latest CALL';
COMMENT ON COLUMN copymatch.progress.remaining IS 'time to go at this rate';
COMMENT ON COLUMN copymatch.progress.started IS 'when it began';
COMMENT ON COLUMN copymatch.progress.updated IS 'when the latest batch was committed';
COMMENT ON COLUMN copymatch.progress.pid IS 'backend that works on it; NULL where none does';

COMMENT ON COLUMN copymatch.report_daily.day IS 'day in the session''s time zone';
COMMENT ON COLUMN copymatch.report_daily.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.report_daily.verdict IS 'copy or review';
COMMENT ON COLUMN copymatch.report_daily.state IS 'open, confirmed or dismissed, as it is now';
COMMENT ON COLUMN copymatch.report_daily.findings IS 'findings of that day';

COMMENT ON COLUMN copymatch.report_precision.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.report_precision.verdict IS 'copy or review';
COMMENT ON COLUMN copymatch.report_precision.model IS 'the model that made the descriptors';
COMMENT ON COLUMN copymatch.report_precision.confirmed IS 'findings that were confirmed';
COMMENT ON COLUMN copymatch.report_precision.dismissed IS 'findings that were dismissed';
COMMENT ON COLUMN copymatch.report_precision.open IS 'findings that nobody has decided';
COMMENT ON COLUMN copymatch.report_precision."precision" IS 'confirmed of the decided';
COMMENT ON COLUMN copymatch.report_precision.precision_low IS 'lower end of its 95 % interval';
COMMENT ON COLUMN copymatch.report_precision.precision_high IS 'upper end of its 95 % interval';

COMMENT ON COLUMN copymatch.report_references.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.report_references.reference IS 'the reference''s key as text';
COMMENT ON COLUMN copymatch.report_references.findings IS 'findings of the last 30 days';
COMMENT ON COLUMN copymatch.report_references.open IS 'of these, not decided';
COMMENT ON COLUMN copymatch.report_references.confirmed IS 'of these, confirmed';
COMMENT ON COLUMN copymatch.report_references.dismissed IS 'of these, dismissed';
COMMENT ON COLUMN copymatch.report_references.last_found IS 'when the latest was found';

COMMENT ON COLUMN copymatch.report_uploaders.relation IS 'the table of uploads';
COMMENT ON COLUMN copymatch.report_uploaders.uploader IS 'who uploaded, as the trigger''s column says';
COMMENT ON COLUMN copymatch.report_uploaders.findings IS 'findings of the last 30 days';
COMMENT ON COLUMN copymatch.report_uploaders.open IS 'of these, not decided';
COMMENT ON COLUMN copymatch.report_uploaders.confirmed IS 'of these, confirmed';
COMMENT ON COLUMN copymatch.report_uploaders.dismissed IS 'of these, dismissed';
COMMENT ON COLUMN copymatch.report_uploaders.last_found IS 'when the latest was found';

COMMENT ON COLUMN copymatch.report_reviewers.day IS 'day in the session''s time zone';
COMMENT ON COLUMN copymatch.report_reviewers.reviewer IS 'the role';
COMMENT ON COLUMN copymatch.report_reviewers.confirmed IS 'findings that it confirmed';
COMMENT ON COLUMN copymatch.report_reviewers.dismissed IS 'findings that it dismissed';
COMMENT ON COLUMN copymatch.report_reviewers.reopened IS 'findings that it opened again';

COMMENT ON COLUMN copymatch.report_open.reference_set IS 'the set';
COMMENT ON COLUMN copymatch.report_open.verdict IS 'copy or review';
COMMENT ON COLUMN copymatch.report_open.findings IS 'findings that nobody has decided';
COMMENT ON COLUMN copymatch.report_open.under_an_hour IS 'of these, younger than an hour';
COMMENT ON COLUMN copymatch.report_open.under_a_day IS 'of these, older than that and younger than a day';
COMMENT ON COLUMN copymatch.report_open.under_a_week IS 'of these, older than that and younger than seven days';
COMMENT ON COLUMN copymatch.report_open.older IS 'of these, older still';
COMMENT ON COLUMN copymatch.report_open.oldest IS 'age of the oldest, to a quarter of an hour';

COMMENT ON COLUMN copymatch.report_queue.relation IS 'the table of uploads';
COMMENT ON COLUMN copymatch.report_queue.reference_set IS 'the set that they are compared with';
COMMENT ON COLUMN copymatch.report_queue.waiting IS 'entries that wait, retries among them';
COMMENT ON COLUMN copymatch.report_queue.retrying IS 'of these, those that failed at least once';
COMMENT ON COLUMN copymatch.report_queue.failed IS 'entries that were given up';
COMMENT ON COLUMN copymatch.report_queue.lag IS 'age of the oldest entry that waits';
COMMENT ON COLUMN copymatch.report_queue.an_error IS 'one of the latest errors';

COMMENT ON COLUMN copymatch.report_models.model IS 'the model';
COMMENT ON COLUMN copymatch.report_models.version IS 'its version; NULL where it was dropped';
COMMENT ON COLUMN copymatch.report_models.reference_sets IS 'sets that use it';
COMMENT ON COLUMN copymatch.report_models.findings IS 'findings that were made with it';
COMMENT ON COLUMN copymatch.report_models.first_found IS 'when the first was found, to a quarter of an hour';
COMMENT ON COLUMN copymatch.report_models.last_found IS 'when the last was found, to a quarter of an hour';

-- PostgreSQL 15 and later.
DO $$
DECLARE
    seen record;
BEGIN
    IF pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 150000 THEN
        FOR seen IN SELECT c.relname FROM pg_catalog.pg_class c
                    WHERE c.relkind OPERATOR(pg_catalog.=) 'v'
                    AND c.relnamespace OPERATOR(pg_catalog.=) 'copymatch'::pg_catalog.regnamespace LOOP
            EXECUTE pg_catalog.format('ALTER VIEW copymatch.%I SET (security_invoker = true)', seen.relname);
        END LOOP;
    END IF;
END $$;
