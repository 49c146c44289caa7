"""In a container that has a writable control group namespace, limits are enforced as anywhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.kernel import CONTROLLERS, ROOT
from tests.support.workers import PROJECT

# What a container's runtime does, as far as control groups are concerned: a group, and a view in which it is the root.
ENTER = """
echo $$ > "$1/cgroup.procs"
shift
view='umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'
exec unshare --cgroup --mount sh -c "$view" sh "$@"
"""
SERVE = """
import asyncio, json, sys
from pathlib import Path
from jobworker.core.limits import Limits
from jobworker.core.spec import JobSpec
from jobworker.worker import local_worker

async def main():
    async with local_worker(Path(sys.argv[1]), cgroups="require") as worker:
        spec = JobSpec(argv=("sh", "-c", "cat /proc/self/cgroup; tail /dev/zero"), limits=Limits(memory=32 << 20))
        job = await worker.start(spec, "ada")
        end = (await worker.wait(job.id)).end
        output = b"".join([chunk.data async for chunk in worker.stream(job.id)])
        print(json.dumps({"cause": end.cause, "group": output.decode(), "id": job.id}))

asyncio.run(main())
"""


@pytest.fixture
def box() -> Generator[Path]:
    """The control group of a container."""
    box = ROOT / f"jobworker-box-{os.getpid()}"
    (ROOT / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in CONTROLLERS))
    box.mkdir()
    yield box
    for folder, _, _ in os.walk(box, topdown=False):
        Path(folder).rmdir()


def test_a_server_in_a_container_enforces_limits(box: Path, state_dir: Path) -> None:
    """The container's root group is emptied into a leaf; jobs live beside it, and leave nothing."""
    command = ["sh", "-c", ENTER, "sh", str(box), sys.executable, "-c", SERVE, str(state_dir)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=PROJECT)
    told = json.loads(ran.stdout)
    assert told["cause"] == "OOM_KILLED"
    root, place, job = told["group"].strip().removeprefix("0::").split("/")
    assert (root, job) == ("", told["id"])
    assert place.startswith("jobworker-")
    assert [path.name for path in box.iterdir() if path.is_dir()] == ["daemon"]
