"""A store in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from jobworker.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is. The name has what a URI would take for something else."""
    return tmp_path / "jobs ?#%41.db"


@pytest.fixture
async def store(path: Path) -> AsyncGenerator[SqliteStore]:
    """An empty store."""
    async with await SqliteStore.open(path) as store:
        yield store
