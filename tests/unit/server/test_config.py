"""Settings: three sources, one meaning, and errors that say what to do."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobworker.auth.roles import Role
from jobworker.config import FOREIGN_VARIABLES, SETTINGS, ServerSettings, SettingsError, load_settings
from jobworker.core.address import Address
from jobworker.core.limit_options import OPTIONS
from jobworker.core.limit_policy import LimitPolicy
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.output import OutputLimit, OutputPolicy, OverflowPolicy

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"
REQUIRED = {name: f"/etc/jobworker/{name}" for name, setting in SETTINGS.items() if setting.required}

# For every setting a value, as a person writes it in the environment or on the command line, and what it means.
SAID = {
    "listen": ("[::1]:0", Address(host="::1", port=0)),
    "state_dir": ("/srv/jobs", Path("/srv/jobs")),
    "server_cert": ("/etc/s.crt", Path("/etc/s.crt")),
    "server_key": ("/etc/s.key", Path("/etc/s.key")),
    "client_ca": ("/etc/ca.crt", Path("/etc/ca.crt")),
    "durability": ("power", "power"),
    "job_user": ("nobody", "nobody"),
    "stop_jobs_on_exit": ("yes", True),
    "shutdown_grace": ("1m30s", timedelta(seconds=90)),
    "max_running_jobs": ("7", 7),
    "max_running_jobs_per_user": ("6", 6),
    "max_followers_per_user": ("5", 5),
    "max_command_bytes": ("64KiB", 65_536),
    "max_request_bytes": ("1M", 1_000_000),
    "retention_age": ("12h", timedelta(hours=12)),
    "retention_bytes": ("2GiB", 2 * 1024**3),
    "compress_after": ("1h", timedelta(hours=1)),
    "archive_url": ("s3://bucket/jobs", "s3://bucket/jobs"),
    "archive_after": ("2d", timedelta(days=2)),
    "output_limit": ("1GiB", 1024**3),
    "output_policy": ("drop", "drop"),
    "max_output_limit": ("2GiB", 2 * 1024**3),
    "output_reserve": ("1MiB", 1024**2),
    "max_state_bytes": ("3GiB", 3 * 1024**3),
    "output_watch": ("poll", "poll"),
    "cgroups": ("require", "require"),
    "audit_log": ("/var/log/audit", Path("/var/log/audit")),
    "log_level": ("warning", "warning"),
}


def load(*, file: Path | None = None, environ: dict[str, str] | None = None, **flags: object) -> ServerSettings:
    """The settings of these sources and of the required flags."""
    return load_settings(flags=REQUIRED | flags, environ=environ or {}, file=file)


def written(directory: Path, text: str) -> Path:
    """A file of settings."""
    path = directory / "server.toml"
    path.write_text(text)
    return path


def test_the_defaults_are_safe() -> None:
    """With only what is required, the server listens on loopback and leaves jobs running when it ends."""
    settings = load()
    assert settings.listen.host == "127.0.0.1"
    assert settings.stop_jobs_on_exit is False
    assert settings.state_dir == Path("/etc/jobworker/state_dir")


def test_every_setting_can_be_said_in_every_way(tmp_path: Path) -> None:
    """File, environment and flags name and read each setting alike, and none is forgotten here."""
    assert set(SAID) == set(SETTINGS)
    meant: dict[str, Any] = {name: value for name, (_, value) in SAID.items()}
    lines = "".join(f'{name} = "{text}"\n' for name, (text, _) in SAID.items() if not text.isdigit())
    numbers = "".join(f"{name} = {text}\n" for name, (text, _) in SAID.items() if text.isdigit())
    by_file = load_settings(flags={}, environ={}, file=written(tmp_path, lines + numbers))
    by_variable = load_settings(flags={}, environ={SETTINGS[name].variable: text for name, (text, _) in SAID.items()})
    by_flag = load_settings(flags={name: text for name, (text, _) in SAID.items()}, environ={})
    assert by_file == by_variable == by_flag == ServerSettings(**meant)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """The nearer to the command, the stronger; what is not said nearer stays."""
    file = written(tmp_path, 'durability = "power"\nmax_running_jobs = 1\nmax_followers_per_user = 1\n')
    environ = {"JOBWORKER_MAX_RUNNING_JOBS": "2", "JOBWORKER_MAX_FOLLOWERS_PER_USER": "2"}
    settings = load(file=file, environ=environ, max_followers_per_user="3", log_level=None)
    assert (settings.durability, settings.max_running_jobs, settings.max_followers_per_user) == ("power", 2, 3)


def test_toml_may_say_values_in_its_own_types(tmp_path: Path) -> None:
    """Numbers and booleans need no quotes."""
    settings = load(file=written(tmp_path, "stop_jobs_on_exit = true\nretention_bytes = 4096\nmax_running_jobs = 9"))
    assert (settings.stop_jobs_on_exit, settings.retention_bytes, settings.max_running_jobs) == (True, 4096, 9)


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    """A file of settings means the same wherever the server is started from; `~` is the user's home."""
    file = written(tmp_path, 'audit_log = "log/audit"\n')
    assert load(file=file).audit_log == tmp_path / "log/audit"
    assert load(audit_log="~/audit").audit_log == Path.home() / "audit"
    assert load(audit_log="audit").audit_log == Path("audit")


def test_output_has_a_limit_unless_told_otherwise() -> None:
    """The defaults, and what the settings say together."""
    assert load().output == OutputPolicy()
    assert load().output.default == OutputLimit(size=10 * 1024**3, policy=OverflowPolicy.KEEP_LAST)
    said = load(
        output_limit="1MiB", output_policy="stop", max_output_limit="1GiB", output_reserve="5", max_state_bytes="9"
    )
    assert said.output == OutputPolicy(
        default=OutputLimit(size=1024**2, policy=OverflowPolicy.STOP),
        maximum=1024**3,
        reserve=5,
        max_state_bytes=9,
    )


@pytest.mark.parametrize(
    "flags, text",
    [
        ({"max_output_limit": "1GiB"}, "max_output_limit (1GiB) is less than output_limit (10GiB)"),
        ({"output_limit": "1k"}, "output_limit must be at least 64KiB"),
        ({"output_policy": "KEEP_LAST"}, "none of stop, drop, keep-last"),
    ],
)
def test_an_output_limit_that_cannot_be_is_refused(flags: dict[str, str], text: str) -> None:
    """Before the server starts, and by the setting's name."""
    with pytest.raises(SettingsError) as refused:
        load_settings(flags=REQUIRED | flags, environ={})
    assert text in str(refused.value)


@pytest.mark.parametrize("target", ["stderr", "off"])
def test_the_audit_log_has_two_names_that_are_no_paths(tmp_path: Path, target: str) -> None:
    """These two words are targets of their own, in the file as well."""
    assert load(file=written(tmp_path, f'audit_log = "{target}"')).audit_log == target


def test_an_empty_variable_is_not_set() -> None:
    """A unit file that leaves a variable empty does not break the server."""
    assert load(environ={"JOBWORKER_JOB_USER": "", "JOBWORKER_LISTEN": ""}) == load()


def test_the_clients_variables_are_none_of_the_servers() -> None:
    """A shell that is set up for the client can start a server."""
    assert load(environ=dict.fromkeys(FOREIGN_VARIABLES, "x")) == load()
    assert not FOREIGN_VARIABLES & {setting.variable for setting in SETTINGS.values()}


@pytest.mark.parametrize(
    "environ, text",
    [
        ({"JOBWORKER_STATEDIR": "/x"}, "there is no variable JOBWORKER_STATEDIR; did you mean JOBWORKER_STATE_DIR?"),
        ({"JOBWORKER_ZZZZ": "/x"}, "there is no variable JOBWORKER_ZZZZ"),
        ({"JOBWORKER_RETENTION_AGE": "30"}, "JOBWORKER_RETENTION_AGE: '30' is no duration; write one such as 30d,"),
        ({"JOBWORKER_MAX_RUNNING_JOBS": "0"}, "JOBWORKER_MAX_RUNNING_JOBS: '0' is no number of at least 1"),
        ({"JOBWORKER_MAX_RUNNING_JOBS": "-1"}, "JOBWORKER_MAX_RUNNING_JOBS: '-1' is no number of at least 1"),
        ({"JOBWORKER_MAX_COMMAND_BYTES": "0"}, "JOBWORKER_MAX_COMMAND_BYTES: 0 is no number of at least 1"),
        ({"JOBWORKER_STOP_JOBS_ON_EXIT": "maybe"}, "JOBWORKER_STOP_JOBS_ON_EXIT: 'maybe' is neither true nor false"),
        ({"JOBWORKER_DURABILITY": "none"}, "JOBWORKER_DURABILITY: 'none' is none of process, power"),
        ({"JOBWORKER_LISTEN": "8443"}, "JOBWORKER_LISTEN: '8443' is no address; write HOST:PORT"),
        ({"JOBWORKER_LISTEN": "::1:8443"}, "JOBWORKER_LISTEN: '::1:8443' is no address; write HOST:PORT"),
        ({"JOBWORKER_LISTEN": "h:65536"}, "JOBWORKER_LISTEN: '65536' is no port; one is a number from 0"),
        ({"JOBWORKER_STATE_DIR": "~nobody-here/x"}, "JOBWORKER_STATE_DIR: Could not determine home directory."),
        ({"JOBWORKER_STATE_DIR": "x" * 5000}, "JOBWORKER_STATE_DIR is too long"),
        ({"JOBWORKER_MAX_REQUEST_BYTES": "1k"}, "max_request_bytes (1000B) is less than max_command_bytes (1MiB),"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], text: str) -> None:
    """An error names the variable as it was written, what is wrong with it and what would be right."""
    flags = {name: value for name, value in REQUIRED.items() if SETTINGS[name].variable not in environ}
    with pytest.raises(SettingsError) as wrong:
        load_settings(flags=flags, environ=environ)
    assert str(wrong.value).startswith(text)


@pytest.mark.parametrize(
    "content, text",
    [
        ('state-dir = "/x"', "there is no setting 'state-dir'; did you mean state_dir?"),
        ("[server]\nlisten = 'x:1'", "there is no setting 'server'"),
        ("retention_age = 30", "retention_age: '30' is no duration"),
        ("max_running_jobs = true", "max_running_jobs: True is no number"),
        ("max_running_jobs = 1.5", "max_running_jobs: 1.5 is no number"),
        ("job_user = 0", "job_user: must be a text"),
        ("audit_log = ['a']", "audit_log: must be a text"),
        ("listen = ", "is no TOML: Invalid value (at end of document)"),
    ],
)
def test_a_wrong_line_in_the_file_is_named(tmp_path: Path, content: str, text: str) -> None:
    """An error names the file and the key."""
    file = written(tmp_path, content)
    with pytest.raises(SettingsError) as wrong:
        load(file=file)
    assert str(wrong.value).startswith(str(file))
    assert text in str(wrong.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that is not there, and one that is not text, are told apart."""
    with pytest.raises(SettingsError, match=r"cannot read the settings in .*/gone: No such file or directory"):
        load(file=tmp_path / "gone")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"/binary is no TOML: "):
        load(file=tmp_path / "binary")


def test_what_is_required_is_asked_for_in_every_way() -> None:
    """A missing setting is told with all its names."""
    with pytest.raises(SettingsError) as wrong:
        load(state_dir=None)
    assert str(wrong.value) == ("state_dir is not set: give --state-dir, JOBWORKER_STATE_DIR or state_dir in the file")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_pasted_key_does_not_come_out_again(name: str, tmp_path: Path) -> None:
    """Whoever puts a private key where its path belongs does not find it in the log."""
    key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"
    file = written(tmp_path, f'{name} = """{key}"""')
    for said in (
        lambda: load_settings(flags={**REQUIRED, name: key}, environ={}),
        lambda: load_settings(flags={k: v for k, v in REQUIRED.items() if k != name}, environ={}, file=file),
        lambda: load_settings(
            flags={k: v for k, v in REQUIRED.items() if k != name}, environ={SETTINGS[name].variable: key}
        ),
    ):
        with pytest.raises(SettingsError, match="holds a certificate or a key itself") as wrong:
            said()
        assert "c2VjcmV0" not in str(wrong.value)


def test_limits_are_tables_of_the_file(tmp_path: Path) -> None:
    """The common tables hold for every role, and what a role's own tables say goes before, key by key."""
    text = """
        [limits.default]
        memory = "2G"
        cpus = 1.5
        [limits.maximum]
        memory = "4G"
        io_write = "10M"
        io_device = "/dev/vda"
        [limits.roles.admin.default]
        cpus = 8
        [limits.roles.admin.maximum]
        memory = "64G"
    """
    limits = load(file=written(tmp_path, text)).limits
    disk = (IoLimit(device="/dev/vda", write_bytes_per_second=10**7),)
    assert limits == {
        Role.USER: LimitPolicy(default=Limits(memory=2 * 10**9, cpus=1.5), maximum=Limits(memory=4 * 10**9, io=disk)),
        Role.ADMIN: LimitPolicy(default=Limits(memory=2 * 10**9, cpus=8), maximum=Limits(memory=64 * 10**9, io=disk)),
    }
    assert load().limits == {}


@pytest.mark.parametrize(
    "content, text",
    [
        ("[limit.default]\nmemory = 5", "there is no setting 'limit'; did you mean limits?"),
        ("[limits.defaults]\nmemory = 5", "limits: there is no 'defaults'; did you mean default?"),
        ("[limits.default]\nmemroy = 5", "limits.default: there is no 'memroy'; did you mean memory?"),
        ("[limits.default]\nmemory = '2x'", "limits.default.memory: '2x' is no size; write one such as 50GiB"),
        ("[limits.roles.root.default]\npids = 5", "limits.roles: there is no 'root'"),
        ("[limits.roles.user.minimum]\npids = 5", "limits.roles.user: there is no 'minimum'"),
        ("limits = 5", "limits must be a table"),
        ("[limits.maximum]\noom_group = true", "limits: for role admin: limits.oom_group: has no maximum"),
        ("[limits.default]\nio_device = '/'", "limits: for role admin: io_device says which disk"),
        (
            "[limits.default]\nmemory = '2G'\n[limits.roles.user.maximum]\nmemory = '1G'",
            "limits: the default of role user: limits.memory: is above the maximum of 1GB",
        ),
    ],
)
def test_a_wrong_limit_is_named(tmp_path: Path, content: str, text: str) -> None:
    """An error names the file, the table and the key, and what would be right; a default is within its maximum."""
    file = written(tmp_path, content)
    with pytest.raises(SettingsError) as wrong:
        load(file=file)
    assert str(wrong.value).startswith(f"{file}: ")
    assert text in str(wrong.value)


def limits_table() -> str:
    """The table of the keys of limits as docs/configuration.md has it."""
    rows = [f"| `{name}` | {one.metavar or 'true or false'} | {one.purpose} |" for name, one in OPTIONS.items()]
    return "\n".join(rows) + "\n"


def test_the_document_shows_every_limit() -> None:
    """docs/configuration.md has the very table that the code gives; on a difference, paste what is shown here."""
    assert limits_table() in DOCUMENT.read_text(), limits_table()


def settings_table() -> str:
    """The table of all settings as docs/configuration.md has it."""
    lines = ["| setting | kind | default | what it decides |", "|---|---|---|---|"]
    for setting in SETTINGS.values():
        default = (
            "required" if setting.required else "" if setting.default is None else setting.kind.show(setting.default)
        )
        lines.append(f"| `{setting.name}` | {setting.kind.name} | {default} | {setting.purpose} |")
    return "\n".join(lines) + "\n"


def test_the_document_shows_every_setting() -> None:
    """docs/configuration.md has the very table that the code gives; on a difference, paste what is shown here."""
    assert settings_table() in DOCUMENT.read_text(), settings_table()
