INSERT INTO job_labels (job_id, key, value, owner, state, create_time)
SELECT id, :key, :value, owner, state, create_time
  FROM jobs
 WHERE id = :id
