-- A column is what some call searches by, or what changes; the rest of a job stays in the JSON records of
-- jobworker.core.records, which older and newer releases read without a migration.
-- STRICT and RETURNING are left out on purpose: RHEL 9 has SQLite 3.34.

PRAGMA application_id = 0x6a6f6273; -- "jobs": tells a database of ours from a stranger's

CREATE TABLE jobs (
    id           TEXT NOT NULL PRIMARY KEY,
    owner        TEXT NOT NULL,
    request_id   TEXT,
    state        TEXT NOT NULL,             -- follows from "end"; kept for the indexes
    create_time  TEXT NOT NULL,             -- ISO 8601 in UTC with microseconds: sorts as text
    start_time   TEXT,
    stop         TEXT,                      -- a JSON record, as is "end"
    "end"        TEXT,
    output_bytes INTEGER NOT NULL,
    spec         TEXT NOT NULL              -- a JSON record; last, because it may be long
);

CREATE UNIQUE INDEX jobs_by_request ON jobs (owner, request_id) WHERE request_id IS NOT NULL;

-- Every listing is a merge of one range for each state that is asked for, so that a rare state among 100,000 jobs is as
-- near as a frequent one. Each range stands in the order of the list, newest last.
CREATE INDEX jobs_by_state ON jobs (state, create_time, id);
CREATE INDEX jobs_by_owner ON jobs (owner, state, create_time, id);

-- Labels repeat the columns of their job that the ranges need; none of these but the state ever changes.
CREATE TABLE job_labels (
    job_id      TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    key         TEXT NOT NULL,
    value       TEXT NOT NULL,
    owner       TEXT NOT NULL,
    state       TEXT NOT NULL,
    create_time TEXT NOT NULL,
    PRIMARY KEY (job_id, key)
) WITHOUT ROWID;

CREATE INDEX job_labels_by_state ON job_labels (key, value, state, create_time, job_id);
CREATE INDEX job_labels_by_owner ON job_labels (key, value, owner, state, create_time, job_id);

CREATE TRIGGER job_labels_follow_state AFTER UPDATE OF state ON jobs WHEN new.state <> old.state
BEGIN
    UPDATE job_labels SET state = new.state WHERE job_id = new.id;
END;
