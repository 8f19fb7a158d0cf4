-- Which file said a session's mapping, and at which revision of its source.

ALTER TABLE sessions ADD COLUMN origin TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN origin_revision TEXT NOT NULL DEFAULT '';
