"""The wire: generated messages and services, and their conversion to and from the vocabulary of `core`."""
