"""Output that is compressed and archived after the end of its job, and read as before."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import InvalidArgumentError, JobNotFoundError, OutputUnavailableError
from jobworker.core.job import Job
from jobworker.core.output import Chunk, Gap, OutputLimit, OutputMode, OutputPolicy, OverflowPolicy, Selection, Stream
from jobworker.core.spec import JobSpec
from jobworker.executors import archive
from jobworker.executors.archive import ID_FILE, Archives
from jobworker.executors.local import LocalExecutor
from jobworker.worker import Retention, Worker, local_worker
from tests.support.polling import until
from tests.support.workers import shell

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # noqa: S105 - a made-up one
LOG = "for i in $(seq 40000); do echo line $i of a log of some length; done; head -c 3000000 /dev/urandom"
NOW = timedelta(0)
FORMS = {"output", "output.zst", "output.zst.unfinished"}


@asynccontextmanager
async def new_worker(
    state_dir: Path, *, archive_url: str | None = None, reserve: int = 1, pack: bool = False
) -> AsyncGenerator[Worker]:
    """A worker that compresses and archives when it is asked to; with `pack`, by itself."""
    retention = Retention(compress_after=NOW, archive_after=NOW if archive_url else None) if pack else None
    async with local_worker(
        state_dir,
        cgroups="off",
        output=OutputPolicy(reserve=reserve),
        retention=retention,
        archive_url=archive_url,
    ) as worker:
        yield worker


async def read(worker: Worker, job: Job, selection: Selection | int = 0) -> list[tuple[Stream, int, bytes] | Gap]:
    """A selection of the output, each run of bytes of a stream as one."""
    found: list[tuple[Stream, int, bytes] | Gap] = []
    async with aclosing(worker.stream(job.id, selection)) as stream:
        async for piece in stream:
            last = found[-1] if found else None
            if isinstance(piece, Gap):
                found.append(piece)
            elif isinstance(last, tuple) and last[0] is piece.stream and last[1] + len(last[2]) == piece.offset:
                found[-1] = *last[:2], last[2] + piece.data
            else:
                found.append((piece.stream, piece.offset, piece.data))
    return found


async def ended(worker: Worker, spec: JobSpec) -> Job:
    """A job that has run to its end."""
    return await worker.wait((await worker.start(spec, "ada")).id)


async def run(code: str, *arguments: str) -> tuple[int | None, bytes]:
    """The exit code and the output of some Python code in a process of its own."""
    command = (sys.executable, "-c", code, *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return process.returncode, output


def executor_of(worker: Worker) -> LocalExecutor:
    """Where a worker runs its jobs."""
    executor = worker._executor  # pyright: ignore[reportPrivateUsage] - it does by the hour what a test has done now
    assert isinstance(executor, LocalExecutor)
    return executor


def files(state_dir: Path, job: Job) -> set[str]:
    """The files of a job."""
    return {path.name for path in (state_dir / "jobs" / job.id).iterdir()}


# Compressed


async def test_compressed_output_is_read_as_before(state_dir: Path) -> None:
    """From any offset, by lines, by stream and with times, and with what is missing; also by the next worker."""
    split = JobSpec(argv=("sh", "-c", f"echo oops >&2; {LOG}; echo end >&2"), output=OutputMode.SPLIT)
    limit = OutputLimit(size=1024**2, policy=OverflowPolicy.KEEP_LAST)
    ring = JobSpec(argv=("sh", "-c", LOG), output_limit=limit)
    selections = (
        0,
        Selection(tail=3),
        Selection(tail=1, streams=frozenset({Stream.STDERR})),
        Selection(streams=frozenset({Stream.STDERR}), times=True),
    )
    async with new_worker(state_dir) as worker:
        jobs = [await ended(worker, spec) for spec in (shell(LOG), split, ring)]
        middle = [(job.output_first_offset + job.output_bytes) // 2 for job in jobs]
        before = [
            [await read(worker, job, one) for one in (*selections, at)] for job, at in zip(jobs, middle, strict=True)
        ]
        for job in jobs:
            await executor_of(worker).compress_output(job.id)
            assert "output" not in files(state_dir, job)
            assert "output.zst" in files(state_dir, job)
            assert (await worker.get(job.id)).end == job.end
        assert [
            [await read(worker, job, one) for one in (*selections, at)] for job, at in zip(jobs, middle, strict=True)
        ] == before
    async with new_worker(state_dir) as worker:
        assert [(await worker.get(job.id)).end for job in jobs] == [job.end for job in jobs]
        assert [
            [await read(worker, job, one) for one in (*selections, at)] for job, at in zip(jobs, middle, strict=True)
        ] == before
        await worker.remove(jobs[0].id)
        assert not (state_dir / "jobs" / jobs[0].id).exists()


async def test_who_reads_meanwhile_notices_nothing(state_dir: Path) -> None:
    """A stream that has begun reads on, whatever becomes of the file."""
    async with new_worker(state_dir) as worker:
        job = await ended(worker, shell(LOG))
        expected = await read(worker, job)
        data = b""
        async with aclosing(worker.stream(job.id)) as stream:
            async for piece in stream:
                if not data:
                    await executor_of(worker).compress_output(job.id)
                assert isinstance(piece, Chunk)
                data += piece.data
        assert expected == [(Stream.COMBINED, 0, data)]


@pytest.mark.parametrize("step", ["os.fsync", "JobDir.write", "os.rename", "JobDir.delete_output"])
async def test_compression_may_be_cut_off_at_any_moment(state_dir: Path, step: str) -> None:
    """A whole copy is there whenever the process is killed, and the next one comes to the end."""
    code = (
        f"import os, sys; from jobworker.executors.packing import *; {step} = lambda *_, **__: os._exit(9); "
        "pack(JobDir.open(sys.argv[1]), 0, '')"
    )
    async with new_worker(state_dir) as worker:
        job = await ended(worker, shell(LOG))
        expected = await read(worker, job)
        assert await run(code, str(state_dir / "jobs" / job.id)) == (9, b"")
        assert await read(worker, job) == expected
        await executor_of(worker).compress_output(job.id)
        assert FORMS & files(state_dir, job) == {"output.zst"}
        assert await read(worker, job) == expected


async def test_a_full_disk_leaves_the_raw_output(state_dir: Path) -> None:
    """Without room for both nothing changes, and it is said."""
    async with new_worker(state_dir) as worker:
        job = await ended(worker, shell(LOG))
        before = files(state_dir, job)
        executor_of(worker)._outputs._reserve = 2**62  # pyright: ignore[reportPrivateUsage] - more than there is
        with pytest.raises(OSError, match="No space left"):
            await executor_of(worker).compress_output(job.id)
        assert files(state_dir, job) == before


async def test_a_worker_packs_by_itself_what_has_come_of_age(state_dir: Path, tmp_path: Path) -> None:
    """Output that takes more than a block is compressed, and archived where there is an archive."""
    (tmp_path / "archive").mkdir()
    async with new_worker(state_dir) as worker:
        large, small = await ended(worker, shell(LOG)), await ended(worker, shell("echo small"))
        expected = await read(worker, large)
    for url, kept in ((None, {"output.zst"}), (str(tmp_path / "archive"), set[str]())):
        async with new_worker(state_dir, archive_url=url, pack=True) as worker:
            await until(lambda kept=kept: FORMS & files(state_dir, large) == kept)
            assert await read(worker, large) == expected
            assert "output" in files(state_dir, small)


async def test_retention_counts_what_output_takes_of_the_disk(state_dir: Path) -> None:
    """Three times a megabyte that compresses well are within a bound of two megabytes."""
    async with new_worker(state_dir) as worker:
        jobs = [await ended(worker, shell("head -c 1000000 /dev/zero")) for _ in range(3)]
        for job in jobs:
            await executor_of(worker).compress_output(job.id)
        other = await ended(worker, shell("head -c 1500000 /dev/zero"))
    retention = Retention(total_bytes=2_000_000)
    async with local_worker(state_dir, cgroups="off", retention=retention) as worker:
        await worker._remove_expired(archived=True)  # pyright: ignore[reportPrivateUsage] - as above
        assert [(await worker.get(job.id)).id for job in (*jobs, other)] == [job.id for job in (*jobs, other)]
    async with local_worker(state_dir, cgroups="off", retention=Retention(total_bytes=1_000_000)) as worker:
        await worker._remove_expired(archived=True)  # pyright: ignore[reportPrivateUsage] - as above
        with pytest.raises(JobNotFoundError):
            await worker.get(other.id)


# Archived


async def test_a_folder_as_archive(state_dir: Path, tmp_path: Path) -> None:
    """Output is in the folder and nowhere else, is read from there at any offset, and is deleted there."""
    folder = tmp_path / "archive"
    async with new_worker(state_dir, archive_url=f"file://{folder}") as worker:
        job, other = await ended(worker, shell(LOG)), await ended(worker, shell(LOG))
        selections = (0, 2_000_000, Selection(tail=2))
        expected = [await read(worker, job, one) for one in selections]
        with pytest.raises(OSError, match="FileNotFoundError"):  # what is not there is not made: it may be a mount
            await executor_of(worker).archive_output(job.id)
        folder.mkdir()
        for one in (job, other):
            await executor_of(worker).archive_output(one.id)
            assert not {"output", "output.zst"} & files(state_dir, one)
        assert {path.name for path in folder.iterdir()} == {f"{job.id}.zst", f"{other.id}.zst", ID_FILE}
    async with new_worker(state_dir) as worker:  # which has none itself
        assert [await read(worker, job, one) for one in selections] == expected
        await worker.remove(job.id)
        assert {path.name for path in folder.iterdir()} == {f"{other.id}.zst", ID_FILE}
        (folder / f"{other.id}.zst").unlink()
        with pytest.raises(OutputUnavailableError):
            await read(worker, other)
        await worker.remove(other.id)  # of which nothing is left to delete


@pytest.mark.parametrize("step", ["ArchivedFile.put", "JobDir.write", "os.unlink"])
async def test_archiving_may_be_cut_off_at_any_moment(state_dir: Path, tmp_path: Path, step: str) -> None:
    """A whole copy is there whenever the process is killed; what was uploaded is deleted with the job."""
    code = (
        "import os, sys; from jobworker.executors.packing import *; from jobworker.executors.archive import *; "
        f"{step} = lambda *_, **__: os._exit(9); archive(JobDir.open(sys.argv[1]), sys.argv[2])"
    )
    Archives().make_id(str(tmp_path))
    async with new_worker(state_dir, archive_url=str(tmp_path)) as worker:
        job = await ended(worker, shell(LOG))
        expected = await read(worker, job)
        await executor_of(worker).compress_output(job.id)
        assert await run(code, str(state_dir / "jobs" / job.id), str(tmp_path)) == (9, b"")
        assert await read(worker, job) == expected
        await executor_of(worker).archive_output(job.id)
        assert not {"output", "output.zst"} & files(state_dir, job)
        assert await read(worker, job) == expected
        await worker.remove(job.id)
        assert not list(tmp_path.glob("*.zst"))


async def test_nobody_else_may_read_what_is_archived(state_dir: Path, tmp_path: Path) -> None:
    """The files in a folder are the server's alone, whatever its umask, and whatever an earlier attempt has left."""
    umask = os.umask(0)
    try:
        async with new_worker(state_dir, archive_url=str(tmp_path)) as worker:
            job = await ended(worker, shell(LOG))
            (tmp_path / f"{job.id}.zst").touch(0o644)
            await executor_of(worker).archive_output(job.id)
    finally:
        os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / ID_FILE, tmp_path / f"{job.id}.zst")} == {0o600}


async def test_what_lies_where_a_file_goes_is_not_written_to(state_dir: Path, tmp_path: Path) -> None:
    """A link that somebody has put there is replaced."""
    (tmp_path / "precious").write_text("precious")
    async with new_worker(state_dir, archive_url=str(tmp_path)) as worker:
        job = await ended(worker, shell(LOG))
        (tmp_path / f"{job.id}.zst").symlink_to(tmp_path / "precious")
        await executor_of(worker).archive_output(job.id)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("instead", ["nothing", "a folder", "another archive"])
async def test_a_job_stays_while_its_archive_is_away(state_dir: Path, tmp_path: Path, instead: str) -> None:
    """An archive that is not mounted does not answer: neither `remove` nor retention takes the output for deleted."""
    folder, away = tmp_path / "archive", tmp_path / "away"
    folder.mkdir()
    async with new_worker(state_dir, archive_url=str(folder)) as worker:
        job, other = await ended(worker, shell(LOG)), await ended(worker, shell(LOG))
        await executor_of(worker).archive_output(job.id)
        folder.rename(away)
        if instead != "nothing":
            folder.mkdir()
        if instead == "another archive":
            await executor_of(worker).archive_output(other.id)
        with pytest.raises(OutputUnavailableError):
            await worker.remove(job.id)
    async with local_worker(state_dir, cgroups="off", retention=Retention(age=NOW)) as worker:
        await worker._remove_expired(archived=True)  # pyright: ignore[reportPrivateUsage] - as above
        assert (await worker.get(job.id)).end == job.end
        if folder.exists():
            folder.rename(tmp_path / "other")
        away.rename(folder)
        await worker.remove(job.id)
        assert {path.name for path in folder.iterdir()} == {ID_FILE}


async def test_an_upload_goes_on_only_where_it_began(state_dir: Path, tmp_path: Path) -> None:
    """Else half of a file would stay in the archive that is away."""
    folder, away = tmp_path / "archive", tmp_path / "away"
    folder.mkdir()
    code = (
        "import os, sys; from jobworker.executors.packing import *; from jobworker.executors.archive import *; "
        "ArchivedFile.put = lambda *_: os._exit(9); archive(JobDir.open(sys.argv[1]), sys.argv[2])"
    )
    Archives().make_id(str(folder))
    async with new_worker(state_dir, archive_url=str(folder)) as worker:
        job = await ended(worker, shell(LOG))
        await executor_of(worker).compress_output(job.id)
        assert await run(code, str(state_dir / "jobs" / job.id), str(folder)) == (9, b"")
        folder.rename(away)
        folder.mkdir()
        with pytest.raises(OSError, match="FileNotFoundError"):
            await executor_of(worker).archive_output(job.id)
        assert not list(folder.iterdir())
        folder.rmdir()
        away.rename(folder)
        await executor_of(worker).archive_output(job.id)
        assert {path.name for path in folder.iterdir()} == {f"{job.id}.zst", ID_FILE}


@pytest.mark.parametrize("left", ["", "cut off"])
def test_an_id_that_was_cut_off_is_made_anew(tmp_path: Path, left: str) -> None:
    """And the same is found from then on."""
    (tmp_path / ID_FILE).write_text(left)
    made = Archives().make_id(str(tmp_path))
    assert made != left
    assert Archives().make_id(str(tmp_path)) == Archives().id(str(tmp_path)) == made


async def test_retention_goes_on_without_the_archive(state_dir: Path, tmp_path: Path) -> None:
    """A job whose output cannot be deleted stays for the next time, and the others go."""
    folder = tmp_path / "archive"
    folder.mkdir()
    async with new_worker(state_dir, archive_url=str(folder)) as worker:
        local, archived = await ended(worker, shell("echo local")), await ended(worker, shell(LOG))
        await executor_of(worker).archive_output(archived.id)
    (folder / f"{archived.id}.zst").unlink()
    (folder / f"{archived.id}.zst").mkdir()  # which cannot be deleted as a file
    async with local_worker(state_dir, cgroups="off", retention=Retention(age=NOW)) as worker:
        await worker._remove_expired(archived=True)  # pyright: ignore[reportPrivateUsage] - as above
        assert await worker.get(archived.id)
        with pytest.raises(JobNotFoundError):
            await worker.get(local.id)
        (folder / f"{archived.id}.zst").rmdir()
        await worker._remove_expired(archived=True)  # pyright: ignore[reportPrivateUsage] - as above
        with pytest.raises(JobNotFoundError):
            await worker.get(archived.id)


@pytest.mark.parametrize(
    "url, problem",
    [
        ("s3://key@bucket/jobs", "must not say who is let in"),
        ("s3://key:secret@bucket/jobs", "must not say who is let in"),
        ("https://example.org/jobs?signature=1", "must not say who is let in"),
        ("archive", "must be an absolute path or a URL"),
        ("nowhere://bucket", "fsspec does not know"),
        ("dropbox://jobs", "takes the library dropboxdrivefs"),
    ],
)
async def test_an_archive_that_cannot_be_used_is_refused_at_the_start(state_dir: Path, url: str, problem: str) -> None:
    """With what is wrong, and without what may be a secret."""
    with pytest.raises(InvalidArgumentError, match=problem) as caught:
        async with new_worker(state_dir, archive_url=url):
            pass
    assert "secret" not in str(caught.value)


# S3


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[subprocess.Popen[bytes]]:
    """A server that speaks S3, with a bucket called "bucket", and the environment that lets in."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code = (
            "import sys; from werkzeug.serving import make_server; from moto.server import *; "
            "app = DomainDispatcherApplication(create_backend_app); "
            "make_server('127.0.0.1', 0, app, threaded=True, fd=int(sys.argv[1])).serve_forever()"
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with (tmp_path / "s3.log").open("wb") as log:
            command = [sys.executable, "-c", code, str(listener.fileno())]
            server = subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=log, stderr=log)
    try:
        make = "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"
        subprocess.run([sys.executable, "-c", make], check=True, timeout=60)
        yield server
    finally:
        server.kill()
        server.wait()


async def test_an_archive_in_s3(state_dir: Path, s3: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is uploaded, read from any offset, and deleted; while nobody answers, only what needs it fails."""
    async with new_worker(state_dir, archive_url="s3://bucket/jobs") as worker:
        job, local = await ended(worker, shell(LOG)), await ended(worker, shell(LOG))
        expected, at_home = await read(worker, job), await read(worker, local)
        await executor_of(worker).archive_output(job.id)
        assert not {"output", "output.zst"} & files(state_dir, job)
        assert await read(worker, job) == expected
        assert await read(worker, job, 1_234_567) == [
            (Stream.COMBINED, 1_234_567, b"".join(part[2] for part in expected if isinstance(part, tuple))[1_234_567:])
        ]
        monkeypatch.setattr(archive, "PATIENCE", 0.5)
        os.kill(s3.pid, signal.SIGSTOP)
        reading = asyncio.ensure_future(read(worker, job))
        assert await read(worker, local) == at_home
        assert await worker.get(job.id) == job
        with pytest.raises(OutputUnavailableError):
            await reading
        os.kill(s3.pid, signal.SIGCONT)
        monkeypatch.setattr(archive, "PATIENCE", 30)
        assert await read(worker, job) == expected
        os.kill(s3.pid, signal.SIGSTOP)
        monkeypatch.setattr(archive, "PATIENCE", 0.5)
        with pytest.raises(OutputUnavailableError):
            await worker.remove(job.id)
        assert await worker.get(job.id) == job
        os.kill(s3.pid, signal.SIGCONT)
        monkeypatch.setattr(archive, "PATIENCE", 30)
        await worker.remove(job.id)
        assert await run("import s3fs; print(s3fs.S3FileSystem().find('bucket'))") == (
            0,
            f"['bucket/jobs/{ID_FILE}']\n".encode(),
        )
        archives = Archives()
        identity = archives.id("s3://bucket/jobs")
        assert identity is not None
        archives.delete("s3://bucket/jobs/missing.zst", identity)
        with pytest.raises(FileNotFoundError):
            archives.delete("s3://nosuchbucket/jobs/missing.zst", identity)
        os.kill(s3.pid, signal.SIGSTOP)
        archiving = asyncio.ensure_future(executor_of(worker).archive_output(local.id))
        await until(lambda: "output.zst" in files(state_dir, local))
        archiving.cancel()  # as when a worker is left
        await asyncio.wait([archiving])
        assert await read(worker, local) == at_home
        s3.kill()
        with pytest.raises(OSError, match="Error") as caught:
            await executor_of(worker).archive_output(local.id)
        assert SECRET not in str(caught.value)
        assert await read(worker, local) == at_home
    for path in state_dir.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
