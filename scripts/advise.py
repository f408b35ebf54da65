"""Which K_VALUE and BATCH_SIZE_SECONDS suit your data? Tries each combination on a few minutes of data and prints what it costs.

Reads a file (CSV, CSV.gz or Parquet with the columns timestamp, source_id, ecg; or a recording in EDF, BDF, WFDB or DICOM, with
INPUT_CHANNEL and INPUT_START_TIME in the environment), a data set of Parquet files (a folder, a glob or s3://bucket/prefix), or the raw
bucket that `.env` or the arguments name.
Writes nothing, anonymizes nothing for anybody: what is printed, and the page of --plot, is computed from raw data and as confidential.

  python scripts/advise.py recording.csv
  python scripts/advise.py --env-file .env --minutes 10 --plot output/advice.html
Exit codes: 0 done, 64 the arguments cannot be used, 69 no server answers, 78 the settings or the data cannot be used.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.errors import ConfigurationError, JournalDamaged, SourceDenied, SourceError, SourceUnavailable, StateUnavailable
from anonymizer.samples import Samples, SampleSource, arrange
from anonymizer.units import unit_doubts
from anonymizer.windows import NANOSECONDS, covering_windows
from recognition.attackers import Recognition, recognition_rows
from service import exit_codes
from service.process import run
from service.settings.arguments import Parser, argument, path_argument
from service.settings.declared import Settings
from service.settings.load import NoConfiguration, load
from service.settings.types import moment, path, positive_number
from service.state.trail import told
from service.telemetry.log_writer import make_printable
from service.wiring.sources import make_source
from utility.advice import ENOUGH_WINDOWS, MOST_ERROR_PERCENT, Trial, advice, recognition, try_out
from utility.choices import RHYTHM, Choice, is_available
from utility.heartbeats import HOW_TO_GET_THE_DETECTOR, has_detector

#: Newer rows of a live bucket may not have arrived yet.
SETTLED_AFTER_S = 60

#: Units are judged by windows of this length.
UNITS_WINDOW_NS = 5 * NANOSECONDS

#: Longer arguments are truncated in messages.
LONGEST_SHOWN = 80

#: The setting that each argument overrides.
SETTING_OF = {
    "bucket": "INFLUX_INPUT_BUCKET",
    "url": "INFLUX_URL",
    "org": "INFLUX_ORG",
    "measurement": "INFLUX_MEASUREMENT",
    "field": "INFLUX_FIELD",
    "source_tag": "SOURCE_TAG",
    "value_unit": "VALUE_UNIT",
}

#: Fixed here, so that settings this tool does not use cannot cause errors.
WITHOUT = {
    "OUTPUT_TO_CSV": "true",
    "OUTPUT_TO_INFLUX": "false",
    "OUTPUT_TO_API": "false",
    "OUTPUT_TO_PARQUET": "false",
    "DASK_SCHEDULER": "",
    "SPOOL_URL": "",
    "STREAMING_MODE": "false",
    "PSEUDONYMIZE_SOURCE_ID": "false",
    "QUERY_START_TIME": "",
    "QUERY_END_TIME": "",
}

#: Settings of `.env` that affect released values, besides k, its unit and the window.
SHAPING = ("METHOD", "MAX_LEVEL", "RESIDUAL", "IMPUTATION", "HIERARCHY_CSV_PATH")

HEADING = (
    *("k counts", "k", "window", "rows withheld", "error (PRDN)", "worst source", "rows unchanged"),
    *("beats found again", "beats that are right"),
)


#: The same for METHOD=rhythm, which forms no groups and keeps no value.
RHYTHM_HEADING = ("window", "rows withheld", "beats found again", "beats that are right")


class NoSample(Exception):
    """The sample has no usable rows. The message says what to do."""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Try out the grid and print it; return the exit code."""
    make_printable(sys.stdout)
    make_printable(sys.stderr)
    options = _parse(arguments)
    try:
        settings = _settings(options, environment)
        return told(Path(settings.state_dir), "advise", time.time_ns, lambda: _advise(settings, options))
    except NoConfiguration as error:
        remedy = "Name a recording, or a bucket with --bucket, --org and INFLUX_TOKEN, or an .env with --env-file."
        return _said(f"{error}. {remedy}", code=exit_codes.CONFIGURATION)
    except ConfigurationError as error:
        return _said(
            "The settings cannot be used:", *(f"  - {problem}" for problem in error.problems), code=exit_codes.CONFIGURATION
        )
    except (NoSample, JournalDamaged) as error:
        return _said(str(error), code=exit_codes.CONFIGURATION)
    except StateUnavailable as error:
        return _said(str(error), code=exit_codes.UNREACHABLE)
    except SourceError as error:
        unreachable = isinstance(error, SourceUnavailable) and not isinstance(error, SourceDenied)
        return _said(str(error), code=exit_codes.UNREACHABLE if unreachable else exit_codes.CONFIGURATION)


def _advise(settings: Settings, options: argparse.Namespace) -> int:
    samples = _sample(settings, options)
    choices = _choices(settings, options.k_unit)
    trials = _trials(samples, choices, options)
    recognised = recognition(samples, choices, options.k)
    _print(samples, trials, options.most_error)
    remark, rows = _recognition(recognised)
    print(f"\n{remark}")
    _print_table(rows)
    if options.plot:
        return _plot(options.plot, trials, options.most_error, (remark, rows))
    return exit_codes.DONE


def _said(*lines: str, code: int) -> int:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    return code


def _settings(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    given = {**environment, **WITHOUT}
    given |= {name: getattr(options, option) for option, name in SETTING_OF.items() if getattr(options, option)}
    if options.file:
        # A file is never cut into cohorts.
        given |= {"INPUT_FILE": options.file, "COHORT_TAG": "", "COHORT": ""}
    elif not given.get("INFLUX_TOKEN") and not given.get("INFLUX_TOKEN_FILE"):
        for form in ("", "_FILE"):
            if verify_token := given.get(f"INFLUX_VERIFY_TOKEN{form}"):
                given[f"INFLUX_TOKEN{form}"] = verify_token
    return load(Path(options.env_file), given, must_exist=options.env_file_given).settings


def _sample(settings: Settings, options: argparse.Namespace) -> Samples:
    source = make_source(settings)
    source.open()
    for remark in source.remarks:
        sys.stderr.write(f"warning: {remark}\n")
    try:
        start_ns = _start_ns(source, options)
        windows = covering_windows(start_ns, start_ns + options.minutes * 60 * NANOSECONDS, NANOSECONDS)
        samples = source.read(windows)
        usable = int(np.isfinite(samples.values_uv).sum())
        if not usable:
            looked_at = f"No row with a number in the {options.minutes} minutes looked at; begin elsewhere with --start."
            raise NoSample(f"{looked_at} {source.advice_when_empty()}".strip())
        return samples
    finally:
        source.close()


def _start_ns(source: SampleSource, options: argparse.Namespace) -> int:
    if options.start is not None:
        return int(options.start)
    extent = source.extent()
    if extent is not None:
        return extent[0] // NANOSECONDS * NANOSECONDS
    now_ns = source.now_ns() or time.time_ns()
    start_s: int = now_ns // NANOSECONDS - SETTLED_AFTER_S - options.minutes * 60
    return start_s * NANOSECONDS


def _choices(settings: Settings, unit: str) -> list[Choice]:
    shaping = {name: str(getattr(settings, name.lower())) for name in SHAPING if getattr(settings, name.lower())}
    if settings.method == "rhythm":
        return [RHYTHM]
    units = ("record", "source") if unit == "both" else (unit,)
    choices = [Choice(one, {**shaping, "K_UNIT": one}) for one in units]
    # Not every version, and not every RESIDUAL, supports counting sources.
    return [choice for choice in choices if unit != "both" or choice.name == "record" or is_available(choice)]


def _trials(samples: Samples, choices: Sequence[Choice], options: argparse.Namespace) -> list[Trial]:
    ks = options.k[:1] if choices == [RHYTHM] else options.k
    grid = [(choice, k, window_s) for choice in choices for k in ks for window_s in options.windows]
    return [try_out(samples, choice, k=k, window_s=window_s) for choice, k, window_s in grid]


def _print(samples: Samples, trials: Sequence[Trial], most_error_percent: float) -> None:
    seconds = (int(samples.times_ns.max()) - int(samples.times_ns.min())) / NANOSECONDS
    sources = len(np.unique(samples.source_codes[samples.source_codes >= 0]))
    print("CONFIDENTIAL: computed from raw data.")
    print(f"Sample: {len(samples):,} rows of {sources} source{'s' if sources != 1 else ''} over {seconds:.0f} s.\n")
    for doubt in _unit_doubts(samples):
        print(f"{doubt}\n")
    _print_table(_table(trials))
    print()
    few = sorted({trial.window_s for trial in trials if trial.windows < ENOUGH_WINDOWS})
    if few:
        print(
            f"Fewer than {ENOUGH_WINDOWS} windows of {', '.join(map(str, few))} s: too few for reliable figures. "
            "Use a longer sample: --minutes."
        )
    if not has_detector():
        print(f"Heartbeats were not detected: no detector is installed. To install one: {HOW_TO_GET_THE_DETECTOR}")
    elif all(math.isnan(trial.beats_found_percent) for trial in trials):
        print("No heartbeats were found in the raw sample: is it ECG, at 50 Hz or more?")
    for sentence in advice(trials, most_error_percent=most_error_percent):
        print(sentence)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _recognition(found: Mapping[str, Sequence[Recognition]]) -> tuple[str, list[tuple[str, ...]]]:
    """Return a remark on the recognition of wearers, and the figures as a table; it is empty if nothing could be measured."""
    if not found:
        return "Recognition was not measured: it needs at least two wearers with detected heartbeats, and the detector.", []
    people = len(next(iter(found.values()))[0].right)
    return (
        "Recognition: three attackers have the raw first half of this sample and name the wearer in spans of the second, raw and as "
        f"it would be released. Correct answers, with a 95 % interval; by chance 1 of {people}, {100 / people:.0f} %. An attacker with "
        "more ECG, or trained on large cohorts, is right more often.",
        recognition_rows(found),
    )


def _unit_doubts(samples: Samples) -> Iterator[str]:
    """Yield a warning for each sign that the unit of the values is wrong. The figures would then not describe an ECG in microvolts."""
    windows = covering_windows(int(samples.times_ns.min()), int(samples.times_ns.max()) + 1, UNITS_WINDOW_NS)
    sources = len(samples.source_ids)
    doubts = unit_doubts(arrange(samples, windows, np.arange(sources)), sources)
    if doubts.still:
        yield (
            f"WARNING: the values of {doubts.still} of {doubts.sources} sources hardly move, all within ±3 µV for a second or more: are "
            "they millivolts? Try --value-unit mV; for the service, VALUE_UNIT=mV."
        )
    if doubts.apart:
        yield (
            f"WARNING: the values of {doubts.apart} of {doubts.sources} sources move a hundred times more, or less, than those of the "
            "others: are they in another unit? VALUE_UNIT applies to all sources."
        )


def _table(trials: Sequence[Trial]) -> list[tuple[str, ...]]:
    if trials[0].k:
        return [HEADING, *map(_row, trials)]
    measured = [(one.withheld_percent, one.beats_found_percent, one.beats_right_percent) for one in trials]
    return [RHYTHM_HEADING, *((f"{one.window_s} s", *map(_percent, of)) for one, of in zip(trials, measured, strict=True))]


def _row(trial: Trial) -> tuple[str, ...]:
    return (
        "sources" if trial.by_source else "rows",
        str(trial.k),
        f"{trial.window_s} s",
        *map(
            _percent,
            (
                trial.withheld_percent,
                trial.error_percent,
                trial.worst_error_percent,
                trial.unchanged_percent,
                trial.beats_found_percent,
                trial.beats_right_percent,
            ),
        ),
    )


def _percent(figure: float) -> str:
    return "-" if math.isnan(figure) else f"{figure:.1f} %"


def _plot(path: Path, trials: Sequence[Trial], most_error_percent: float, recognised: tuple[str, Sequence[Sequence[str]]]) -> int:
    try:
        from utility.advice_page import advice_page  # only plots need matplotlib
    except ImportError:
        return _said(f"--plot needs a library that is not installed: {HOW_TO_GET_THE_DETECTOR}", code=exit_codes.USAGE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page = advice_page(trials, most_error_percent=most_error_percent, recognised=recognised)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        return _said(f"--plot {path} cannot be written ({error.strerror})", code=exit_codes.USAGE)
    print(f"Plot: {path} (confidential as well)")
    return exit_codes.DONE


def _numbers(least: int, what: str) -> Callable[[str], list[int]]:
    def parse(text: str) -> list[int]:
        parts = [part.strip() for part in text.split(",")]
        numbers = sorted({int(part) for part in parts}) if all(re.fullmatch("[0-9]{1,9}", part) for part in parts) else [0]
        if numbers[0] < least:
            shown = text if len(text) < LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"
            raise argparse.ArgumentTypeError(
                f"expected {what} of at least {least} between commas, such as 5,10,20; got {shown!r}"
            )
        return numbers

    return parse


def _minutes(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1440:
        raise argparse.ArgumentTypeError(f"expected whole minutes from 1 to 1440, got {text!r}")
    return int(text)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="advise.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "file",
        nargs="?",
        # Not a Path, which would collapse the two slashes of s3://.
        type=argument(path),
        metavar="FILE",
        help="a file, or a folder, a glob or s3://bucket/prefix of Parquet files; without one the raw bucket is read",
    )
    parser.add_argument("--k", type=_numbers(2, "numbers"), default=[5, 10, 20], metavar="5,10,20", help="K_VALUE to try")
    parser.add_argument(
        "--windows",
        type=_numbers(1, "seconds"),
        default=[2, 5, 10, 30],
        metavar="2,5,10,30",
        help="BATCH_SIZE_SECONDS to try",
    )
    parser.add_argument("--k-unit", choices=("record", "source", "both"), default="both", help="what k counts (default: both)")
    parser.add_argument(
        "--most-error",
        type=argument(positive_number),
        default=MOST_ERROR_PERCENT,
        metavar="PERCENT",
        help="highest acceptable PRDN (default: 10)",
    )
    parser.add_argument("--minutes", type=_minutes, default=5, help="how many minutes of data to use (default: 5)")
    parser.add_argument(
        "--start",
        type=argument(moment),
        metavar="TIME",
        help="start of the sample; default: a file's first row, a bucket's last minutes",
    )
    parser.add_argument("--plot", type=path_argument, metavar="FILE.html", help="also write a page with plots")
    parser.add_argument("--value-unit", choices=("uV", "mV"), help="unit of the values (VALUE_UNIT)")
    parser.add_argument(
        "--env-file",
        type=path_argument,
        metavar="PATH",
        help="settings for the bucket and the method (default: .env, if it exists)",
    )
    bucket = parser.add_argument_group("a bucket")
    for option, name in SETTING_OF.items():
        if option != "value_unit":
            bucket.add_argument(f"--{option.replace('_', '-')}", metavar="NAME", help=name)
    options = parser.parse_args(arguments)
    options.env_file_given = options.env_file is not None
    options.env_file = options.env_file or ".env"
    if options.file and options.bucket:
        parser.error("name a file or --bucket, not both")
    return options


if __name__ == "__main__":
    run(lambda arguments: main(arguments, os.environ))
