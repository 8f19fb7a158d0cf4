-- Times are nanoseconds since 1970, 0 for none. Hashes are hexadecimal.

CREATE TABLE mappings (
	name        TEXT PRIMARY KEY,
	revision    BIGINT NOT NULL,
	source      TEXT NOT NULL,
	spec        TEXT NOT NULL,
	changed     BIGINT NOT NULL,
	changed_by  TEXT NOT NULL,
	deleted     BIGINT NOT NULL,
	deleted_via TEXT NOT NULL
);

CREATE TABLE sessions (
	id         TEXT PRIMARY KEY,
	mapping    TEXT NOT NULL,
	revision   BIGINT NOT NULL,
	issuer     TEXT NOT NULL,
	job_key    TEXT NOT NULL,
	identity   TEXT NOT NULL,
	door       TEXT NOT NULL,
	opened     BIGINT NOT NULL,
	closes     BIGINT NOT NULL,
	asleep     BIGINT NOT NULL,
	ended_at   BIGINT NOT NULL,
	end_reason TEXT NOT NULL,
	ended_by   TEXT NOT NULL
);

CREATE INDEX sessions_by_state ON sessions (ended_at, opened);

CREATE TABLE ledgers (
	issuer         TEXT NOT NULL,
	job_key        TEXT NOT NULL,
	mapping        TEXT NOT NULL,
	session        TEXT NOT NULL UNIQUE REFERENCES sessions (id) ON DELETE CASCADE,
	first_exchange BIGINT NOT NULL,
	counts         TEXT NOT NULL,
	tally          TEXT NOT NULL,
	ended          TEXT NOT NULL,
	PRIMARY KEY (issuer, job_key, mapping)
);

CREATE TABLE access_tokens (
	hash        TEXT PRIMARY KEY,
	session     TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
	connections TEXT NOT NULL,
	issued      BIGINT NOT NULL,
	expires     BIGINT NOT NULL,
	assertion   BIGINT NOT NULL,
	last_used   BIGINT NOT NULL
);

CREATE INDEX access_tokens_by_session ON access_tokens (session);

CREATE TABLE seen_tokens (
	issuer   TEXT NOT NULL,
	token_id TEXT NOT NULL,
	mapping  TEXT NOT NULL,
	session  TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
	until    BIGINT NOT NULL,
	joins    BIGINT NOT NULL,
	PRIMARY KEY (issuer, token_id)
);

CREATE INDEX seen_tokens_by_session ON seen_tokens (session);

CREATE TABLE approvals (
	id           TEXT PRIMARY KEY,
	session      TEXT NOT NULL,
	digest       TEXT NOT NULL,
	state        TEXT NOT NULL,
	version      BIGINT NOT NULL,
	asked        BIGINT NOT NULL,
	settled      BIGINT NOT NULL,
	body         TEXT NOT NULL,
	post_channel TEXT NOT NULL,
	post_ts      TEXT NOT NULL
);

CREATE INDEX approvals_by_digest ON approvals (session, digest);
CREATE INDEX approvals_by_state ON approvals (state, asked);
