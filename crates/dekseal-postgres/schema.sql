-- The table in which dekseal-postgres keeps key documents. Another name serves as well: tell the store.
CREATE TABLE IF NOT EXISTS dekseal_key (
    key_id   text COLLATE "C" PRIMARY KEY CHECK (length(key_id) = 36),
    revision bytea NOT NULL CHECK (length(revision) = 32),
    document bytea NOT NULL
);

-- A service that only seals and opens reads the table. Whoever creates and rotates keys writes it too.
--
--     GRANT SELECT ON dekseal_key TO service;
--     GRANT SELECT, INSERT, UPDATE, DELETE ON dekseal_key TO administrator;
