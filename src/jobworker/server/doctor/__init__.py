"""What a server needs of its machine and of its settings, looked at or tried, and put back as it was."""
