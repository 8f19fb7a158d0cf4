-- What operators have stopped. A row is taken out when it is resumed.

CREATE TABLE stops (
	kind       TEXT NOT NULL,
	name       TEXT NOT NULL,
	reason     TEXT NOT NULL,
	stopped_by TEXT NOT NULL,
	stopped_at BIGINT NOT NULL,
	PRIMARY KEY (kind, name)
);
