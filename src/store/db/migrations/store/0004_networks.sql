-- Networks whose definition outlives the engine that made them.
CREATE TABLE networks (
    id    TEXT PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE,
    owner TEXT,
    body  TEXT NOT NULL         -- NetworkRecord as JSON
) WITHOUT ROWID;
