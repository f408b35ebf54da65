"""Central ECG anonymizer: raw ECG in, k-anonymized ECG out. Everything is set in `.env`; see README.md.

Exit codes: `service/exit_codes.py`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from anonymizer.errors import ConfigurationError, OutputDenied, SourceDenied, SourceRefused
from service import exit_codes
from service.arguments import Parser
from service.clock import Stopped, SystemClock, clock_stopped_by_signals
from service.configuration import REMEDY, Configuration, NoConfiguration, load
from service.delivery import Delivery
from service.logs import make_printable, set_up_logging
from service.loop import Parts, run
from service.patience import OutOfPatience, Patience
from service.progress import progress_of
from service.settings import Settings
from service.startup import connection_problems, open_all
from service.summary import log_configuration
from service.telemetry import Telemetry
from service.wiring import (
    csv_folder_problems,
    hierarchy_problems,
    load_hierarchy,
    make_outputs,
    make_recipe,
    make_schedule,
    make_source,
)

_LOG = logging.getLogger("ecg_anonymizer")


def main(arguments: list[str]) -> int:
    """Do what `.env` says; return the exit code."""
    options = _parse(arguments)
    env_file = Path(options.env_file or ".env")
    checks = (hierarchy_problems, csv_folder_problems)
    try:
        configuration = load(env_file, os.environ, must_exist=options.env_file is not None, checks=checks)
    except ConfigurationError as error:
        return _refuse(error, env_file)
    set_up_logging(configuration.settings.log_level)
    log_configuration(configuration)
    if options.check:
        return _check(configuration.settings, connect=options.connect)
    try:
        return _serve(configuration, clock_stopped_by_signals())
    except (ConfigurationError, SourceDenied, SourceRefused, OutputDenied) as error:
        for problem in getattr(error, "problems", (error,)):
            _LOG.error("❌ %s", problem)
        return exit_codes.CONFIGURATION
    except OutOfPatience as error:
        _LOG.error("❌ Gave up after RETRY_BUDGET_SECONDS=%d: %s", configuration.settings.retry_budget_seconds, error)
        return exit_codes.UNREACHABLE


def _serve(configuration: Configuration, clock: SystemClock) -> int:
    settings = configuration.settings
    streaming = settings.streaming_mode
    source, outputs = make_source(settings), make_outputs(settings)
    telemetry = Telemetry(k=settings.k_value, verbose=settings.verbose_logging)
    patience = Patience(clock, budget_s=None if streaming else settings.retry_budget_seconds)
    started_s = clock.monotonic_s()
    try:
        open_all(settings, source, outputs, patience)
        schedule = make_schedule(settings, source, clock)
        with progress_of(schedule.windows_in_all) as advance:
            parts = Parts(
                source=source,
                recipe=make_recipe(settings, load_hierarchy(settings), source.data_set),
                delivery=Delivery(outputs, patience, telemetry),
                telemetry=telemetry,
                patience=patience,
                clock=clock,
                most_rows=settings.max_records_per_query,
                unit_is_window=streaming and settings.verbose_logging,
                advance=advance,
            )
            run(schedule, parts)
        if not (streaming or telemetry.totals.counts.read or clock.is_stopping()):
            _LOG.warning("⚠️ %s", source.advice_when_empty())
    except Stopped:
        pass
    finally:
        source.close()
        for output in outputs:
            output.close()
    telemetry.finished(clock.monotonic_s() - started_s)
    return _exit_code(settings, telemetry, clock)


def _exit_code(settings: Settings, telemetry: Telemetry, clock: SystemClock) -> int:
    if settings.streaming_mode:
        return exit_codes.DONE
    if clock.stopped_by is not None:
        return exit_codes.INTERRUPTED if clock.stopped_by == signal.SIGINT else exit_codes.TERMINATED
    if telemetry.totals.violations:
        return exit_codes.VERIFICATION_FAILED
    return exit_codes.SET_ASIDE if telemetry.totals.set_aside else exit_codes.DONE


def _check(settings: Settings, *, connect: bool) -> int:
    problems = connection_problems(make_source(settings), make_outputs(settings)) if connect else []
    for problem in problems:
        _LOG.error("❌ %s", problem)
    if not problems:
        _LOG.info("✅ The configuration is good%s", ", and everything can be reached" if connect else "")
    return exit_codes.CONFIGURATION if problems else exit_codes.DONE


def _refuse(error: ConfigurationError, env_file: Path) -> int:
    make_printable(sys.stderr)
    if isinstance(error, NoConfiguration):
        lines = [f"❌ .env file not found! Looked for {env_file}. Create it and fill it in:", *(f"   {line}" for line in REMEDY)]
    else:
        lines = ["❌ The configuration cannot be used:", *(f"   - {problem}" for problem in error.problems)]
    sys.stderr.write("\n".join(lines) + "\n")
    return exit_codes.CONFIGURATION


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Releases k-anonymized ECG. Everything is set in .env; no argument is needed.")
    parser.add_argument("--env-file", metavar="PATH", help="read settings from this file instead of ./.env")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument(
        "--connect", action="store_true", help="with --check: see that servers, buckets and outputs can be reached"
    )
    options = parser.parse_args(arguments)
    if options.connect and not options.check:
        parser.error("--connect goes with --check")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
