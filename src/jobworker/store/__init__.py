"""What is remembered of jobs, whatever keeps it."""
