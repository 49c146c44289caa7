"""A worker that takes requests as lines of JSON on its standard input and can be killed at any moment."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from jobworker.core.errors import JobworkerError
from jobworker.core.output import Chunk
from jobworker.core.spec import ChildPolicy, JobSpec
from jobworker.executors.base import CgroupMode
from jobworker.worker import Worker, local_worker
from tests.support.polling import until_job


async def serve(state_dir: Path, cgroups: CgroupMode) -> None:
    """Serve requests one by one until the input ends; a stop is begun and not waited for."""
    requests = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    async with local_worker(state_dir, cgroups=cgroups) as worker, asyncio.TaskGroup() as group:
        while line := await requests.readline():
            request = json.loads(line)
            try:
                answer = {"result": await answer_to(worker, group, request)}
            except JobworkerError as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


async def answer_to(worker: Worker, group: asyncio.TaskGroup, arguments: dict[str, Any]) -> str:
    """Do what is asked for."""
    match arguments["op"]:
        case "ready":
            return worker.info.process_tracking
        case "start":
            spec = JobSpec(
                argv=tuple(arguments["argv"]),
                child_policy=ChildPolicy(arguments.get("child_policy", "KILL")),
                labels=arguments.get("labels", {}),
            )
            return (await worker.start(spec, arguments.get("owner", "ada"), arguments.get("request_id"))).id
        case "begin_stop":
            grace = timedelta(seconds=arguments["grace"])
            group.create_task(worker.stop(arguments["job_id"], by=arguments["by"], grace=grace))
            await until_job(worker.get, arguments["job_id"], lambda job: job.stop)
            return ""
        case "said":
            data = b""
            async for piece in worker.stream(arguments["job_id"]):
                assert isinstance(piece, Chunk)
                data += piece.data
                if arguments["wanted"].encode() in data:
                    return ""
            raise AssertionError(f"the job has ended: {data!r}")
        case "wait":
            return (await worker.wait(arguments["job_id"])).state
        case unknown:
            raise ValueError(unknown)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), "off" if sys.argv[2] == "subreaper" else "auto"))
