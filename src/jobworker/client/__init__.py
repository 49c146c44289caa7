"""The Python client: `AsyncClient`, and `Client` for programs that are not asynchronous.

with Client("build1.example.org:8443", ca="ca.crt", cert="alice.crt", key="alice.key") as client:
    print(client.run(["uname", "-a"], check=True).output)
"""

from __future__ import annotations

from jobworker.client.aio import AsyncClient, SpecFields
from jobworker.client.blocking import BlockingOutputStream, Client
from jobworker.client.connection import Timeouts
from jobworker.client.credentials import Pem
from jobworker.client.results import Chunk, JobFailedError, RunResult, RunTimeoutError, ServerInfo, exit_code
from jobworker.client.stream import OutputStream
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.usage import Usage

__all__ = [
    "AsyncClient",
    "BlockingOutputStream",
    "Chunk",
    "Client",
    "IoLimit",
    "JobFailedError",
    "Limits",
    "OutputStream",
    "Pem",
    "RunResult",
    "RunTimeoutError",
    "ServerInfo",
    "SpecFields",
    "Timeouts",
    "Usage",
    "exit_code",
]
