"""Memory that a process has at hand."""

from __future__ import annotations

import subprocess
import sys

MESSAGES = """
from resource import RUSAGE_SELF, getrusage
from jobworker.linux.memory import keep_freed_memory
{before}
def handle():
    return [b"x" * (1024 * 1024) for _ in range(4)]
handle()
faults = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(50):
    handle()
print(getrusage(RUSAGE_SELF).ru_minflt - faults)
"""


def test_freed_memory_is_kept() -> None:
    """Who handles large messages one after the other is not given their memory anew by the kernel each time."""
    bare = faults_of_messages(before="")
    assert faults_of_messages(before="keep_freed_memory(); keep_freed_memory()") < bare / 10


def faults_of_messages(*, before: str) -> int:
    """How many pages a process is given for fifty rounds of some messages."""
    program = [sys.executable, "-c", MESSAGES.format(before=before)]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
