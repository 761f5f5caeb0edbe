-- Why two pictures match.
CREATE FUNCTION @extschema@.copy_explain(image bytea, reference_image bytea) RETURNS bytea
    AS 'MODULE_PATHNAME', 'copy_explain_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000000;
COMMENT ON FUNCTION @extschema@.copy_explain(bytea, bytea) IS 'a PNG for a reviewer: image and reference side by side, at most 512 pixels a side each; the regions that agree in full colour within a green line, the rest faded, threads between some of the places that agree; both as they are where nothing does. Found by local keypoints, not by the network, so that it is a second opinion. Mirrored copies too. Reads the given bytes only';

CREATE FUNCTION @extschema@.copy_explain_matches(image bytea, reference_image bytea, OUT agrees boolean, OUT matched integer, OUT inliers integer,
                                     OUT mirrored boolean, OUT transform double precision[], OUT regions jsonb)
    AS 'MODULE_PATHNAME', 'copy_explain_matches_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10000000;
COMMENT ON FUNCTION @extschema@.copy_explain_matches(bytea, bytea) IS 'copy_explain for programs: whether any region agrees; keypoints that are each other''s best match, and those that one transform explains; whether the copy is mirrored; transform {a,b,c,d,e,f} from the reference''s pixels to the image''s (x'' = ax + by + c, y'' = dx + ey + f; NULL where nothing agrees); regions, the largest first, as [left, top, width, height] in pixels of image and reference';
