"""The store remembers exactly what it was told, and the first end of a job is its end."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from jobworker.core.errors import StoreError
from jobworker.core.job import Job, JobEnd, StopRequest
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.output import OutputLimit, OutputMode, OverflowPolicy
from jobworker.core.query import JobFilter
from jobworker.core.spec import ChildPolicy, JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.core.usage import Usage
from jobworker.store.sqlite import SqliteStore
from tests.support.jobs import NOON, accepted_job, ended, started

LIMITS = Limits(
    cpus=1.5, memory=2**31, oom_group=False, io=(IoLimit(device="/dev/sda", read_bytes_per_second=5), IoLimit())
)
FULL_SPEC = JobSpec(
    argv=("/bin/sh", "-c", "echo \u00e4\u4e16\U0001f600", "\udcff\udc80 no UTF-8", "", "it's; DROP TABLE jobs"),
    env={"A": "1", "EMPTY": "", "ODD": "\udcfe"},
    cwd="/srv/\udcffdir",
    name="nightly \u00e4",
    labels={"team": "physics", "a/b.c": "it's \u4e16"},
    time_limit=timedelta(hours=1, microseconds=7),
    limits=LIMITS,
    child_policy=ChildPolicy.WAIT,
    output=OutputMode.SPLIT,
    output_limit=OutputLimit(size=2**40),
)
STOP = StopRequest(requested_by="bob", request_time=NOON, signal=2, grace=timedelta(seconds=1.5))
USAGE = Usage(wall_seconds=1.5, cpu_seconds=0.25, oom_kills=0, io_read_bytes=2**40)
SIGNALED = JobEnd(
    cause=Cause.SIGNALED, end_time=NOON, signal=9, output_bytes=2**40, output_dropped_bytes=3, usage=USAGE
)

JOBS = {
    "only accepted": accepted_job(),
    "everything set": replace(
        started(accepted_job(owner="Ada \u00c4. O'Lov", request_id="r-1", spec=FULL_SPEC)),
        stop=STOP,
        end=SIGNALED,
        limits=replace(LIMITS, pids=100),
        output_limit=OutputLimit(size=2**40, policy=OverflowPolicy.KEEP_LAST),
        output_bytes=2**40,
    ),
    "longest arguments": accepted_job(spec=JobSpec(argv=("x" * 131_071,) * 8)),
    "microseconds": accepted_job(create_time=NOON + timedelta(microseconds=999_999)),
    "other zone": accepted_job(create_time=datetime(2026, 3, 1, 23, tzinfo=timezone(timedelta(hours=-3)))),
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
async def test_a_job_comes_back_as_it_was_added(path: Path, job: Job) -> None:
    """Every value of every field survives, also to the next opening of the file."""
    async with await SqliteStore.open(path) as store:
        await store.put(job)
        assert await store.get(job.id) == job
    async with await SqliteStore.open(path) as store:
        found = await store.get(job.id)
    assert found == job
    assert found is not None
    assert found.create_time.tzinfo is UTC


async def test_a_job_that_is_not_there_is_none(store: SqliteStore) -> None:
    """Asking for an unknown job or request is no error."""
    await store.put(accepted_job(request_id="r-1"))
    assert await store.get("never heard of") is None
    assert await store.find_request("ada", "r-2") is None


async def test_a_job_is_there_for_its_owner_alone(store: SqliteStore) -> None:
    """Asked for by owner, a job of another one, however alike its name, is not there."""
    job = accepted_job(owner="ada")
    await store.put(job)
    assert await store.get(job.id, owner="ada") == job
    for owner in ("bob", "Ada", ""):
        assert await store.get(job.id, owner=owner) is None


async def test_an_update_replaces_start_stop_limits_and_output_size(store: SqliteStore) -> None:
    """The latest start, stop, limits and output size count, and nothing else changes."""
    job = accepted_job(labels={"team": "physics"})
    await store.put(job)
    await store.put(started(job))
    assert await store.get(job.id) == started(job)
    stopping = replace(started(job), stop=STOP, limits=LIMITS, output_bytes=5)
    await store.put(stopping)
    sooner = replace(stopping, stop=replace(STOP, grace=timedelta(0)))
    await store.put(replace(sooner, owner="eve", spec=JobSpec(argv=("other",)), request_id="other"))
    assert await store.get(job.id) == sooner
    await store.put(replace(sooner, limits=Limits()))
    assert await store.get(job.id) == replace(sooner, limits=Limits())


async def test_an_update_forgets_nothing(store: SqliteStore) -> None:
    """A start, a stop and an end that the update does not know stay."""
    job = replace(ended(accepted_job(), Cause.STOPPED, output_bytes=7), stop=STOP)
    await store.put(job)
    await store.put(replace(job, start_time=None, stop=None, end=None, output_bytes=0))
    assert await store.get(job.id) == job


async def test_the_first_end_wins(store: SqliteStore) -> None:
    """A stop or a loss that comes after a natural end changes neither end, state, limits nor output size."""
    job = accepted_job(labels={"team": "physics"})
    await store.put(job)
    natural = ended(job, Cause.EXITED, output_bytes=7)
    await store.put(natural)
    for late in (Cause.STOPPED, Cause.LOST):
        await store.put(replace(ended(job, late, output_bytes=9), limits=LIMITS))
    assert await store.get(job.id) == natural
    for where in (JobFilter(), JobFilter(labels={"team": "physics"})):
        finished = await store.page(replace(where, states=frozenset({JobState.FINISHED})), size=9)
        assert finished.jobs == (natural,)
        others = frozenset(JobState) - {JobState.FINISHED}
        assert (await store.page(replace(where, states=others), size=9)).jobs == ()


async def test_a_request_id_belongs_to_the_first_job_of_its_owner(store: SqliteStore) -> None:
    """The second job with it is there without it; another owner's is another request."""
    first = accepted_job(request_id="r-1")
    await store.put(first)
    second = accepted_job(request_id="r-1", labels={"team": "physics"})
    await store.put(second)
    assert await store.find_request("ada", "r-1") == first
    assert await store.get(second.id) == replace(second, request_id=None)
    of_bob = accepted_job(owner="bob", request_id="r-1")
    await store.put(of_bob)
    assert await store.find_request("bob", "r-1") == of_bob


async def test_jobs_without_a_request_id_are_all_different(store: SqliteStore) -> None:
    """No request id is not the same as another job's no request id."""
    jobs = [accepted_job() for _ in range(3)]
    for job in jobs:
        await store.put(job)
    assert set(await store.open_ids()) == {job.id for job in jobs}


async def test_what_cannot_be_put_leaves_nothing_and_keeps_no_other_out(store: SqliteStore, path: Path) -> None:
    """Where a label cannot be kept, the job is not there either; those put with it are; it can be put again later."""
    job = started(accepted_job(request_id="r-1", labels={"team": "physics", "refused": "yes"}))
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON job_labels WHEN new.key = 'refused' "
            "BEGIN SELECT RAISE(ABORT, 'no such label today'); END"
        )
        before, after = accepted_job(), accepted_job()
        puts = await asyncio.gather(*map(store.put, (before, job, after)), return_exceptions=True)
        assert puts[0] is puts[2] is None
        assert isinstance(puts[1], StoreError)
        assert "no such label today" in str(puts[1])
        assert await store.get(job.id) is None
        assert [await store.get(one.id) for one in (before, after)] == [before, after]
        assert (await store.page(JobFilter(labels={"team": "physics"}), size=9)).jobs == ()
        other.execute("DROP TRIGGER refuse")
    await store.put(job)
    assert (await store.page(JobFilter(labels=job.spec.labels), size=9)).jobs == (job,)


async def test_a_removed_job_leaves_nothing(store: SqliteStore) -> None:
    """It is found by no way of looking, its request id is free again, and removing it twice is no error."""
    job = started(accepted_job(request_id="r-1", labels={"team": "physics"}))
    await store.put(job)
    await store.remove(job.id)
    await store.remove(job.id)
    assert await store.get(job.id) is None
    assert await store.find_request("ada", "r-1") is None
    assert await store.open_ids() == []
    for where in (JobFilter(), JobFilter(owner="ada"), JobFilter(labels={"team": "physics"})):
        assert (await store.page(where, size=9)).jobs == ()
    again = started(accepted_job(request_id="r-1", labels={"team": "physics"}))
    await store.put(again)
    assert (await store.page(JobFilter(labels={"team": "physics"}), size=9)).jobs == (again,)


async def test_open_and_ended_ids_are_all_ids(store: SqliteStore) -> None:
    """A job is open until an end is recorded, whether or not it was started, and ended after that."""
    accepted, running = accepted_job(), started(accepted_job())
    over = [ended(accepted_job(), cause) for cause in Cause]
    never_ran = replace(ended(accepted_job(), Cause.LOST), start_time=None)
    for job in (accepted, running, *over, never_ran):
        await store.put(job)
    assert sorted(await store.open_ids()) == sorted([accepted.id, running.id])
    assert await store.ended_ids() == {job.id for job in (*over, never_ran)}


async def test_a_hundred_at_once(store: SqliteStore) -> None:
    """Calls that overlap all have their effect."""
    jobs = [started(accepted_job(request_id=f"r-{number}", labels={"n": str(number)})) for number in range(100)]
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(store.put(job))
    assert set(await store.open_ids()) == {job.id for job in jobs}
    assert [await store.get(job.id) for job in jobs] == jobs
    for job in jobs:
        assert (await store.page(JobFilter(labels=job.spec.labels), size=9)).jobs == (job,)


async def test_one_of_many_at_once_has_the_request_id(store: SqliteStore) -> None:
    """All jobs are there, and the request leads to one of them."""
    jobs = [accepted_job(request_id="r-1") for _ in range(20)]
    await asyncio.gather(*map(store.put, jobs))
    assert set(await store.open_ids()) == {job.id for job in jobs}
    assert await store.find_request("ada", "r-1") == jobs[0]


async def test_jobs_of_the_same_moment_are_written_in_one_transaction(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where the database is locked for too long, all are told so after one attempt."""
    monkeypatch.setattr("jobworker.store.sqlite_file._BUSY_SECONDS", 0.05)
    statements: list[str] = []
    async with await SqliteStore.open(path) as store:
        await store._run(lambda connection: connection.set_trace_callback(statements.append))  # pyright: ignore[reportPrivateUsage] - SQLite itself shows it
        await asyncio.gather(*(store.put(accepted_job()) for _ in range(20)))
        assert [text for text in statements if "BEGIN" in text] == ["BEGIN IMMEDIATE"]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            statements.clear()
            puts = await asyncio.gather(*(store.put(accepted_job()) for _ in range(20)), return_exceptions=True)
            other.execute("ROLLBACK")
        assert {type(result) for result in puts} == {StoreError}
        assert [text for text in statements if "BEGIN" in text] == ["BEGIN IMMEDIATE"]
        assert len(await store.open_ids()) == 20


async def test_a_look_sees_what_was_put_before_it(store: SqliteStore) -> None:
    """A job that waits to be written is written first."""
    jobs = [started(accepted_job(request_id=f"r-{number}")) for number in range(3)]
    puts = [asyncio.create_task(store.put(job)) for job in jobs]
    await asyncio.sleep(0)  # so that they have begun
    assert (await store.page(JobFilter(), size=9)).jobs == tuple(sorted(jobs, key=lambda job: job.id, reverse=True))
    await asyncio.gather(*puts)


async def test_the_event_loop_goes_on_while_the_database_is_locked(store: SqliteStore, path: Path) -> None:
    """A write that has to wait for another program keeps nobody else waiting, and is done in the end."""
    job = accepted_job()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.create_task(store.put(job))
        looking = asyncio.create_task(store.get(job.id))
        for _ in range(10):
            await asyncio.sleep(0)  # a turn of the loop: it would not come back if the loop had to wait
        assert not adding.done()
        assert not looking.done()
        other.execute("ROLLBACK")
    await adding
    assert await looking == job


async def test_a_cancelled_call_harms_no_other(store: SqliteStore, path: Path) -> None:
    """Calls behind one whose caller gave up are done; that one is done or not, never by halves."""
    first, cancelled, last = (started(accepted_job(labels={"team": "physics"})) for _ in range(3))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        tasks = [asyncio.create_task(store.put(job)) for job in (first, cancelled, last)]
        await asyncio.sleep(0)  # so that they have begun
        tasks[1].cancel()
        other.execute("ROLLBACK")
    await tasks[0]
    await tasks[2]
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    there = {job.id for job in (await store.page(JobFilter(labels={"team": "physics"}), size=9)).jobs}
    assert there == set(await store.open_ids())
    assert there >= {first.id, last.id}


async def test_a_closed_store_says_so(path: Path) -> None:
    """Calls after the close are refused; those before it are done; a second close is no error."""
    store = await SqliteStore.open(path)
    job = accepted_job()
    adding = asyncio.create_task(store.put(job))
    await asyncio.sleep(0)  # so that it has begun
    await store.close()
    await adding
    await store.close()
    with pytest.raises(StoreError, match="the job database is closed"):
        await store.get(job.id)
    async with await SqliteStore.open(path) as again:
        assert await again.get(job.id) == job


async def test_an_opening_that_is_given_up_leaves_nothing_open(path: Path) -> None:
    """The connection that is there all the same, once its thread gets that far, is closed in that thread."""
    async with await SqliteStore.open(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(SqliteStore.open(path))
        await asyncio.sleep(0)  # so that it has begun
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        other.execute("ROLLBACK")
    for thread in threading.enumerate():
        if thread.name.startswith("job-store"):
            thread.join()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    """No umask opens the database or what SQLite puts beside it to others, and a mode that does is put right."""
    before = os.umask(0)
    try:
        async with await SqliteStore.open(path) as store:
            await store.put(accepted_job())
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}
        path.chmod(0o644)
        async with await SqliteStore.open(path) as store:
            await store.put(accepted_job())
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}
    finally:
        os.umask(before)


async def test_a_record_that_cannot_be_read_is_a_store_error(store: SqliteStore, path: Path) -> None:
    """What no release can have written is reported with the job's id, and other jobs are not touched by it."""
    odd, good = started(accepted_job()), started(accepted_job(owner="bob"))
    await store.put(odd)
    await store.put(good)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for spec in ("{}", "no JSON", "[]", '{"argv": []}', '{"argv": 7}'):
            other.execute("UPDATE jobs SET spec = ? WHERE id = ?", (spec, odd.id))
            with pytest.raises(StoreError, match=f"job {odd.id} cannot be read"):
                await store.get(odd.id)
            with pytest.raises(StoreError, match=f"job {odd.id} cannot be read"):
                await store.page(JobFilter(), size=9)
    assert (await store.page(JobFilter(owner="bob"), size=9)).jobs == (good,)
