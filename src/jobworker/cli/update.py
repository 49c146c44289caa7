"""`jobworker update`: change what a running job may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import click

from jobworker.cli import text
from jobworker.cli.job_ids import ask_about
from jobworker.cli.limit_options import DEFAULT, SIZES, LimitOptions, limit_options, limits_from, with_limits
from jobworker.cli.options import client_options, examples, output_option
from jobworker.cli.params import JobId
from jobworker.core.limit_options import OPTIONS
from jobworker.core.limits import IoLimit

if TYPE_CHECKING:
    from jobworker.client import AsyncClient
    from jobworker.core.job import Job


@click.command(
    epilog=SIZES
    + "\n\n"
    + examples(
        "jobworker update ID --memory 4G",
        "jobworker update ID --cpus 2 --io-write 50M",
        "jobworker update ID --memory default    (what the server gives where nothing is said)",
    )
)
@click.argument("job_id", metavar="ID", type=JobId())
@limit_options(for_update=True)
@output_option
@client_options
def update(job_id: str, output: str, **options: Unpack[LimitOptions]) -> None:
    """Change the limits of a running job.

    What is not said stays as it is. All changes are made, or none.
    """
    said = {name: value for name, value in options.items() if value is not None}
    if not said.keys() - {"io_device"}:
        raise click.UsageError("say what is to change, such as --memory 4G", click.get_current_context())
    job = ask_about(job_id, lambda client, found: _update(client, found, said))
    if output == "json":
        from jobworker.cli.view import print_job

        print_job(job, output)
    else:
        from jobworker.cli.view import limits_text

        limits = limits_text(job.limits)
        text.say(f"job {job.id} has the limits {limits}" if limits else f"job {job.id} has no limits")


async def _update(client: AsyncClient, job_id: str, said: Mapping[str, Any]) -> Job:
    values = {name: None if value == DEFAULT else value for name, value in said.items()}
    rates = {rate: value for name, value in values.items() if (rate := OPTIONS[name].rate)}
    plain = {name: value for name, value in values.items() if not OPTIONS[name].rate}
    limits = limits_from(plain)
    clear = {name for name, value in plain.items() if value is None}
    if rates:  # disks are one limit together: what is not said of them is as it was
        device = rates.pop("device", None)
        present = {limit.device: limit for limit in (await client.get(job_id)).limits.io}
        present[device] = replace(present.get(device, IoLimit(device=device)), **rates)
        limits = replace(limits, io=tuple(limit for limit in present.values() if limit != IoLimit(device=limit.device)))
        clear |= set() if limits.io else {"io"}
    return await with_limits(client, limits, client.update(job_id, limits, clear=clear))
