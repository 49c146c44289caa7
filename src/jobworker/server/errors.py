"""Why a server does not start."""

from __future__ import annotations


class StartError(Exception):
    """The server cannot start. The text is one line for the person who starts it, and says what to do."""
