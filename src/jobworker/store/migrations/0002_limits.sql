-- The limits in force, which updates change: a JSON record. The jobs of before had none.
ALTER TABLE jobs ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
