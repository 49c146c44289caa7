"""Pages of jobs out of SQLite, at the same small cost whatever the filter and however many jobs there are.

A list is a merge of one index range for each state. SQLite merges ordered ranges lazily, so a page costs its own rows
and no more. Only a filter by several labels reads further: along the rarest of them, past jobs that lack another. The
beginning of an id leads to so few jobs that all of them are read and sorted.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import Job
from jobworker.core.query import JobFilter, JobPage
from jobworker.core.records import time_text
from jobworker.core.spec import MAX_LABELS
from jobworker.core.state import JobState
from jobworker.store import page_token
from jobworker.store.page_token import Position
from jobworker.store.sqlite_rows import DETAILS, job_from_row

MAX_PAGE_SPEC_BYTES = 2 * 1024 * 1024  # a page is held in memory, and is to fit into a gRPC message of 4 MiB

_NEWEST: Position = ("~", "")  # sorts after every time
_OLDEST = ""  # sorts before every time
_COUNTED_LABELS = 1000  # enough to tell a rare label from a frequent one

Parameters = dict[str, str | int]


def read_page(connection: sqlite3.Connection, where: JobFilter, *, size: int, token: str | None) -> JobPage:
    """The page after the token's job, of at most `size` jobs and `MAX_PAGE_SPEC_BYTES` (one job is always taken)."""
    if size < 1:
        raise InvalidArgumentError("page_size", f"is {size}; it must be 1 or more")
    position = None if token is None else page_token.decode(token, where)
    if len(where.labels) > MAX_LABELS:  # no job has as many; and SQLite takes only so many conditions
        return JobPage(jobs=())
    label = None if where.id_prefix else _rarest_label(connection, where)
    text, parameters = page_query(where, label=label, position=position, limit=size + 1)
    jobs: list[Job] = []
    spec_bytes = 0
    with closing(connection.execute(text, parameters)) as rows:
        for row in rows:
            spec_bytes += len(row[-1])
            if jobs and (len(jobs) == size or spec_bytes > MAX_PAGE_SPEC_BYTES):
                return JobPage(jobs=tuple(jobs), next_page_token=page_token.encode(jobs[-1], where))
            jobs.append(job_from_row(row))
    return JobPage(jobs=tuple(jobs))


def page_query(where: JobFilter, *, label: str | None, position: Position | None, limit: int) -> tuple[str, Parameters]:
    """The query for the jobs after a position of the list, as rows of `COLUMNS`, and its parameters.

    `label` is the key of the label whose index is read, one of the filter's; `None` where the filter has none, or has
    a prefix of ids: then the index of these is read.
    """
    before_time, before_id = _upper_bound(where, position)
    parameters: Parameters = {"before_time": before_time, "before_id": before_id, "limit": limit}
    parameters["after_time"] = _OLDEST if where.created_after is None else time_text(where.created_after)
    if label is None:
        job_id, source = "listed.id", "jobs AS listed"
    else:  # CROSS, which has SQLite read the labels first
        job_id, source = "listed.job_id", "job_labels AS listed CROSS JOIN jobs ON jobs.id = listed.job_id"
    conditions = [
        "listed.create_time >= :after_time",
        f"(listed.create_time, {job_id}) < (:before_time, :before_id)",
        "start_time IS NOT NULL",
    ]
    if where.id_prefix is not None:
        source += " INDEXED BY sqlite_autoindex_jobs_1"  # SQLite cannot know that the prefix is the rarest condition
        parameters |= {"prefix": where.id_prefix, "after_prefix": f"{where.id_prefix}~"}
        conditions.append("listed.id BETWEEN :prefix AND :after_prefix")
    if where.owner is not None:
        parameters["owner"] = where.owner
        conditions.append("listed.owner = :owner")
    for number, (key, value) in enumerate(where.labels.items()):
        parameters |= {f"key_{number}": key, f"value_{number}": value}
        pair = f"(:key_{number}, :value_{number})"
        if key == label:
            conditions.append(f"(listed.key, listed.value) = {pair}")
        else:
            probe = f"SELECT 1 FROM job_labels WHERE job_id = {job_id} AND (key, value) = {pair}"  # noqa: S608 - constants
            conditions.append(f"EXISTS ({probe})")
    columns = f"{job_id} AS id, listed.create_time AS create_time, listed.owner, {DETAILS}"
    ranges = [
        f"SELECT {columns} FROM {source} WHERE listed.state = '{state}' AND {' AND '.join(conditions)}"  # noqa: S608 - constants; every value is bound
        for state in sorted(where.states or JobState)
    ]
    return f"{' UNION ALL '.join(ranges)} ORDER BY create_time DESC, id DESC LIMIT :limit", parameters


def _upper_bound(where: JobFilter, position: Position | None) -> Position:
    """The position that every job of the page comes after in the list, and before in time."""
    bounds = [_NEWEST]
    if where.created_before is not None:
        bounds.append((time_text(where.created_before), ""))  # no id is less than "": jobs of that very time are out
    if position is not None:
        bounds.append(position)
    return min(bounds)


def _rarest_label(connection: sqlite3.Connection, where: JobFilter) -> str | None:
    """The key of the filter's label that the fewest jobs have."""

    def count(key: str) -> int:
        rows = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM job_labels WHERE key = ? AND value = ? LIMIT ?)",
            (key, where.labels[key], _COUNTED_LABELS),
        )
        return int(rows.fetchone()[0])

    if len(where.labels) < 2:  # noqa: PLR2004 - with one there is nothing to choose
        return next(iter(where.labels), None)
    return min(where.labels, key=count)
