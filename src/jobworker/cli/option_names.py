"""What the command line calls the fields that errors are about."""

from __future__ import annotations

from jobworker.core.errors import InvalidArgumentError, JobworkerError, LimitNotEnforceableError
from jobworker.core.limit_options import OPTIONS

_FIELDS = {
    "spec.env": "--env",
    "spec.cwd": "--cwd",
    "spec.name": "--name",
    "spec.labels": "--label",
    "spec.time_limit": "--timeout",
    "spec.output_limit.bytes": "--output-limit",
    "spec.output_limit.policy": "--output-policy",
    "request_id": "--request-id",
}


def flag(option: str) -> str:
    """An option as it is typed: "--memory-high" for "memory_high"."""
    return "--" + option.replace("_", "-")


def with_options(error: JobworkerError) -> str:
    """The text of an error; if it is about a field that an option says, with that option's name."""
    match error:
        case InvalidArgumentError():
            return f"{_option_of(error.field)}: {error.problem}"
        case LimitNotEnforceableError():
            return f"this server cannot enforce {_option_of(f'limits.{error.limit}')}: {error.problem}"
        case _:
            return str(error)


def _option_of(field: str) -> str:
    base, bracket, key = field.partition("[")
    if base in _FIELDS:
        return _FIELDS[base] + bracket + key
    _, is_limit, limit = field.rpartition("limits.")
    if not is_limit:
        return field
    for name, option in OPTIONS.items():
        if limit == (f"io.{option.rate}" if option.rate else option.limit):
            return flag(name)
    return "--io-*" if limit == "io" else field
