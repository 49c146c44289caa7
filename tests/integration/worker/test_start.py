"""What a job finds when it starts, and what is left of one that cannot."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import (
    CommandNotStartedError,
    InvalidArgumentError,
    JobNotFoundError,
    LimitNotEnforceableError,
    QuotaExceededError,
    RequestIdReusedError,
    ServerUnavailableError,
)
from jobworker.core.job import Job
from jobworker.core.limits import Limits
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.linux.placement import own_base
from jobworker.worker import Quotas, Worker, local_worker
from tests.integration.worker.conftest import NewWorker, choose, needs_root
from tests.support import without_clone3
from tests.support.workers import Gate, open_files, output_of, said, shell, supervisor_of, worker_process

# glibc's posix_spawn ignores its two internal signals in every program that it starts, and lets nobody change it.
INTERNAL_SIGNALS = (1 << 31) | (1 << 32)


def cgroup_of(state_dir: Path) -> Path:
    """The group below which the jobs of a state directory have theirs."""
    place = own_base()
    assert place is not None
    return place / f"jobworker-{hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:12]}"


def job_cgroups(state_dir: Path) -> list[str]:
    """The names of the groups of jobs, without those of supervisors that stand by for one."""
    groups = [path.name for path in cgroup_of(state_dir).iterdir() if path.is_dir()]
    return [name for name in groups if not (state_dir / "standby" / name).exists()]


async def nothing_left(worker: Worker, state_dir: Path) -> None:
    """No row, no directory, no cgroup, no child that is not the spawner."""
    assert not (await worker.list()).jobs
    assert await worker._store.open_ids() == []  # pyright: ignore[reportPrivateUsage] - what does not show is there only
    assert list((state_dir / "jobs").iterdir()) == []
    assert list((state_dir / "removed").iterdir()) == []
    if worker.info.process_tracking == "cgroup":
        assert job_cgroups(state_dir) == []


def refused(path: Path, content: bytes, mode: int) -> str:
    """A file that cannot be executed."""
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


async def test_a_command_that_cannot_be_executed_is_a_typed_error_and_leaves_nothing(
    tree: str, new_worker: NewWorker, state_dir: Path, shared: Path
) -> None:
    """The start call fails with the kernel's errno and the step; no row, directory, cgroup or process stays."""
    long = "x" * 100_000
    plain = refused(shared / "plain", b"#!/bin/sh\n", 0o644)
    text = refused(shared / "text", b"words\n", 0o755)
    script = refused(shared / "a-script", b"#! /no/such/python -u\n", 0o755)
    wrong = [
        (JobSpec(argv=("no-such-program",)), errno.ENOENT, "exec", "no-such-program"),
        (JobSpec(argv=("/no/such/program",)), errno.ENOENT, "exec", "/no/such/program"),
        (JobSpec(argv=("/etc/passwd/x",)), errno.ENOTDIR, "exec", "/etc/passwd/x"),
        (JobSpec(argv=(plain,)), errno.EACCES, "exec", plain),
        (JobSpec(argv=("/",)), errno.EACCES, "exec", "/"),
        (JobSpec(argv=(text,)), errno.ENOEXEC, "exec", text),
        (JobSpec(argv=(script,)), errno.ENOENT, "interpreter", "/no/such/python"),
        (
            JobSpec(argv=("a-script",), env={"PATH": f"{shared}:/usr/bin"}),
            errno.ENOENT,
            "interpreter",
            "/no/such/python",
        ),
        (JobSpec(argv=(long,)), errno.ENAMETOOLONG, "exec", long[:1000]),
        (JobSpec(argv=("/" + "\udcff" * 5000,)), errno.ENAMETOOLONG, "exec", "/" + "\udcff" * 999),
        (JobSpec(argv=("true",), cwd="/no/such/folder"), errno.ENOENT, "chdir", "/no/such/folder"),
        (JobSpec(argv=("true",), cwd="/etc/passwd"), errno.ENOTDIR, "chdir", "/etc/passwd"),
        (JobSpec(argv=("true", *["y" * 131_000] * 30)), errno.E2BIG, "exec", "true"),
    ]
    async with new_worker(quotas=Quotas(command_bytes=None)) as worker:
        assert worker.info.process_tracking == tree
        for spec, number, stage, subject in wrong:
            with pytest.raises(CommandNotStartedError) as caught:
                await worker.start(spec, "ada")
            error = caught.value
            assert (error.errno, error.stage, error.subject) == (number, stage, subject), spec.argv[0][:80]
        await nothing_left(worker, state_dir)


async def test_a_relative_entry_or_an_unreadable_one_in_the_path_does_not_hide_the_program(worker: Worker) -> None:
    """A program without a slash is looked up in the job's own PATH, entry by entry, as execvp does."""
    job = await worker.start(JobSpec(argv=("true",), env={"PATH": "/no/such:/etc/passwd:/root:/bin:/usr/bin"}), "ada")
    assert (await worker.wait(job.id)).state is JobState.FINISHED


@pytest.mark.usefixtures("tree")
async def test_a_job_has_exactly_the_environment_that_was_asked_for_and_the_base(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the daemon's environment gets through; what was asked for wins over the base."""
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
    job = await worker.start(
        JobSpec(argv=("env", "-0"), env={"MINE": "a=b\nc", "LANG": "de_DE", "ODD\udcff": "\udcfe"}), "ada"
    )
    found = dict(entry.split(b"=", 1) for entry in (await output_of(worker, job)).split(b"\0") if entry)
    user = worker.info.job_user.encode()
    home = found.pop(b"HOME")
    assert home.startswith(b"/")
    assert found == {
        b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        b"LANG": b"de_DE",
        b"SHELL": b"/bin/sh",
        b"USER": user,
        b"LOGNAME": user,
        b"MINE": b"a=b\nc",
        b"ODD\xff": b"\xfe",
        b"JOBWORKER_JOB_ID": job.id.encode(),
    }


def test_where_clone3_is_not_there_a_job_is_in_its_cgroup_all_the_same(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From before its program is executed: what it starts first is in there, too."""
    choose("cgroup", monkeypatch)
    with worker_process(state_dir, "cgroup", sys.executable, "-m", without_clone3.__name__) as worker:
        script = "cat /proc/self/cgroup; (cat /proc/self/cgroup; echo done)"
        job_id = worker.call("start", argv=["sh", "-c", script])
        worker.call("said", job_id=job_id, wanted="done\n")
        worker.call("wait", job_id=job_id)
        said = (state_dir / "jobs" / job_id / "output").read_text()
        assert [line.rpartition("/")[2] for line in said.splitlines() if line.startswith("0::")] == [job_id] * 2


@pytest.mark.usefixtures("tree")
async def test_a_job_gets_three_descriptors_and_a_clean_process(worker: Worker) -> None:
    """Descriptors 0 (/dev/null), 1 and 2; no signal blocked or ignored; no privileges and none to gain; umask 022."""
    kept_open = os.open("/", os.O_RDONLY)
    os.set_inheritable(kept_open, True)
    try:
        job = await worker.start(
            shell(
                "for n in $(seq 0 99); do [ -e /proc/$$/fd/$n ] && echo fd $n $(readlink /proc/$$/fd/$n); done;"
                "echo oom $(cat /proc/$$/oom_score_adj); echo umask $(umask); echo again >/dev/stdout; echo err >&2;"
                "echo cwd $(pwd); echo sid $(ps -o sid= -p $$) $$"
            ),
            "ada",
        )
        lines = (await output_of(worker, job)).decode().splitlines()
    finally:
        os.close(kept_open)
    # Not from a shell, which changes its signal mask to start a program.
    bare = await output_of(worker, await worker.start(JobSpec(argv=("cat", "/proc/self/status")), "ada"))
    fds = {line.split()[1]: line.split()[2] for line in lines if line.startswith("fd ")}
    assert fds.keys() == {"0", "1", "2"}
    assert fds["0"] == "/dev/null"
    assert fds["1"] == fds["2"]
    assert fds["1"].startswith("pipe:")
    status = dict(line.split(":", 1) for line in bare.decode().splitlines())
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & ~INTERNAL_SIGNALS == 0
    assert int(status["NoNewPrivs"]) == 1
    assert [int(status[cap], 16) for cap in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0, 0, 0, 0]
    assert {"again", "err", "umask 0022", "cwd /"} <= set(lines)
    (session,) = [line.split()[1:] for line in lines if line.startswith("sid ")]
    assert session[0] == session[1], "the job leads a session of its own"
    if os.geteuid() == 0:
        assert "oom 0" in lines
        assert set(status["Uid"].split()) == {"65534"}


def may_lower_oom_score() -> bool:
    """Whether we have the right that root has, but for root in some containers."""
    tried = subprocess.run(["sh", "-c", "echo -900 > /proc/self/oom_score_adj"], check=False, capture_output=True)
    return tried.returncode == 0


@needs_root
async def test_root_runs_jobs_as_nobody_unless_told_otherwise(new_worker: NewWorker) -> None:
    """The user, its groups and its home are those of the user that the daemon was told; a wrong one is refused."""
    async with new_worker(job_user="daemon") as worker:
        job = await worker.start(JobSpec(argv=("id", "-un")), "ada")
        assert await output_of(worker, job) == b"daemon\n"
        assert worker.info.job_user == "daemon"
    with pytest.raises(InvalidArgumentError, match="no-such-user"):
        async with new_worker(job_user="no-such-user"):
            pass


async def test_a_supervisor_is_protected_from_the_oom_killer_and_apart_from_its_job(
    tree: str, worker: Worker, gate: Gate
) -> None:
    """A supervisor has its own session, no descriptor that it does not need, and is not in the job's cgroup."""
    job = await worker.start(shell(f"echo ready; read x < {gate.path}"), "ada")
    await said(worker, job)
    supervisor = supervisor_of(job.id)
    assert os.getsid(supervisor) == supervisor
    wanted = "-900\n" if may_lower_oom_score() else Path("/proc/self/oom_score_adj").read_text()
    assert Path(f"/proc/{supervisor}/oom_score_adj").read_text() == wanted
    assert not any(path.endswith("jobs.db") for path in open_files(supervisor))
    assert len(open_files(supervisor)) <= 16
    if tree == "cgroup":
        assert job.id not in Path(f"/proc/{supervisor}/cgroup").read_text()
    gate.open()
    assert (await worker.wait(job.id)).end is not None


async def test_a_start_is_refused_for_limits_and_beyond_quotas(new_worker: NewWorker, gate: Gate) -> None:
    """A limit is never silently ignored; each quota refuses with its bound, and frees up when a job ends."""
    waiting = shell(f"read x < {gate.path}")
    quotas = Quotas(running_jobs=3, running_jobs_per_owner=2, command_bytes=1000)
    async with new_worker(quotas=quotas, stop_jobs_on_exit=True) as worker:
        with pytest.raises(LimitNotEnforceableError) as limit:
            await worker.start(JobSpec(argv=("true",), limits=Limits(pids=5)), "ada")
        assert limit.value.limit == "pids"
        with pytest.raises(InvalidArgumentError, match="1000"):
            await worker.start(JobSpec(argv=("echo", "x" * 1000)), "ada")
        jobs = [await worker.start(waiting, "ada") for _ in range(2)]
        with pytest.raises(QuotaExceededError) as quota:
            await worker.start(waiting, "ada")
        assert quota.value.bound == 2
        with pytest.raises(CommandNotStartedError):  # one that fails does not count
            await worker.start(JobSpec(argv=("no-such-program",)), "bob")
        jobs.append(await worker.start(waiting, "bob"))
        with pytest.raises(QuotaExceededError) as quota:
            await worker.start(waiting, "eve")
        assert (quota.value.resource, quota.value.bound) == ("running jobs", 3)
        await worker.stop(jobs[0].id, by="ada", grace=timedelta(0))
        assert (await worker.start(waiting, "ada")).state is JobState.RUNNING


async def test_concurrent_starts_count_against_the_quota_before_they_run(new_worker: NewWorker, gate: Gate) -> None:
    """Twenty starts at once never exceed a bound of five."""
    async with new_worker(quotas=Quotas(running_jobs=5), stop_jobs_on_exit=True) as worker:
        starts = [worker.start(shell(f"read x < {gate.path}"), "ada") for _ in range(20)]
        results = await asyncio.gather(*starts, return_exceptions=True)
        assert sum(isinstance(result, QuotaExceededError) for result in results) == 15
        assert len((await worker.list()).jobs) == 5


async def test_one_request_id_starts_one_job(new_worker: NewWorker, shared: Path) -> None:
    """Twenty starts with one id are one job; another command with it is refused; another owner's id is another id."""
    request_id = str(uuid.uuid4())
    script = f"echo x >> {shared}/runs"
    spec = JobSpec(argv=("sh", "-c", script), env={"A": "1"}, labels={"k": "v"}, time_limit=timedelta(days=3650))
    async with new_worker() as worker:
        jobs = await asyncio.gather(*(worker.start(spec, "ada", request_id) for _ in range(20)))
        assert len({job.id for job in jobs}) == 1
        await worker.wait(jobs[0].id)
        assert (await worker.start(spec, "ada", request_id.upper())).id == jobs[0].id
        with pytest.raises(RequestIdReusedError):
            await worker.start(shell("true"), "ada", request_id)
        other = await worker.start(spec, "bob", request_id)
        assert other.id != jobs[0].id
        await worker.wait(other.id)
        with pytest.raises(InvalidArgumentError, match="UUID"):
            await worker.start(spec, "ada", "one")
    async with new_worker() as worker:
        assert (await worker.start(spec, "ada", request_id)).id == jobs[0].id
    assert (shared / "runs").read_text() == "x\n" * 2


async def test_a_request_id_is_free_again_after_a_start_that_failed(worker: Worker, shared: Path) -> None:
    """A start that failed left nothing, so the same id may start the job once its reason is gone."""
    request_id = str(uuid.uuid4())
    spec = JobSpec(argv=(str(shared / "program"),))
    results = await asyncio.gather(*(worker.start(spec, "ada", request_id) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, CommandNotStartedError) for result in results)
    refused(shared / "program", b"#!/bin/sh\n", 0o755)
    assert (await worker.start(spec, "ada", request_id)).state is JobState.RUNNING


async def test_a_start_goes_on_when_its_caller_has_gone(worker: Worker) -> None:
    """A cancelled call with a request id has started its job all the same, and repeating it finds that job."""
    request_id = str(uuid.uuid4())
    call = asyncio.ensure_future(worker.start(shell("exit 7"), "ada", request_id))
    await asyncio.sleep(0)  # one turn of the loop, so that it has begun
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    job = await worker.start(shell("exit 7"), "ada", request_id)
    ended = (await worker.wait(job.id)).end
    assert ended is not None
    assert ended.exit_code == 7
    assert len((await worker.list()).jobs) == 1


@pytest.mark.usefixtures("tree")
async def test_a_worker_that_is_left_in_the_middle_of_starts_lets_them_come_to_their_end(new_worker: NewWorker) -> None:
    """However the block is left, each start is either a job that the next worker knows or nothing at all."""
    starts: list[asyncio.Future[Job]] = []

    async def leave() -> None:
        async with new_worker() as worker:
            starts.extend(asyncio.ensure_future(worker.start(shell("exit 3"), "ada")) for _ in range(10))
            await asyncio.sleep(0)  # one turn of the loop, so that they have begun
            raise RuntimeError("left")

    with pytest.raises(RuntimeError, match="left"):
        await leave()
    assert len(await asyncio.gather(*starts)) == 10
    async with new_worker() as worker:
        jobs = (await worker.list()).jobs
        assert len(jobs) == 10
        ends = [(await worker.wait(job.id)).end for job in jobs]
        assert {(end.cause, end.exit_code) for end in ends if end} == {(Cause.EXITED, 3)}


async def test_nobody_else_may_read_what_is_kept(tmp_path: Path, shared: Path) -> None:
    """Directories are 0700 and files 0600, whatever the umask."""
    for umask in (0o000, 0o022, 0o077):
        before = os.umask(umask)
        try:
            state_dir = tmp_path / f"state{umask}"
            async with local_worker(state_dir) as worker:
                job = await worker.start(shell(f"echo x; : > {shared}/made{umask}"), "ada")
                await worker.wait(job.id)
                for path in (state_dir, *state_dir.rglob("*")):
                    wanted = 0o700 if path.is_dir() else 0o600
                    assert stat.S_IMODE(path.stat().st_mode) == wanted, path
        finally:
            os.umask(before)
        assert stat.S_IMODE((shared / f"made{umask}").stat().st_mode) == 0o644, "the job's umask is the usual one"


async def test_an_unknown_job_is_not_found_whatever_its_id_looks_like(worker: Worker) -> None:
    """Nothing that comes from outside becomes a path."""
    for job_id in (str(uuid.uuid4()), "", "..", "../jobs.db", "/etc/passwd", "a\0b", "x" * 10_000, "\udcff"):
        for call in (worker.get(job_id), worker.wait(job_id), worker.stop(job_id, by="ada"), worker.remove(job_id)):
            with pytest.raises(JobNotFoundError):
                await call
        with pytest.raises(JobNotFoundError):
            await anext(aiter(worker.stream(job_id)))


async def test_a_second_worker_on_the_same_directory_is_refused(worker: Worker, new_worker: NewWorker) -> None:
    """Two workers would bury each other's jobs: the second one says so and touches nothing."""
    with pytest.raises(Exception, match="in use by another"):
        async with new_worker():
            pass
    job = await worker.start(JobSpec(argv=("true",)), "ada")
    assert (await worker.wait(job.id)).state is JobState.FINISHED


async def test_a_worker_that_has_been_left_starts_nothing(new_worker: NewWorker) -> None:
    """Its callers are told that it takes no more jobs."""
    async with new_worker() as worker:
        pass
    with pytest.raises(ServerUnavailableError):
        await worker.start(JobSpec(argv=("true",)), "ada")
