"""The composition root of the server: from settings to a process that serves until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from signal import SIGINT, SIGTERM

import uvloop

from jobworker.auth.inspection import inspect_certificate
from jobworker.config import ServerSettings
from jobworker.core.errors import JobworkerError
from jobworker.linux.memory import keep_freed_memory
from jobworker.server.audit import AuditLog
from jobworker.server.certificates import CertificateFiles, Certificates, read_certificates
from jobworker.server.errors import StartError
from jobworker.server.limits import RoleLimits
from jobworker.server.notify import notify
from jobworker.worker import Quotas, Retention, Worker, WorkerInfo, local_worker

log = logging.getLogger(__name__)


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT; a second one cancels the calls that the first lets come to their end.

    Raises `StartError` if the server cannot start.
    """
    _set_up_logging(settings.log_level)
    files = CertificateFiles(certificate=settings.server_cert, key=settings.server_key, client_ca=settings.client_ca)
    certificates = read_certificates(files)
    if not inspect_certificate(certificates.certificate, now=datetime.now(UTC)).hosts:
        remedy = "`jobworker pki issue-server` makes one that does"
        log.warning("%s names no host (subjectAltName), so clients will refuse it; %s", files.certificate, remedy)
    # gRPC reads its environment when it is loaded: so nothing loads it before this.
    os.environ["GRPC_SSL_CIPHER_SUITES"] = certificates.key_type.unusable_tls12_suite
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # no process is forked from this one
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, files, certificates))


async def _serve(settings: ServerSettings, files: CertificateFiles, certificates: Certificates) -> None:
    from jobworker.server.app import Api  # noqa: PLC0415 -- it loads gRPC, see serve

    first, second = _end_signals()
    async with AsyncExitStack() as stack:
        with _as_start_error():
            api = Api(
                files=files,
                certificates=certificates,
                audit=AuditLog.to(settings.audit_log),
                max_request_bytes=settings.max_request_bytes,
                max_followers_per_user=settings.max_followers_per_user,
            )
            # The port first: a server that cannot have it must not touch the jobs of the one that has.
            port = api.listen(settings.listen.host, settings.listen.port)
            worker = await stack.enter_async_context(
                local_worker(
                    settings.state_dir,
                    durability=settings.durability,
                    quotas=Quotas(
                        running_jobs=settings.max_running_jobs,
                        running_jobs_per_owner=settings.max_running_jobs_per_user,
                        command_bytes=settings.max_command_bytes,
                    ),
                    retention=Retention(
                        age=settings.retention_age,
                        total_bytes=settings.retention_bytes,
                        compress_after=settings.compress_after,
                        archive_after=settings.archive_after if settings.archive_url else None,
                    ),
                    archive_url=settings.archive_url,
                    on_packing_error=_log_packing_error,
                    output=settings.output,
                    output_watch=settings.output_watch,
                    job_user=settings.job_user,
                    cgroups=settings.cgroups,
                    stop_jobs_on_exit=settings.stop_jobs_on_exit,
                )
            )
            limits = RoleLimits(policies=settings.limits)
            _check_limits(worker.info, limits)
        _log_recovery(worker)
        await api.start(worker, limits=limits, version=version("jobworker"))
        async with asyncio.TaskGroup() as group:
            group.create_task(api.ended())
            examination = group.create_task(_examine_archive(settings.archive_url))
            _say_ready(settings.listen.with_port(port))
            await first.wait()
            examination.cancel()
            notify("STOPPING=1", os.environ)
            await api.end(grace=settings.shutdown_grace, hurry=second)


def _end_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Events that the first and the second signal to end set."""
    first, second = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (second if first.is_set() else first).set()

    for number in (SIGTERM, SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return first, second


@contextmanager
def _as_start_error() -> Generator[None]:
    """Say errors that whoever starts the server can do something about in one line."""
    try:
        yield
    except JobworkerError as error:
        raise StartError(str(error)) from error
    except TimeoutError as error:
        raise StartError("the jobs of an earlier server could not be looked through in time; try again") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise StartError(f"{where}{error.strerror or error}") from error


def _check_limits(info: WorkerInfo, limits: RoleLimits) -> None:
    """Say which limits are not enforced; those that somebody configured must be, where that is required."""
    reasons = dict(info.missing_limits)
    for limit in limits.requested():
        if limit in info.enforceable_limits:
            continue
        problem = f"the limit {limit} is configured and cannot be enforced: {reasons.pop(limit, 'it is not supported')}"
        if info.cgroups == "require":
            raise StartError(problem)
        log.warning("%s; jobs run without it", problem)
    if reasons and info.cgroups != "off":
        by_reason = {why: ", ".join(name for name in reasons if reasons[name] == why) for why in reasons.values()}
        told = "; ".join(f"{names} ({reason})" for reason, names in by_reason.items())
        log.info("jobs that ask for these limits are refused: %s", told)


def _log_recovery(worker: Worker) -> None:
    found = worker.recovery
    for job_id, problem in found.unreadable.items():
        log.error("job %s is left alone, its records cannot be read: %s", job_id, problem)
    if found.adopted or found.ended:
        log.info("jobs that run on: %d; that have ended meanwhile: %d", len(found.adopted), len(found.ended))


def _log_packing_error(job_id: str, error: OSError) -> None:
    log.warning("the output of job %s stays where it is for now: %s", job_id, error)


async def _examine_archive(url: str | None) -> None:
    """Warn of an archive that cannot be used now, which no output is moved to for perhaps days."""
    if url is None:
        return
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "jobworker.server.doctor.archive", url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        log.warning("the archive could not be examined: %s", error)
        return
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if said:
        log.warning("the archive: %s", said.decode(errors="replace").strip())
    elif process.returncode:
        log.warning("the archive could not be examined; jobworker doctor may say why")


def _say_ready(address: object) -> None:
    sys.stderr.write(f"jobworker: serving on {address}\n")
    notify("READY=1", os.environ)


def _set_up_logging(level: str) -> None:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
