INSERT INTO jobs (id, owner, request_id, state, create_time, start_time, stop, "end", output_bytes, spec, limits,
                  output_limit)
VALUES (:id, :owner, :request_id, :state, :create_time, :start_time, :stop, :end, :output_bytes, :spec, :limits,
        :output_limit)
