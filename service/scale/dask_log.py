"""What becomes of the lines and warnings of Dask itself: none is in the log of the service, and a worker's are JSON where its log is."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator

import dask.config

#: Set in workers of this machine: they write to the coordinator's log, and nothing of Dask's.
QUIET_VARIABLE = "ECG_ANONYMIZER_QUIET_WORKER"

#: Loggers of Dask and its dependencies: they would log exception messages.
_LOGGERS = ("distributed", "dask", "tornado", "asyncio", "bokeh")


def fit_dask_into_log(line_format: str) -> None:
    """Keep Dask's own lines out of the coordinator's log, and make them JSON in a worker's JSON log; workers call it."""
    if os.environ.get(QUIET_VARIABLE):
        silence_dask()
    elif line_format == "json":
        logging.captureWarnings(True)
        for logger in _loggers():
            logger.handlers, logger.propagate = [], True


def silence_dask() -> None:
    """Keep the output of Dask's loggers, and those below them, and its warnings out of every log: exception messages would be in it.

    Called before and after Dask configures its loggers, since it adds levels and handlers to some.
    """
    dask.config.set({"logging": dict.fromkeys(_LOGGERS, "critical")})
    for name in _LOGGERS:
        # Such as that a worker has other versions; the fingerprint says that.
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
    for logger in _loggers():
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False
        logger.setLevel(logging.CRITICAL)


def _loggers() -> Iterator[logging.Logger]:
    for name in sorted({*_LOGGERS, *logging.root.manager.loggerDict}):
        if name.partition(".")[0] in _LOGGERS:
            yield logging.getLogger(name)
