"""A list is complete, in order, without duplicates, and comes from an index whatever is asked for."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import Job
from jobworker.core.query import JobFilter, JobPage
from jobworker.core.spec import MAX_LABELS, JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.store import page_token
from jobworker.store.sqlite import SqliteStore
from jobworker.store.sqlite_page import MAX_PAGE_SPEC_BYTES
from tests.support.jobs import NOON, accepted_job, ended, started

SECOND = timedelta(seconds=1)
STATES = [frozenset(states) for size in range(len(JobState) + 1) for states in itertools.combinations(JobState, size)]
LABELS: list[dict[str, str]] = [
    {},
    {"team": "physics"},
    {"team": "physics", "size": "big"},
    {"size": "big", "odd": "it's \u4e16"},
    {"team": "nobody's"},
    {"nothing": "physics"},
]
BOUNDS = [(None, None), (NOON + 3 * SECOND, None), (None, NOON + 6 * SECOND), (NOON + 3 * SECOND, NOON + 6 * SECOND)]


def jobs_of_all_kinds(count: int) -> Iterator[Job]:
    """Jobs of two owners, all states, several label sets; ten share each creation time, and some never started."""
    chance = random.Random(4242)  # noqa: S311 - repeatable, not secret
    for number in range(count):
        job = accepted_job(
            job_id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            owner=chance.choice(["ada", "bob"]),
            create_time=NOON + number % (count // 10) * SECOND,
            labels={
                key: value
                for key, value in (
                    ("team", "physics"),
                    ("size", chance.choice(["big", "small"])),
                    ("odd", "it's \u4e16"),
                )
                if chance.random() < 0.7
            },
        )
        match chance.choice(["accepted", "running", "ended", "ended"]):
            case "accepted":
                yield job
            case "running":
                yield started(job)
            case _:
                yield ended(job, chance.choice([Cause.EXITED, Cause.STOPPED, Cause.LOST]))


def expected(jobs: list[Job], where: JobFilter) -> list[Job]:
    """The list by the plain words of the filter's description."""
    chosen = [
        job
        for job in jobs
        if job.start_time is not None
        and (not where.states or job.state in where.states)
        and where.owner in (None, job.owner)
        and where.labels.items() <= job.spec.labels.items()
        and (where.created_after is None or job.create_time >= where.created_after)
        and (where.created_before is None or job.create_time < where.created_before)
        and job.id.startswith(where.id_prefix or "")
    ]
    return sorted(chosen, key=lambda job: (job.create_time, job.id), reverse=True)


async def walk(store: SqliteStore, where: JobFilter, size: int) -> list[JobPage]:
    """All pages of a list."""
    pages = [await store.page(where, size=size)]
    while pages[-1].next_page_token is not None:
        pages.append(await store.page(where, size=size, token=pages[-1].next_page_token))
    return pages


def jobs_of(pages: list[JobPage]) -> list[Job]:
    """The jobs of pages in their order."""
    return [job for page in pages for job in page.jobs]


@pytest.mark.parametrize("owner", [None, "ada", "nobody"])
@pytest.mark.parametrize("labels", LABELS, ids=str)
async def test_every_filter_gives_exactly_its_jobs(
    store: SqliteStore, owner: str | None, labels: dict[str, str]
) -> None:
    """Any conditions together give the jobs that meet all of them, newest first, once, in full pages."""
    jobs = list(jobs_of_all_kinds(100))
    for job in jobs:
        await store.put(job)
    for states, (after, before) in itertools.product(STATES, BOUNDS):
        where = JobFilter(states=states, owner=owner, labels=labels, created_after=after, created_before=before)
        pages = await walk(store, where, 7)
        assert jobs_of(pages) == expected(jobs, where)
        assert all(len(page.jobs) == 7 for page in pages[:-1])
        assert pages[-1].jobs or len(pages) == 1, "a token has to lead to something"


@pytest.mark.parametrize("owner", [None, "ada"])
@pytest.mark.parametrize("labels", LABELS[:3], ids=str)
async def test_the_beginning_of_an_id(store: SqliteStore, owner: str | None, labels: dict[str, str]) -> None:
    """It holds for the jobs whose id begins so, together with all other conditions, and page by page."""
    like = [str(uuid.UUID(int=(0xABCD << 112) + number)) for number in range(40)]
    near = [f"{begin}-0000-4000-8000-000000000000" for begin in ("abcc" + 4 * "f", "abce" + 4 * "0")]
    jobs = [
        replace(job, id=job_id)
        for job, job_id in zip(
            jobs_of_all_kinds(100), [*near, *like, *(str(uuid.uuid4()) for _ in range(58))], strict=True
        )
    ]
    for job in jobs:
        await store.put(job)
    for prefix, states in itertools.product(["abcd", like[0][:30], like[7]], STATES):
        where = JobFilter(states=states, owner=owner, labels=labels, id_prefix=prefix)
        assert jobs_of(await walk(store, where, 3)) == expected(jobs, where)


async def test_a_list_does_not_depend_on_the_order_of_adding(store: SqliteStore) -> None:
    """Jobs that come late into the store, as after a recovery, stand where their creation time puts them."""
    jobs = list(jobs_of_all_kinds(100))
    shuffled = random.Random(1).sample(jobs, len(jobs))  # noqa: S311 - repeatable, not secret
    for job in shuffled:
        await store.put(job)
    assert jobs_of(await walk(store, JobFilter(), 9)) == expected(jobs, JobFilter())


@pytest.mark.parametrize("where", [JobFilter(), JobFilter(owner="ada"), JobFilter(labels={"team": "physics"})], ids=str)
async def test_pages_are_complete_while_jobs_come_end_and_go(store: SqliteStore, where: JobFilter) -> None:
    """Whoever goes through a list sees each job that is there all the while exactly once."""
    jobs: dict[str, Job] = {}
    for number in range(60):
        job = started(accepted_job(create_time=NOON + number // 2 * SECOND, labels={"team": "physics"}))
        jobs[job.id] = job
        await store.put(job)
    staying = [job.id for job in expected(list(jobs.values()), where)]
    page = await store.page(where, size=7)
    seen = [job.id for job in page.jobs]
    while page.next_page_token is not None:
        await store.put(started(accepted_job(create_time=NOON + 100 * SECOND, labels={"team": "physics"})))
        await store.put(ended(jobs[seen[-1]]))
        await store.put(ended(jobs[staying[-1]]))
        removed = next(job_id for job_id in staying if job_id not in seen)
        await store.remove(removed)
        staying.remove(removed)
        page = await store.page(where, size=7, token=page.next_page_token)
        seen += [job.id for job in page.jobs]
    assert seen == staying


async def test_a_token_outlives_the_store(store: SqliteStore, path: Path) -> None:
    """A list can be gone on with after a restart of the server."""
    jobs = [started(accepted_job()) for _ in range(5)]
    for job in jobs:
        await store.put(job)
    token = (await store.page(JobFilter(), size=3)).next_page_token
    await store.close()
    async with await SqliteStore.open(path) as again:
        rest = await again.page(JobFilter(), size=3, token=token)
    assert list(rest.jobs) == expected(jobs, JobFilter())[3:]
    assert rest.next_page_token is None


async def test_a_page_may_have_another_size_than_the_one_before(store: SqliteStore) -> None:
    """The size is no part of what a token is bound to."""
    jobs = [started(accepted_job()) for _ in range(9)]
    for job in jobs:
        await store.put(job)
    first = await store.page(JobFilter(), size=2)
    second = await store.page(JobFilter(), size=7, token=first.next_page_token)
    assert [*first.jobs, *second.jobs] == expected(jobs, JobFilter())
    assert second.next_page_token is None


OTHER_FILTERS = {
    "states": JobFilter(states=frozenset({JobState.RUNNING})),
    "owner": JobFilter(owner="ada"),
    "labels": JobFilter(labels={"team": "physics"}),
    "created_after": JobFilter(created_after=NOON - SECOND),
    "created_before": JobFilter(created_before=NOON + SECOND),
    "id_prefix": JobFilter(id_prefix="abcd"),
}


@pytest.mark.parametrize("field", [field.name for field in fields(JobFilter)])
async def test_a_token_belongs_to_its_filter(store: SqliteStore, field: str) -> None:
    """A token of a list with one other condition, whichever, is refused with the name of the field."""
    for _ in range(3):
        await store.put(started(accepted_job(job_id=f"abcd{uuid.uuid4()}"[:36], labels={"team": "physics"})))
    first, second = JobFilter(), OTHER_FILTERS[field]
    for here, there in ((first, second), (second, first)):
        token = (await store.page(here, size=1)).next_page_token
        with pytest.raises(InvalidArgumentError, match="with these filters") as refusal:
            await store.page(there, size=1, token=token)
        assert refusal.value.field == "page_token"


async def test_what_is_no_token_is_refused(store: SqliteStore) -> None:
    """Text that no page came with is the caller's error, and names the field."""
    for _ in range(2):
        await store.put(started(accepted_job()))
    token = (await store.page(JobFilter(), size=1)).next_page_token
    assert token is not None
    for text in (
        "",
        "x",
        "!",
        "AAAA",
        token[:-40],
        f"{token[:9]}!!!!{token[9:]}",
        "\u00e4" + token,
        "\udcff",
        token.swapcase(),
        "=",
        token[:12] + "A" * 90,
        "-" * 4000,
    ):
        with pytest.raises(InvalidArgumentError) as refusal:
            await store.page(JobFilter(), size=1, token=text)
        assert refusal.value.field == "page_token"


async def test_a_forged_token_shows_no_job_outside_the_filter(store: SqliteStore) -> None:
    """A token of the right filter with a made-up position is another place to start from, and nothing more."""
    hidden, shown = (started(accepted_job(create_time=NOON + time * SECOND)) for time in (9, 1))
    await store.put(hidden)
    await store.put(shown)
    before = NOON + 5 * SECOND
    where = JobFilter(created_before=before)
    forged = page_token.encode(accepted_job(create_time=NOON + 99 * SECOND), where)
    assert (await store.page(where, size=9, token=forged)).jobs == (shown,)


async def test_a_page_of_large_jobs_is_cut_short(store: SqliteStore) -> None:
    """A page holds a bounded number of bytes, at least one job, and the token leads to the rest."""
    spec = JobSpec(argv=("x" * 100_000,) * 10)
    jobs = [started(accepted_job(spec=spec, create_time=NOON + number * SECOND)) for number in range(5)]
    for job in jobs:
        await store.put(job)
    pages = await walk(store, JobFilter(), 100)
    assert jobs_of(pages) == expected(jobs, JobFilter())
    assert [len(page.jobs) for page in pages] == [2, 2, 1]
    huge = started(accepted_job(spec=JobSpec(argv=("x" * 100_000,) * 40), create_time=NOON + 9 * SECOND))
    assert MAX_PAGE_SPEC_BYTES < 40 * 100_000
    await store.put(huge)
    assert (await store.page(JobFilter(), size=100)).jobs == (huge,)


@pytest.mark.parametrize("size", [0, -1])
async def test_a_page_has_at_least_one_job(store: SqliteStore, size: int) -> None:
    """A size below 1 is the caller's error; SQLite would take -1 for "all"."""
    with pytest.raises(InvalidArgumentError, match="page_size"):
        await store.page(JobFilter(), size=size)


async def test_more_labels_than_a_job_can_have_are_no_job_s(store: SqliteStore) -> None:
    """However many labels are asked for, the answer is a list."""
    labels = {f"key{number}": "value" for number in range(MAX_LABELS)}
    job = started(accepted_job(labels=labels))
    await store.put(job)
    assert (await store.page(JobFilter(labels=labels), size=9)).jobs == (job,)
    many = labels | {f"more{number}": "value" for number in range(5000)}
    assert await store.page(JobFilter(labels=many), size=9) == JobPage(jobs=())
