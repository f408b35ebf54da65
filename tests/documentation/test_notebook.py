"""The notebook runs from a fresh clone, its kept outputs are what it prints today, and it stays small; NOTEBOOKS.md says what is so."""

from __future__ import annotations

import base64
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import ecg_frames
from anonymizer.errors import ConfigurationError, SourceRefused
from tests.documentation.pages import DOCUMENTATION, ROOT, anchors_of, links_in, table_with, text_of

PAGE = DOCUMENTATION / "NOTEBOOKS.md"
OPERATIONS = DOCUMENTATION / "OPERATIONS.md"
NOTEBOOK = ROOT / "examples" / "anonymized_ecg.ipynb"

MOST_BYTES = 300_000

#: Runs the notebook in a folder and writes it there, in a process of its own: the kernel's libraries warn of what is no business of ours.
#: By sockets of the file system: a port that is free now may be taken when the kernel has started. A busy kernel prints in pieces.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

notebook = nbformat.read(sys.argv[1], as_version=4)
config = Config(KernelManager={"transport": "ipc", "ip": sys.argv[3] + ".kernel"})
more = {"resources": {"metadata": {"path": sys.argv[2]}}, "config": config}
NotebookClient(notebook, kernel_name="python3", timeout=300, coalesce_streams=True, **more).execute()
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


def test_the_first_example_on_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    first = re.findall(r"```python\n(.*?)```", text_of(PAGE), re.DOTALL)[0]
    names: dict[str, Any] = {}

    exec(first, names)

    assert names["certificate"].counts.released == len(names["released"]) == 648_000


def test_every_argument_on_the_page_exists_and_every_name_of_the_module_is_there() -> None:
    arguments = inspect.signature(ecg_frames.anonymize_frame).parameters
    text = text_of(PAGE)

    assert set(re.findall(r"`(\w+)=", text)) <= {*arguments}
    assert {name for name in arguments if f"`{name}`" in text or f"{name}=" in text} == {*arguments} - {"frame"}
    for name in ("anonymize_frame", "verify_frame", "read_released", "advise_frame", "Bucket"):
        assert name in text
    for link in links_in(PAGE):
        path, _, anchor = link.partition("#")
        assert (DOCUMENTATION / path).exists(), link
        assert not anchor or anchor in anchors_of(DOCUMENTATION / path), link


def test_every_refusal_in_the_troubleshooting_table_of_notebooks_is_worded_so() -> None:
    times = pd.Series(pd.date_range("2025-10-26T02:30", periods=20, freq="1s"))
    frame = pd.DataFrame({"timestamp": times, "source_id": "a", "ecg": range(20)})
    good = frame.assign(timestamp=times.dt.tz_localize("UTC"))
    provoked: list[tuple[pd.DataFrame, dict[str, Any]]] = [
        (frame, {}),
        (frame, {"zone": "Europe/Vienna"}),
        (good.rename(columns={"ecg": "lead_I"}), {}),
        (
            good.set_index("source_id", drop=False).rename_axis("who"),
            {"pseudonym_key": b"8f41c09be7d2a6530f9e8b7c6d5a4e3107b6d92ce5a1f8436c0e97d2b4185fa3"},
        ),
        (good.assign(timestamp=good["timestamp"].iloc[0]), {}),
    ]

    for row, (given, arguments) in zip(table_with(OPERATIONS, "notebook", "why", "do"), provoked, strict=True):
        sentence = ".*".join(map(re.escape, row["notebook"].strip("`").split("…")))
        with pytest.raises((ConfigurationError, SourceRefused), match=sentence):
            ecg_frames.anonymize_frame(given, **arguments)
