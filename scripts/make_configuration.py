"""Write `.env.example` and `documentation/CONFIGURATION.md` from the settings' own declarations: `python scripts/make_configuration.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from service.settings.declared import DECLARED, SECRETS  # noqa: E402  (can be imported only after the line above)

_ENV_HEAD = """\
# Settings of the central ECG anonymizer. Copy this file to .env, fill in the first block, and keep .env private: chmod 600 .env
# A line that is left out or empty means the default. Environment variables override this file. A comment needs a line of its own.
# A value is taken literally, $ included; blanks and one pair of quotes around it are not part of it. No line is skipped.
# What each setting means in full: documentation/CONFIGURATION.md
"""

_PAGE_HEAD = """\
# Configuration

Set everything in `.env` (`cp .env.example .env`, then `chmod 600 .env`), or in environment variables, which override it. A missing line means the
default below; so does an empty value in `.env`, with a warning. An empty environment variable sets nothing.

Check with `python central_anonymizer.py --check`, or `--check --connect` to try servers, buckets and outputs too. Neither makes a folder or a
file. All mistakes are reported at once, with exit code 78.

- [How .env is read](#how-env-is-read) · [Proxies](#proxies) · [Keys of an object store](#keys-of-an-object-store)
- Settings: [InfluxDB](#influxdb) · [Input](#input) · [Anonymization](#anonymization) · [Pseudonyms](#pseudonyms) · [Outputs](#outputs) ·
  [Object store](#object-store) · [Mode](#mode) · [State](#state) · [Workers](#workers) · [Observation](#observation)
- [What is read of INPUT_FILE](#what-is-read-of-input_file): [recordings](#recordings), [data sets](#data-sets)

## How .env is read

One setting per line, in UTF-8, line ends LF or CRLF. The program never skips a line that it cannot read: it exits with 78 and names the number of
each such line, but shows nothing of it.

| line | means |
| --- | --- |
| `K_VALUE=20`, `K_VALUE = 20`, `export K_VALUE=20` | the setting; blanks around name and value do not count |
| `INFLUX_ORG="ward 3"`, `INFLUX_ORG='ward 3'` | the value without one pair of quotes; in it `\\` escapes the same quote or a `\\` |
| `API_TOKEN=a$b#c=d"e` | the value, literally: nothing is interpolated |
| empty, or `# …` | nothing |
| `NAME=a` where that is not a setting | a warning with the line |
| `K_VALU=20`, `PSEUDONYMISE_SOURCE_ID=true` | refused: it may be meant for a setting that decides what is released |
| `k_value=20` | refused: names are in capitals |
| `K_VALUE=5` twice | a warning with the line; another value is refused |
| `K_VALUE: 20`, `K_VALUE 20`, `K_VALUE`, `=20` | refused |
| `K_VALUE=20 # twenty` | refused: Docker takes it all for the value. Put the comment on its own line, or the value in quotes |
| `API_TOKEN="abc`, `API_TOKEN="abc" x`, `API_TOKEN=abc"`, `API_TOKEN=“abc”` | refused: quotes are `'` or `"`, around a whole value |
| `STATE_DIR=./stateK_VALUE=20` | refused: a line end is missing |
| bytes that are not UTF-8, control characters, CR alone, a byte order mark inside | refused |

The environment is read by the same rules, because `docker run --env-file` and compose's `env_file` pass quotes on literally; there only, `#`
after a blank belongs to the value. The heartbeat tools read their salt in the same way.

| value | rule |
| --- | --- |
| secret | `NAME_FILE=/path` names a file in place of any setting marked *secret*, `NAME_COMMAND=vault kv get -field=key secret/ecg` a command that prints it. The command is started once, at the start, without a shell (nothing is expanded) and without input; it has 15 s and 4096 bytes; neither it nor what it prints is shown. One line end at the end is removed, nothing else. A token with a blank or another line end around it is refused |
| key (`PSEUDONYM_SALT_FILE`, `HEART_SALT_FILE`) | every byte counts; blanks around it give a warning. Earlier versions cut blanks: if the service says that the key changed, remove them. A key that a person made up is refused ([PRIVACY](PRIVACY.md#keys) lists what is accepted); make one with `python3 -c "import secrets; print(secrets.token_hex(32))"` |
| path | written out: `~`, `$HOME` and `%USERPROFILE%` are refused |
| number, time | decimal digits; times in the years 1700 to 2239, lengths of time up to 366 days, time-outs of a request up to a day |
| address | without user name and password. What follows the `?` of `API_ENDPOINT` is sent but never shown. A token sent to another machine over `http://` is warned of |

## Proxies

InfluxDB, the API and object stores are reached through the proxy in `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY`: an http or https address, whose user name and password
are never shown. `NO_PROXY` lists hosts to reach directly: names (with all below them), addresses, networks such as `10.0.0.0/8`, each with or
without a port, or `*`. Lower-case names take precedence. These come from the environment only, not from `.env`. `localhost`, 127.0.0.0/8 and `::1`
are always reached directly. The start says what holds. `scripts/verify_output.py` uses no proxy.

## Keys of an object store

The [settings `AWS_…`](#object-store) hold for `s3://` in `INPUT_FILE` and `PARQUET_URL`. Of the other usual AWS variables these are read, from
the environment only (in `.env` they are warned of and do nothing):

| variable | used |
| --- | --- |
| `AWS_SHARED_CREDENTIALS_FILE` (default `~/.aws/credentials`), `AWS_PROFILE` (default `default`) | for the keys, if `AWS_ACCESS_KEY_ID` is empty |
| `AWS_DEFAULT_REGION` | if `AWS_REGION` is empty |
| `AWS_ENDPOINT_URL_S3` | before `AWS_ENDPOINT_URL`, even that of `.env` |
| `AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, `AWS_CONTAINER_CREDENTIALS_FULL_URI` | if there are no keys |
| `AWS_EC2_METADATA_DISABLED=false` | for the role of an Amazon EC2 machine, if there are no keys and no `AWS_ENDPOINT_URL`; unless it says so, the service never asks the metadata address |
| `AWS_SKIP_SIGNATURE=true` | for a public bucket, without keys |

`~/.aws/config` is not read: give the region as `AWS_REGION`. `read_released` in a notebook reads all of these, and the settings' names, from the
environment.

This page is generated by `python scripts/make_configuration.py`; a test fails when it differs from the code.
"""

_PAGE_END = """
## What is read of INPUT_FILE

Before the first release the service surveys the whole file (of a large [data set](#data-sets) a first part). It reads what is unambiguous; a
cell that it cannot read makes its row *invalid*, which is counted; what is ambiguous is *refused* with exit code 78 and the line (in Parquet
the row and its row group). No message shows a cell or the file's name. A file that changes while it is read is refused; replacing it
by another under its name is fine.

| | read | refused |
| --- | --- | --- |
| file | CSV; gzip of it (several members, zeros behind them); Parquet if the name ends in `.parquet` or `.pq` | gzip that is cut, damaged, followed by something else, or unpacks to over 100 times its size; Parquet pages with a wrong checksum |
| text | UTF-8, with or without a byte order mark; lines ending in LF, CRLF or CR; empty lines are skipped | UTF-16, Windows-1252 and other encodings; zero bytes |
| delimiter | comma, semicolon, tab or bar: the one under which the header names the three columns. A first line `sep=;` may say it | |
| header | one line with `timestamp`, `source_id` and `ecg` in any order and case, with spaces around them, among any other columns | one of them missing or twice |
| rows | as many cells as the header; or one more in every row, empty; or one fewer, where the header's last name is empty and the first row's last cell is not | other numbers of cells; rows where either the first or the last cell may be the one without a name |
| quotes | `"` around a whole cell, doubled inside it; line ends inside such a cell | a quote inside a cell; one that may swallow a row: one of its lines has as many cells as the header, of which one inside the quotes reads as a time or number in its place. (The first line of such a row may, if no other does) |

**`timestamp`** is either calendar times or epoch times: where most cells are of one kind, cells of the other are invalid.

- *Calendar*: ISO 8601. Calendar, week and ordinal dates, with or without a time of day, `-` and `:`; `T`, `t` or a space between; to the hour,
  minute or second, with a fraction after point or comma, cut at nanoseconds; `24:00`; `Z`, `z`, ` UTC`, `+01`, `+0100` or `+01:00`. No zone means
  UTC, with a warning where other cells have one. A leap second, 23:59:60 UTC, counts as the next second; if its source also has rows there,
  the leap second's rows are invalid. Invalid: local forms such as `3.11.2025 14:30`; times before 1678 or after 2261.
- *Epoch*: seconds, milliseconds, microseconds or nanoseconds, with or without a fraction, if *all* numbers of the column lie in the years 1990 to
  2099 in one unit. Refused: several units, or none.
- *Parquet*: timestamps of any unit and zone, dates, integers and 64-bit floats as epoch times, text as in CSV.

**`source_id`**: any text as it stands; numbers, of which `7.0` is `7`. In text `NaN` is an id like any other. Invalid: empty, only blanks, null, NaN in
a Parquet column of numbers, Parquet text that is not UTF-8. Refused: Parquet columns of other types, such as lists, UUIDs and JSON.

**`ecg`**: `-12`, `+0.5`, `1e3`, and `−12` with the minus sign U+2212; `0,5` where all decimals have a comma. Refused: columns in which each
comma could separate thousands (`1,234`); commas beside points; and, unless commas delimit cells, columns with whole numbers in which each point could
separate thousands (`12` and `1.234`, but not `12.000` and `1.234`). Invalid: all else, such as `1.234,5`.

**Counting.** Empty cells, null, `NaN`, `-nan(ind)`, `N/A` and infinities are failed measurements, not mistakes. A row is counted once, under the first that applies: its
source is *not asked for*; no time; its time is not asked for; no source; no number. If over 1 % of the rows asked for are invalid for
one reason, a warning names the share and a line. Rows without a time belong to no span: every run counts them. If half or more of the non-empty
cells of `timestamp` or `ecg` in the whole file cannot be read, the file is refused.

### Recordings

EDF, BDF, WFDB and DICOM files are *recordings*: the service reads one channel. `INPUT_FILE` may name a file, a folder (with all below it), or a pattern such
as `/data/night/*.edf`: the files are one data set, each file one source. Hidden files and files of other kinds are skipped; CSV and
Parquet files among them are refused. EDF, BDF and DICOM under another name, or without a suffix, are known by their first bytes; a
`DICOMDIR` is skipped. Unpack gzip-compressed recordings.

| files | what is read | needs |
| --- | --- | --- |
| `.edf` | EDF, EDF+C, and EDF+D with gaps where its annotations say | `pip install -r requirements-formats.txt` |
| `.bdf` | BDF, BDF+C and BDF+D: the same with 24 bits | likewise |
| `.hea` with `.dat` (name either) | WFDB: formats 16, 24, 32, 61, 80, 160 and 212, several samples a frame, several files, byte offsets; checksums are checked. With a skew, a channel's first samples come before the start. Refused: other formats, several segments, sample files that do not lie beside the header | nothing |
| `.dcm`, `.dicom` | DICOM waveforms: whole numbers of 8, 16 and 32 bits, little endian, deflated or not, up to 512 MiB. Channels are counted through all multiplex groups, without derived ones such as a median beat. The group's time offset, the channel's skew and padding count | as EDF |

| | rule |
| --- | --- |
| channel | `INPUT_CHANNEL`: a label (`MLII`; `II` also finds `ECG II` and `Lead II`) or a number from 1. Several channels without it are refused with a list, which hides labels that do not look like leads |
| source id | `INPUT_SOURCE_ID`: one name for all files or one per file, in the order of their names as bytes. Default: `recording`, or `recording-1`, `recording-2` and so on. Nothing from a header is used, shown or logged. Give different people different ids: recordings released to one bucket under the same id and time count as one |
| times | sample *n* is at start + n / frequency, computed in whole numbers and cut at nanoseconds, so nothing drifts. Starts without a zone are UTC; DICOM's own zone counts. `INPUT_START_TIME` is the time of the first sample, for files that give none |
| values | microvolts by the header's own unit (nV, uV, mV, V) and gain, whatever `VALUE_UNIT` says. Refused: another unit, or no gain. What the format marks as no sample is an invalid row |
| memory | over four million samples together are read in parts of 262,144; a DICOM file is parsed whole |
| identity | the digest of all files, in any order, and of `INPUT_START_TIME` where used; not names, channel or source ids. A window released from one channel is not released again from another. Never release a file again with another `INPUT_START_TIME`: this `STATE_DIR` refuses it; another one cannot tell |

Refused with a sentence: files shorter or longer than their header says, malformed numbers, empty ranges, gains of 0, sampling
frequencies of 0 or above 1,000,000 Hz, records that overlap in time, times outside the years 1678 to 2261.

### Data sets

`INPUT_FILE` may name a folder, a glob (`*`, `?`, `[…]`, and `**` for any number of folders) or `s3://bucket/prefix`: all files in it whose names end
in `.parquet` or `.pq` are one data set, of any number and size. It is known by its address, not its content: add files between runs, and a run
releases the windows that are still open.

| | rule |
| --- | --- |
| files | the three columns as above, but `timestamp` must be a Parquet type of times with statistics (not INT96, numbers or text). Units, zones and types of ids may differ between files. Skipped, counted and logged: names that begin with `.` or `_`, links, other files. Refused: half or more other files and links; Delta, Iceberg and Hudi tables |
| folders | `source_id=…` gives the source of its files (percent-encoded; `__HIVE_DEFAULT_PARTITION__` is none). Parts of the time (`year=`, `month=`, `day=`, `date=`, `hour=`, `dt=` and the like) are ignored. Refused: others with more than one value, such as `lead=I` beside `lead=II`; folders that contradict a column |
| order | files need not be sorted, but rows of the same time should lie together. The service first computes how many rows it must decode per row: above 3 it warns, above 20 it refuses and prints the command that sorts the data set |
| changes | a file that changes, moves or disappears while a run reads it ends the run. The start logs what changed since the last one; rows that come too late for released windows are counted and not released |
| size | over 1,500,000 rows, only the first that are asked for are surveyed before the first release, with a warning; later, cells in doubt end the run where they are met. Contradictory sources are then judged by the first chunk, as for a bucket. With `DEVICE_FILTER`, rows of other sources are not counted as *not asked for* |
| object stores | Amazon S3 and S3-compatible servers ([keys](#keys-of-an-object-store)) |
"""

#: Settings that a new user must fill in: example values.
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
            yield f"# Or, instead, a file that holds it, or a command that prints it:\n#{name}_FILE=\n#{name}_COMMAND=\n"


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
