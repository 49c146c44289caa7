"""`jobworker completion`: let the shell complete commands and options."""

from __future__ import annotations

import click

from jobworker.cli.options import examples

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
