"""The commands of README and quick start, typed in their order, do what the pages say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.settings.load import load
from testbed.influxdb_server import InfluxServer
from testbed.replay import load_sample_ecg

ROOT = Path(__file__).resolve().parent.parent.parent

#: Makes the virtual environment that the tests run in already, and what it takes to run themselves.
NOT_RUN = re.compile(r"python3 -m venv|pip install|make test")

#: A block behind this mark needs something that a test cannot have; the mark says what.
NOT_RUN_MARK = "<!-- not run by a test"


def commands_of(page: str) -> list[str]:
    """Return the commands of a page's `sh` blocks, line by line, without their remarks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"(<!--[^>]*-->\n)?```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for mark, block in blocks if not mark.startswith(NOT_RUN_MARK) for line in block.splitlines()]
    return [command for line in lines if (command := re.split(r"\s{2,}#", line)[0].strip())]


@pytest.fixture
def fresh_copy(tmp_path: Path) -> Path:
    """What a clone holds, with the virtual environment of the tests in its place."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, files):
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    # Older than the environment, so that make has nothing to install.
    for file in tmp_path.glob("requirements*"):
        os.utime(file, (0, 0))
    return tmp_path


def fill_in(env_file: Path, server: InfluxServer) -> None:
    """Do what the quick start's table says, for a server with the sample ECG in it."""
    settings = {
        "INFLUX_URL": server.url,
        "INFLUX_ORG": server.org,
        "INFLUX_TOKEN": server.make_token(read=["raw_data"]),
        "INFLUX_OUTPUT_TOKEN": server.make_token(write=["anonymized-data"]),
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": "0b9d75e2f81c4a36d7e0925cb8f413a66f2e81d09c573b4ae7d1640f982bc35a",
        "QUERY_START_TIME": "2025-11-03T14:30:00Z",
        "QUERY_END_TIME": "2025-11-03T14:35:00Z",
    }
    text = env_file.read_text(encoding="utf-8")
    for name, value in settings.items():
        text, changed = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert changed == 1
    env_file.write_text(text, encoding="utf-8")


@pytest.mark.influxdb
def test_every_command_of_readme_and_quick_start_works_in_a_fresh_clone(fresh_copy: Path, influxdb: InfluxServer) -> None:
    if not (ROOT / ".venv").is_dir():
        pytest.skip("these tests were not started with make, so there is no .venv to run the commands in")
    # What stands on both pages is run once: a reader of one page has not read the other.
    commands = dict.fromkeys([*commands_of("README.md"), *commands_of("documentation/QUICKSTART.md")])
    for bucket in ("raw_data", "anonymized-data"):
        influxdb.make_bucket(bucket)
    load_sample_ecg(influxdb, "raw_data")
    said = {}

    for command in [command for command in commands if not NOT_RUN.search(command)]:
        done = subprocess.run(["bash", "-c", command], cwd=fresh_copy, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        said[command] = done.stdout
        if command == "make demo METHOD=rhythm":
            assert_shape_is_removed(fresh_copy / "output" / "demo", done.stdout)
        if command.startswith("cp .env.example .env"):
            fill_in(fresh_copy / ".env", influxdb)

    everything = "".join(said.values())
    assert "✅ The configuration is good, and everything can be reached" in everything
    assert "648000 rows read = 648000 released + 0 withheld + 0 invalid + 0 duplicate" in everything
    assert "OK: every released value is shared as promised." in everything


def assert_shape_is_removed(demo: Path, said: str) -> None:
    """Assert that the demo's rows are of the public beat, that its summary says so, and that its picture has two wearers."""
    assert "OK: every row is one of the public beat at the beat times." in said
    beats = re.search(r"beats +([\d,]+), each released as the same public beat", said)
    released = [line for path in demo.glob("*.csv") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    assert beats is not None
    assert sum(line.endswith(",1000.0") for line in released) == int(beats[1].replace(",", "")) > 1500
    assert f"= {len(released):,} released" in said
    picture = (demo / "before_after.html").read_text(encoding="utf-8")
    assert all(words in picture for words in ("The shape removed, the rhythm kept", "mitbih-100", "mitbih-102"))


def test_the_env_files_of_the_quick_start_are_good_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "salt").write_text("8f41c09be7d2a6530f9e8b7c6d5a4e3107b6d92ce5a1f8436c0e97d2b4185fa3", encoding="utf-8")
    (tmp_path / "salt").chmod(0o600)
    blocks = re.findall(r"```ini\n(.*?)```", (ROOT / "documentation/QUICKSTART.md").read_text(encoding="utf-8"), re.DOTALL)
    recording = ROOT / "tests" / "inputs" / "recordings" / "mitbih_100.hea"

    for block, place in zip(blocks, (recording, ROOT / "examples" / "mitbih"), strict=True):
        text = re.sub(r"(?<=^INPUT_FILE=).*", str(place), block, flags=re.MULTILINE).replace("./", f"{tmp_path}/")
        (tmp_path / ".env").write_text(text, encoding="utf-8")
        (tmp_path / ".env").chmod(0o600)
        warnings = load(tmp_path / ".env", {}).warnings
        # A store in the clear is warned of, and nothing else.
        assert [one for one in warnings if not one.startswith("AWS_ENDPOINT_URL")] == []


def test_the_pages_have_commands_to_run() -> None:
    assert "make demo" in commands_of("README.md")
    assert ".venv/bin/python central_anonymizer.py" in commands_of("documentation/QUICKSTART.md")
    assert not any("influx " in command for command in commands_of("documentation/QUICKSTART.md"))
