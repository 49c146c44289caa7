"""What running and ended jobs cost."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import CommandNotStartedError
from jobworker.core.spec import JobSpec
from jobworker.executors.standbys import COUNT
from jobworker.linux import process
from jobworker.runtime.spawner import SPARE
from jobworker.worker import Worker
from tests.integration.worker.conftest import NewWorker, needs_root
from tests.integration.worker.test_start import cgroup_of, job_cgroups
from tests.support.polling import until
from tests.support.workers import (
    PROJECT,
    Gate,
    job_pids,
    open_files,
    output_of,
    shell,
    supervisor_of,
    worker_process,
)

PRIVATE_BOUND = 1_500_000  # bytes a supervisor, with a hundred of them


def private_bytes(pid: int) -> int:
    """Memory that a process shares with nobody."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


async def test_a_hundred_supervisors_have_little_memory_of_their_own(tree: str, worker: Worker, gate: Gate) -> None:
    """On average at most 1.5 MB each, while a hundred jobs run and have written something."""
    jobs = [await worker.start(shell(f"echo ready; read x < {gate.path}"), "ada") for _ in range(100)]
    for job in jobs:
        async for _ in worker.stream(job.id):
            break
    supervisors = [supervisor_of(job.id) for job in jobs]
    assert len(set(supervisors)) == 100
    average = sum(map(private_bytes, supervisors)) / 100
    assert average <= PRIVATE_BOUND, f"{average / 1024:.0f} KiB"
    assert worker.info.process_tracking == tree
    await asyncio.gather(*(worker.stop(job.id, by="ada", grace=timedelta(0)) for job in jobs))


def test_the_spawner_loads_only_the_standard_library_and_little_of_it() -> None:
    """A clean interpreter, started as the spawner is, has no third party, no asyncio, no sqlite3 and no gRPC in it."""
    source = str(Path(__file__).parents[3] / "src")
    code = f"""
import sys, json
before = set(sys.modules)
sys.path.append({source!r})
import jobworker.runtime.spawner
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, env={})
    packages = {name.partition(".")[0] for name in json.loads(ran.stdout)}
    assert packages - sys.stdlib_module_names == {"jobworker"}
    assert not packages & {"asyncio", "sqlite3", "grpc", "logging", "ssl", "typing_extensions", "concurrent"}


async def only_the_spawner_is_left() -> None:
    """Supervisors exit in a moment, once they have told the end."""
    idle = ["jw-spare"] * SPARE + ["jw-spawner"] + ["jw-standby"] * COUNT
    await until(lambda: [name for name in children() if name != "jw-free"] == idle)


def children() -> list[str]:
    """The names of all processes below this one."""
    names: list[str] = []
    for pid in process.descendants(os.getpid()):
        with suppress(OSError):
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return sorted(names)


def kinds_of_open_files() -> list[str]:
    """What descriptors lead to, but for the connections of supervisors that are free."""
    kinds = sorted(re.sub(r"\[\d+\]", "", path) for path in open_files())
    for _ in range(children().count("jw-free")):
        kinds.remove("socket:")
    return kinds


def someone_has_hung_up() -> bool:
    """Whether a socket is open whose other end is closed: that of a supervisor that has just gone, for a moment."""
    poll = select.poll()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                poll.register(int(path.name), 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


async def test_ended_jobs_leave_nothing_open(tree: str, worker: Worker, state_dir: Path) -> None:
    """After 200 ended jobs and some that never started, descriptors, tasks and children are as at the beginning."""
    for _ in range(2):  # whatever is made on first use
        await output_of(worker, await worker.start(shell("echo x"), "ada"))
    await only_the_spawner_is_left()
    await until(lambda: not someone_has_hung_up())
    files, tasks = kinds_of_open_files(), len(asyncio.all_tasks())
    for _ in range(20):
        jobs = await asyncio.gather(*(worker.start(shell("echo x"), "ada") for _ in range(10)))
        assert set(await asyncio.gather(*(output_of(worker, job) for job in jobs))) == {b"x\n"}
        with pytest.raises(CommandNotStartedError):
            await worker.start(JobSpec(argv=("no-such-program",)), "ada")
        for job in jobs:
            await worker.wait(job.id)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await only_the_spawner_is_left()
    await until(lambda: kinds_of_open_files() == files)  # the connections of supervisors close after these have gone
    assert not list(worker._running)  # pyright: ignore[reportPrivateUsage] - nothing shows what is remembered too long
    await until(lambda: tree != "cgroup" or not job_cgroups(state_dir))  # removed after the end has been told


async def test_leaving_a_worker_leaves_no_process_and_no_cgroup(
    tree: str, new_worker: NewWorker, state_dir: Path
) -> None:
    """The spawner ends, its exit status is taken, and the cgroup of the directory is gone when no job runs."""
    files = sorted(open_files())
    async with new_worker() as worker:
        jobs = [await worker.start(shell("true"), "ada") for _ in range(10)]
        await asyncio.gather(*(worker.wait(job.id) for job in jobs))
        assert worker.info.process_tracking == tree
    assert sorted(open_files()) == files
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text(), "not even a zombie"
    assert tree == "subreaper" or not cgroup_of(state_dir).exists()


async def test_more_starts_at_once_than_the_spawner_has_room_for(new_worker: NewWorker) -> None:
    """Four hundred starts fill the spawner's queue: each waits for its turn, and all of them run."""
    async with new_worker() as worker:
        starts = [worker.start(JobSpec(argv=("true",)), f"owner{n % 4}") for n in range(400)]
        jobs = await asyncio.gather(*starts)
        ends = await asyncio.gather(*(worker.wait(job.id) for job in jobs))
        assert {job.end.exit_code for job in ends if job.end} == {0}


def interpreter_for_all(as_nobody: list[str]) -> str:
    """An interpreter that other users may execute, which one in root's home is not."""
    fits = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        # By a shell in between: what setpriv itself executes it may still find with root's rights.
        tried = subprocess.run([*as_nobody, "sh", "-c", f'exec {python} -c "{fits}"'], check=False, capture_output=True)
        if tried.returncode == 0:
            return python
    pytest.skip("no interpreter that is new enough can be executed by other users")


@needs_root
@pytest.mark.parametrize("oom_score", [0, 300])
def test_a_worker_needs_no_privileges(oom_score: int) -> None:
    """As an ordinary user jobs run as that user, also where a session manager has raised its OOM score for good."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
        raise_score = f'echo {oom_score} > /proc/self/oom_score_adj; exec "$@"'
        python = interpreter_for_all(as_nobody)
        with worker_process(
            folder / "state", "any", "sh", "-c", raise_score, "sh", *as_nobody, python=python
        ) as worker:
            assert worker.call("ready") == "subreaper"
            for script in ("id -u; cat /proc/self/oom_score_adj; echo done", "setsid sleep 4281 & echo done"):
                job_id = worker.call("start", argv=["sh", "-c", script])
                worker.call("said", job_id=job_id, wanted="done\n")
                worker.call("wait", job_id=job_id)
                assert not job_pids(job_id)
            assert (next((folder / "state" / "jobs").glob("*/output"))).stat().st_uid == 65534


def test_a_worker_that_may_start_no_more_threads_goes_on() -> None:
    """It had those that it needs before: jobs start, are read to their end and are removed."""
    as_nobody = [] if os.geteuid() else ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        command = [*as_nobody, interpreter_for_all(as_nobody), "-m", "tests.support.no_more_processes", f"{name}/state"]
        ran = subprocess.run(
            command,
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
            check=False,
            capture_output=True,
        )
        assert ran.stdout == b"all is well\n", ran.stderr.decode()
