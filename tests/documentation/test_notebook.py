"""The notebook runs from a fresh clone, its kept outputs are what it prints today, and it stays small."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.documentation.pages import ROOT

NOTEBOOK = ROOT / "examples" / "anonymized_ecg.ipynb"

MOST_BYTES = 300_000

#: Runs the notebook in a folder and writes it there, in a process of its own: the kernel's libraries warn of what is no business of ours.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


def outputs(notebook: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what each cell put out, with its kind: texts as they are, of pictures only that there is one."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                assert base64.b64decode("".join(data["image/png"])).startswith(b"\x89PNG")
                yield "picture", ""
            elif data:
                yield "value", "".join(data["text/plain"])
            else:
                yield output.get("name", output["output_type"]), "".join(output.get("text", ()))


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """The notebook as it stands in the repository."""
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return found


def test_the_notebook_runs_and_prints_what_is_kept_in_it(kept: dict[str, Any], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(NOTEBOOK), str(NOTEBOOK.parent), str(tmp_path / "ran.ipynb")],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )

    assert ran.returncode == 0, ran.stderr
    fresh = json.loads((tmp_path / "ran.ipynb").read_text(encoding="utf-8"))
    assert list(outputs(fresh)) == list(outputs(kept))


def test_the_notebook_is_small_and_holds_nothing_of_the_machine_it_ran_on(kept: dict[str, Any]) -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    kinds = [kind for kind, _ in outputs(kept)]

    assert len(text.encode()) < MOST_BYTES
    assert kinds.count("picture") == 3
    assert "stderr" not in kinds
    assert "error" not in kinds
    assert "/home/" not in text
    assert str(ROOT) not in text
    assert kept["metadata"]["language_info"] == {"name": "python"}
    assert all(not cell["metadata"] for cell in kept["cells"])
