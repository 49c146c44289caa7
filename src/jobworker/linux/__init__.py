"""The kernel's own interfaces: thin, without decisions and without a log."""
