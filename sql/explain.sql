-- Why two pictures match.
CREATE FUNCTION @extschema@.copy_explain(image bytea, reference_image bytea) RETURNS bytea
    AS 'MODULE_PATHNAME', 'copy_explain_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000000;
COMMENT ON FUNCTION @extschema@.copy_explain(bytea, bytea) IS
    'a PNG for a reviewer of what verification finds: image and reference side by side, at most 512 pixels a side '
    'each; the parts whose content agrees in full colour within a line (green where they suffice to say that the '
    'reference is shown, else orange), the rest faded, threads between some of the features that one motion explains, '
    'and below what it comes to; both pictures as they are where nothing agrees. The evidence is the one that '
    'copy_match weighs. Reads the given bytes only';

CREATE FUNCTION @extschema@.copy_explain_matches(
    image bytea, reference_image bytea, OUT agrees boolean, OUT matched integer, OUT inliers integer,
    OUT mirrored boolean, OUT transform double precision[], OUT regions jsonb, OUT agreement double precision)
    AS 'MODULE_PATHNAME', 'copy_explain_matches_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000000;
COMMENT ON FUNCTION @extschema@.copy_explain_matches(bytea, bytea) IS
    'copy_explain for programs: whether enough of the content agrees to say that the reference is shown; features that '
    'are most like one another, and those that one motion explains; whether the copy is mirrored; transform '
    '{a,b,c,d,e,f} from the reference''s pixels to the image''s (x'' = ax + by + c, y'' = dx + ey + f; NULL where it '
    'is not shown); regions that agree, the largest first, as [left, top, width, height] in pixels of image and '
    'reference; agreement: share of the compared content that is the same';
