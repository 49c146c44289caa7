"""Everything that proves jobworker right."""
