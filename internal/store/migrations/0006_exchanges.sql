-- Exchanges of the last days. identity is empty where the token did not verify, and where the session has it.

CREATE TABLE exchanges (
	id       TEXT PRIMARY KEY,
	at       BIGINT NOT NULL,
	outcome  TEXT NOT NULL,
	door     TEXT NOT NULL,
	identity TEXT NOT NULL,
	issued   BIGINT NOT NULL,
	expires  BIGINT NOT NULL,
	asked    TEXT NOT NULL,
	scope    TEXT NOT NULL,
	mapping  TEXT NOT NULL,
	session  TEXT NOT NULL,
	code     TEXT NOT NULL,
	reason   TEXT NOT NULL,
	detail   TEXT NOT NULL
);

CREATE INDEX exchanges_by_time ON exchanges (at);
