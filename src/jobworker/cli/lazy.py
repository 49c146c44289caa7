"""A group of commands whose modules are loaded when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, kw_only=True, slots=True)
class LazyCommand:
    """Where a command is ("module:attribute"), and what the list of commands says about it, so as not to load it."""

    source: str
    summary: str

    def load(self) -> click.Command:
        """The command itself."""
        module, _, attribute = self.source.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), self.source  # noqa: S101 -- for the type
        return command


# What other programs call it.
_ELSEWHERE = {"ps": "list", "logs": "stream", "kill": "signal", "rm": "remove", "exec": "run"}


class LazyGroup(click.Group):
    """A group of lazy commands, listed in sections and in the order in which they are given."""

    def __init__(self, *args: Any, sections: Mapping[str, Mapping[str, LazyCommand]], **kwargs: Any) -> None:  # noqa: ANN401 -- click's own
        super().__init__(*args, **kwargs)
        self.sections = sections
        self.lazy = {name: command for section in sections.values() for name, command in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's own
        """The names of all commands."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's own
        """A command, loaded now."""
        lazy = self.lazy.get(cmd_name)
        return None if lazy is None else lazy.load()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the words begin with, or a complaint that names the nearest."""
        if args[0] not in self.lazy and not args[0].startswith("-"):
            from difflib import get_close_matches

            elsewhere = _ELSEWHERE.get(args[0])
            near = [elsewhere] if elsewhere in self.lazy else get_close_matches(args[0], self.lazy, n=1)
            ctx.fail(f"No such command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 -- click's own
        """The commands, section by section, none of them loaded."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, lazy.summary) for name, lazy in commands.items()])
