"""Generated from proto/jobworker/api/compat: the wire contract of the older service."""
