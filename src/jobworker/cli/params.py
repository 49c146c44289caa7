"""Kinds of values that options take."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SECONDS = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_CLOCK = re.compile(r"\d\d:\d\d")


class Duration(click.ParamType[timedelta]):
    """A duration such as 90s, 1h30m or 250ms; a number alone is of seconds, as for timeout(1)."""

    name = "duration"

    def __init__(self, minimum: timedelta = timedelta(0)) -> None:
        self._minimum = minimum

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it."""
        from jobworker.core.units import parse_duration

        if isinstance(value, timedelta):
            return value
        try:
            text = str(value)
            duration = parse_duration(f"{text}s" if _SECONDS.fullmatch(text) else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if duration < self._minimum:
            self.fail(f"{value!r} is less than {self._minimum.total_seconds():g}s", param, ctx)
        return duration


class Moment(click.ParamType[datetime]):
    """A time such as 2026-01-31T12:00Z, "2026-01-31 12:00:00 UTC" or, today, 12:00; or how long ago, such as 2h."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it; a time without a zone is local."""
        from jobworker.core.units import parse_duration

        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            return _time(text).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        try:
            return datetime.now(UTC) - parse_duration(text)
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no time; write one such as 2026-01-31T12:00Z, or how long ago, such as 2h", param, ctx
            )


def _time(text: str) -> datetime:
    """A time in ISO 8601 or as this program shows it; a clock time alone is of today. Raises `ValueError`."""
    text = re.sub(r"\s*(?:UTC|Z)$", "+00:00", text)
    if _CLOCK.match(text):
        today = datetime.now(UTC) if text.endswith("+00:00") else datetime.now(UTC).astimezone()
        text = f"{today:%Y-%m-%d}T{text}"
    return datetime.fromisoformat(text)


class Assignment(click.ParamType[tuple[str, str]]):
    """KEY=VALUE, or what else the form is called, of which there is an example."""

    name = "assignment"

    def __init__(self, form: str = "KEY=VALUE", example: str = "team=db") -> None:
        self._form = form
        self._example = example

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split it at the first equals sign."""
        name, equals, rest = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not {self._form}; write one such as {self._example}", param, ctx)
        return name, rest


def one_value_a_key(
    ctx: click.Context, param: click.Parameter, given: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """A callback of an option for assignments. Raises `click.BadParameter` for one key with two values."""
    values = dict[str, str]()
    for key, value in given:
        if values.setdefault(key, value) != value:
            raise click.BadParameter(f"{key!r} has two values, {values[key]!r} and {value!r}; give one", ctx, param)
    return given


class Size(click.ParamType[int]):
    """A size such as 100M or 64KiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        from jobworker.core.units import parse_size

        try:
            return value if isinstance(value, int) else parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Signal(click.ParamType[int]):
    """A signal's name or number."""

    name = "signal"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        from jobworker.core.errors import InvalidArgumentError
        from jobworker.core.job import parse_signal

        if isinstance(value, int):
            return value
        try:
            return parse_signal(str(value))
        except InvalidArgumentError as error:
            self.fail(error.problem, param, ctx)


class Utf8(click.ParamType[str]):
    """Text; what is not UTF-8 cannot be sent."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!r} is not UTF-8", param, ctx)
        return text


class JobId(Utf8):
    """The id of a job, or its beginning; a shell completes it."""

    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check that it can be one."""
        from jobworker.core.query import MIN_ID_PREFIX

        text = super().convert(value, param, ctx)
        if len(text) < MIN_ID_PREFIX:
            self.fail(f"{text!r} is too short; give at least {MIN_ID_PREFIX} characters of the id", param, ctx)
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 -- click's own
        """The newest jobs whose id begins so; none if the server does not say."""
        from jobworker.cli.completion import complete_job_id

        return complete_job_id(ctx, incomplete)
