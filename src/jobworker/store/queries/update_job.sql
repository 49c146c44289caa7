-- Nothing known becomes unknown again; the first end stays, and with it the state, the output and the limits it has.
UPDATE jobs
   SET start_time = coalesce(:start_time, start_time),
       stop = coalesce(:stop, stop),
       "end" = coalesce("end", :end),
       state = CASE WHEN "end" IS NULL THEN :state ELSE state END,
       output_bytes = CASE WHEN "end" IS NULL THEN :output_bytes ELSE output_bytes END,
       limits = CASE WHEN "end" IS NULL THEN :limits ELSE limits END
 WHERE id = :id
