from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.service_process import run_service
from tests.scale.recording import ALONE, Files, files_in, make_recording, settings_for

SECONDS = 240


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "raw.csv"
    make_recording(path, seconds=SECONDS)
    return path


@pytest.fixture(scope="session")
def undisturbed(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, log = run_service(folder, settings_for(recording, folder), environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert code == 0, log
    assert re.search(r"\| +service\.session$", log, re.MULTILINE), "imports are logged"
    # Nothing of Dask is loaded without the setting.
    assert not re.search(r"\| +(dask|distributed|service\.scale)\b", log)
    files = files_in(folder)
    assert len(files) > 40, "many chunks"
    assert not any(ALONE.encode() in content for content in files.values())
    return files
