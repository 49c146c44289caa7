"""Types of what a caller gives: nobody checks them before a program runs. What is not meant is refused by its field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar, cast

from jobworker.core.errors import InvalidArgumentError

Word = TypeVar("Word", bound=StrEnum)
Kind = TypeVar("Kind")


def of_type(field: str, value: object, kind: type[Kind], what: str) -> Kind:
    """The value, if it is of this type; a bool is no number. Raises `InvalidArgumentError`, which says what it is."""
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise InvalidArgumentError(field, f"{value!r} is no {what}")


def text_map(field: str, value: object) -> dict[str, str]:
    """A copy of a mapping of text to text. Raises `InvalidArgumentError`."""
    items = cast("Mapping[object, object]", of_type(field, value, Mapping, "mapping of text to text"))
    return {
        of_type(field, key, str, "text"): of_type(f"{field}[{key!r}]", item, str, "text") for key, item in items.items()
    }


def word(field: str, value: object, kind: type[Word]) -> Word:
    """A member of an enumeration, also given as its name: "keep-last" is KEEP_LAST. Raises `InvalidArgumentError`."""
    if isinstance(value, kind):
        return value
    member = kind.__members__.get(value.upper().replace("-", "_")) if isinstance(value, str) else None
    if member is None:
        raise InvalidArgumentError(field, f"{value!r} is none of {', '.join(kind.__members__)}")
    return member


def words(field: str, value: object, kind: type[Word]) -> frozenset[Word]:
    """Members of an enumeration: some, or one alone, each also given as its name. Raises `InvalidArgumentError`."""
    if isinstance(value, str):  # a collection of texts, too: of its characters
        value = (value,)
    some = cast("Iterable[object]", of_type(field, value, Iterable, "collection of names"))
    return frozenset(word(field, one, kind) for one in some)


def duration(field: str, value: object) -> timedelta:
    """A `timedelta`, also given as a number of seconds. Raises `InvalidArgumentError`."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidArgumentError(field, f"{value!r} is no duration; give a timedelta or a number of seconds")
    try:
        return timedelta(seconds=value)
    except (OverflowError, ValueError):  # of a NaN
        raise InvalidArgumentError(field, f"{value!r} seconds cannot be") from None


def aware(field: str, value: object) -> datetime:
    """A time that says its zone. Raises `InvalidArgumentError`."""
    moment = of_type(field, value, datetime, "datetime")
    if moment.utcoffset() is None:
        raise InvalidArgumentError(field, f"{value!r} has no time zone; give one such as datetime.now(UTC)")
    return moment
