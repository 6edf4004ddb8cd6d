-- Volumes that were made by name. Those of bound containers are in run.db.
CREATE TABLE volumes (
    name       TEXT PRIMARY KEY,
    owner      TEXT,
    created_ns INTEGER NOT NULL,
    body       TEXT NOT NULL
) WITHOUT ROWID;
