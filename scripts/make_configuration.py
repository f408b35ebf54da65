"""Write `.env.example` and `documentation/CONFIGURATION.md` from the settings' own declarations: `python scripts/make_configuration.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from service.settings.declared import DECLARED, SECRETS  # noqa: E402  (found only once the line above ran)

_ENV_HEAD = """\
# Settings of the central ECG anonymizer. Copy this file to .env, fill in the first block, and keep .env to yourself: chmod 600 .env
# A line that is left out or empty means the default. Environment variables override this file. A comment needs a line of its own.
# A value is taken as it stands, $ too; blanks and one pair of quotes around it are not part of it. No line is passed over.
# What each setting means in full: documentation/CONFIGURATION.md
"""

_PAGE_HEAD = """\
# Configuration

Everything is set in `.env` (`cp .env.example .env`, then `chmod 600 .env`). Environment variables override `.env`, `.env` overrides the
defaults below. A line that is left out means the default; so does one without a value, with a warning. An environment variable without a
value sets nothing: what `.env` says holds. All mistakes are reported at once, with exit code 78. `python central_anonymizer.py --check`
only checks; `--check --connect` also tries servers, buckets and outputs. Neither makes a folder or a file.

## How .env is read

One setting per line, in UTF-8, with line ends LF or CRLF. A line that cannot be read is never passed over: the program ends with exit code
78 and the number of each such line, never with what stands in it.

| line | means |
| --- | --- |
| `K_VALUE=20`, `K_VALUE = 20`, `export K_VALUE=20` | the setting; blanks around name and value do not count |
| `INFLUX_ORG="ward 3"`, `INFLUX_ORG='ward 3'` | the value without one pair of quotes; in it `\\` escapes the same quote or a `\\` |
| `API_TOKEN=a$b#c=d"e` | taken as it stands: nothing is interpolated |
| empty, or `# …` | nothing |
| `NAME=a` where that is not a setting | a warning with the line |
| `K_VALU=20`, `PSEUDONYMISE_SOURCE_ID=true` | refused: it may be meant for a setting that decides what is released |
| `k_value=20` | refused: names are in capitals |
| `K_VALUE=5` twice | a warning with the line; another value is refused |
| `K_VALUE: 20`, `K_VALUE 20`, `K_VALUE`, `=20` | refused |
| `K_VALUE=20 # twenty` | refused: Docker takes it all for the value. A comment needs its own line, such a value quotes |
| `API_TOKEN="abc`, `API_TOKEN="abc" x`, `API_TOKEN=abc"`, `API_TOKEN=“abc”` | refused: quotes are `'` or `"`, around a whole value |
| `STATE_DIR=./stateK_VALUE=20` | refused: a line end is missing |
| bytes that are not UTF-8, control characters, CR alone, a byte order mark inside | refused |

The environment is read in the same way, so the lines may also come through `docker run --env-file` or a compose file's `env_file`, which
pass quotes on as they stand. There only, `#` after a blank belongs to the value. The heartbeat tools read their salt by the same rules.

**Secrets in files.** Every setting marked *secret* can be given as a file instead: `NAME_FILE=/path`. The value is the file's content
without one line end at its end; nothing else is cut. A token with a blank or another line end around it is refused. In a key
(`PSEUDONYM_SALT_FILE`, `HEART_SALT_FILE`) every byte counts, with a warning if it begins or ends with a blank. Earlier versions of the
service cut blanks there: if it now says that the key changed, remove them from the file.

**Keys.** A key that is easy to guess (repeats, sequences, common words) is warned of. Make one with
`python3 -c "import secrets; print(secrets.token_hex(32))"`.

**Paths** are written out: `~`, `$HOME` and `%USERPROFILE%` are refused, as nothing here replaces them.

**Numbers and times.** Numbers are written in decimal digits. Times are in the years 1700 to 2239, lengths of time at most 366 days,
time-outs of one request at most a day: nanoseconds since 1970 are counted in 64 bits, as in InfluxDB.

**Addresses.** What follows the `?` of `API_ENDPOINT` is sent, and shown nowhere. No address may hold a user name and password. A token that
would go to another machine over `http://` is warned of.

Servers are reached through the proxy that `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY` names (an http or https address; a user name and
password may stand in it, and are never shown), InfluxDB and the API alike; hosts in `NO_PROXY` are reached without one: names with all
below them, addresses, networks such as `10.0.0.0/8`, each with a port or without, or `*`. The lower-case name takes precedence. These
are read from the environment only, not from `.env`. This machine itself (`localhost`, 127.0.0.0/8, `::1`) is never reached through a proxy.
What holds is said at the start. `scripts/verify_output.py` uses no proxy.

This page is written from the code by `python scripts/make_configuration.py`; a test fails when the two disagree.
"""

_PAGE_END = """
## What is read of INPUT_FILE

A file is surveyed whole before anything is released (of a large [data set](#data-sets) a first part). What can be read without doubt is
read; a cell that cannot be read makes its row invalid, and is counted; what is in doubt is refused with exit code 78 and the line (in
Parquet the row and its row group). No message shows a cell or the name of the file. The file must stay as it is while it is read: one
that is written to meanwhile is refused; another one may take its name.

- **File**: CSV, gzip of it (several members too, and zeros behind them); Parquet if its name ends in `.parquet` or `.pq`. Refused: gzip
  data that is cut, damaged, followed by something else, or that unpacks to over 100 times its size; Parquet pages with a wrong checksum.
- **Text**: UTF-8, with or without a byte order mark; lines that end in LF, CRLF or CR; empty lines count as none. Refused: UTF-16,
  Windows-1252 and other encodings, zero bytes.
- **Delimiter**: comma, semicolon, tab or bar: the one under which the header names the three columns. A first line `sep=;` may say it.
- **Header**: one line with `timestamp`, `source_id` and `ecg` in any order and case, with spaces around them, among any other columns.
  Refused: one of them missing or twice.
- **Rows**: as many cells as the header has; or one empty cell more in every row; or one cell fewer, where the last name of the header is
  empty and the last cell of the first row is not. Refused: more or fewer, and rows in which either the first cell or the last may be the
  one without a name.
- **Quotes**: `"` around a whole cell, doubled inside it; line ends inside such a cell. Refused: a quote inside a cell, and one that perhaps
  swallows a row: a line of it has as many cells as the header, of which one inside the quotes reads as a time or a number in its place.
  The first line of such a row may be like that, as long as no other has so many cells.
- **timestamp** as calendar time: ISO 8601. Calendar, week and ordinal dates, alone or with a time of day; with or without `-` and `:`; `T`,
  `t` or a space between; to the hour, minute or second, with a fraction after point or comma, which is cut at nanoseconds; `24:00`; `Z`,
  `z`, ` UTC`, `+01`, `+0100` or `+01:00`, and UTC without a zone, with a warning where others have one. A leap second, 23:59:60 UTC, counts
  as the second after it; where its source has rows in that second as well, the leap second's rows are invalid. Invalid: local forms such as
  `3.11.2025 14:30`; times before 1678 or after 2261.
- **timestamp** as epoch time: seconds, milliseconds, microseconds or nanoseconds, with or without a fraction, where *all* numbers of the
  column are of the years 1990 to 2099 in the same unit. Refused: several units, or none. A column is either: where most cells are calendar
  times, numbers are invalid, and the reverse.
- **timestamp** in Parquet: timestamps of any unit and zone, dates, integers and 64-bit floats as epoch times, text as in CSV.
- **source_id**: any text as it stands; numbers, of which `7.0` is `7`. Invalid: empty, blanks only, null, NaN in a Parquet column of
  numbers, and in Parquet text that is not UTF-8. In text, also of CSV files, `NaN` is an id like any other. Refused: Parquet columns of
  any other type, such as lists, UUIDs and JSON.
- **ecg**: `-12`, `+0.5`, `1e3`, and `−12` with the minus sign U+2212; `0,5` where all decimals have a comma. Refused: columns in which each
  comma could stand between thousands (`1,234`); commas beside points; and, unless cells stand between commas, columns with whole numbers in
  which each point could stand between thousands (`12` and `1.234`, but not `12.000` and `1.234`). Invalid: all else, such as `1.234,5`.

Empty cells, null, `NaN`, `-nan(ind)`, `N/A` and infinities are measurements that failed, not mistakes. A row is counted once: by its source
as *not asked for*, then as without a time, by its time as not asked for, as without a source, as without a number. Where more than one in a
hundred of the rows asked for is invalid for one reason, a warning says the share and a line. Rows without a time belong to no span: each
run over the file counts all of them. Where half or more of the cells of `timestamp` or `ecg` that hold something cannot be read, in the
whole file and not only in the span that was asked for, the file is refused.

### Recordings

EDF, BDF, WFDB and DICOM files are *recordings*: one channel is read, and goes the way of every file from there. `INPUT_FILE` may also
name a folder of recordings, with all below it, or a pattern such as `/data/night/*.edf`: they are one data set, each file is one source.
Hidden files and files of other kinds are passed over there; CSV and Parquet files among them are refused.

| files | what is read | needs |
| --- | --- | --- |
| `.edf` | EDF, EDF+C and EDF+D, whose gaps are where the annotations of its records say | `pip install -r requirements-formats.txt` |
| `.bdf` | BDF, BDF+C and BDF+D: the same with 24 bits | likewise |
| `.hea` with `.dat` (either may be named) | WFDB | nothing |
| `.dcm`, `.dicom` | DICOM waveforms | as EDF |

- **WFDB**: formats 16, 24, 32, 61, 80, 160 and 212, with several samples a frame, several files and byte offsets; checksums are checked.
  Refused: other formats, several segments, skew, files of samples that do not lie beside the header.
- **DICOM**: whole numbers of 8, 16 and 32 bits, little endian, up to 512 MiB. Channels are counted through all multiplex groups; derived
  groups, such as a median beat, are left out. The group's time offset, the channel's skew and padding count.
- **Channel**: `INPUT_CHANNEL`, by label (`MLII`; `II` also finds `ECG II` and `Lead II`) or by number from 1. A file with several and no
  `INPUT_CHANNEL` is refused with a list of them, in which labels that do not look like those of leads are not shown.
- **Source id**: `INPUT_SOURCE_ID`, one name for all files or one for each, in the order of their names as bytes. Without it `recording`, or
  `recording-1`, `recording-2` and so on. Name, date of birth, comments and ids in a header are never used, shown or logged. Two recordings
  of different people, released into one bucket under the same id and time, would be taken for one: give them ids.
- **Times**: sample *n* has start + n / frequency, computed in whole numbers and cut at nanoseconds, so nothing drifts. Starts without a
  zone are UTC; of DICOM its own zone counts. `INPUT_START_TIME` is the time of the first sample, for files that do not say one.
- **Values**: microvolts by the header's own unit (nV, uV, mV, V) and gain, whatever `VALUE_UNIT` says. A channel in another unit, or
  without a gain, is refused. What the format marks as no sample is an invalid row.
- **Memory**: recordings of together more than four million samples are read again part by part, 262,144 samples at a time, so that memory
  does not grow with them; a DICOM file is parsed whole.
- **Identity**: the digest of all files, in any order, and of `INPUT_START_TIME` where it was used; not of names, channel or source ids. A
  window that was released of one channel is not released again of another. Never release a file again from another `INPUT_START_TIME`:
  with the same `STATE_DIR` that is refused; with another one nothing can tell that it is the same.

Refused with a sentence: files that are shorter or longer than their header says, numbers that are none, empty ranges, gains of 0, sampling
frequencies of 0 or above 1,000,000 Hz, records that overlap in time, times outside the years 1678 to 2261.

### Data sets

`INPUT_FILE` may name a folder, a glob (`*`, `?`, `[…]`, and `**` for any number of folders) or `s3://bucket/prefix`: all files in it
whose names end in `.parquet` or `.pq` are one data set, however many and large they are. It is known by its address, not by its content:
files may be added between runs, and a run releases what windows are still open.

- **Files**: the three columns as above, but `timestamp` must be of a Parquet type of times with statistics (not INT96, numbers or text).
  Units, zones and types of ids may differ from file to file. Passed over, counted and said: names that begin with `.` or `_`, links, other
  files; refused where half or more is other files and links, or where a folder is a Delta, Iceberg or Hudi table.
- **Folders** named `source_id=…` give the source of their files (percent-encoded; `__HIVE_DEFAULT_PARTITION__` is none); those named by a
  part of the time (`year=`, `month=`, `day=`, `date=`, `hour=`, `dt=` and the like) say nothing new. Refused: others with more than one
  value, such as `lead=I` beside `lead=II`, and folders that contradict a column.
- **Order**: files need not be sorted, but rows of the same time should lie together. How many rows must be decoded for each row is computed
  first: above 3 it is warned of, above 20 refused with the command that sorts the data set.
- **Changes**: a file that is written to, moved or removed while a run reads it ends the run. What was added or changed since the last start
  is said; rows that come too late for windows that were released are counted, and stay out.
- **Large data sets**: of more than 1,500,000 rows only the first of what is asked for are looked through before the first release, and a
  warning says so; of the rest, cells in doubt end the run where they are met. Sources that contradict themselves are then judged by the
  first chunk, as those of a bucket are. With `DEVICE_FILTER`, rows of other sources are not counted as *not asked for*.
- **Object stores**: Amazon S3 and S3-compatible servers. Keys and endpoint come from the `AWS_…` settings, and are shown nowhere.
"""

#: What a newcomer has to fill in: shown without a comment sign.
_FILLED_IN = {"INFLUX_URL": None, "INFLUX_TOKEN": "your-read-token", "INFLUX_ORG": "your-org"}


def env_example() -> str:
    """Return the content of `.env.example`."""
    return _ENV_HEAD + "".join(_env_lines())


def configuration_page() -> str:
    """Return the content of `documentation/CONFIGURATION.md`."""
    return _PAGE_HEAD + "".join(_page_lines()) + _PAGE_END


def _env_lines() -> Iterator[str]:
    for name, field in DECLARED.items():
        meta = field.metadata
        if meta["section"]:
            yield f"\n# {meta['section']} {'-' * (100 - len(meta['section']))}\n"
        yield f"\n# {meta['meaning']}\n"
        value = _FILLED_IN.get(name) or meta["default"]
        yield f"{name}={value}\n"
        if name in SECRETS:
            yield f"# Or, instead, a file that holds it:\n#{name}_FILE=\n"


def _page_lines() -> Iterator[str]:
    for name, field in DECLARED.items():
        meta = field.metadata
        if meta["section"]:
            yield f"\n## {meta['section']}\n\n| setting | default | meaning |\n| --- | --- | --- |\n"
        default = f"`{meta['default']}`" if meta["default"] else "–"
        secret = " *Secret.*" if name in SECRETS else ""
        yield f"| `{name}` | {default} | {meta['meaning'].replace('|', chr(92) + '|')}{secret} |\n"


def main() -> None:
    """Write both files."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    (ROOT / ".env.example").write_text(env_example(), encoding="utf-8")
    (ROOT / "documentation" / "CONFIGURATION.md").write_text(configuration_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
