"""Run any Linux command on a machine you are not sitting at, safely and truthfully.

Import from the submodules: `jobworker.client` (Python client), `jobworker.worker` (in-process library),
`jobworker.core` (the vocabulary). Nothing is re-exported here, because this file runs before every supervisor.
"""
