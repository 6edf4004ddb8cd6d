-- What was acknowledged and must survive power loss.
CREATE TABLE images (
    id        TEXT PRIMARY KEY,     -- digest of the config
    body      TEXT NOT NULL         -- ImageRecord as JSON
) WITHOUT ROWID;

CREATE TABLE image_names (
    name      TEXT PRIMARY KEY,     -- normalised reference
    image     TEXT NOT NULL,
    by_digest INTEGER NOT NULL      -- 1: repository@digest, 0: repository:tag
) WITHOUT ROWID;
CREATE INDEX image_names_by_image ON image_names (image);

-- Detached containers.
CREATE TABLE containers (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    owner      TEXT,
    state      TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    body       TEXT NOT NULL
) WITHOUT ROWID;

-- Who needs what: an edge keeps its target from being removed.
CREATE TABLE refs (
    holder_kind TEXT NOT NULL,
    holder_id   TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_id   TEXT NOT NULL,
    PRIMARY KEY (holder_kind, holder_id, target_kind, target_id)
) WITHOUT ROWID;
CREATE INDEX refs_by_target ON refs (target_kind, target_id);
