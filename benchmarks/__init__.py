"""Measurements: all of them by `python -m benchmarks`, lists in detail by `python -m benchmarks.listing`."""
