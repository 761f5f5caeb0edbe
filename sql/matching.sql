-- Matching: nearest references by plain SQL under the caller's rights, descriptor stretching, probability, verdict.
CREATE FUNCTION @extschema@.copy_match(
    image bytea, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT NULL, skip integer DEFAULT 0,
    views text DEFAULT 'one', verify text DEFAULT NULL, min_verdict text DEFAULT NULL, partial boolean DEFAULT false)
    RETURNS TABLE (reference_set text, reference text, rank integer, similarity double precision,
        background double precision, score double precision, probability double precision, verdict text,
        explanation text, verified boolean, inliers integer, agreement double precision, region jsonb)
    AS 'MODULE_PATHNAME', 'copy_match_image_wrapper' LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 10;
COMMENT ON FUNCTION @extschema@.copy_match(bytea, text, integer, integer, text, text, text, boolean) IS
    'the k references nearest to an image, best first: cosine similarity, mean similarity to the background, score '
    '(comparable across images), probability of being a copy, verdict (copy, review, different), and why a match is '
    'not raised (explanation). reference_set: a set, a group of sets, or NULL: all sets whose relation the caller may '
    'read and whose owner he trusts (a superuser, a role of his, or declared trusted). k NULL: the set''s own number, '
    'or 10. skip: leaves out that many, best first, for the next page. views all: the eight orientations and the '
    'image without its border too, the best of them for each reference. verify: auto (the picture is compared with '
    'the sketches of the nearest references, copymatch.verify_nearest of them, fewer once one is plainly shown, where '
    'the set has sketches and the caller may read them), all (with every one of those), off (descriptor and '
    'stretching alone), NULL: the set''s own. verified: whether that comparison by itself shows the reference, NULL '
    'where it was not made; inliers: local features under one motion; agreement: share of the compared content that '
    'is the same; region: the boxes that show the same, [left, top, width, height] in parts of image and reference. '
    'min_verdict: copy or review leaves out what is less. partial: where a shard of a set over other servers does not '
    'answer, the others'' references, with a WARNING that names its server, instead of an ERROR. NULL image: no rows';

CREATE FUNCTION copymatch.match_described(
    descriptor @extschema@.vector, image bytea, reference_set text, k integer, verify text, min_verdict text,
    model text DEFAULT NULL, without text[] DEFAULT NULL, partial boolean DEFAULT false)
    RETURNS TABLE (reference_set text, reference text, rank integer, similarity double precision,
        background double precision, score double precision, probability double precision, verdict text,
        explanation text, verified boolean, inliers integer, agreement double precision, region jsonb)
    AS 'MODULE_PATHNAME', 'match_described_wrapper' LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 10;
COMMENT ON FUNCTION copymatch.match_described(
    @extschema@.vector, bytea, text, integer, text, text, text, text[], boolean) IS
    'copy_match for an image whose descriptor is there already, made by model; without the image, for the descriptor '
    'alone. without: keys of references that are searched as if they were not there';

CREATE FUNCTION @extschema@.copy_match_descriptor(
    descriptor @extschema@.vector, reference_set text DEFAULT copymatch.default_set(), k integer DEFAULT NULL,
    model text DEFAULT NULL, skip integer DEFAULT 0, partial boolean DEFAULT false)
    RETURNS TABLE (reference_set text, reference text, rank integer, similarity double precision,
        background double precision, score double precision, probability double precision, verdict text,
        explanation text)
    AS 'MODULE_PATHNAME', 'copy_match_descriptor_wrapper' LANGUAGE c STABLE PARALLEL RESTRICTED COST 10000 ROWS 10;
COMMENT ON FUNCTION @extschema@.copy_match_descriptor(@extschema@.vector, text, integer, text, integer, boolean) IS
    'copy_match for a stored descriptor; model: the one that made it, checked against the set''s; '
    'partial: as in copy_match';

CREATE FUNCTION @extschema@.copy_stretch(
    similarity double precision, background double precision, reference_set text DEFAULT copymatch.default_set(),
    OUT score double precision, OUT probability double precision, OUT verdict text)
    AS 'MODULE_PATHNAME', 'copy_stretch_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.copy_stretch(double precision, double precision, text) IS
    'score, probability and verdict of a similarity found by other means, under a set''s calibration';

CREATE FUNCTION @extschema@.copy_background(descriptor @extschema@.vector, model text DEFAULT NULL)
    RETURNS double precision AS 'MODULE_PATHNAME', 'copy_background_wrapper' LANGUAGE c STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION @extschema@.copy_background(@extschema@.vector, text) IS
    'mean inner product of a descriptor with its nearest background descriptors (m of descriptor stretching): high '
    'means that many unrelated pictures look like it';

CREATE FUNCTION copymatch.compare_sketches(image bytea, model text, sketches bytea[])
    RETURNS TABLE (place integer, inliers integer, compared integer, agreement double precision,
        uncovered double precision, ground double precision, features integer)
    AS 'MODULE_PATHNAME', 'compare_sketches_wrapper' LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 1000000 ROWS 50;
COMMENT ON FUNCTION copymatch.compare_sketches(bytea, text, bytea[]) IS
    'what verification finds of an image (decoded as for the model) and some sketches, in numbers, a row for each '
    'sketch of this version''s format: its place in the array, from 1, inliers, cells compared, share of these that '
    'agree, share of those that agree apart from the largest block of others (at most a quarter: what something laid '
    'over the picture may hide), and ground, the share of the reference that is of one tone (high for drawn '
    'pictures), and how many features the sketch has. Weights of verification are fitted to '
    'these. Reads its arguments only';
