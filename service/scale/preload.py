"""What a worker loads when it starts: `dask worker … --preload service.scale.preload`. Without it the first task does the same.

A worker whose `.env` cannot be used reports it at once and exits.
"""

from __future__ import annotations

from anonymizer.errors import AnonymizerError, ConfigurationError
from service.log_event import ERROR
from service.scale.dask_log import fit_dask_into_log
from service.scale.tasks import worker_settings
from service.settings.declared import cohort_of
from service.telemetry.log_writer import set_up_logging


def dask_setup(_worker: object) -> None:
    """Load and check this worker's settings; Dask calls it. Raises SystemExit with all problems."""
    try:
        settings = worker_settings()
    except ConfigurationError as error:
        for problem in error.problems:
            ERROR.log(problem)
        raise SystemExit(78) from None
    except AnonymizerError as error:
        # A server that does not answer now may answer by the first task.
        ERROR.log(error)
        return
    set_up_logging(settings.log_level, settings.log_format, cohort=str(cohort_of(settings) or ""))
    fit_dask_into_log(settings.log_format)
