"""Flags win over the environment, which wins over the profile; profiles are kept safely."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.cli.exits import REFUSED, UNASKED, CliError
from jobworker.cli.main import main
from jobworker.cli.profiles import Profile, Profiles, load_profiles, profiles_path, save_profiles
from jobworker.cli.settings import ClientSettings, client_settings
from tests.support.pki import EXPIRED, VALID, Authority

AUTHORITY = Authority()
ALICE = AUTHORITY.client("alice")
BUILD = Profile(server="build:1", ca="/p/ca", cert="/p/cert", key="/p/key")
OTHER = Profile(server="other:1", ca="/o/ca", cert="/o/cert", key="/o/key")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment with two profiles, of which "build" is the current one."""
    environ = {"JOBWORKER_CONFIG_DIR": str(tmp_path)}
    save_profiles(profiles_path(environ), Profiles(current="build", by_name={"build": BUILD, "other": OTHER}))
    return environ


def test_the_current_profile(environ: dict[str, str]) -> None:
    """Without flags and variables it is the current profile."""
    assert client_settings(flags={}, environ=environ) == ClientSettings(
        server="build:1", ca="/p/ca", cert="/p/cert", key="/p/key"
    )


def test_flag_environment_profile(environ: dict[str, str]) -> None:
    """Each value is taken from the first place that says it; an empty variable says nothing."""
    environ |= {"JOBWORKER_SERVER": "env:1", "JOBWORKER_CA": "/e/ca", "JOBWORKER_KEY": ""}
    assert client_settings(flags={"server": "flag:1"}, environ=environ) == ClientSettings(
        server="flag:1", ca="/e/ca", cert="/p/cert", key="/p/key"
    )


@pytest.mark.parametrize("flags, variable", [({"profile": "other"}, "build"), ({}, "other")])
def test_a_named_profile(environ: dict[str, str], flags: dict[str, str], variable: str) -> None:
    """A profile that a flag or the environment names is used, the flag's first."""
    settings = client_settings(flags=flags, environ={**environ, "JOBWORKER_PROFILE": variable})
    assert settings.server == "other:1"


def test_no_profile_is_needed(tmp_path: Path) -> None:
    """Where flags and environment say all, profiles are not even read."""
    (tmp_path / "profiles.toml").write_text("rubbish")
    flags = {"server": "a:1", "ca": "ca", "cert": "~/cert", "key": "key"}
    settings = client_settings(flags=flags, environ={"JOBWORKER_CONFIG_DIR": str(tmp_path)})
    assert settings == ClientSettings(server="a:1", ca="ca", cert=str(Path("~/cert").expanduser()), key="key")


@pytest.mark.parametrize("missing", ["server", "ca", "cert", "key"])
def test_what_is_missing(tmp_path: Path, missing: str) -> None:
    """A value that nobody says is named, with the three ways to say it."""
    flags = {name: "x:1" for name in ("server", "ca", "cert", "key") if name != missing}
    with pytest.raises(
        CliError, match=f"give --{missing}, set JOBWORKER_{missing.upper()}, or add a profile"
    ) as raised:
        client_settings(flags=flags, environ={"JOBWORKER_CONFIG_DIR": str(tmp_path)})
    assert raised.value.code == UNASKED


def test_profiles_are_kept(tmp_path: Path) -> None:
    """What was saved is loaded, whatever characters it has, from a file that is its user's alone."""
    path = tmp_path / "new" / "folder" / "profiles.toml"
    odd = Profile(server='a"b\\c\x7f\n\t:1', ca="/ü/€/'", cert=None, key="/k")
    profiles = Profiles(current="odd", by_name={"odd": odd, "empty": Profile()})
    save_profiles(path, profiles)
    assert load_profiles(path) == profiles
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    """A path that TOML cannot hold is refused, and what was there is still there."""
    path = tmp_path / "profiles.toml"
    save_profiles(path, Profiles(by_name={"a": BUILD}))
    with pytest.raises(CliError, match="UTF-8"):
        save_profiles(path, Profiles(by_name={"a": Profile(ca="\udc80")}))
    assert load_profiles(path).by_name == {"a": BUILD}


@pytest.mark.parametrize(
    "content", [b"rubbish", b"\xff", b"unknown = 1", b"profiles = 3", b"[profiles.a]\ncolour = 'red'"]
)
def test_profiles_that_cannot_be_understood(tmp_path: Path, content: bytes) -> None:
    """A damaged file is an error that names it, not an empty set of profiles."""
    path = tmp_path / "profiles.toml"
    path.write_bytes(content)
    with pytest.raises(CliError, match=f"{path} cannot be understood"):
        load_profiles(path)


def test_a_profile_that_cannot_be_had(tmp_path: Path) -> None:
    """Commands that would ask its server exit as if no server were named; those about profiles do not."""
    environ = {"JOBWORKER_CONFIG_DIR": str(tmp_path)}
    path = tmp_path / "profiles.toml"
    for content in ("", "rubbish"):
        path.write_text(content)
        with pytest.raises(CliError) as unasked:
            client_settings(flags={"profile": "nosuch"}, environ=environ)
        assert unasked.value.code == UNASKED
    with pytest.raises(CliError) as refused:
        load_profiles(path)
    assert refused.value.code == REFUSED


def test_profile_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The first profile is used until another one is; one that is removed is used no more."""
    monkeypatch.setenv("JOBWORKER_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)

    def current() -> list[tuple[str, bool]]:
        capsys.readouterr()
        assert main(["profile", "list", "--output", "json"]) == 0
        return [(one["name"], one["current"]) for one in json.loads(capsys.readouterr().out)]

    assert current() == []
    assert main(["profile", "add", "a", "--server", "a:1", "--ca", "ca.crt"]) == 0
    assert "there is no file" in capsys.readouterr().err
    assert main(["profile", "add", "b", "--server", "b:1"]) == 0
    assert current() == [("a", True), ("b", False)]
    assert main(["profile", "use", "b"]) == 0
    assert current() == [("a", False), ("b", True)]
    assert main(["profile", "list"]) == 0
    assert capsys.readouterr().out == ("   NAME  SERVER  CERTIFICATE\n   a     a:1     -\n*  b     b:1     -\n")
    assert load_profiles(tmp_path / "config/profiles.toml").by_name["a"].ca == str(tmp_path / "ca.crt")
    assert main(["profile", "remove", "b"]) == 0
    assert current() == [("a", False)]


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["add", "a"], "there is a profile 'a' already"),
        (["add", "a b"], "'a b' is no name of a profile"),
        (["use", "x"], "there is no profile 'x' (there is: a)"),
        (["remove", "x"], "there is no profile 'x' (there is: a)"),
    ],
)
def test_wrong_profile_commands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    """Nothing is overwritten, and what does not exist is said with what does."""
    monkeypatch.setenv("JOBWORKER_CONFIG_DIR", str(tmp_path))
    main(["profile", "add", "a", "--server", "a:1"])
    capsys.readouterr()
    assert main(["profile", *arguments]) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "role, content, problem",
    [
        ("ca", b"rubbish", "ca.crt holds no certificate in PEM form"),
        ("cert", ALICE.key, "alice.crt holds no certificate in PEM form"),
        ("key", ALICE.certificate, "alice.key holds no private key in PEM form"),
        ("key", AUTHORITY.client("alice").key, "alice.key does not belong to the client certificate"),
    ],
)
def test_a_profile_whose_files_do_not_fit(  # noqa: PLR0913, PLR0917 -- three fixtures and three parameters
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    role: str,
    content: bytes,
    problem: str,
) -> None:
    """It is refused and not kept, with the file and what is wrong with it; with the right file it is added."""
    monkeypatch.setenv("JOBWORKER_CONFIG_DIR", str(tmp_path / "config"))
    right = {"ca": AUTHORITY.certificate, "cert": ALICE.certificate, "key": ALICE.key}
    files = {"ca": tmp_path / "ca.crt", "cert": tmp_path / "alice.crt", "key": tmp_path / "alice.key"}
    for name, file in files.items():
        file.write_bytes(right[name])
    add = ["profile", "add", "build", *(word for name, file in files.items() for word in (f"--{name}", str(file)))]

    files[role].write_bytes(content)
    assert main(add) == 1
    assert problem in capsys.readouterr().err
    assert load_profiles(tmp_path / "config/profiles.toml") == Profiles()

    files[role].write_bytes(right[role])
    assert main(add) == 0


@pytest.mark.parametrize(
    "lifetime, warning",
    [
        (EXPIRED, "it has expired: issue a new one"),
        (VALID, "it expires within two days"),
        ((timedelta(days=-1), timedelta(days=90)), None),
    ],
)
def test_a_profile_with_a_certificate_out_of_date(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lifetime: tuple[timedelta, timedelta],
    warning: str | None,
) -> None:
    """It is added, as one with files that come later is, with a warning, which others do not have."""
    monkeypatch.setenv("JOBWORKER_CONFIG_DIR", str(tmp_path / "config"))
    files = AUTHORITY.client("alice", lifetime=lifetime).write(tmp_path, "alice")
    assert main(["profile", "add", "a", "--cert", str(files.certificate), "--key", str(files.key)]) == 0
    *warned, _added = capsys.readouterr().err.splitlines()
    expected = f"jobworker: warning: the client certificate {files.certificate}: {warning}"
    assert warned == ([expected] if warning else [])
