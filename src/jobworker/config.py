"""The settings of a server: what there is, and how a file, the environment and flags say it.

Every setting is one field of `ServerSettings`, and has the same name everywhere: `state_dir` in the file is
JOBWORKER_STATE_DIR in the environment and --state-dir on the command line. A flag wins over the environment, which
wins over the file. Only the file has tables: those of `limits`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

from jobworker.auth.roles import Role
from jobworker.core.address import Address
from jobworker.core.errors import InvalidArgumentError, LimitAboveMaximumError
from jobworker.core.limit_options import OPTIONS, limits_of
from jobworker.core.limit_policy import NO_POLICY, LimitPolicy
from jobworker.core.output import (
    DEFAULT_OUTPUT_LIMIT,
    DEFAULT_OUTPUT_RESERVE,
    OutputLimit,
    OutputPolicy,
    OverflowPolicy,
)
from jobworker.core.units import format_duration, format_size, parse_duration, parse_size

PREFIX = "JOBWORKER_"
FILE_VARIABLE = f"{PREFIX}CONFIG"

# Variables with our prefix that are not the server's: the client's settings, and what every job is given.
FOREIGN_VARIABLES = frozenset(
    PREFIX + name for name in ("SERVER", "CA", "CERT", "KEY", "PROFILE", "CONFIG_DIR", "RECONNECT_TIMEOUT", "JOB_ID")
)

_LIMITS = "limits"
_DEFAULT, _MAXIMUM, _ROLES = "default", "maximum", "roles"

_MAX_VALUE_CHARS = 4_096  # a path has no more, and nothing else comes near it
_PEM_MARK = "-----BEGIN"
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class SettingsError(Exception):
    """The settings are wrong. The text is one line for the person who wrote them, and shows no secret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of value: what docs and --help call it, how to read it (raises `ValueError`) and how to write it."""

    name: str
    metavar: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str] = str


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError("must be a text")
    return raw


def _path(raw: object) -> Path:
    return Path(_text(raw)).expanduser()


def _flag(raw: object) -> bool:
    value = raw if isinstance(raw, bool) else _WORDS.get(str(raw).lower())
    if value is None:
        raise ValueError(f"{raw!r} is neither true nor false")
    return value


def _count(raw: object) -> int:
    number = int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() else raw
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{raw!r} is no number of at least 1")
    return number


def _size(raw: object) -> int:
    return _count(parse_size(raw) if isinstance(raw, str) else raw)


def _duration(raw: object) -> timedelta:
    return parse_duration(raw if isinstance(raw, str) else repr(raw))


def _choice(choices: tuple[str, ...], raw: object) -> str:
    if raw not in choices:
        raise ValueError(f"{raw!r} is none of {', '.join(choices)}")
    return str(raw)


def _audit_target(raw: object) -> Path | Literal["stderr", "off"]:
    text = _text(raw)
    return text if text in ("stderr", "off") else _path(text)


def _one_of(*choices: str) -> Kind:
    return Kind(name=", ".join(choices), metavar="|".join(choices), parse=partial(_choice, choices))


ADDRESS = Kind(name="HOST:PORT", metavar="HOST:PORT", parse=lambda raw: Address.parse(_text(raw), lowest_port=0))
PATH = Kind(name="path", metavar="PATH", parse=_path)
URL = Kind(name="path, URL", metavar="URL", parse=_text)
TEXT = Kind(name="text", metavar="NAME", parse=_text)
FLAG = Kind(name="true or false", metavar="", parse=_flag, show=lambda value: str(value).lower())
COUNT = Kind(name="number", metavar="N", parse=_count)
SIZE = Kind(name="size, such as 64KiB", metavar="SIZE", parse=_size, show=format_size)
DURATION = Kind(name="duration, such as 30d or 10s", metavar="DURATION", parse=_duration, show=format_duration)
AUDIT_TARGET = Kind(name="path, stderr, off", metavar="PATH|stderr|off", parse=_audit_target)


DEFAULT_LISTEN = Address(host="127.0.0.1", port=8443)
DEFAULT_SHUTDOWN_GRACE = timedelta(seconds=10)
DEFAULT_RETENTION_AGE = timedelta(days=30)
DEFAULT_ARCHIVE_AFTER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """All settings of a server, valid once `load_settings` has built them; each with its kind and its purpose."""

    listen: Annotated[Address, ADDRESS, "Where to listen; port 0 takes a free one."] = DEFAULT_LISTEN
    state_dir: Annotated[Path, PATH, "Where jobs, their output and the database are kept; made with mode 0700."]
    server_cert: Annotated[Path, PATH, "The server's certificate, PEM, followed by intermediate ones if there are any."]
    server_key: Annotated[Path, PATH, "The private key of the server's certificate, PEM, ECDSA or RSA."]
    client_ca: Annotated[Path, PATH, "The certificates of the authorities that issue client certificates, PEM."]
    durability: Annotated[
        Literal["process", "power"],
        _one_of("process", "power"),
        "What an answered start survives: a kill of every process of the server, or a power cut, too.",
    ] = "process"
    job_user: Annotated[
        str | None, TEXT, "The user that jobs run as; only a server that was started as root can choose."
    ] = None
    stop_jobs_on_exit: Annotated[bool, FLAG, "Whether jobs are stopped when the server ends, rather than run on."] = (
        False
    )
    shutdown_grace: Annotated[
        timedelta, DURATION, "How long calls that are under way may take to end when the server ends."
    ] = DEFAULT_SHUTDOWN_GRACE
    max_running_jobs: Annotated[int, COUNT, "Jobs that run at the same time."] = 1000
    max_running_jobs_per_user: Annotated[int, COUNT, "Jobs of one user that run at the same time."] = 200
    max_followers_per_user: Annotated[
        int, COUNT, "Streams and waits of one user that are open at the same time, and as many stops under way."
    ] = 256
    max_command_bytes: Annotated[int, SIZE, "Size of a job's arguments and environment."] = 1024**2
    max_request_bytes: Annotated[int, SIZE, "Size of a request; at least that of max_command_bytes."] = 2 * 1024**2
    retention_age: Annotated[timedelta, DURATION, "Ended jobs that are older are removed."] = DEFAULT_RETENTION_AGE
    retention_bytes: Annotated[int, SIZE, "When the output of ended jobs is larger in all, the oldest are removed."] = (
        50 * 1024**3
    )
    compress_after: Annotated[
        timedelta | None, DURATION, "How long after a job's end its output is compressed; never by default."
    ] = None
    archive_url: Annotated[
        str | None, URL, "Where output of ended jobs is moved: a folder, or what fsspec knows; nowhere by default."
    ] = None
    archive_after: Annotated[timedelta, DURATION, "How long after a job's end that is done."] = DEFAULT_ARCHIVE_AFTER
    output_limit: Annotated[int, SIZE, "How much output is kept of a job that asks for no limit."] = (
        DEFAULT_OUTPUT_LIMIT
    )
    output_policy: Annotated[
        Literal["stop", "drop", "keep-last"],
        _one_of("stop", "drop", "keep-last"),
        "What a job meets whose output reaches its limit, unless it asks for something: it is stopped, the rest is "
        "dropped, or the oldest makes room.",
    ] = "keep-last"
    max_output_limit: Annotated[
        int | None, SIZE, "The largest output limit that a job may ask for; none by default."
    ] = None
    output_reserve: Annotated[
        int, SIZE, "What output leaves free of its disk, for records; with less, output is lost as on a full disk."
    ] = DEFAULT_OUTPUT_RESERVE
    max_state_bytes: Annotated[
        int | None, SIZE, "No job is started while the output of all takes more of the disk; no bound by default."
    ] = None
    output_watch: Annotated[
        Literal["auto", "inotify", "poll"],
        _one_of("auto", "inotify", "poll"),
        "How new output is noticed: the kernel tells (inotify), or it is looked for; by default as state_dir takes it.",
    ] = "auto"
    cgroups: Annotated[
        Literal["require", "auto", "off"],
        _one_of("require", "auto", "off"),
        "Limits of jobs: require those of CPU, memory, I/O and processes, enforce what the host can, or none.",
    ] = "auto"
    audit_log: Annotated[
        Path | Literal["stderr", "off"],
        AUDIT_TARGET,
        "Where the line for each call goes; a file that was renamed away is opened anew.",
    ] = "stderr"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _one_of("debug", "info", "warning", "error"),
        "The least important messages that are shown.",
    ] = "info"

    limits: Mapping[Role, LimitPolicy] = field(default_factory=dict[Role, LimitPolicy])

    def __post_init__(self) -> None:
        if self.max_request_bytes < self.max_command_bytes:
            raise SettingsError(
                f"max_request_bytes ({format_size(self.max_request_bytes)}) is less than max_command_bytes "
                f"({format_size(self.max_command_bytes)}), so that a command of that size could not be sent"
            )
        if self.max_output_limit is not None and self.max_output_limit < self.output_limit:
            raise SettingsError(
                f"max_output_limit ({format_size(self.max_output_limit)}) is less than output_limit "
                f"({format_size(self.output_limit)}), which jobs get that ask for none"
            )
        try:
            OutputLimit(size=self.output_limit)
        except InvalidArgumentError as error:
            raise SettingsError(f"output_limit {error.problem}") from None

    @property
    def output(self) -> OutputPolicy:
        """What these settings say about output."""
        policy = OverflowPolicy(self.output_policy.upper().replace("-", "_"))
        return OutputPolicy(
            default=OutputLimit(size=self.output_limit, policy=policy),
            maximum=self.max_output_limit,
            reserve=self.output_reserve,
            max_state_bytes=self.max_state_bytes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What there is to know of one setting."""

    name: str
    kind: Kind
    purpose: str
    default: Any
    required: bool

    @property
    def flag(self) -> str:
        """What the command line calls it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """What the environment calls it."""
        return PREFIX + self.name.upper()


def _declared() -> Iterator[Setting]:
    hints = get_type_hints(ServerSettings, include_extras=True)
    for one in fields(ServerSettings):
        if one.name == _LIMITS:
            continue
        _type, kind, purpose = get_args(hints[one.name])
        required = one.default is MISSING
        default = None if required else one.default
        yield Setting(name=one.name, kind=kind, purpose=purpose, default=default, required=required)


SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _declared()}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """A value as it was said, where, and what a relative path in it is relative to."""

    raw: object
    where: str
    base: Path = Path()

    def value_for(self, setting: Setting) -> Any:  # noqa: ANN401 -- the setting's kind decides the type
        text = str(self.raw)
        if _PEM_MARK in text:  # a pasted key must not come out again in an error
            raise SettingsError(f"{self.where} holds a certificate or a key itself; give the path of its file")
        if len(text) > _MAX_VALUE_CHARS:
            raise SettingsError(f"{self.where} is too long")
        try:
            value = setting.kind.parse(self.raw)
        except (ValueError, RuntimeError) as error:  # RuntimeError: "~name" of a user that does not exist
            raise SettingsError(f"{self.where}: {error}") from None
        return self.base / value if isinstance(value, Path) else value


def load_settings(
    *, flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> ServerSettings:
    """The settings that the three sources say together. Raises `SettingsError`.

    `flags` maps names of settings to values, None where none was given. An empty variable counts as not set. Relative
    paths in the file are relative to its folder.
    """
    settings, unset = load_known_settings(flags=flags, environ=environ, file=file)
    for name in unset:
        setting = SETTINGS[name]
        raise SettingsError(f"{name} is not set: give {setting.flag}, {setting.variable} or {name} in the file")
    return settings


def load_known_settings(
    *, flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> tuple[ServerSettings, tuple[str, ...]]:
    """As `load_settings`, for who can do with less; with the names of required settings that nobody says.

    The values of these mean nothing.
    """
    content = _content(file) if file else {}
    limits = _limits(content.pop(_LIMITS, {}), f"{file}: {_LIMITS}")
    said = {
        **(_from_file(content, file) if file else {}),
        **_from_environment(environ),
        **{name: _Said(raw=raw, where=SETTINGS[name].flag) for name, raw in flags.items() if raw is not None},
    }
    unset = tuple(name for name, setting in SETTINGS.items() if setting.required and name not in said)
    values = {name: one.value_for(SETTINGS[name]) for name, one in said.items()}
    return ServerSettings(limits=limits, **dict.fromkeys(unset, Path()), **values), unset


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings in {path}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(f"{path} is no TOML: {error}") from None


def _from_file(content: Mapping[str, Any], path: Path) -> dict[str, _Said]:
    for key in content:
        if key not in SETTINGS:
            raise SettingsError(f"{path}: there is no setting {key!r}{_nearest(key, (*SETTINGS, _LIMITS))}")
    return {key: _Said(raw=raw, where=f"{path}: {key}", base=path.parent) for key, raw in content.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Said]:
    names = {setting.variable: setting.name for setting in SETTINGS.values()}
    ours = [name for name in environ if name.startswith(PREFIX)]
    for variable in ours:
        if variable not in names and variable not in FOREIGN_VARIABLES and variable != FILE_VARIABLE:
            raise SettingsError(f"there is no variable {variable}{_nearest(variable, names)}")
    return {names[key]: _Said(raw=environ[key], where=key) for key in ours if key in names and environ[key]}


def _limits(raw: object, where: str) -> dict[Role, LimitPolicy]:
    """A policy for each role: the common tables, with what the tables of the role say in place of it, key by key."""
    tables = _table(raw, where, (_DEFAULT, _MAXIMUM, _ROLES))
    common = {name: _limit_values(tables.get(name, {}), f"{where}.{name}") for name in (_DEFAULT, _MAXIMUM)}
    roles = _table(tables.get(_ROLES, {}), f"{where}.{_ROLES}", tuple(Role))
    policies: dict[Role, LimitPolicy] = {}
    for role in Role:
        place = f"{where}.{_ROLES}.{role}"
        own = _table(roles.get(role, {}), place, (_DEFAULT, _MAXIMUM))
        values = {name: common[name] | _limit_values(own.get(name, {}), f"{place}.{name}") for name in common}
        try:
            policy = LimitPolicy(**{name: limits_of(said) for name, said in values.items()})
        except LimitAboveMaximumError as error:
            raise SettingsError(f"{where}: the default of role {role}: {error}") from None
        except (InvalidArgumentError, ValueError) as error:
            raise SettingsError(f"{where}: for role {role}: {error}") from None
        if policy != NO_POLICY:
            policies[role] = policy
    return policies


def _limit_values(raw: object, where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in _table(raw, where, tuple(OPTIONS)).items():
        try:
            values[name] = OPTIONS[name].parse(value)
        except ValueError as error:
            raise SettingsError(f"{where}.{name}: {error}") from None
    return values


def _table(raw: object, where: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise SettingsError(f"{where} must be a table")
    table = cast("dict[str, Any]", raw)
    for key in table:
        if key not in keys:
            raise SettingsError(f"{where}: there is no {key!r}{_nearest(key, keys)}")
    return table


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
