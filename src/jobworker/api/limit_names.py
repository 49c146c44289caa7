"""What the wire calls the limits: units stand in the name there, and in the docstring in `core`."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Fields of core's Limits by what the wire calls them.
LIMIT_FIELDS = {
    "cpus": "cpus",
    "cpu_weight": "cpu_weight",
    "cpuset": "cpuset",
    "memory_bytes": "memory",
    "memory_high_bytes": "memory_high",
    "swap_bytes": "swap",
    "oom_group": "oom_group",
    "pids": "pids",
    "io": "io",
    "io_weight": "io_weight",
}
WIRE_LIMITS = {core: wire for wire, core in LIMIT_FIELDS.items()}

_IN_PATH = re.compile(r"(?<=\blimits\.)\w+")


def wire_path(path: str) -> str:
    """A path to a field as the wire calls it: "spec.limits.memory_bytes" for "spec.limits.memory"."""
    return _renamed(path, WIRE_LIMITS)


def core_path(path: str) -> str:
    """The inverse of `wire_path`."""
    return _renamed(path, LIMIT_FIELDS)


def wire_limit(limit: str) -> str:
    """What the wire calls a limit."""
    return WIRE_LIMITS.get(limit, limit)


def core_limit(limit: str) -> str:
    """The inverse of `wire_limit`."""
    return LIMIT_FIELDS.get(limit, limit)


def _renamed(path: str, names: Mapping[str, str]) -> str:
    return _IN_PATH.sub(lambda found: names.get(found[0], found[0]), path)
