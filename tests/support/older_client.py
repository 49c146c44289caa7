"""A client of the older service, as its users have it: made from its own .proto file, knowing nothing of jobworker.

`python -m tests.support.older_client WHERE ADDRESS CA CERT KEY` takes one command a line from stdin, as JSON, and
answers each with one line. It is a process of its own because two .proto files that declare the same names cannot be
loaded into one.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.support.pki import CredentialFiles

ROOT = Path(__file__).parents[2]
LIMIT = 60  # seconds a call

# The contract as the older service has it: written from its wire form, not copied from what is served.
PROTO = """
syntax = "proto3";
package proto;

service WorkerService {
  rpc StartJob(StartJobRequest) returns (StartJobResponse);
  rpc StopJob(StopJobRequest) returns (StopJobResponse);
  rpc GetJobStatus(GetStatusRequest) returns (GetStatusResponse);
  rpc GetOutputStream(GetStreamRequest) returns (stream GetStreamResponse);
}

enum Status { RUNNING = 0; STOPPED = 1; FINISHED = 2; }

message StartJobRequest { string cmd = 1; repeated string args = 2; }
message StartJobResponse { string ID = 1; }
message StopJobRequest { string id = 1; }
message StopJobResponse {}
message GetStatusRequest { string id = 1; }
message GetStatusResponse { Status status = 1; int32 exitcode = 2; }
message GetStreamRequest { string id = 1; }
message GetStreamResponse { bytes result = 1; }
"""


class OlderClient:
    """The client process, seen from a test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, command: str, *arguments: Any) -> Any:  # noqa: ANN401 -- JSON
        """What the client says to a command: a value, or {"code": ..., "details": ...}."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def older_client(directory: Path, address: str, ca: Path, files: CredentialFiles) -> Generator[OlderClient]:
    """A client with a certificate, connected to a server."""
    (directory / "worker.proto").write_text(PROTO)
    compile_ = [sys.executable, "-m", "grpc_tools.protoc", f"-I{directory}", f"--python_out={directory}"]
    subprocess.run([*compile_, f"--grpc_python_out={directory}", "worker.proto"], check=True)
    command = [sys.executable, "-m", __name__, directory, address, ca, files.certificate, files.key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield OlderClient(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(LIMIT) == 0


class _Commands:
    """What the client can be told to do; its modules are made at run time, so they have no types."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._pb: Any = importlib.import_module("worker_pb2")
        services: Any = importlib.import_module("worker_pb2_grpc")
        self._stub: Any = services.WorkerServiceStub(channel)

    def start(self, cmd: str, *args: str) -> str:
        return self._stub.StartJob(self._pb.StartJobRequest(cmd=cmd, args=args), timeout=LIMIT).ID

    def stop(self, job: str) -> str:
        return str(self._stub.StopJob(self._pb.StopJobRequest(id=job), timeout=LIMIT))

    def status(self, job: str) -> list[str | int]:
        status = self._stub.GetJobStatus(self._pb.GetStatusRequest(id=job), timeout=LIMIT)
        return [self._pb.Status.Name(status.status), status.exitcode]

    def digests(self, job: str, followers: int) -> list[list[str | int]]:
        """Follow a job this many times at once, and give the distinct sizes and digests of what came."""
        request = self._pb.GetStreamRequest(id=job)
        streams = [self._stub.GetOutputStream(request, timeout=LIMIT) for _ in range(followers)]
        with ThreadPoolExecutor(followers) as threads:
            return [list(one) for one in set(threads.map(_digest, streams))]


def _digest(messages: Any) -> tuple[int, str]:  # noqa: ANN401 -- made at run time
    digest, size = hashlib.sha256(), 0
    for message in messages:
        digest.update(message.result)
        size += len(message.result)
    return size, digest.hexdigest()


def main(where: str, address: str, ca: str, certificate: str, key: str) -> None:
    """Be the client."""
    sys.path.insert(0, where)
    root, private, chain = (Path(file).read_bytes() for file in (ca, key, certificate))
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(root, private, chain)) as channel:
        commands = _Commands(channel)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            try:
                answer = getattr(commands, name)(*arguments)
            except grpc.RpcError as error:
                answer = {"code": error.code().name, "details": error.details()}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
