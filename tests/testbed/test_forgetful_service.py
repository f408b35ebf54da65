"""The service without its memory, which only benchmarks run, releases the same rows: else what journal and spool cost is not measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.service_process import ROOT, run_on_file, surroundings


def test_the_service_without_journal_and_spool_releases_the_same_rows(tmp_path: Path) -> None:
    raw = tmp_path / "raw.csv"
    times = [f"2025-11-03T14:30:{ms // 1000:02}.{ms % 1000:03}Z" for ms in range(0, 20_000, 20)]
    raw.write_text("timestamp,source_id,ecg\n" + "".join(f"{time},a,{i % 90}\n" for i, time in enumerate(times)))

    assert run_on_file(tmp_path, raw)[0] == 0
    released = {path.name: path.read_bytes() for path in (tmp_path / "csv").iterdir()}
    forgetful = tmp_path / "forgetful"
    forgetful.mkdir()
    env = (tmp_path / ".env").read_text()
    for name in ("csv", "state"):
        env = env.replace(f"{tmp_path}/{name}", f"{forgetful}/{name}")
    (forgetful / ".env").write_text(env)
    command = [sys.executable, "-m", "benchmarks.forgetful_service"]
    variables = {**surroundings(forgetful), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=forgetful, env=variables, capture_output=True, encoding="utf-8", check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert released
    assert {path.name: path.read_bytes() for path in (forgetful / "csv").iterdir()} == released
