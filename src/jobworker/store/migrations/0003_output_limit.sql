-- The output limit in force: a JSON record. The jobs of before had none.
ALTER TABLE jobs ADD COLUMN output_limit TEXT NOT NULL DEFAULT '{}';
