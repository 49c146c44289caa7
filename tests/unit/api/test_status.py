"""Every error has a status, and every status gives its error back."""

from __future__ import annotations

import errno
import re

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from jobworker.api import status
from jobworker.api.status import DETAILS_KEY, TABLE, error_from, status_from
from jobworker.core import errors
from jobworker.core.errors import JobworkerError

JOB = "6b0b0b0e-0000-4000-8000-000000000000"

EXAMPLES: tuple[tuple[JobworkerError, str, str], ...] = (
    (errors.InvalidArgumentError("spec.argv", "is empty"), "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    (
        errors.CommandNotStartedError(errno=errno.ENOENT, stage="exec", subject="nope"),
        "FAILED_PRECONDITION",
        "COMMAND_NOT_FOUND",
    ),
    (
        errors.CommandNotStartedError(errno=errno.EACCES, stage="exec", subject="/etc/passwd"),
        "FAILED_PRECONDITION",
        "COMMAND_NOT_EXECUTABLE",
    ),
    (
        errors.CommandNotStartedError(errno=errno.ENOENT, stage="chdir", subject="/nope"),
        "FAILED_PRECONDITION",
        "COMMAND_NOT_STARTED",
    ),
    (errors.LimitAboveMaximumError("memory", str(2**31)), "INVALID_ARGUMENT", "LIMIT_ABOVE_MAXIMUM"),
    (errors.LimitNotEnforceableError("memory", "no cgroup v2"), "FAILED_PRECONDITION", "LIMIT_NOT_ENFORCEABLE"),
    (errors.PauseNotSupportedError(), "FAILED_PRECONDITION", "PAUSE_NOT_SUPPORTED"),
    (errors.QuotaExceededError("running jobs per user", 200), "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    (errors.JobNotFoundError(JOB), "NOT_FOUND", "JOB_NOT_FOUND"),
    (errors.JobEndedError(JOB, action="stop", state="FINISHED"), "FAILED_PRECONDITION", "JOB_ENDED"),
    (errors.JobNotEndedError(JOB, action="remove"), "FAILED_PRECONDITION", "JOB_NOT_ENDED"),
    (errors.RequestIdReusedError(JOB), "ALREADY_EXISTS", "REQUEST_ID_REUSED"),
    (errors.OffsetOutOfRangeError(JOB, offset=9, first=0, end=2**40), "OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE"),
    (errors.OutputUnavailableError(JOB), "UNAVAILABLE", "OUTPUT_UNAVAILABLE"),
    (errors.UnauthenticatedError("no role"), "UNAUTHENTICATED", "UNAUTHENTICATED"),
    (errors.PermissionDeniedError("not you"), "PERMISSION_DENIED", "PERMISSION_DENIED"),
    (errors.StoreError("the disk is full"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
    (errors.ServerUnavailableError("shutting down"), "UNAVAILABLE", "SERVER_UNAVAILABLE"),
    (errors.InternalError("abcd"), "INTERNAL", "INTERNAL"),
)


def subclasses(base: type[JobworkerError]) -> set[type[JobworkerError]]:
    """All classes of errors below a class."""
    return {below for child in base.__subclasses__() for below in (child, *subclasses(child))}


def test_no_error_is_unmapped() -> None:
    """Every class of error that core defines has a row, and every row and example is of such a class."""
    defined = {error for error in subclasses(JobworkerError) if error.__module__ == errors.__name__}
    assert defined == {row.error for row in TABLE} == {type(error) for error, _, _ in EXAMPLES}


def test_reasons_are_unique_and_well_formed() -> None:
    """A reason names one row, in the form that AIP-193 asks for; metadata keys likewise."""
    reasons = [row.reason for row in TABLE]
    assert len(set(reasons)) == len(reasons)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+[A-Z0-9]", reason) for reason in reasons)
    assert all(re.fullmatch(r"[a-z][a-zA-Z0-9-_]+", key) for row in TABLE for key in row.attributes)
    assert {reason for _, _, reason in EXAMPLES} == set(reasons)


@pytest.mark.parametrize("error, code, reason", EXAMPLES, ids=[reason for _, _, reason in EXAMPLES])
def test_an_error_survives_the_wire(error: JobworkerError, code: str, reason: str) -> None:
    """An error has its code and reason, and comes back as the same class with the same attributes and text."""
    sent = status_from(error)
    assert (sent.code.name, sent.info.reason, sent.info.domain) == (code, reason, "jobworker")
    back = error_from(sent.code, sent.text, sent.trailing_metadata)
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert str(back) == str(error) == sent.text.replace("memory_bytes", "memory")


@pytest.mark.parametrize(
    "error, key, name, text",
    [
        (
            errors.InvalidArgumentError("spec.limits.swap", "?"),
            "field",
            "spec.limits.swap_bytes",
            "spec.limits.swap_bytes: ?",
        ),
        (errors.InvalidArgumentError("spec.memory", "?"), "field", "spec.memory", "spec.memory: ?"),
        (errors.LimitNotEnforceableError("memory", "?"), "limit", "memory_bytes", "limits.memory_bytes: ?"),
        (errors.LimitNotEnforceableError("io", "?"), "limit", "io", "limits.io: ?"),
        (
            errors.LimitNotEnforceableError("cpus", "? (and so limits.swap)"),
            "problem",
            "? (and so limits.swap_bytes)",
            "limits.cpus: ? (and so limits.swap_bytes)",
        ),
        (
            errors.LimitAboveMaximumError("memory_high", str(2**31)),
            "limit",
            "memory_high_bytes",
            "limits.memory_high_bytes: is above the maximum of 2GiB on this server",
        ),
    ],
)
def test_a_limit_has_the_wires_name_on_the_wire(error: JobworkerError, key: str, name: str, text: str) -> None:
    """What a client of any language reads names the field of the message that it has sent; in Python, core's."""
    sent = status_from(error)
    assert (sent.info.metadata[key], sent.text) == (name, text)
    assert str(error_from(sent.code, sent.text, sent.trailing_metadata)) == str(error)


def test_the_range_of_valid_offsets_is_told_in_order() -> None:
    """What docs and proto promise of an offset out of range is in the metadata under those very names."""
    sent = status_from(errors.OffsetOutOfRangeError(JOB, offset=9, first=2, end=7))
    assert dict(sent.info.metadata) == {"job_id": JOB, "offset": "9", "first_offset": "2", "end_offset": "7"}


def test_the_details_are_a_rich_status() -> None:
    """Any gRPC client's library for rich errors can read the details: code and text are repeated in them."""
    sent = status_from(errors.JobNotFoundError(JOB))
    ((key, value),) = sent.trailing_metadata
    rich = status_pb2.Status.FromString(value)
    info = error_details_pb2.ErrorInfo()
    assert key == "grpc-status-details-bin"
    assert (rich.code, rich.message) == (5, sent.text)
    assert rich.details[0].Unpack(info)
    assert dict(info.metadata) == {"job_id": JOB}


@pytest.mark.parametrize("letter", ["x", "ü", "\N{PILE OF POO}", "\udcff", "'\\"])
@pytest.mark.parametrize("row", TABLE, ids=[row.reason for row in TABLE])
def test_a_huge_text_fits_into_metadata(letter: str, row: status.Row) -> None:
    """Whatever a client sends is named in errors only as far as a status can carry; its end says what is wrong."""
    huge = letter * 100_000
    sent = status_from(row.error_from(huge, {key: "7" if key in row.numbers else huge for key in row.attributes}))
    percent_encoded = sum(1 if 0x20 <= byte <= 0x7E else 3 for byte in sent.text.encode())
    assert percent_encoded + len(sent.trailing_metadata[0][1]) * 4 / 3 < 8192 - 500  # the rest is gRPC's own
    assert isinstance(error_from(sent.code, sent.text, sent.trailing_metadata), JobworkerError)


def test_a_shortened_text_keeps_its_end() -> None:
    """The problem stands at the end of a text and stays."""
    sent = status_from(errors.InvalidArgumentError("spec.env['" + "x" * 5000 + "']", "has a NUL character"))
    assert sent.text.startswith("spec.env['xxx")
    assert sent.text.endswith("xxx']: has a NUL character")


@pytest.mark.parametrize(
    "code, error",
    [
        (grpc.StatusCode.UNAVAILABLE, errors.ServerUnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.ServerUnavailableError),
        (grpc.StatusCode.CANCELLED, errors.ServerUnavailableError),
        (grpc.StatusCode.UNAUTHENTICATED, errors.UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDeniedError),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgumentError),
        (grpc.StatusCode.UNIMPLEMENTED, JobworkerError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, JobworkerError),
        (grpc.StatusCode.UNKNOWN, JobworkerError),
    ],
)
@pytest.mark.parametrize(
    "metadata",
    [None, (), ((DETAILS_KEY, b"\xff\xff"),), ((DETAILS_KEY, b""),), (("other-bin", b"\x00"), ("other", "text"))],
)
def test_a_status_of_somebody_elses_is_told_by_its_code(
    code: grpc.StatusCode, error: type[JobworkerError], metadata: tuple[tuple[str, str | bytes], ...] | None
) -> None:
    """A fault of gRPC's own, without our details or with unreadable ones, still has a class and keeps its text."""
    back = error_from(code, "what gRPC says", metadata)
    assert type(back) is error
    assert "what gRPC says" in str(back)


@pytest.mark.parametrize(
    "info",
    [
        error_details_pb2.ErrorInfo(domain="jobworker", reason="NEWER_REASON"),
        error_details_pb2.ErrorInfo(domain="elsewhere.example", reason="JOB_NOT_FOUND", metadata={"job_id": JOB}),
        error_details_pb2.ErrorInfo(domain="jobworker", reason="JOB_NOT_FOUND"),
        error_details_pb2.ErrorInfo(domain="jobworker", reason="INTERNAL", metadata={"other": "x"}),
        error_details_pb2.ErrorInfo(domain="jobworker", reason="QUOTA_EXCEEDED", metadata={"bound": "?"}),
    ],
)
def test_details_of_another_version_do_not_hide_the_error(info: error_details_pb2.ErrorInfo) -> None:
    """An unknown reason, another domain, missing or odd metadata: the text and the code stay."""
    sent = status.Status(code=grpc.StatusCode.NOT_FOUND, text="gone", info=info)
    back = error_from(sent.code, sent.text, sent.trailing_metadata)
    assert type(back) is JobworkerError
    assert str(back) == "gone (NOT_FOUND)"


def test_an_error_without_a_row_is_a_fault_of_ours() -> None:
    """The table is asked only for what callers can react to; anything else must not pass for it."""
    with pytest.raises(LookupError, match="JobworkerError"):
        status_from(JobworkerError("?"))
