-- The database of release 0.1.0, as sqlite3's iterdump gives it, with the two pragmas that it leaves out.
PRAGMA application_id = 1785684595;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE job_labels (
    job_id      TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    key         TEXT NOT NULL,
    value       TEXT NOT NULL,
    owner       TEXT NOT NULL,
    state       TEXT NOT NULL,
    create_time TEXT NOT NULL,
    PRIMARY KEY (job_id, key)
) WITHOUT ROWID;
INSERT INTO "job_labels" VALUES('00000000-0000-4000-8000-000000000003','size','big','ada','FINISHED','2025-11-24T06:02:00.000000+00:00');
INSERT INTO "job_labels" VALUES('00000000-0000-4000-8000-000000000003','team','physics','ada','FINISHED','2025-11-24T06:02:00.000000+00:00');
INSERT INTO "job_labels" VALUES('00000000-0000-4000-8000-000000000004','team','physics/2','ada','FINISHED','2025-11-24T06:04:00.000000+00:00');
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
INSERT INTO "jobs" VALUES('00000000-0000-4000-8000-000000000001','ada',NULL,'RUNNING','2025-11-24T06:00:00.000001+00:00',NULL,NULL,NULL,0,'{"argv":["true"],"env":{},"cwd":"/","name":null,"labels":{},"time_limit":null,"limits":{},"child_policy":"KILL"}');
INSERT INTO "jobs" VALUES('00000000-0000-4000-8000-000000000002','bob','1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed','RUNNING','2025-11-24T06:01:00.000000+00:00','2025-11-24T06:01:00.002000+00:00','{"requested_by":"ada","request_time":"2025-11-24T06:01:30.000000+00:00","signal":15,"grace":2.5}',NULL,0,'{"argv":["sleep","60"],"env":{},"cwd":"/","name":null,"labels":{},"time_limit":60.0,"limits":{},"child_policy":"KILL"}');
INSERT INTO "jobs" VALUES('00000000-0000-4000-8000-000000000003','ada',NULL,'FINISHED','2025-11-24T06:02:00.000000+00:00','2025-11-24T06:02:00.002000+00:00',NULL,'{"cause":"EXITED","end_time":"2025-11-24T06:03:00.000000+00:00","exit_code":3,"signal":null,"output_bytes":7,"output_dropped_bytes":5}',7,'{"argv":["sh","-c","echo it''s \u00e4; exit 3","\udcff"],"env":{"A":"\ud83d\ude00"},"cwd":"/tmp","name":"night run","labels":{"team":"physics","size":"big"},"time_limit":null,"limits":{},"child_policy":"WAIT"}');
INSERT INTO "jobs" VALUES('00000000-0000-4000-8000-000000000004','ada',NULL,'FINISHED','2025-11-24T06:04:00.000000+00:00','2025-11-24T06:04:00.002000+00:00',NULL,'{"cause":"SIGNALED","end_time":"2025-11-24T06:05:00.000000+00:00","exit_code":null,"signal":15,"output_bytes":0,"output_dropped_bytes":0}',0,'{"argv":["false"],"env":{},"cwd":"/","name":null,"labels":{"team":"physics/2"},"time_limit":null,"limits":{},"child_policy":"KILL"}');
CREATE UNIQUE INDEX jobs_by_request ON jobs (owner, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX jobs_by_state ON jobs (state, create_time, id);
CREATE INDEX jobs_by_owner ON jobs (owner, state, create_time, id);
CREATE INDEX job_labels_by_state ON job_labels (key, value, state, create_time, job_id);
CREATE INDEX job_labels_by_owner ON job_labels (key, value, owner, state, create_time, job_id);
CREATE TRIGGER job_labels_follow_state AFTER UPDATE OF state ON jobs WHEN new.state <> old.state
BEGIN
    UPDATE job_labels SET state = new.state WHERE job_id = new.id;
END;
COMMIT;
