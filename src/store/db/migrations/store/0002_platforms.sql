-- A name may stand for images of several platforms: those of one index, `top`. Where there is no index, `top` is the digest of
-- the image's own manifest, and there is one row.
CREATE TABLE image_names_by_platform (
    name      TEXT NOT NULL,        -- normalised reference
    platform  TEXT NOT NULL,        -- os/architecture[/variant]
    image     TEXT NOT NULL,
    top       TEXT NOT NULL,
    by_digest INTEGER NOT NULL,     -- 1: repository@digest, 0: repository:tag
    PRIMARY KEY (name, platform)
) WITHOUT ROWID;
INSERT INTO image_names_by_platform (name, platform, image, top, by_digest)
    SELECT n.name,
           json_extract(i.body, '$.platform.os') || '/' || json_extract(i.body, '$.platform.architecture')
               || coalesce('/' || json_extract(i.body, '$.platform.variant'), ''),
           n.image, json_extract(i.body, '$.manifest.digest'), n.by_digest
    FROM image_names n JOIN images i ON i.id = n.image;
DROP TABLE image_names;
ALTER TABLE image_names_by_platform RENAME TO image_names;
CREATE INDEX image_names_by_image ON image_names (image);
