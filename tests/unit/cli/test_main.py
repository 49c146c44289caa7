"""The program as a whole: its commands, its errors, its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from jobworker.cli.exits import INTERRUPTED, CliError
from jobworker.cli.main import SECTIONS, jobworker, main
from jobworker.cli.options import JobExitCommand

ENTRIES = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """All commands below a group, with their paths."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


ALL = dict(commands(jobworker))


@pytest.mark.parametrize("name", ENTRIES)
def test_the_list_of_commands_is_true(name: str) -> None:
    """A command's name and line in the list, for which it is not loaded, are its own name and its first sentence."""
    command = ENTRIES[name].load()
    assert command.name == name
    assert ENTRIES[name].summary == command.get_short_help_str(limit=1000)


@pytest.mark.parametrize("path", [path for path, command in ALL.items() if not isinstance(command, click.Group)])
def test_help_is_worth_reading(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of every command but `pki show` ends with examples of that command, and describes each option."""
    command = ALL[path]
    assert main([*path.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    if path != "pki show":
        assert f"jobworker {path}" in shown.partition("Examples:")[2]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{path} {parameter.opts}"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version is that of the package."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jobworker {version('jobworker')}\n"


@pytest.mark.parametrize(
    "arguments, code, text",
    [
        (["nosuch"], 2, "No such command 'nosuch'"),
        (["resum"], 2, "No such command 'resum'; did you mean 'resume'?"),
        (["pki", "isue"], 2, "No such command 'isue'"),
        (["list", "--server", "foo"], 2, "server: 'foo' is no address; write HOST:PORT"),
        (["run", "--output", "json", "true"], 125, "--output json goes with --detach"),
        (["start", "--label", "x", "true"], 2, "'x' is not KEY=VALUE; write one such as team=db"),
        (
            ["start", "--label", "a=b", "--label", "a=c", "true"],
            2,
            "'--label': 'a' has two values, 'b' and 'c'; give one",
        ),
        (["run", "--label", "a=b", "--label", "a=c", "true"], 125, "'a' has two values"),
        (["list", "--label", "a=b", "--label", "a=c"], 2, "'a' has two values"),
        (["start", "--label", "A B=x", "true"], 2, "--label: 'A B' is no key"),
        (["start", "--memory-high", "0", "true"], 2, "--memory-high: 0 cannot be; it has to be at least 1"),
        (["start", "--io-read", "0", "true"], 2, "--io-read: 0 cannot be"),
        (["--nosuch"], 2, "No such option"),
        (["status", "--output", "yaml", "x"], 2, "'yaml' is not one of 'text', 'json'"),
        (["run", "--timeout", "soon", "true"], 125, "'soon' is no duration; write one such as"),
        (["wait", "--reconnect-timeout", "x", "y"], 125, "'x' is no duration"),
        (["start", "--env", "A", "true"], 2, "'A' is not NAME=VALUE; write one such as TZ=UTC"),
        (["start", "--cwd", "relative", "true"], 2, "--cwd: 'relative' is relative"),
        (["run", "--name", "", "true"], 125, "--name: must have 1 to 128 characters"),
        (["list", "--since", "yesterday"], 2, "'yesterday' is no time; write one such as"),
        (["stop", "some-id", "--signal", "NOSUCH"], 2, "'NOSUCH' is no signal"),
        (["status", "\udc80"], 2, "is not UTF-8"),
        (["remove"], 2, "give the id of a job"),
        (["run", "--memory", "2x", "true"], 125, "'--memory': '2x' is no size; write one such as 50GiB"),
        (["start", "--cpus", "all", "true"], 2, "'--cpus': 'all' is no number of cores; write one such as 2 or 1.5"),
        (["start", "--memory", "default", "true"], 2, "'default' is no size"),
        (["start", "--io-device", "/", "true"], 2, "--io-device says which disk --io-read, --io-write, --io-read-ops,"),
        (["update", "some-id"], 2, "say what is to change, such as --memory 4G"),
        (["update", "some-id", "--pids", "1.5"], 2, "'1.5' is no whole number; write one such as 200"),
        (["top", "--sort", "name"], 2, "'name' is not one of 'cpu', 'memory', 'io', 'processes', 'age'"),
        (["stats", "some-id", "--interval", "2x"], 2, "'2x' is no duration"),
        (["ps"], 2, "No such command 'ps'; did you mean 'list'?"),
        (["logs", "x"], 2, "No such command 'logs'; did you mean 'stream'?"),
        (["profile", "rm", "x"], 2, "No such command 'rm'"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It gives one line on stderr that says what is wrong, and the code of the command for that."""
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("jobworker: ")
    assert text in line


def test_errors_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """What a terminal would obey is shown as an escape, on one line."""
    assert main(["no\x1b[31msuch\n\u202e"]) == 2
    assert r"no\x1b[31msuch" in capsys.readouterr().err


def raising(error: BaseException) -> click.Command:
    """A command that exits with its job's code, and fails."""

    @click.command(cls=JobExitCommand)
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error, code",
    [(CliError("x", 1), 125), (CliError("x", 2), 125), (CliError("x", 126), 126), (CliError("x", 127), 127)],
)
def test_codes_of_our_own_are_apart(error: CliError, code: int) -> None:
    """A command that exits as its job did uses no code of a job's for a failure of its own."""
    with pytest.raises(CliError) as raised:
        raising(error).main([], standalone_mode=False)
    assert raised.value.code == code


def test_ctrl_c_is_not_the_jobs_end() -> None:
    """Ctrl-C while waiting says that the job goes on, and gives 130 as everywhere."""
    with pytest.raises(CliError) as raised:
        raising(KeyboardInterrupt()).main([], standalone_mode=False)
    assert raised.value.code == INTERRUPTED


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script for a shell asks the program in the way that the program understands."""
    assert main(["completion", shell]) == 0
    assert f"_JOBWORKER_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_completed_words(tmp_path: Path) -> None:
    """The shell is told of commands, options and choices."""

    def words(line: str) -> set[str]:
        environ = {
            **os.environ,
            "_JOBWORKER_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
            "JOBWORKER_CONFIG_DIR": str(tmp_path),
        }
        program = Path(sys.executable).with_name("jobworker")
        done = subprocess.run([program], env=environ, capture_output=True, text=True, timeout=60, check=True)
        return {word.partition(",")[2] for word in done.stdout.splitlines()}

    assert words("jobworker st") == {"start", "stats", "status", "stop", "stream"}
    assert "--reconnect-timeout" in words("jobworker run --")
    assert words("jobworker list --output ") == {"text", "json"}
    assert {"--cpus", "--memory", "--io-write", "--oom-group", "--no-oom-group"} <= words("jobworker update --")
    assert words("jobworker top --sort ") == {"cpu", "memory", "io", "processes", "age"}
