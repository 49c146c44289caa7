"""What a caller is told of an error: what it can react to, and of all else only where the log has the details."""

from __future__ import annotations

import logging
import secrets

from jobworker.api.status import Status, status_from
from jobworker.core.errors import InternalError, JobworkerError, StoreError

log = logging.getLogger(__name__)


def public_status(error: Exception, rpc: str) -> Status:
    """The status to answer an error with. An error that callers cannot react to is logged here, with an incident id."""
    if isinstance(error, StoreError):  # its text names files of the server
        incident = _log_incident(error, rpc)
        error = StoreError(f"the job database cannot be used; the server's log says why under {incident}")
    if isinstance(error, JobworkerError):
        try:
            return status_from(error)
        except LookupError:
            pass  # no row in the table: not meant for callers
    return status_from(InternalError(_log_incident(error, rpc)))


def _log_incident(error: Exception, rpc: str) -> str:
    incident = secrets.token_hex(6)
    log.error("incident %s in %s", incident, rpc, exc_info=error)
    return incident
