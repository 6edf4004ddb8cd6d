-- Anonymous volumes of bound containers.
CREATE TABLE volumes (
    name       TEXT PRIMARY KEY,
    owner      TEXT,
    created_ns INTEGER NOT NULL,
    body       TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX volumes_by_owner ON volumes (owner);
