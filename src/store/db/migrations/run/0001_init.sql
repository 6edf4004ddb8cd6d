-- What dies with the boot.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Bound containers.
CREATE TABLE containers (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    owner      TEXT,
    state      TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    body       TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX containers_by_owner ON containers (owner);

CREATE TABLE refs (
    holder_kind TEXT NOT NULL,
    holder_id   TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_id   TEXT NOT NULL,
    PRIMARY KEY (holder_kind, holder_id, target_kind, target_id)
) WITHOUT ROWID;
CREATE INDEX refs_by_target ON refs (target_kind, target_id);

-- What somebody is about to refer to. Void when its owner is dead.
CREATE TABLE leases (
    id    TEXT PRIMARY KEY,
    owner TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX leases_by_owner ON leases (owner);
CREATE TABLE lease_targets (
    lease       TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_id   TEXT NOT NULL,
    PRIMARY KEY (lease, target_kind, target_id)
) WITHOUT ROWID;
CREATE INDEX lease_targets_by_target ON lease_targets (target_kind, target_id);

-- The last events. The numbers grow by one and are never used twice: the newest row is never deleted.
CREATE TABLE events (
    seq        INTEGER PRIMARY KEY,
    time_ns    INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    action     TEXT NOT NULL,
    id         TEXT NOT NULL,
    attributes TEXT NOT NULL
);
