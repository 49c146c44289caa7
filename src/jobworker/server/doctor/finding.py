"""What was found out about one thing that a server needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a thing is: an error keeps the server from starting, a warning costs something, skipped was not looked at."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing: `name` never changes its meaning, `detail` and `remedy` are for people."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def ok(name: str, detail: str) -> Finding:
    """What works."""
    return Finding(name=name, status=Status.OK, detail=detail)


def warning(name: str, detail: str, remedy: str | None = None) -> Finding:
    """What a server starts without."""
    return Finding(name=name, status=Status.WARNING, detail=detail, remedy=remedy)


def error(name: str, detail: str, remedy: str | None = None) -> Finding:
    """What a server does not start without."""
    return Finding(name=name, status=Status.ERROR, detail=detail, remedy=remedy)


def skipped(name: str, why: str) -> Finding:
    """What was not looked at."""
    return Finding(name=name, status=Status.SKIPPED, detail=why)
