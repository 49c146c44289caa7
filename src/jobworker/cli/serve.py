"""`jobworker serve`: run the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from jobworker.cli.exits import USAGE, CliError
from jobworker.config import FILE_VARIABLE, SETTINGS, Setting, SettingsError, load_settings

_HELP = """Run the server, until SIGTERM or Ctrl-C. Jobs run on when it ends.

Every setting is a flag here, a variable JOBWORKER_... in the environment and a line in the TOML file; a flag wins over
a variable, which wins over the file. docs/configuration.md describes them.

\b
Examples:
  jobworker pki init --dir pki --host localhost
  jobworker serve --state-dir /var/lib/jobworker \\
    --server-cert pki/server.crt --server-key pki/server.key --client-ca pki/ca.crt
  jobworker serve --config /etc/jobworker/server.toml
"""


Command = TypeVar("Command", bound=Callable[..., Any])


def _option(setting: Setting) -> Callable[[Command], Command]:
    if isinstance(setting.default, bool):
        names = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
        return click.option(names, setting.name, default=None, help=setting.purpose)
    shown = "" if setting.required or setting.default is None else f"  [default: {setting.kind.show(setting.default)}]"
    return click.option(setting.flag, setting.name, metavar=setting.kind.metavar, help=setting.purpose + shown)


def with_settings(command: Command) -> Command:
    """Give a command a flag for the file and one for each setting, in their order."""
    for setting in reversed(list(SETTINGS.values())):
        command = _option(setting)(command)
    return click.option(
        "--config", "file", type=click.Path(path_type=Path), envvar=FILE_VARIABLE, help="A TOML file with settings."
    )(command)


@click.command(help=_HELP)
@with_settings
def serve(file: Path | None, **flags: Any) -> None:  # noqa: ANN401 -- texts and booleans, which the settings read
    """Run the server."""
    try:
        settings = load_settings(flags=flags, environ=os.environ, file=file)
    except SettingsError as error:
        raise CliError(str(error), USAGE) from None

    from jobworker.server import main
    from jobworker.server.errors import StartError

    try:
        main.serve(settings)
    except StartError as error:
        raise CliError(str(error)) from None
