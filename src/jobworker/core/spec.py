"""What to run: a validated, immutable description of a job."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import cast

from jobworker.core.checks import duration, of_type, text_map, word
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.limits import NO_LIMITS, Limits
from jobworker.core.output import NO_OUTPUT_LIMIT, OutputLimit, OutputMode

MAX_STRING_BYTES = 131_071  # the kernel's MAX_ARG_STRLEN less the final NUL; a longer one cannot be executed
MAX_NAME_CHARS = 128
MAX_LABELS = 32
MAX_LABEL_VALUE_CHARS = 128
MAX_CWD_BYTES = 4_095  # the kernel's PATH_MAX less the final NUL
MAX_TIME_LIMIT = timedelta(days=3650)

_LABEL_KEY = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?")


class ChildPolicy(StrEnum):
    """What happens to processes of the job that outlive its first process."""

    KILL = "KILL"
    WAIT = "WAIT"


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """What to run and under which conditions; valid once built.

    `argv` is the program and its arguments (no shell; a program without a slash is looked up in the job's PATH).
    `env` is added to the documented base environment. `cwd` is an absolute path. `time_limit` ends the job with cause
    TIMED_OUT. `output` says whether stdout and stderr are told apart, `output_limit` how much of them is kept; what it
    leaves open is the server's to say.

    A time limit may be given as a number of seconds, `cwd` as a path, and the policy and the output as their names.
    Raises `InvalidArgumentError` that names the field.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=_nothing)
    cwd: str = "/"
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=_nothing)
    time_limit: timedelta | None = None
    limits: Limits = NO_LIMITS
    child_policy: ChildPolicy = ChildPolicy.KILL
    output: OutputMode = OutputMode.COMBINED
    output_limit: OutputLimit = NO_OUTPUT_LIMIT

    def __post_init__(self) -> None:
        self._set("argv", self._checked_argv())
        self._set("env", MappingProxyType(self._checked_env()))
        self._set("cwd", self._checked_cwd())
        self._check_name()
        self._set("labels", MappingProxyType(self._checked_labels()))
        self._set("time_limit", self._checked_time_limit())
        of_type("spec.limits", self.limits, Limits, "Limits(cpus=..., memory=..., ...)")
        self._set("child_policy", word("spec.child_policy", self.child_policy, ChildPolicy))
        self._set("output", word("spec.output", self.output, OutputMode))
        of_type("spec.output_limit", self.output_limit, OutputLimit, "OutputLimit(size=..., policy=...)")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the class is frozen for everybody else

    @property
    def command_bytes(self) -> int:
        """Size of the arguments and the environment as the kernel counts them: bytes, each string with its NUL."""
        env = (f"{key}={value}" for key, value in self.env.items())
        return sum(len(_encode(text)) + 1 for text in (*self.argv, *env))

    def _checked_argv(self) -> tuple[str, ...]:
        if isinstance(self.argv, str):  # a sequence of strings, too: of its characters
            raise InvalidArgumentError("spec.argv", f"is one string; say {self.argv.split()!r}, or ['sh', '-c', ...]")
        of_type("spec.argv", self.argv, Sequence, "sequence of texts")
        if not self.argv:
            raise InvalidArgumentError("spec.argv", "is empty; it needs at least the program to run")
        for index, argument in enumerate(self.argv):
            _check_string(f"spec.argv[{index}]", argument)
        if not self.argv[0]:
            raise InvalidArgumentError("spec.argv[0]", "is empty; it must name the program to run")
        return tuple(self.argv)

    def _checked_env(self) -> dict[str, str]:
        env = text_map("spec.env", self.env)
        for key, value in env.items():
            if not key or "=" in key:
                raise InvalidArgumentError("spec.env", f"{key!r} is no name of a variable; it must have no '='")
            _check_string(f"spec.env[{key!r}]", f"{key}={value}")
        return env

    def _checked_cwd(self) -> str:
        path: object = self.cwd
        path = os.fspath(cast("os.PathLike[str]", path)) if isinstance(path, os.PathLike) else path
        cwd = _check_string("spec.cwd", path, maximum=MAX_CWD_BYTES)
        if not cwd.startswith("/"):
            raise InvalidArgumentError("spec.cwd", f"{cwd!r} is relative; an absolute path is needed")
        return cwd

    def _check_name(self) -> None:
        if self.name is None:
            return
        of_type("spec.name", self.name, str, "text")
        if not self.name or len(self.name) > MAX_NAME_CHARS:
            raise InvalidArgumentError("spec.name", f"must have 1 to {MAX_NAME_CHARS} characters")
        if not self.name.isprintable():
            raise InvalidArgumentError("spec.name", "has characters that cannot be printed")

    def _checked_labels(self) -> dict[str, str]:
        labels = text_map("spec.labels", self.labels)
        if len(labels) > MAX_LABELS:
            raise InvalidArgumentError("spec.labels", f"has {len(labels)} labels; at most {MAX_LABELS} are kept")
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key):
                raise InvalidArgumentError(
                    "spec.labels",
                    f"{key!r} is no key; a key has 1 to 63 of a-z 0-9 . _ / - and starts and ends with a-z 0-9",
                )
            if len(value) > MAX_LABEL_VALUE_CHARS or not value.isprintable():
                raise InvalidArgumentError(
                    f"spec.labels[{key!r}]", f"a value has at most {MAX_LABEL_VALUE_CHARS} printable characters"
                )
        return labels

    def _checked_time_limit(self) -> timedelta | None:
        if self.time_limit is None:
            return None
        limit = duration("spec.time_limit", self.time_limit)
        if not timedelta(0) < limit <= MAX_TIME_LIMIT:
            raise InvalidArgumentError("spec.time_limit", f"must be more than 0 and at most {MAX_TIME_LIMIT.days} days")
        return limit


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as os.fsencode does, whatever the process's locale


def _check_string(where: str, value: object, *, maximum: int = MAX_STRING_BYTES) -> str:
    """The text, if it can be a C string of the kernel's."""
    text = of_type(where, value, str, "text")
    if "\0" in text:
        raise InvalidArgumentError(where, "has a NUL character, which no program can be given")
    try:
        size = len(_encode(text))
    except UnicodeEncodeError:
        raise InvalidArgumentError(where, "has a lone surrogate that stands for no byte") from None
    if size > maximum:
        raise InvalidArgumentError(where, f"has {size} bytes; at most {maximum} are possible")
    return text
