"""`.dockerignore` decides what a build sees, and so what can end up in an image that is passed on."""

from __future__ import annotations

import pytest

from tests.deploy.docker_files import ROOT, context_files, is_ignored

DOCKERIGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8")

KEPT_OUT = """
.env .env.example .env.local .env.production service/.env service/pages/.env.old
docker-compose.override.yml secrets/influx_token service/tls.key inputs/server.pem
state/journal.sqlite3 state/spool/0001 output/ecg_anonymized_20251103_143000.csv output/demo-influx/.env heart_ledger.jsonl
recording.csv examples/mitbih/six_records.parquet
.git/config .git/objects/00/00 .venv/bin/python .hypothesis/examples/x .mypy_cache/3.11/x.json .pytest_cache/v/x
tests/core/conftest.py testbed/wearers.py documentation/DEPLOYMENT.md deploy/ecg-anonymizer.service
Dockerfile .dockerignore docker-compose.yml Makefile
anonymizer/__pycache__/batch.cpython-311.pyc service/pages/__pycache__/x.cpython-312.pyc outputs/csv_files.pyc
scripts/ingest_heartbeat.py something/not/listed/anywhere
"""

LET_IN = """
LICENSE central_anonymizer.py requirements.txt requirements-formats.txt requirements-rhythm.txt requirements-dask.txt
requirements.lock requirements-formats.lock requirements-rhythm.lock requirements-dask.lock
anonymizer/batch.py anonymizer/smarko_hierarchy_ecg.csv
detection/sleepecg_detector.py recognition/attackers.py disk/durable_file.py inputs/file_source.py outputs/csv_files.py
transport/influx_connection.py operations/audit.py
service/settings/declared.py service/report/template/report.html service/status/pages/index.html
scripts/report.py scripts/state.py scripts/heartbeat/ledger.py
"""


def test_only_what_the_service_is_made_of_gets_into_the_build() -> None:
    assert [path for path in KEPT_OUT.split() if not is_ignored(path, DOCKERIGNORE)] == []
    assert [path for path in LET_IN.split() if is_ignored(path, DOCKERIGNORE)] == []


def test_of_everything_that_lies_here_now_only_the_service_gets_into_the_build() -> None:
    tops = {path.partition("/")[0] for path in context_files(DOCKERIGNORE)}

    assert tops == {path.partition("/")[0] for path in LET_IN.split()}


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [
        # Answers of Docker's own matcher (moby/patternmatcher 0.6).
        ("a", "a", True),
        ("a/b", "a", True),
        ("b/a", "a", False),
        ("b/a", "**/a", True),
        ("c/b/a", "**/a", True),
        ("c/a/b", "**/a", True),
        ("a", "**/a", True),
        ("a/b", "*", True),
        ("a/b", "*\n!a", False),
        ("a/b", "*\n!a/", False),
        ("a/b", "*\n!a/b", False),
        ("a/c", "*\n!a/b", True),
        ("a/b", "!a\n*", True),
        ("a/.env", "*\n!a/\n**/.env", True),
        ("a/.env.x", "**/.env.*", True),
        ("a/.envx", "**/.env.*", False),
        ("a/b.key", "*.key", False),
        ("b.key", "*.key", True),
        ("a", "# a\n\n", False),
        ("a", "/a", True),
        ("ab", "a?", True),
    ],
)
def test_our_reading_of_the_patterns_is_dockers(path: str, patterns: str, expected: bool) -> None:
    assert is_ignored(path, patterns) is expected
