"""Memory that a process has at hand."""

from __future__ import annotations

from functools import cache

# Of the C library's two bounds the second is twice the first: 16 MiB. Some messages of 1 MiB and their copies fit in.
_BLOCK_BYTES = 8 * 1024 * 1024


@cache  # once is enough, and a second block would not be given back
def keep_freed_memory() -> None:
    """Have malloc keep some megabytes that are freed, for a process that handles large messages one after the other.

    Else the kernel gets back, and clears and maps anew, the pages of each message and of each copy of it: a third of
    what it takes to stream output. It is for the whole process, and does nothing where the C library is not glibc.
    """
    # glibc takes the largest block that it has seen freed for the measure of what a process needs: see mallopt(3).
    bytes(_BLOCK_BYTES)
