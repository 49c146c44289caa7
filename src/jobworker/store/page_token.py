"""Page tokens: a position in a list of jobs, opaque to those who pass it on.

A token is bound to the filter of its list. It is no secret and gives no rights: the filter alone decides which jobs are
shown, so a forged token is only another place to start from.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import Job
from jobworker.core.query import JobFilter
from jobworker.core.records import time_from, time_text

Position = tuple[str, str]  # a job's creation time as the records have it, and its id

_DIGEST_BYTES = 9
_TIME_BYTES = 32  # of `time_text`


def encode(last: Job, where: JobFilter) -> str:
    """The token of the page that begins after a job."""
    position = time_text(last.create_time) + last.id
    return base64.urlsafe_b64encode(_digest(where) + position.encode()).decode().rstrip("=")


def decode(token: str, where: JobFilter) -> Position:
    """The position that a token stands for. Raises `InvalidArgumentError` if it is none, or one of another filter."""
    padding = "=" * (-len(token) % 4)
    try:
        data = base64.b64decode(token + padding, altchars="-_", validate=True)
        position = data[_DIGEST_BYTES:].decode()
        time = time_text(time_from(position[:_TIME_BYTES]))
    except (binascii.Error, ValueError, OverflowError):  # the last one: a time at the edge of the calendar
        raise InvalidArgumentError("page_token", "is not one that a page came with") from None
    if data[:_DIGEST_BYTES] != _digest(where):
        raise InvalidArgumentError("page_token", "belongs to a list with other filters; begin again without a token")
    return time, position[_TIME_BYTES:]


def _digest(where: JobFilter) -> bytes:
    conditions = [
        sorted(where.states),
        where.owner,
        sorted(where.labels.items()),
        _time(where.created_after),
        _time(where.created_before),
    ]
    return hashlib.sha256(json.dumps(conditions).encode()).digest()[:_DIGEST_BYTES]


def _time(time: datetime | None) -> str | None:
    return None if time is None else time_text(time)
