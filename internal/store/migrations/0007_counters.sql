-- What all jobs of a mapping with the same value of a claim have used of a connection, in the period that ends then. A
-- mapping that is deleted leaves its counters: one that comes back counts on.

CREATE TABLE counters (
	mapping       TEXT NOT NULL,
	connection    TEXT NOT NULL,
	claim         TEXT NOT NULL,
	value         TEXT NOT NULL,
	ends          BIGINT NOT NULL,
	requests      BIGINT NOT NULL,
	input_tokens  BIGINT NOT NULL,
	output_tokens BIGINT NOT NULL,
	PRIMARY KEY (mapping, connection, claim, value)
);
