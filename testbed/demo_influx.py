"""`make demo-influx`: anonymizes raw ECG in a real InfluxDB, in one command, without touching any other server.

Leaves in `output/demo-influx/` a running server, the service's output, and settings with tokens of minimal rights:

    .env            the service, one-shot: may read raw_data and write anonymized-data
    streaming.env   the service, streaming
    replay.env      the wearers: may only write raw_data
    look.env        you: may only read both buckets
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from testbed.influxdb_api import ApiError, InfluxApi
from testbed.influxdb_server import USERNAME, InfluxServer, NoServer, start_server
from testbed.replay import load_sample_ecg
from testbed.server_process import STOP_TIMEOUT_S

ROOT = Path(__file__).parent.parent

#: Fixed, so that `make demo-influx-stop` finds it.
FOLDER = ROOT / "output" / "demo-influx"

RAW, ANONYMIZED = "raw_data", "anonymized-data"

#: The time span of the sample ECG.
START, END = "2025-11-03T14:30:00Z", "2025-11-03T14:35:00Z"

PID_NAME = "influxd.pid"


@dataclass(frozen=True)
class Tokens:
    """One token per role, each with minimal rights."""

    read_raw: str
    write_anonymized: str
    write_raw: str
    read_both: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo, or with --stop end its server; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m testbed.demo_influx", description="The service against a real InfluxDB.")
    parser.add_argument("--stop", action="store_true", help="end the server that an earlier demo left running")
    if parser.parse_args(arguments).stop:
        print("Stopped." if stop_previous(FOLDER) else "No demo server is running.")
        return 0
    try:
        return run_demo(FOLDER)
    except (NoServer, ApiError, requests.RequestException) as error:
        print(f"The demo's InfluxDB failed: {error}", file=sys.stderr)
        return 1


def run_demo(folder: Path) -> int:
    """Start a server, let the service anonymize the sample ECG once, and show the result. Return the service's exit code."""
    stop_previous(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    password = secrets.token_urlsafe(12)
    server = start_server(folder / "server", org="demo", password=password, detached=True)
    (folder / PID_NAME).write_text(str(server.pid), encoding="utf-8")
    print(f"InfluxDB {server.version} ({server.origin}) answers at {server.url}")

    tokens = _make_buckets_and_tokens(server)
    _write_env_files(folder, server, tokens)
    load_sample_ecg(server, RAW)
    print(f"{server.count(RAW):,} samples of six wearers are in {RAW}\n")

    code = _anonymize(folder / ".env")
    reader = InfluxApi(server.url, org=server.org, token=tokens.read_both)
    _show_result(reader)
    _show_next_steps(folder, server, password)
    return code


def stop_previous(folder: Path) -> bool:
    """End the server of an earlier demo in `folder`, and return whether there was one.

    A process id alone is not enough, since another process may have it by now: the command must name the demo's folder.
    """
    try:
        pid = int((folder / PID_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    if not _is_server_of(folder, pid):
        return False
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while _is_server_of(folder, pid):
        if time.monotonic() > deadline_s:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    return True


def write_env_file(path: Path, settings: Mapping[str, str]) -> None:
    """Create a file of settings that only its owner can read."""
    # Created private: changing permissions afterwards would leave it readable for a moment.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  a descriptor, not a path
        file.writelines(f"{name}={value}\n" for name, value in settings.items())


def _is_server_of(folder: Path, pid: int) -> bool:
    return str((folder / "server").resolve()) in _command_of(pid)


def _command_of(pid: int) -> str:
    if not Path("/proc/self/cmdline").exists():
        return subprocess.run(["ps", "-p", str(pid), "-o", "command="], check=False, capture_output=True, text=True).stdout
    try:
        # Empty for a zombie process, which counts as ended.
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _make_buckets_and_tokens(server: InfluxServer) -> Tokens:
    server.make_bucket(RAW)
    server.make_bucket(ANONYMIZED)
    return Tokens(
        read_raw=server.make_token(read=[RAW], description="the service reads"),
        write_anonymized=server.make_token(write=[ANONYMIZED], description="the service writes"),
        write_raw=server.make_token(write=[RAW], description="the wearers write"),
        read_both=server.make_token(read=[RAW, ANONYMIZED], description="for looking around"),
    )


def _write_env_files(folder: Path, server: InfluxServer, tokens: Tokens) -> None:
    place = {"INFLUX_URL": server.url, "INFLUX_ORG": server.org}
    service = place | {
        "INFLUX_TOKEN": tokens.read_raw,
        "INFLUX_OUTPUT_TOKEN": tokens.write_anonymized,
        "INFLUX_INPUT_BUCKET": RAW,
        "INFLUX_OUTPUT_BUCKET": ANONYMIZED,
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": secrets.token_hex(32),
        "CSV_OUTPUT_DIR": str(folder / "csv"),
        "STATE_DIR": str(folder / "state"),
    }
    # Not verbose: sixty windows at once would push everything else off the screen.
    of_sample = {"STREAMING_MODE": "false", "QUERY_START_TIME": START, "QUERY_END_TIME": END, "VERBOSE_LOGGING": "false"}
    write_env_file(folder / ".env", service | of_sample)
    write_env_file(folder / "streaming.env", service | {"STREAMING_MODE": "true"})
    write_env_file(folder / "replay.env", place | {"INFLUX_INPUT_BUCKET": RAW, "INFLUX_REPLAY_TOKEN": tokens.write_raw})
    write_env_file(folder / "look.env", place | {"INFLUX_VERIFY_TOKEN": tokens.read_both})


def _anonymize(env_file: Path) -> int:
    command = [sys.executable, "central_anonymizer.py", "--env-file", _from_root(env_file)]
    print(f"$ {_from_root(Path(sys.executable))} {' '.join(command[1:])}", flush=True)
    return subprocess.run(command, check=False, cwd=ROOT, env=_environment()).returncode


def _environment() -> dict[str, str]:
    # The user's own variables would override the file and send the demo's data to the user's server.
    return {name: value for name, value in os.environ.items() if not name.startswith(("INFLUX_", "PSEUDONYM"))}


def _show_result(reader: InfluxApi) -> None:
    points = reader.count(ANONYMIZED, measurement="ecg_anonymized")
    of_windows = _flux("ecg_anonymized_windows") + ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
    sources = reader.rows(
        _flux("ecg_anonymized") + ' |> keep(columns: ["source_id"]) |> group() |> distinct(column: "source_id")'
    )
    print(f"\n{ANONYMIZED} now holds {points:,} points of {len(sources)} sources. Some of measurement ecg_anonymized:")
    for row in reader.rows(_sample_query()):
        print(f"  {row['_time']:<30}  source_id={row['source_id']:<64}  ecg={row['_value']}")
    print("and of ecg_anonymized_windows:")
    for row in reader.rows(f"{of_windows} |> limit(n: 1)"):
        print("  " + "  ".join(f"{name}={value}" for name, value in row.items() if not _is_internal(name)))


def _flux(measurement: str) -> str:
    of_measurement = f'filter(fn: (r) => r._measurement == "{measurement}")'
    return f'from(bucket: "{ANONYMIZED}") |> range(start: {START}, stop: {END}) |> {of_measurement}'


def _sample_query() -> str:
    # `limit` works per series: two rows of each source.
    return _flux("ecg_anonymized") + " |> limit(n: 2) |> group()"


def _is_internal(column: str) -> bool:
    return column in {"result", "table", "_start", "_stop", "_measurement"}


def _show_next_steps(folder: Path, server: InfluxServer, password: str) -> None:
    there = _from_root(folder)
    python = _from_root(Path(sys.executable))
    print(f"""
Look around:
  . {there}/look.env
  curl -sS "$INFLUX_URL/api/v2/query?org=$INFLUX_ORG" -H "Authorization: Token $INFLUX_VERIFY_TOKEN" \\
    -H "Accept: application/csv" -H "Content-Type: application/vnd.flux" --data '{_sample_query()}'
  {_web_page(server, password)}
Live, in two terminals:
  make replay ENV_FILE={there}/replay.env
  {python} central_anonymizer.py --env-file {there}/streaming.env
The server keeps running. To stop it:
  make demo-influx-stop""")


def _web_page(server: InfluxServer, password: str) -> str:
    try:
        page = server.ask("GET", "/")
    except ApiError:
        page = None
    if page is None or not page.headers.get("Content-Type", "").startswith("text/html"):
        return "(This influxd was built without its web page; the one in docker has it.)"
    return f"or in a browser: {server.url}, user {USERNAME}, password {password}"


def _from_root(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
