"""Generated from proto/jobworker/api/v1: the wire contract jobworker.v1."""
