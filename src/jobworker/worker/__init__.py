"""The Library: start, watch and stop jobs in this process. Knows no wire."""
