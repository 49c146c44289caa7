"""`jobworker completion`: let the shell complete commands, options and ids of jobs."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from jobworker.cli.options import examples

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from jobworker.client import AsyncClient

_OFFERED = 50  # newest jobs, among which an id is looked for
_VARIABLE = "_JOBWORKER_COMPLETE"  # by which the shell asks click; its name follows from the program's


@click.command(
    epilog=examples(
        'eval "$(jobworker completion bash)"    (in ~/.bashrc)',
        'eval "$(jobworker completion zsh)"     (in ~/.zshrc)',
        "jobworker completion fish > ~/.config/fish/completions/jobworker.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete this program's words."""
    from click.shell_completion import get_completion_class

    root = ctx.find_root()
    kind = get_completion_class(shell)
    assert kind is not None, shell  # noqa: S101 -- click knows all of the choices
    click.echo(kind(root.command, {}, "jobworker", _VARIABLE).source())


def complete_job_id(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Jobs whose id begins so, newest first, with what they run; none if the server cannot be asked."""
    from click.shell_completion import CompletionItem

    from jobworker.cli.exits import CliError
    from jobworker.cli.session import ask
    from jobworker.cli.view import command_line
    from jobworker.core.errors import InvalidArgumentError
    from jobworker.core.query import JobFilter

    try:
        where = JobFilter(id_prefix=incomplete)
    except InvalidArgumentError:  # too short to look for; it may be the beginning of one of the newest
        where = JobFilter()

    async def newest(client: AsyncClient) -> list[CompletionItem]:
        found: list[CompletionItem] = []
        async with aclosing(client.list(where, page_size=_OFFERED)) as jobs:
            seen = 0
            async for job in jobs:
                if job.id.startswith(incomplete):
                    found.append(CompletionItem(job.id, help=job.spec.name or command_line(job)))
                seen += 1
                if seen == _OFFERED:
                    break
        return found

    try:
        with ctx.scope(cleanup=False):
            return ask(newest)
    except CliError:  # a shell that completes has nowhere to say it
        return []
