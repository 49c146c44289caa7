"""How many jobs are followed at a time is bounded."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from jobworker.cli.exits import CliError
from jobworker.cli.stream_many import MAX_FOLLOWED, check_number


@pytest.mark.parametrize("beyond", [0, 1])
def test_more_than_can_be_followed(beyond: int) -> None:
    """More are refused, with the bound and what to do."""
    text = rf"^{MAX_FOLLOWED + 1} of these jobs run, and at most {MAX_FOLLOWED} .* max_followers_per_user .*no-follow$"
    with pytest.raises(CliError, match=text) if beyond else nullcontext():
        check_number(MAX_FOLLOWED + beyond)
