-- What steps of builds made, by what they depended on: the build cache. Edges keep its blobs and layers.
CREATE TABLE build_steps (
    key        TEXT PRIMARY KEY,    -- digest of all that the step depends on
    created_ns INTEGER NOT NULL,
    used_ns    INTEGER NOT NULL,    -- when a build last took it from here
    size       INTEGER NOT NULL,    -- of its layer on disk, in bytes
    body       TEXT NOT NULL        -- as JSON of the builder
) WITHOUT ROWID;
CREATE INDEX build_steps_by_use ON build_steps (used_ns);
