"""`make demo`: anonymizes real ECG without a server, and shows the result in a few lines and a picture."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from anonymizer.pseudonyms import Pseudonymizer
from anonymizer.public_beat import PEAK_UV
from examples.before_after import Overlay, page, rhythm_page

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "examples" / "mitbih" / "six_records.parquet"
FOLDER = ROOT / "output" / "demo"

#: The record in the picture, and the rows: four seconds from the second minute on.
PICTURED, FIRST_ROW, ROWS = "mitbih-100", 60 * 360, 4 * 360

_SAMPLING_HZ = 360

#: The records in the picture of METHOD=rhythm: an ordinary heart, and one with a pacemaker.
PICTURED_BY_RHYTHM = ("mitbih-100", "mitbih-102")

#: METHOD of the run, from the environment: `make demo METHOD=rhythm`.
METHOD = os.environ.get("METHOD") or "hierarchy"

_WINDOW_S = 10 if METHOD == "rhythm" else 5


@dataclass(frozen=True, slots=True)
class Wearer:
    """One record before and after, sorted by time."""

    name: str
    times_ns: npt.NDArray[np.int64]
    before_uv: npt.NDArray[np.float64]
    after_uv: npt.NDArray[np.float64]

    @property
    def correlation(self) -> float:
        """Pearson's r between the two."""
        return float(np.corrcoef(self.before_uv, self.after_uv)[0, 1])


def main() -> int:
    """Run the demo; return the exit code."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    key = secrets.token_hex(32)
    started_s = time.monotonic()
    log, code = _run_service(_write_env(key))
    took_s = time.monotonic() - started_s
    if code != 0:
        print(log)
        print(f"❌ The demo's run ended with exit code {code}; its log is above.")
        return code
    check = _verify()
    wearers = _wearers(Pseudonymizer(key.encode()))
    picture = FOLDER / "before_after.html"
    picture.write_text(_picture({wearer.name: wearer for wearer in wearers}), encoding="utf-8")
    _print_summary(log, took_s, check, wearers, picture)
    return check.returncode


def _picture(wearers: dict[str, Wearer]) -> str:
    if METHOD == "rhythm":
        return rhythm_page([_overlay(wearers[name]) for name in PICTURED_BY_RHYTHM])
    return page(_overlay(wearers[PICTURED]))


def _write_env(key: str) -> Path:
    """Write the demo's settings, with a new key."""
    path = FOLDER / ".env"
    settings = {
        "INPUT_FILE": RECORDS,
        "OUTPUT_TO_INFLUX": "false",
        "CSV_OUTPUT_DIR": FOLDER,
        "CSV_FILENAME_PATTERN": "ecg_anonymized_%Y%m%d_%H%M.csv",
        "STATE_DIR": FOLDER / "state",
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": key,
        **({} if METHOD == "rhythm" else {"K_VALUE": 5}),
        "BATCH_SIZE_SECONDS": _WINDOW_S,
        "METHOD": METHOD,
        "VERBOSE_LOGGING": "false",
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in settings.items())
    return path


def _run_service(env_file: Path) -> tuple[str, int]:
    # Without the shell's variables, which may be set for a real service.
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "SYSTEMROOT")}
    environment["PYTHONIOENCODING"] = "utf-8"
    command = [sys.executable, "central_anonymizer.py", "--env-file", str(env_file)]
    done = subprocess.run(  # noqa: S603  (our own program)
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
    )
    (FOLDER / "run.log").write_text(done.stdout, encoding="utf-8")
    return done.stdout, done.returncode


def _verify() -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(ROOT / "scripts" / "verify_output.py"),
        *(["--method", "rhythm"] if METHOD == "rhythm" else ["--k", "5"]),
        "--batch-seconds",
        str(_WINDOW_S),
        *map(str, _csv_files()),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def _csv_files() -> list[Path]:
    return sorted(FOLDER.glob("*.csv"))


def _wearers(pseudonyms: Pseudonymizer) -> list[Wearer]:
    """Return each record before and after; the demo can match them because it made the key."""
    raw = pa_parquet.read_table(RECORDS)
    released = pa.concat_tables([pa_csv.read_csv(path) for path in _csv_files()])
    return [_wearer(str(name), raw, released, pseudonyms) for name in pc.unique(raw["source_id"]).to_pylist()]


def _wearer(name: str, raw: pa.Table, released: pa.Table, pseudonyms: Pseudonymizer) -> Wearer:
    before = raw.filter(pc.equal(raw["source_id"], name)).sort_by("timestamp")
    after = released.filter(pc.equal(released["source_id"], pseudonyms.released_id(name))).sort_by("timestamp")
    times_ns = pc.cast(before["timestamp"], pa.int64()).to_numpy()
    after_uv = np.full(len(times_ns), np.nan)
    after_uv[np.searchsorted(times_ns, pc.cast(after["timestamp"], pa.int64()).to_numpy())] = after["ecg"].to_numpy()
    assert METHOD == "rhythm" or not np.isnan(after_uv).any(), "every sample is released unless it is noise"
    return Wearer(name, times_ns, before["ecg"].to_numpy().astype(np.float64), after_uv)


def _overlay(wearer: Wearer) -> Overlay:
    rows = slice(FIRST_ROW, FIRST_ROW + ROWS)
    seconds = np.arange(ROWS) / _SAMPLING_HZ
    return Overlay(
        title=f"Record {wearer.name}", seconds=seconds, before_uv=wearer.before_uv[rows], after_uv=wearer.after_uv[rows]
    )


def _print_summary(
    log: str, took_s: float, check: subprocess.CompletedProcess[str], wearers: list[Wearer], picture: Path
) -> None:
    done = re.search(
        r"Done: (\d+) windows .*?; (\d+) rows read = (\d+) released \+ (\d+) withheld \+ (\d+) invalid \+ (\d+) duplicate", log
    )
    assert done is not None, "a run that ended with 0 logs its sums"
    windows, read, released, withheld, invalid, duplicate = map(int, done.groups())
    shown = FOLDER.relative_to(ROOT)
    how = "METHOD=rhythm" if METHOD == "rhythm" else "k = 5"
    print(
        f"""
Demo: six wearers, five minutes of real ECG at 360 Hz, {how}, windows of {_WINDOW_S} s, source ids replaced by pseudonyms

  rows        {read:,} read = {released:,} released + {withheld:,} withheld + {invalid:,} invalid + {duplicate:,} duplicate
  windows     {windows}
{_of_method(log, wearers)}
  time        {took_s:.1f} s
  checked     by scripts/verify_output.py, which shares no code with the anonymizer:
              {check.stdout.strip().replace(chr(10), chr(10) + " " * 14)}

  anonymized  {shown}/ecg_anonymized_*.csv ({len(_csv_files())} files)
  report      {shown}/state/report.html (what was promised, and whether it was kept; to be signed)
  log         {shown}/run.log
  picture     {shown}/{picture.name} (demo only: contains raw data)
"""
    )


def _of_method(log: str, wearers: list[Wearer]) -> str:
    """Return the lines of the summary that only this method has."""
    if METHOD == "rhythm":
        noise = re.search(r"withheld: (\d+) noise", log)
        beats = sum(int((wearer.after_uv == PEAK_UV).sum()) for wearer in wearers)
        return (
            f"  noise       {int(noise[1]) if noise else 0:,} of the withheld rows: their beats cannot be told from it\n"
            f"  beats       {beats:,}, each released as the same public beat"
        )
    levels = re.findall(r"Level distribution: (\{.*?\})", log)[-1]
    correlations = [wearer.correlation for wearer in wearers]
    return (
        f"  levels      {levels}   (1 finest … 7; 8 = grouped past the last level)\n"
        f"  correlation {np.mean(correlations):.4f} with the original, mean of six wearers (lowest {min(correlations):.4f})"
    )


if __name__ == "__main__":
    sys.exit(main())
