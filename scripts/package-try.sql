-- What bare-root.sh runs against an installed package: the extension is made, and finds a
-- picture again by an edited copy.
\set ON_ERROR_STOP on
\set VERBOSITY terse
CREATE EXTENSION copymatch;

-- A bitmap of 240 × 180 pixels, another for every seed: waves under a grid.
CREATE FUNCTION picture(seed int) RETURNS bytea LANGUAGE sql AS $$
    SELECT decode('424d76fa0100000000003600000028000000f0000000b400000001001800'
        || '0000000040fa0100130b0000130b00000000000000000000'
        || string_agg(lpad(to_hex(greatest(0, least(255, (
                128 + 50 * sin(x / (9.0 + seed) + c) + 50 * cos(y / (7.0 + 2 * seed) - c * seed)
                + 60 * ((x / (20 + 3 * seed) + y / (15 + 2 * seed) + c) % 2))::int))), 2, '0'), '' ORDER BY y, x, c),
                    'hex')
    FROM generate_series(0, 179) y, generate_series(0, 239) x, generate_series(0, 2) c
$$;

CREATE TABLE reference_images (id int PRIMARY KEY, image bytea NOT NULL);
INSERT INTO reference_images SELECT seed, picture(seed) FROM generate_series(1, 5) seed;
SELECT copy_create_set('tried', 'reference_images', key => 'id', image => 'image');
CREATE TABLE found AS SELECT * FROM copy_match(copy_edit(picture(3), 'jpeg', 0.5), 'tried');
TABLE found;
SELECT library FROM copy_runtime();
SELECT path FROM copymatch.service;
DO $$
BEGIN
    ASSERT (SELECT reference FROM found WHERE rank = 1) = '3', 'another picture is nearest';
    ASSERT (SELECT similarity FROM found WHERE rank = 1) > 0.8, 'the copy is not like its original';
    ASSERT (SELECT path = 'service' FROM copymatch.service) = (current_setting('shared_preload_libraries') <> ''),
        'the embedding service does not run where it is preloaded';
    ASSERT (SELECT extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'copymatch')
        FROM pg_extension WHERE extname = 'copymatch'), 'another version';
END
$$;
DROP EXTENSION copymatch CASCADE;
