"""Central ECG anonymizer: raw ECG in, k-anonymized ECG out. Everything is set in `.env`; see README.md.

Exit codes: `service/exit_codes.py`.
"""

from __future__ import annotations

import gc
import os
import signal

if __name__ == "__main__":
    # What modules create stays to the end: to look for garbage in it is a tenth of the start.
    gc.disable()
    # Ctrl+C during the imports ends the process like a signal, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # numpy's library for matrices would start threads that wait busily for a tenth of a second, and then have no work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import logging
import sys
from pathlib import Path

from anonymizer.errors import ConfigurationError
from service import crash_points, exit_codes
from service.log_event import ERROR, WARNING, LogEvent
from service.preflight import (
    connection_problems,
    exclusion_problems,
    folder_problems,
    input_problems,
    key_problems,
    lasting_folder_problems,
    later_connection_problems,
    method_problems,
    proxy_problems,
    retention_problems,
    warn_of_unsynced_folders,
    worker_problems,
)
from service.process import reuse_freed_memory, run
from service.session import serve
from service.settings.arguments import Parser, path_argument
from service.settings.declared import Settings, cohort_of
from service.settings.load import REMEDY, NoConfiguration, load, untold_without_connection
from service.signals import clock_stopped_by_signals
from service.startup import log_configuration
from service.telemetry.log_writer import set_up_logging

_CRASH_POINT_ARMED = LogEvent(
    "crash_point_armed", "💥 %s=%s: this process will kill itself there. For tests only", "variable point", logging.CRITICAL
)
_CONFIGURATION_GOOD = LogEvent("configuration_good", "✅ The configuration is good%s", "also")


def main(arguments: list[str]) -> int:
    """Run as `.env` says; return the exit code."""
    options = _parse(arguments)
    env_file = Path(options.env_file or ".env")
    # A health probe must not touch the service's files.
    check_folders = folder_problems if options.check else lasting_folder_problems
    all_checks = [
        input_problems,
        key_problems,
        method_problems,
        check_folders,
        proxy_problems,
        worker_problems,
        retention_problems,
    ]
    if options.check:
        # A run waits for that file instead.
        all_checks.append(exclusion_problems)
    checks = [proxy_problems] if options.health else all_checks
    try:
        configuration = load(env_file, os.environ, must_exist=options.env_file is not None, checks=checks)
    except ConfigurationError as error:
        return _refuse(error, env_file)
    if options.health:
        return _health(configuration.settings)
    settings = configuration.settings
    cohort = str(cohort_of(settings) or "")
    set_up_logging(
        settings.log_level, settings.log_format, is_stream=settings.streaming_mode and not options.check, cohort=cohort
    )
    log_configuration(configuration)
    warn_of_unsynced_folders(configuration.settings)
    if options.check:
        return _check(settings, connect=options.connect)
    armed = crash_points.switch_on(os.environ)
    if armed:
        _CRASH_POINT_ARMED.log(crash_points.VARIABLE, armed)
    reuse_freed_memory()
    return serve(settings, clock_stopped_by_signals(), env_file=env_file)


def _check(settings: Settings, *, connect: bool) -> int:
    for remark in () if connect else untold_without_connection(settings):
        WARNING.log(remark)
    problems = [*connection_problems(settings), *later_connection_problems(settings)] if connect else []
    for problem in problems:
        ERROR.log(problem)
    if not problems:
        _CONFIGURATION_GOOD.log(", and everything can be reached" if connect else "")
    if connect and not problems:
        from service.first_look.findings import log_first_look  # imported only for --connect

        log_first_look(settings)
    return exit_codes.CONFIGURATION if problems else exit_codes.DONE


def _health(settings: Settings) -> int:
    if settings.status_address:
        from service.settings.types import parse_address  # imported only for --health
        from service.status.probe import why_not_ready

        reasons = why_not_ready(parse_address(settings.status_address), settings.status_token)
    else:
        reasons = connection_problems(settings)
    sys.stdout.write("".join(f"❌ {reason}\n" for reason in reasons) or "✅ Data flows\n")
    return exit_codes.NOT_READY if reasons else exit_codes.DONE


def _refuse(error: ConfigurationError, env_file: Path) -> int:
    if isinstance(error, NoConfiguration):
        lines = [f"❌ .env file not found! Looked for {env_file}. Create it and fill it in:", *(f"   {line}" for line in REMEDY)]
    else:
        lines = ["❌ The configuration cannot be used:", *(f"   - {problem}" for problem in error.problems)]
    sys.stderr.write("\n".join(lines) + "\n")
    return exit_codes.CONFIGURATION


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Releases k-anonymized ECG. Everything is set in .env; no argument is needed.")
    parser.add_argument("--env-file", type=path_argument, metavar="PATH", help="read settings from this file instead of ./.env")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--health", action="store_true", help="query the running service: does data flow?")
    parser.add_argument("--connect", action="store_true", help="with --check: also connect to servers, buckets and outputs")
    options = parser.parse_args(arguments)
    if options.connect and not options.check:
        parser.error("--connect goes with --check")
    return options


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    run(main)
