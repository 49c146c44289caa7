"""The doctor tries an archive, says what does not work there, and leaves nothing behind."""

from __future__ import annotations

import errno
import threading
from collections.abc import Generator
from pathlib import Path
from typing import ClassVar

import pytest
from fsspec.registry import known_implementations
from fsspec.spec import AbstractFileSystem

from jobworker.executors import archive
from jobworker.server.doctor.archive import examine_archive, main
from jobworker.server.doctor.finding import Finding, Status


class Faulty(AbstractFileSystem):  # pyright: ignore[reportUntypedBaseClass] -- fsspec has no types
    """A place in memory that refuses some of what is asked."""

    protocol = "faulty"
    refused: ClassVar[set[str]] = set()
    content: ClassVar[dict[str, bytes]] = {}
    damaged: ClassVar[bool] = False
    hangs: ClassVar[threading.Event | None] = None

    def put_file(self, lpath: str, rpath: str, *_args: object, **_: object) -> None:
        """Keep a file."""
        self._asked("put")
        self.content[rpath] = Path(lpath).read_bytes()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        """Give a part of one."""
        self._asked("read")
        return self.content[path][start:end][:: -1 if self.damaged else 1]

    def rm_file(self, path: str) -> None:
        """Forget one."""
        self._asked("delete")
        del self.content[path]

    def _asked(self, what: str) -> None:
        if self.hangs is not None:
            self.hangs.wait()
        if what in self.refused:
            raise PermissionError(errno.EACCES, "the secret is hunter2")


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Generator[type[Faulty]]:
    """An archive at faulty://place, empty at first."""
    monkeypatch.setitem(known_implementations, "faulty", {"class": f"{__name__}.Faulty"})
    monkeypatch.setattr(Faulty, "content", {})
    yield Faulty
    if Faulty.hangs is not None:
        Faulty.hangs.set()


def found(url: str | None) -> Finding:
    """What the doctor says of an archive."""
    (finding,) = examine_archive(url)
    assert finding.name == "archive"
    assert "hunter2" not in f"{finding.detail} {finding.remedy}"
    return finding


def test_one_that_works(tmp_path: Path, faulty: type[Faulty]) -> None:
    """What was put there for a trial is gone again."""
    tmp_path.chmod(0o755)  # its files are not for others all the same
    for url in (str(tmp_path), f"{tmp_path}/", tmp_path.as_uri(), "faulty://place/jobs"):
        assert found(url).status is Status.OK
    assert not list(tmp_path.iterdir())
    assert not faulty.content


@pytest.mark.parametrize(
    "refused, problem",
    [
        ({"put"}, "no file can be put there (PermissionError: Permission denied)"),
        ({"read"}, "what was put there cannot be read back (PermissionError: Permission denied)"),
        ({"read", "delete"}, "what was put there cannot be read back (PermissionError: Permission denied)"),
        ({"delete"}, "files cannot be deleted there, so doctor-"),
    ],
)
def test_what_does_not_work(
    monkeypatch: pytest.MonkeyPatch, faulty: type[Faulty], refused: set[str], problem: str
) -> None:
    """Each step has a line of its own, and a server starts all the same."""
    monkeypatch.setattr(faulty, "refused", refused)
    finding = found("faulty://place")
    assert finding.status is Status.WARNING
    assert problem in finding.detail
    assert bool(faulty.content) == ("delete" in refused)


def test_one_that_gives_something_else_back(monkeypatch: pytest.MonkeyPatch, faulty: type[Faulty]) -> None:
    """An archive that takes and gives, but not the same, is none."""
    monkeypatch.setattr(faulty, "damaged", True)
    assert "is not what was put there" in found("faulty://place").detail
    assert not faulty.content


def test_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, faulty: type[Faulty]) -> None:
    """The doctor does not wait for ever."""
    monkeypatch.setattr(faulty, "hangs", threading.Event())
    monkeypatch.setattr(archive, "PATIENCE", 0.1)
    finding = found("faulty://place")
    assert (finding.status, "has not answered" in finding.detail) == (Status.WARNING, True)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It is not made."""
    finding = found(str(tmp_path / "missing"))
    assert finding.status is Status.WARNING
    assert "no file can be put there (FileNotFoundError: No such file or directory)" in finding.detail


@pytest.mark.parametrize("url", ["relative", "s3://user:hunter2@bucket", "nosuch://place"])
def test_one_that_keeps_a_server_from_starting(url: str) -> None:
    """As the server itself says."""
    assert found(url).status is Status.ERROR


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_folder_that_others_write_to(tmp_path: Path, mode: int) -> None:
    """They can delete and replace output."""
    tmp_path.chmod(mode)
    for url in (str(tmp_path), tmp_path.as_uri()):
        finding = found(url)
        assert finding.status is Status.WARNING
        assert "others can delete and replace what is archived" in finding.detail
        assert finding.remedy == f"chmod go-w {tmp_path}"


def test_as_a_program_it_says_only_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with what to do."""
    main(str(tmp_path))
    assert not capsys.readouterr().out
    main(str(tmp_path / "missing"))
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}/missing: no file can be put there")
    assert "; check archive_url" in said
    assert said.count("\n") == 1


def test_none() -> None:
    """Nobody is told that something is missing which they do not use."""
    assert found(None).status is Status.SKIPPED
