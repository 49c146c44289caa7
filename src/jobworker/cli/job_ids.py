"""Jobs named by their ids, or by as much of the beginning of an id as tells it from the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from jobworker.cli.exits import CliError
from jobworker.cli.session import ask

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.job import Job

T = TypeVar("T")

_ID_CHARS = 36
_NAMED = 3  # of the jobs that can be meant


def ask_about(
    given: str, action: Callable[[AsyncClient, str], Awaitable[T]], *, reconnect: timedelta | None = None
) -> T:
    """As `ask`, about one job: the action gets its id, whatever of it was given. Raises `CliError`."""

    async def find_and_act(client: AsyncClient) -> T:
        return await action(client, await full_id(client, given))

    return ask(find_and_act, reconnect=reconnect)


async def full_id(client: AsyncClient, given: str) -> str:
    """The id of the one job that is meant; a whole id is not looked up. Raises `CliError` for none or several."""
    from jobworker.core.errors import InvalidArgumentError
    from jobworker.core.query import JobFilter

    if len(given) == _ID_CHARS:
        return given
    try:
        where = JobFilter(id_prefix=given)
    except InvalidArgumentError:  # no id begins so
        raise CliError(f"no job {given!r}") from None
    found: list[Job] = []
    async with aclosing(client.list(where, page_size=_NAMED + 1)) as jobs:
        async for job in jobs:
            found.append(job)
            if len(found) > _NAMED:
                break
    if not found:
        raise CliError(f"no job {given!r}")
    if len(found) > 1:
        raise CliError(f"several jobs have an id that begins with {given}: {_listed(found)}; give more of it")
    return found[0].id


def _listed(jobs: list[Job]) -> str:
    from jobworker.cli.view import command_line

    shown = [f"{job.id} ({job.spec.name or command_line(job)})" for job in jobs[:_NAMED]]
    return ", ".join([*shown, *(["..."] if len(jobs) > _NAMED else [])])
