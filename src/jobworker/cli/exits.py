"""The exit codes of the program, and the error that carries one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobworker.core.errors import JobworkerError

REFUSED = 1  # the server said no, or something here cannot be done
USAGE = 2  # the command line is wrong; 125 for `run` and `wait`, because a job may exit with 2
UNASKED = 125  # the server could not be asked, or the end of the job is not known
NOT_EXECUTABLE = 126  # the command exists on the server and cannot be executed
NOT_FOUND = 127  # the command does not exist on the server
INTERRUPTED = 130  # Ctrl-C, as of a job that it ended
OUTPUT_CLOSED = 141  # who read our output went away, as a program says that SIGPIPE ends

JOB_CODES = """\b
Exit codes:
  the job's own     its exit code, or 128 + the number of the signal that ended it
  124               the job reached its time limit
  125               the server could not be asked or refused, the command line is wrong, or how the job
                    ended is not known
  126               the command exists on the server and cannot be executed
  127               the command does not exist on the server
  130               Ctrl-C left the job
  141               what reads our output was closed
  153               the job exited with 0 when it was ended at its output limit (--output-policy stop)
A job that was stopped never gives 0: it gives 143 where its own code was 0."""


class CliError(Exception):
    """Something went wrong; the text is one line for a person, and `code` what the program exits with."""

    def __init__(self, text: str, code: int = REFUSED) -> None:
        super().__init__(text)
        self.code = code


def code_of(error: JobworkerError | CliError) -> int:
    """The exit code for an error."""
    from jobworker.core.errors import CommandNotStartedError, ServerUnavailableError

    if isinstance(error, CliError):
        return error.code
    if isinstance(error, ServerUnavailableError):
        return UNASKED
    if isinstance(error, CommandNotStartedError) and error.stage in ("exec", "interpreter"):
        return NOT_FOUND if error.not_found else NOT_EXECUTABLE
    return REFUSED
