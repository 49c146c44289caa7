"""An authority's files: all or none, never over others, keys for their owner alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jobworker.auth.pki import PkiError
from jobworker.auth.pki_directory import PkiDirectory
from jobworker.auth.roles import Role
from jobworker.core.errors import InvalidArgumentError

_CREATED = ["ca.crt", "ca.key", "server.crt", "server.key"]


@pytest.fixture
def pki(tmp_path: Path) -> PkiDirectory:
    """A directory with an authority in it."""
    place = PkiDirectory(tmp_path / "pki")
    place.create(["localhost"])
    return place


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    """The directory is 0700, keys are 0600, certificates 0644, and nothing else is left."""
    directory = tmp_path / "new" / "pki"
    directory.parent.mkdir()
    before = os.umask(umask)
    try:
        place = PkiDirectory(directory)
        place.create(["localhost"])
        place.issue_client("alice", [Role.USER])
    finally:
        os.umask(before)
    assert _mode(directory) == 0o700
    modes = {path.name: _mode(path) for path in directory.iterdir()}
    assert modes == {f"{name}.key": 0o600 for name in ("ca", "server", "alice")} | {
        f"{name}.crt": 0o644 for name in ("ca", "server", "alice")
    }


def test_a_second_authority_is_refused(pki: PkiDirectory) -> None:
    """An authority is never replaced: all its certificates would be worthless."""
    before = _contents(pki.path)
    with pytest.raises(PkiError, match="has an authority already, and nothing was changed"):
        pki.create(["localhost"])
    assert _contents(pki.path) == before


@pytest.mark.parametrize("taken", _CREATED)
def test_whatever_is_there_stays(tmp_path: Path, taken: str) -> None:
    """Any one of the files that exists stops the whole, before anything is written."""
    (tmp_path / taken).write_text("precious")
    with pytest.raises(PkiError, match="and nothing was changed"):
        PkiDirectory(tmp_path).create(["localhost"])
    assert _contents(tmp_path) == {taken: b"precious"}


def test_a_dangling_link_is_something_that_is_there(tmp_path: Path) -> None:
    """No key is written through a link to wherever it leads."""
    (tmp_path / "server.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PkiError, match=r"server\.key exists, and nothing was changed"):
        PkiDirectory(tmp_path).create(["localhost"])
    assert [path.name for path in tmp_path.iterdir()] == ["server.key"]


def test_a_file_that_appears_in_the_last_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two who write the same name at once, one gets everything and the other nothing, and is told so."""
    link = os.link

    def overtaken(source: Path, path: Path) -> None:
        if path.name == "server.crt":
            path.write_text("precious")
        link(source, path)

    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(PkiError, match=r"server\.crt exists, and nothing was changed"):
        PkiDirectory(tmp_path).create(["localhost"])
    assert _contents(tmp_path) == {"server.crt": b"precious"}


@pytest.mark.parametrize(
    "step, number",
    [*(("fsync", number) for number in range(1, 7)), *(("link", number) for number in range(1, 5))],
)
def test_a_failure_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    """Whatever step fails, there is no partial set, no key and no directory that we made."""
    real = getattr(os, step)
    calls = 0

    def failing(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(errno.ENOSPC, "No space left on device", "disk")
        real(*arguments)

    monkeypatch.setattr(os, step, failing)
    with pytest.raises(OSError, match="No space left on device"):
        PkiDirectory(tmp_path / "pki").create(["localhost"])
    assert list(tmp_path.iterdir()) == []


def test_others_may_not_write_to_the_directory(pki: PkiDirectory) -> None:
    """Where others may write, they could put their own key in place of ours."""
    pki.path.chmod(0o770)
    with pytest.raises(PkiError, match=r"others may write to .*; first: chmod go-w"):
        pki.issue_client("alice", [Role.USER])
    assert sorted(_contents(pki.path)) == _CREATED


def test_a_directory_that_others_may_read_is_used_as_it_is(tmp_path: Path) -> None:
    """A directory that exists, such as one in /etc, keeps its mode and its other files."""
    tmp_path.chmod(0o755)
    (tmp_path / "jobworker.toml").write_text("[serve]\n")
    PkiDirectory(tmp_path).create(["localhost"])
    assert _mode(tmp_path) == 0o755
    assert sorted(_contents(tmp_path)) == [*_CREATED[:2], "jobworker.toml", *_CREATED[2:]]


@pytest.mark.parametrize("name", ["../alice", "a/b", "..", "", ".x"])
def test_a_name_cannot_lead_out_of_the_directory(pki: PkiDirectory, name: str) -> None:
    """Names of clients and servers are plain names."""
    with pytest.raises(InvalidArgumentError, match="name: "):
        pki.issue_client(name, [Role.USER])
    with pytest.raises(InvalidArgumentError, match="name: "):
        pki.issue_server(name, ["localhost"])
    assert sorted(_contents(pki.path)) == _CREATED
    assert [path.name for path in pki.path.parent.iterdir()] == ["pki"]


def test_names_that_mean_something_else_are_refused(pki: PkiDirectory) -> None:
    """A client cannot be issued under the authority's or the server's name, though their files were moved away."""
    for name in _CREATED[1:]:
        (pki.path / name).rename(pki.path.parent / name)
    for name in ("ca", "server"):
        with pytest.raises(PkiError, match=f"'{name}' is .*; choose another"):
            pki.issue_client(name, [Role.USER])
    with pytest.raises(PkiError, match="'ca' is the authority's own name"):
        pki.issue_server("ca", ["localhost"])


def test_a_server_certificate_is_renewed_beside_the_old_one(pki: PkiDirectory) -> None:
    """Another name gives another certificate; the same name only once the old files are out of the way."""
    old = _contents(pki.path)
    assert pki.issue_server("server-2", ["localhost"]).certificate == pki.path / "server-2.crt"
    with pytest.raises(PkiError, match=r"server\.key exists"):
        pki.issue_server("server", ["localhost"])
    for suffix in (".crt", ".key"):
        (pki.path / f"server{suffix}").rename(pki.path / f"server.old{suffix}")
    pki.issue_server("server", ["localhost"])
    new = _contents(pki.path)
    assert new["server.old.key"] == old["server.key"] != new["server.key"]


def test_without_an_authority_nothing_is_issued(tmp_path: Path) -> None:
    """Whoever issues before there is an authority is told to make one."""
    with pytest.raises(PkiError, match=r"ca\.crt is missing: make an authority first"):
        PkiDirectory(tmp_path / "none").issue_client("alice", [Role.USER])
    assert not (tmp_path / "none").exists()
