"""The Python client: `AsyncClient`, and `Client` for programs that are not asynchronous.

with Client("build1.example.org:8443", ca="ca.crt", cert="alice.crt", key="alice.key") as client:
    print(client.run(["uname", "-a"], check=True).output)
"""

from __future__ import annotations

from jobworker.client.aio import AsyncClient, SelectionFields, SpecFields
from jobworker.client.blocking import BlockingOutputStream, Client
from jobworker.client.connection import Timeouts
from jobworker.client.credentials import Pem
from jobworker.client.results import JobFailedError, RunResult, RunTimeoutError, ServerInfo, exit_code
from jobworker.client.stream import OutputStream
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.output import Chunk, Gap, GapReason, OutputLimit, OutputMode, OverflowPolicy, Stream
from jobworker.core.usage import Usage

__all__ = [
    "AsyncClient",
    "BlockingOutputStream",
    "Chunk",
    "Client",
    "Gap",
    "GapReason",
    "IoLimit",
    "JobFailedError",
    "Limits",
    "OutputLimit",
    "OutputMode",
    "OutputStream",
    "OverflowPolicy",
    "Pem",
    "RunResult",
    "RunTimeoutError",
    "SelectionFields",
    "ServerInfo",
    "SpecFields",
    "Stream",
    "Timeouts",
    "Usage",
    "exit_code",
]
