"""From a command to the client and back."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import click

from jobworker.cli import text
from jobworker.cli.exits import CliError, code_of
from jobworker.cli.options import client_flags
from jobworker.cli.settings import client_settings

if TYPE_CHECKING:  # loading it takes longer than all the rest of a command's start
    from jobworker.client import AsyncClient

T = TypeVar("T")


def ask(action: Callable[[AsyncClient], Awaitable[T]], *, reconnect: timedelta | None = None) -> T:
    """Do something with a client of the server that the command line names, and give what it gives.

    `reconnect` is for how long a lost server is waited for. Raises `CliError`.
    """
    settings = client_settings(flags=client_flags(click.get_current_context()), environ=os.environ)
    # gRPC's core writes failed handshakes to stderr, where one line of ours is to say what to do. It reads this once,
    # when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import asyncio

    from jobworker.cli.option_names import with_options
    from jobworker.client import AsyncClient, Timeouts
    from jobworker.core.errors import JobworkerError

    timeouts = Timeouts() if reconnect is None else Timeouts(reconnect=reconnect)

    async def session() -> T:
        async with AsyncClient(
            settings.server,
            ca=settings.ca,
            cert=settings.cert,
            key=settings.key,
            timeouts=timeouts,
            on_outage=lambda: text.say(f"the connection to {settings.server} is lost; trying to mend it"),
            on_recovery=lambda: text.say(f"the connection to {settings.server} is back"),
        ) as client:
            return await action(client)

    try:
        return asyncio.run(session())
    except JobworkerError as error:
        raise CliError(with_options(error), code_of(error)) from None
