"""Errors as gRPC statuses and back, by one table.

A status carries a `google.rpc.Status` in the trailing metadata `grpc-status-details-bin`, and in it one
`google.rpc.ErrorInfo` (AIP-193) with domain "jobworker", a stable reason, and the attributes of the error as metadata.
Fields and limits have the wire's names there, and core's on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from jobworker.api.limit_names import core_limit, core_path, wire_limit, wire_path
from jobworker.core.errors import (
    CommandNotStartedError,
    InternalError,
    InvalidArgumentError,
    JobEndedError,
    JobNotEndedError,
    JobNotFoundError,
    JobworkerError,
    LimitAboveMaximumError,
    LimitNotEnforceableError,
    OffsetOutOfRangeError,
    OutputUnavailableError,
    PauseNotSupportedError,
    PermissionDeniedError,
    QuotaExceededError,
    RequestIdReusedError,
    ServerUnavailableError,
    StoreError,
    UnauthenticatedError,
)

DOMAIN = "jobworker"
DETAILS_KEY = "grpc-status-details-bin"

# gRPC drops a call whose trailing metadata passes 8 KiB. The text is sent twice, once percent-encoded (up to three
# bytes for one) and once, with the metadata, in base64: 3 * 800 + 4 / 3 * (800 + 3 * 600) stays well below.
MAX_TEXT_BYTES = 800
MAX_VALUE_BYTES = 600


# The attributes that name fields, and how to give them their names there and here.
_WIRE_NAMES: dict[str, Callable[[str], str]] = {"field": wire_path, "limit": wire_limit, "problem": wire_path}
_CORE_NAMES: dict[str, Callable[[str], str]] = {"field": core_path, "limit": core_limit, "problem": core_path}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """How errors of one class travel.

    `attributes` maps keys of the ErrorInfo's metadata to attributes of the error, which are parameters of its
    constructor, too. `numbers` are the keys whose values are integers. An error without attributes is its text.
    """

    error: type[JobworkerError]
    code: grpc.StatusCode
    reason: str
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    numbers: frozenset[str] = frozenset()
    holds_for: Callable[[JobworkerError], bool] = lambda _error: True

    def for_wire(self, error: JobworkerError) -> JobworkerError:
        """The error with the wire's names in it."""
        if not _WIRE_NAMES.keys() & self.attributes.keys():
            return error
        arguments = {name: getattr(error, name) for name in self.attributes.values()}
        return self.error(**{name: _named_by(_WIRE_NAMES, name, value) for name, value in arguments.items()})

    def metadata_of(self, error: JobworkerError) -> dict[str, str]:
        """The attributes of an error as texts."""
        return {key: _shortened(str(getattr(error, name)), MAX_VALUE_BYTES) for key, name in self.attributes.items()}

    def error_from(self, text: str, metadata: Mapping[str, str]) -> JobworkerError:
        """The error that was sent. Raises `KeyError` or `ValueError` if the metadata does not describe one."""
        if not self.attributes:
            return self.error(text)
        arguments = {
            name: int(metadata[key]) if key in self.numbers else _named_by(_CORE_NAMES, name, metadata[key])
            for key, name in self.attributes.items()
        }
        return self.error(**arguments)


def _named_by(names: Mapping[str, Callable[[str], str]], attribute: str, value: str) -> str:
    return names[attribute](value) if attribute in names else value


def _named(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _program_is_missing(error: JobworkerError) -> bool:
    return isinstance(error, CommandNotStartedError) and error.not_found


def _program_cannot_run(error: JobworkerError) -> bool:
    return isinstance(error, CommandNotStartedError) and error.stage in ("exec", "interpreter")


_COMMAND = _named("errno", "stage", "subject")
_ERRNO = frozenset({"errno"})

# The first row that holds is the one. docs/api.md shows this table.
TABLE: tuple[Row, ...] = (
    Row(
        error=LimitAboveMaximumError,
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="LIMIT_ABOVE_MAXIMUM",
        attributes=_named("limit", "maximum"),
    ),
    Row(
        error=InvalidArgumentError,
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_ARGUMENT",
        attributes=_named("field", "problem"),
    ),
    Row(
        error=CommandNotStartedError,
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="COMMAND_NOT_FOUND",
        attributes=_COMMAND,
        numbers=_ERRNO,
        holds_for=_program_is_missing,
    ),
    Row(
        error=CommandNotStartedError,
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="COMMAND_NOT_EXECUTABLE",
        attributes=_COMMAND,
        numbers=_ERRNO,
        holds_for=_program_cannot_run,
    ),
    Row(
        error=CommandNotStartedError,
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="COMMAND_NOT_STARTED",
        attributes=_COMMAND,
        numbers=_ERRNO,
    ),
    Row(
        error=LimitNotEnforceableError,
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="LIMIT_NOT_ENFORCEABLE",
        attributes=_named("limit", "problem"),
    ),
    Row(error=PauseNotSupportedError, code=grpc.StatusCode.FAILED_PRECONDITION, reason="PAUSE_NOT_SUPPORTED"),
    Row(
        error=QuotaExceededError,
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason="QUOTA_EXCEEDED",
        attributes=_named("resource", "bound"),
        numbers=frozenset({"bound"}),
    ),
    Row(
        error=JobNotFoundError,
        code=grpc.StatusCode.NOT_FOUND,
        reason="JOB_NOT_FOUND",
        attributes=_named("job_id"),
    ),
    Row(
        error=JobEndedError,
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="JOB_ENDED",
        attributes=_named("job_id", "action", "state"),
    ),
    Row(
        error=JobNotEndedError,
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="JOB_NOT_ENDED",
        attributes=_named("job_id", "action"),
    ),
    Row(
        error=RequestIdReusedError,
        code=grpc.StatusCode.ALREADY_EXISTS,
        reason="REQUEST_ID_REUSED",
        attributes=_named("request_id"),
    ),
    Row(
        error=OffsetOutOfRangeError,
        code=grpc.StatusCode.OUT_OF_RANGE,
        reason="OFFSET_OUT_OF_RANGE",
        attributes={"job_id": "job_id", "offset": "offset", "first_offset": "first", "end_offset": "end"},
        numbers=frozenset({"offset", "first_offset", "end_offset"}),
    ),
    Row(
        error=OutputUnavailableError,
        code=grpc.StatusCode.UNAVAILABLE,
        reason="OUTPUT_UNAVAILABLE",
        attributes=_named("job_id"),
    ),
    Row(error=UnauthenticatedError, code=grpc.StatusCode.UNAUTHENTICATED, reason="UNAUTHENTICATED"),
    Row(error=PermissionDeniedError, code=grpc.StatusCode.PERMISSION_DENIED, reason="PERMISSION_DENIED"),
    Row(error=StoreError, code=grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE"),
    Row(error=ServerUnavailableError, code=grpc.StatusCode.UNAVAILABLE, reason="SERVER_UNAVAILABLE"),
    Row(
        error=InternalError,
        code=grpc.StatusCode.INTERNAL,
        reason="INTERNAL",
        attributes=_named("incident"),
    ),
)

_ROW_BY_REASON = {row.reason: row for row in TABLE}

# What a status means that gRPC itself, a proxy or another server made: one without our ErrorInfo.
_FOREIGN: dict[grpc.StatusCode, Callable[[str], JobworkerError]] = {
    grpc.StatusCode.UNAVAILABLE: ServerUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: ServerUnavailableError,
    grpc.StatusCode.CANCELLED: ServerUnavailableError,  # a loaded server cancels calls that nobody asked it to cancel
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.INVALID_ARGUMENT: lambda text: InvalidArgumentError("request", text),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """A gRPC status that carries an error."""

    code: grpc.StatusCode
    text: str
    info: error_details_pb2.ErrorInfo

    @property
    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The metadata to send with it."""
        rich = status_pb2.Status(code=self.code.value[0], message=self.text)
        rich.details.add().Pack(self.info)
        return ((DETAILS_KEY, rich.SerializeToString()),)


def status_from(error: JobworkerError) -> Status:
    """The status that carries an error; its texts are shortened to what metadata can hold.

    Raises `LookupError` for an error that is not in the table: a bug of the server, not a fault of the caller.
    """
    for row in TABLE:
        if isinstance(error, row.error) and row.holds_for(error):
            sent = row.for_wire(error)
            info = error_details_pb2.ErrorInfo(domain=DOMAIN, reason=row.reason, metadata=row.metadata_of(sent))
            return Status(code=row.code, text=_shortened(str(sent), MAX_TEXT_BYTES), info=info)
    raise LookupError(f"{type(error).__name__} has no row in the table of errors")


def error_from(
    code: grpc.StatusCode, text: str | None, trailing_metadata: Iterable[tuple[str, str | bytes]] | None = None
) -> JobworkerError:
    """The error that a call's status carries.

    A status without our ErrorInfo (gRPC itself made it, or a newer server has a new reason) becomes the error that
    tells a caller most by its code, and a plain `JobworkerError` where the code tells nothing.
    """
    text = text or ""
    info = _error_info(trailing_metadata or ())
    row = _ROW_BY_REASON.get(info.reason) if info else None
    if info and row:
        try:
            return row.error_from(text, dict(info.metadata))
        except (KeyError, ValueError):
            pass  # another version's idea of this reason; the code still tells the kind
    foreign = _FOREIGN.get(code)
    return foreign(text) if foreign else JobworkerError(f"{text} ({code.name})" if text else code.name)


def _error_info(trailing_metadata: Iterable[tuple[str, str | bytes]]) -> error_details_pb2.ErrorInfo | None:
    for key, value in trailing_metadata:
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        info = error_details_pb2.ErrorInfo()
        try:
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return info
        except DecodeError:
            return None
    return None


def _shortened(text: str, maximum: int) -> str:
    """The text, without its middle if it has more than `maximum` bytes: what is wrong stands at its end."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) > maximum:
        half = maximum // 2 - 3
        encoded = encoded[:half] + b" ... " + encoded[-half:]
    return encoded.decode("utf-8", "ignore")
