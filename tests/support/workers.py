"""Workers for tests, in this process and in one that can be killed, and jobs that say where they are."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from jobworker.core.job import Job
from jobworker.core.spec import ChildPolicy, JobSpec
from jobworker.linux import process
from jobworker.linux.placement import own_base
from jobworker.runtime.burial import ID_VARIABLE
from jobworker.worker import Chunk, Selection, Worker

LIMIT = 30.0  # seconds for what takes milliseconds, unless it hangs
PROJECT = Path(__file__).parents[2]
CGROUP_V2 = own_base() is not None


def shell(script: str, *, time_limit: timedelta | None = None, child_policy: ChildPolicy = ChildPolicy.KILL) -> JobSpec:
    """A job that runs a script."""
    return JobSpec(argv=("sh", "-c", script), time_limit=time_limit, child_policy=child_policy)


async def output_of(worker: Worker, job: Job | str, offset: int = 0) -> bytes:
    """All output from an offset to the job's end."""
    job_id = job if isinstance(job, str) else job.id
    return b"".join([chunk.data async for chunk in chunks_of(worker, job_id, offset)])


async def chunks_of(
    worker: Worker, job_id: str, selection: Selection | int = 0, *, follow: bool = True
) -> AsyncGenerator[Chunk]:
    """A stream of output in which nothing may be missing."""
    async with aclosing(worker.stream(job_id, selection, follow=follow)) as stream:
        async for piece in stream:
            assert isinstance(piece, Chunk), piece
            yield piece


async def said(worker: Worker, job: Job, wanted: bytes = b"ready\n") -> bytes:
    """Wait until a job has written something; the output up to there."""
    data = b""
    async with aclosing(chunks_of(worker, job.id)) as stream:
        async for chunk in stream:
            data += chunk.data
            if wanted in data:
                return data
    raise AssertionError(f"the job has ended without saying {wanted!r}: {data!r}")


class Gate:
    """A FIFO that a job waits at ("read x <FIFO"), whoever it runs as."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        path.chmod(0o666)
        self._fd = os.open(path, os.O_RDWR)  # both ends, so that nobody's open() has to wait

    def open(self) -> None:
        """Let one reader pass."""
        os.write(self._fd, b"go\n")

    @property
    def is_passed(self) -> bool:
        """Whether as many have passed as may."""
        return not select.select([self._fd], [], [], 0)[0]

    def close(self) -> None:
        """Close both ends."""
        os.close(self._fd)


def job_pids(job_id: str) -> list[int]:
    """The processes that carry a job's mark and are not its supervisor, which carries none."""
    return process.with_environment(f"{ID_VARIABLE}={job_id}".encode())


def gone(pids: list[int]) -> None:
    """Wait until none of some processes is there, not even as a zombie of somebody else's."""
    for pid in pids:
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                assert select.select([pidfd], [], [], LIMIT)[0], f"process {pid} lives on"
            finally:
                os.close(pidfd)


def supervisor_of(job_id: str) -> int:
    """The pid of a job's supervisor: the process that holds the lock of its directory."""
    names = {f"jw-sup {job_id}"[:15]}
    for pid in process.pids():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().rstrip("\n") in names and holds(pid, f"/{job_id}/records"):
                return pid
    raise AssertionError(f"job {job_id} has no supervisor")


def holds(pid: int, suffix: str) -> bool:
    """Whether a process has a file open whose path ends so."""
    return any(path.endswith(suffix) for path in open_files(pid))


def open_files(pid: int | str = "self") -> list[str]:
    """What the descriptors of a process lead to."""
    found: list[str] = []
    for path in list(Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # that of the look itself
            found.append(str(path.readlink()))
    return found


@dataclass(kw_only=True)
class WorkerProcess:
    """A worker in a process of its own, which can be killed at any moment."""

    process: subprocess.Popen[str]

    def call(self, operation: str, **arguments: object) -> str:
        """What `tests/support/worker_process.py` answers to a request."""
        self.send(operation, **arguments)
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline() or "null")
        assert answer is not None, "the worker process has gone"
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def send(self, operation: str, **arguments: object) -> None:
        """Ask without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": operation, **arguments}) + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill it with SIGKILL, and it alone."""
        self.process.kill()
        self.process.wait()


@contextmanager
def worker_process(state_dir: Path, tree: str, *prefix: str, python: str = sys.executable) -> Generator[WorkerProcess]:
    """A worker in a process of its own, killed in the end if it has not been; `prefix` is a command to run it with."""
    command = [*prefix, python, "-m", "tests.support.worker_process", str(state_dir), tree]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},  # for interpreters that do not have the package
    ) as running:
        worker = WorkerProcess(process=running)
        try:
            worker.call("ready")
            yield worker
        finally:
            worker.kill()
