-- The override of its mapping that applied to a session at its opening, '' for none.

ALTER TABLE sessions ADD COLUMN override TEXT NOT NULL DEFAULT '';
