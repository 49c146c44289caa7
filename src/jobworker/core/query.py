"""Which jobs to list, and a page of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from jobworker.core.job import Job
from jobworker.core.state import JobState

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFilter:
    """Conditions that combine with "and"; an empty one holds for every job.

    `created_after` is inclusive, `created_before` exclusive.
    """

    states: frozenset[JobState] = frozenset()
    owner: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPage:
    """Jobs, newest first. `next_page_token` gives the page after, with the same filter; `None` after the last one."""

    jobs: tuple[Job, ...]
    next_page_token: str | None = None
