"""Page tokens: a position in a list of jobs, opaque to those who pass it on.

A token is bound to the filter of its list, and a damaged one is noticed. It is no secret and gives no rights: only the
filter decides which jobs are shown, so a forged token is just another place to start from.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import Job
from jobworker.core.query import JobFilter
from jobworker.core.records import time_text

Position = tuple[str, str]  # a job's creation time as the records have it, and its id

_DIGEST_BYTES = 9
_TIME_CHARS = 32  # of `time_text`


def encode(last: Job, where: JobFilter) -> str:
    """The token of the page that begins after a job."""
    position = (time_text(last.create_time) + last.id).encode()
    return base64.urlsafe_b64encode(_digest(position, where) + position).decode().rstrip("=")


def decode(token: str, where: JobFilter) -> Position:
    """The position that a token stands for. Raises `InvalidArgumentError` if it is none, or one of another filter."""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars="-_", validate=True)
    except ValueError:
        data = b""  # which has no valid digest either
    digest, position = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if digest != _digest(position, where):
        raise InvalidArgumentError(
            "page_token", "is none that a list with these filters came with; begin again without a token"
        )
    text = position.decode(errors="replace")  # a forged one can be anything
    return text[:_TIME_CHARS], text[_TIME_CHARS:]


def _digest(position: bytes, where: JobFilter) -> bytes:
    conditions = [
        sorted(where.states),
        where.owner,
        sorted(where.labels.items()),
        _time(where.created_after),
        _time(where.created_before),
        where.id_prefix,
    ]
    return hashlib.sha256(json.dumps(conditions).encode() + position).digest()[:_DIGEST_BYTES]


def _time(time: datetime | None) -> str | None:
    return None if time is None else time_text(time)
