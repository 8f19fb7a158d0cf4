-- How often rules and parts of grants spoke, by day (since 1970, UTC), and the latest times of each.

CREATE TABLE hits (
	mapping    TEXT NOT NULL,
	day        BIGINT NOT NULL,
	connection TEXT NOT NULL,
	rule       TEXT NOT NULL,
	outcome    TEXT NOT NULL,
	n          BIGINT NOT NULL,
	last       BIGINT NOT NULL,
	PRIMARY KEY (mapping, day, connection, rule, outcome)
);

CREATE TABLE hit_samples (
	mapping    TEXT NOT NULL,
	connection TEXT NOT NULL,
	rule       TEXT NOT NULL,
	last       BIGINT NOT NULL,
	samples    TEXT NOT NULL,
	PRIMARY KEY (mapping, connection, rule)
);
