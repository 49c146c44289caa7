"""The archive: whether output can be put there, read back and deleted.

As a program, it prints what is wrong with the archive at a URL: the libraries for archives, which are large, are loaded
into no server for that.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from jobworker.core.errors import InvalidArgumentError
from jobworker.executors.archive import PATIENCE, ArchiveThreads, FileSystem, check_url, is_local, reason
from jobworker.server.doctor.finding import Finding, Status, error, ok, skipped, warning

_NAME = "archive"
_CONTENT = secrets.token_bytes(1024)  # a trial that was left by another doctor is not taken for this one's
_LET_IN = "check archive_url, and what this user's environment and files say to the library that goes there"
_OTHERS_WRITE = 0o022  # of a mode


class _StepError(Exception):
    """What cannot be done in the archive, and why."""


def examine_archive(url: str | None) -> Iterator[Finding]:
    """Whether a file can be put there, read back and deleted, by one that goes again. It may take `PATIENCE`.

    A server starts while its archive cannot be used, and tries again later; but not with a URL that it cannot use.
    """
    if url is None:
        yield skipped(_NAME, "no archive is configured (archive_url)")
        return
    try:
        check_url(url)
    except InvalidArgumentError as problem:
        yield error(_NAME, str(problem), "mend archive_url, or install what is missing")
        return
    place = f"{url.rstrip('/')}/doctor-{secrets.token_hex(8)}"
    try:
        asyncio.run(ArchiveThreads().run(lambda: _try(place)))
    except TimeoutError:
        yield warning(_NAME, f"{url} has not answered within {PATIENCE:.0f} s", _LET_IN)
    except _StepError as problem:
        yield warning(_NAME, f"{url}: {problem}", _LET_IN)
    else:
        if is_local(url) and _folder(url).stat().st_mode & _OTHERS_WRITE:
            problem = f"{url}: others can delete and replace what is archived"
            yield warning(_NAME, problem, f"chmod go-w {_folder(url)}")
            return
        yield ok(_NAME, f"{url} takes files, gives them back and deletes them")


def _folder(url: str) -> Path:
    return Path(importlib.import_module("fsspec.core").strip_protocol(url))


def _try(place: str) -> None:
    """Raise `_StepError` for the first thing that does not work."""
    core = importlib.import_module("fsspec.core")
    with _step("cannot be reached"):
        system = cast("FileSystem", core.url_to_fs(place, skip_instance_cache=True)[0])
    path = core.strip_protocol(place)
    with tempfile.NamedTemporaryFile() as trial:
        Path(trial.name).write_bytes(_CONTENT)
        with _step("no file can be put there"):
            system.put_file(trial.name, path)
    try:
        _read_back(system, path)
    except _StepError:
        with suppress(Exception):  # the first fault is told
            system.rm_file(path)
        raise
    with _step(f"files cannot be deleted there, so {Path(path).name} is left"):
        system.rm_file(path)


def _read_back(system: FileSystem, path: str) -> None:
    with _step("what was put there cannot be read back"):
        system.invalidate_cache()
        found = system.cat_file(path, start=0, end=len(_CONTENT))
    if found != _CONTENT:
        raise _StepError("what is read back is not what was put there")


@contextmanager
def _step(what: str) -> Generator[None]:
    """Say of whatever a library raises what was tried."""
    try:
        yield
    except Exception as problem:
        raise _StepError(f"{what} ({reason(problem)})") from problem


def main(url: str) -> None:
    """Print what is wrong with an archive, in one line, and nothing if all is well."""
    for finding in examine_archive(url):
        if finding.status is not Status.OK:
            sys.stdout.write(f"{finding.detail}; {finding.remedy}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
