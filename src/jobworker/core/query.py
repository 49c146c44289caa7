"""Which jobs to list, and a page of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from jobworker.core.checks import aware, of_type, text_map, words
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import Job
from jobworker.core.state import JobState

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
MIN_ID_PREFIX = 4  # characters: less is the beginning of too many ids to search without a limit

_ID_PREFIX = re.compile(rf"[0-9a-f-]{{{MIN_ID_PREFIX},36}}")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFilter:
    """Conditions that combine with "and"; an empty one holds for every job.

    `created_after` is inclusive, `created_before` exclusive; both say their zone. `id_prefix` is the beginning of an
    id, of at least `MIN_ID_PREFIX` characters. States may be given by their names. Raises `InvalidArgumentError`.
    """

    states: frozenset[JobState] = frozenset()
    owner: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    created_after: datetime | None = None
    created_before: datetime | None = None
    id_prefix: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", words("states", self.states, JobState))  # frozen for everybody else
        object.__setattr__(self, "labels", text_map("labels", self.labels))
        if self.owner is not None:
            of_type("owner", self.owner, str, "text")
        for name, time in (("created_after", self.created_after), ("created_before", self.created_before)):
            if time is not None:
                aware(name, time)
        if self.id_prefix is not None and not _ID_PREFIX.fullmatch(of_type("id_prefix", self.id_prefix, str, "text")):
            raise InvalidArgumentError(
                "id_prefix", f"{self.id_prefix!r} is not the beginning of an id, of {MIN_ID_PREFIX} characters or more"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPage:
    """Jobs, newest first. `next_page_token` gives the page after, with the same filter; `None` after the last one."""

    jobs: tuple[Job, ...]
    next_page_token: str | None = None
