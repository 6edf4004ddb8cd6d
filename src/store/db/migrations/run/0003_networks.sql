-- Networks that go with their engine.
CREATE TABLE networks (
    id    TEXT PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE,
    owner TEXT,
    body  TEXT NOT NULL         -- NetworkRecord as JSON
) WITHOUT ROWID;

-- In which engine a network has its bridge. Void when that is dead.
CREATE TABLE network_homes (
    network TEXT PRIMARY KEY,
    owner   TEXT NOT NULL
) WITHOUT ROWID;
