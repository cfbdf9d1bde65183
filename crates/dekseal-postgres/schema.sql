-- The table in which dekseal-postgres keeps key documents. To use another name, pass it to the store.
CREATE TABLE IF NOT EXISTS dekseal_key (
    key_id   text COLLATE "C" PRIMARY KEY CHECK (length(key_id) = 36),
    revision bytea NOT NULL CHECK (length(revision) = 32),
    document bytea NOT NULL
);

-- A service that only seals and opens DEKs reads the table. An administrator, who creates and rotates keys, also
-- writes.
--
--     GRANT SELECT ON dekseal_key TO service;
--     GRANT SELECT, INSERT, UPDATE, DELETE ON dekseal_key TO administrator;
