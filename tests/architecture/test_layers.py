"""The layers are a promise about imports. This reads every import of every module, and each broken rule fails with a sentence.

The rules themselves are in `layers.py`. Every one of them is also broken on purpose here, to see that it would be noticed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.layers import (
    CLIENT_LIBRARY,
    PROJECT,
    PURE_STANDARD_LIBRARY,
    ROOMS,
    ROOT_LINES_BELOW,
    VOCABULARY,
    broken_rules,
)

ROOT = Path(__file__).resolve().parents[2]

#: Folders that hold no module of the project.
NOT_OURS = frozenset({"build", "output", "state"})


def paths_of_modules() -> list[str]:
    """Return every Python file of the project, as a path from its folder with slashes."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in NOT_OURS and not path.name.startswith(".")]
    modules = [*ROOT.glob("*.py"), *(module for folder in folders for module in folder.rglob("*.py"))]
    return sorted(path.relative_to(ROOT).as_posix() for path in modules)


def test_every_module_keeps_to_its_layer() -> None:
    modules = {path: (ROOT / path).read_text(encoding="utf-8") for path in paths_of_modules()}
    sentences = [sentence for path, source in modules.items() for sentence in broken_rules(path, source)]

    assert not sentences, "\n" + "\n".join(sentences)


def test_every_layer_was_found() -> None:
    found = {path.partition("/")[0] for path in paths_of_modules()}

    assert {"anonymizer", "inputs", "outputs", "service", "scripts", "tests", "central_anonymizer.py"} <= found
    assert {name.replace(".", "/") + ".py" for name in VOCABULARY} <= set(paths_of_modules())


def test_a_room_of_the_service_may_only_import_rooms_below_it() -> None:
    names = [path.removesuffix(".py").rstrip("/").replace("/", ".") for path in ROOMS]

    for height, (name, room) in enumerate(zip(names, ROOMS.values(), strict=True)):
        if "service" not in room.project:  # the session, which stands above all
            below = (*names[:height], name)
            of_service = [one for one in room.project if one.startswith("service.")]
            assert not [one for one in of_service if not any(f"{one}.".startswith(f"{lower}.") for lower in below)]


def test_every_package_of_the_project_is_known_as_such() -> None:
    # A package that is not would count as a library, and be allowed where libraries are.
    packages = {path.partition("/")[0].removesuffix(".py") for path in paths_of_modules()}

    assert packages <= PROJECT, f"say in tests/architecture/layers.py what may import {sorted(packages - PROJECT)}"


def test_the_core_may_use_no_module_with_side_effects() -> None:
    impure = "os pathlib io time logging socket random secrets subprocess threading multiprocessing asyncio sys shutil sqlite3 datetime"

    assert not PURE_STANDARD_LIBRARY.intersection(impure.split())


BROKEN = [
    # The core
    ("anonymizer/anonymize.py", "import os", "imports os: the core has no side effects"),
    ("anonymizer/anonymize.py", "import os.path", "imports os.path: the core"),
    ("anonymizer/anonymize.py", "from pathlib import Path", "imports pathlib: the core"),
    ("anonymizer/anonymize.py", "import numpy as np, time", "imports time: the core"),
    ("anonymizer/anonymize.py", "import io", "imports io: the core"),
    ("anonymizer/anonymize.py", "import logging", "imports logging: the core"),
    ("anonymizer/anonymize.py", "import socket", "imports socket: the core"),
    ("anonymizer/anonymize.py", "import random", "imports random: the core"),
    ("anonymizer/anonymize.py", "import subprocess", "imports subprocess: the core"),
    ("anonymizer/anonymize.py", "import threading", "imports threading: the core"),
    ("anonymizer/anonymize.py", "import sys", "imports sys: the core"),
    ("anonymizer/anonymize.py", "from datetime import datetime", "imports datetime: the core"),
    ("anonymizer/anonymize.py", "def late():\n    import os", "line 2 imports os: the core"),
    ("anonymizer/anonymize.py", "if TYPE_CHECKING:\n    from pathlib import Path", "line 2 imports pathlib: the core"),
    ("anonymizer/anonymize.py", "import pyarrow as pa", "imports pyarrow: the core"),
    ("anonymizer/anonymize.py", "from service.settings.declared import Settings", "imports service.settings.declared: the core"),
    ("anonymizer/anonymize.py", "from inputs import file_source", "imports inputs.file_source: the core"),
    ("anonymizer/anonymize.py", "from ..outputs import memory", "imports outputs.memory: the core"),
    ("anonymizer/a_new_one.py", "import os", "imports os: the core"),
    ("anonymizer/anonymize.py", "import importlib", "imports importlib: the core"),
    ("anonymizer/anonymize.py", "__import__('os')", "imports os: the core"),
    # The vocabulary, and verification
    (
        "anonymizer/batch.py",
        "from anonymizer.samples import Samples",
        "imports anonymizer.samples: every layer may import the vocabulary",
    ),
    (
        "anonymizer/ports.py",
        "from anonymizer import samples",
        "imports anonymizer.samples: every layer may import the vocabulary",
    ),
    ("anonymizer/errors.py", "from . import anonymize", "imports anonymizer.anonymize: every layer may import the vocabulary"),
    ("anonymizer/windows.py", "import time", "imports time: every layer may import the vocabulary"),
    (
        "anonymizer/verify.py",
        "from anonymizer.microaggregation import optimal_groups",
        "imports anonymizer.microaggregation: verification",
    ),
    ("anonymizer/verify.py", "from anonymizer.samples import Samples", "imports anonymizer.samples: verification"),
    # Files and chance in the core
    ("anonymizer/anonymize.py", "import numpy as np\nnp.load('x')", "line 2 uses np.load: the core reads and writes no file"),
    ("anonymizer/anonymize.py", "import numpy as np\nnp.save('x', 1)", "line 2 uses np.save: the core"),
    ("anonymizer/anonymize.py", "import numpy as np\nnp.random.default_rng()", "line 2 uses np.random: the core"),
    ("anonymizer/anonymize.py", "import numpy\nkeep = numpy.savez_compressed", "line 2 uses numpy.savez_compressed: the core"),
    (
        "anonymizer/anonymize.py",
        "import numpy as n\nn.lib.format.open_memmap('x')",
        "line 2 uses n.lib.format.open_memmap: the core",
    ),
    ("anonymizer/anonymize.py", "import numpy as np\nnp.genfromtxt('x')", "line 2 uses np.genfromtxt: the core"),
    ("anonymizer/anonymize.py", "from numpy import load", "uses numpy.load: the core"),
    ("anonymizer/anonymize.py", "from numpy.random import default_rng", "uses numpy.random.default_rng: the core"),
    ("anonymizer/anonymize.py", "import numpy.random", "uses numpy.random: the core"),
    ("anonymizer/anonymize.py", "rows.values_uv.tofile('x')", "uses .tofile: the core writes no file"),
    ("anonymizer/anonymize.py", "open('x')", "calls open: the core has no side effects"),
    ("anonymizer/anonymize.py", "def f():\n    print(1)", "line 2 calls print: the core"),
    # Outputs
    (
        "outputs/csv_files.py",
        "from anonymizer.samples import Samples",
        "imports anonymizer.samples: an output knows the vocabulary",
    ),
    ("outputs/csv_files.py", "from anonymizer import samples", "imports anonymizer.samples: an output"),
    ("outputs/csv_files.py", "import anonymizer.samples as s", "imports anonymizer.samples: an output"),
    ("outputs/csv_files.py", "from ..anonymizer import samples", "imports anonymizer.samples: an output"),
    ("outputs/csv_files.py", "import anonymizer", "imports anonymizer: an output"),
    ("outputs/csv_files.py", "from anonymizer import *", "imports anonymizer.*: an output"),
    (
        "outputs/csv_files.py",
        "if TYPE_CHECKING:\n    from anonymizer.samples import Samples",
        "line 2 imports anonymizer.samples: an output",
    ),
    ("outputs/csv_files.py", "from anonymizer.anonymize import anonymize_chunk", "imports anonymizer.anonymize: an output"),
    ("outputs/csv_files.py", "from inputs.file_source import FileSource", "imports inputs.file_source: an output"),
    ("outputs/csv_files.py", "from service.settings.declared import Settings", "imports service.settings.declared: an output"),
    ("outputs/csv_files.py", "from outputs.http_api import HttpApi", "imports outputs.http_api: an output"),
    ("outputs/csv_files.py", "from outputs import memory", "imports outputs.memory: an output"),
    ("outputs/csv_files.py", "from . import memory", "imports outputs.memory: an output"),
    ("outputs/csv_files.py", "from .memory import MemoryOutput", "imports outputs.memory: an output"),
    (
        "outputs/csv_files.py",
        "import importlib\nimportlib.import_module('anonymizer.samples')",
        "imports anonymizer.samples: an output",
    ),
    ("outputs/csv_files.py", "import importlib\nimportlib.import_module(name)", "imports by name"),
    ("outputs/csv_files.py", "import requests", "imports requests: an output"),
    ("outputs/influxdb.py", "import requests", "imports requests: an output"),
    ("outputs/http_api.py", "from influxdb_client import Point", "imports influxdb_client: an output"),
    ("outputs/memory.py", "import pyarrow", "imports pyarrow: an output"),
    ("outputs/a_new_one.py", "import boto3\nimport pyarrow", "imports pyarrow: an output"),
    ("outputs/encoding.py", "import pandas", "imports pandas: an output"),
    ("outputs/__init__.py", "from anonymizer.samples import Samples", "imports anonymizer.samples: the table of outputs"),
    # Inputs and transport
    ("inputs/file_source.py", "from outputs.memory import MemoryOutput", "imports outputs.memory: an input"),
    ("inputs/file_source.py", "from service.settings import declared", "imports service.settings: an input"),
    ("inputs/file_source.py", "import scripts.anonymize", "imports scripts.anonymize: an input"),
    ("transport/influx_connection.py", "from anonymizer.batch import Batch", "imports anonymizer.batch: transport moves bytes"),
    ("transport/influx_connection.py", "from outputs.encoding import joined", "imports outputs.encoding: transport"),
    # What is made to try, test or maintain
    ("service/pipeline/release_loop.py", "from testbed.wearers import Wearers", "imports testbed.wearers: the pipeline"),
    (
        "service/pipeline/release_loop.py",
        "from scripts.anonymize import anonymize_data",
        "imports scripts.anonymize: the pipeline",
    ),
    (
        "service/pipeline/release_loop.py",
        "import tests.core.plain_anonymizer",
        "imports tests.core.plain_anonymizer: the pipeline",
    ),
    ("service/pipeline/release_loop.py", "import central_anonymizer", "imports central_anonymizer: the pipeline"),
    ("central_anonymizer.py", "from testbed import replay", "imports testbed.replay: what starts the service"),
    ("example_usage.py", "from tests.core import plain_anonymizer", "imports tests.core: what starts the service"),
    ("scripts/anonymize.py", "from testbed import replay", "imports testbed.replay: a script"),
    ("scripts/verify_output.py", "from anonymizer.verify import verify", "imports anonymizer.verify: the independent check"),
    ("scripts/verify_output.py", "import requests", "imports requests: the independent check"),
    ("service/pipeline/release_loop.py", "from benchmarks import growth", "imports benchmarks.growth: the pipeline"),
    ("service/pipeline/release_loop.py", "from utility import records", "imports utility.records: the pipeline"),
    ("scripts/state.py", "from utility import records", "imports utility.records: a script"),
    ("scripts/advise.py", "from testbed import wearers", "imports testbed.wearers: the advice"),
    ("utility/records.py", "from testbed import sample_ecg", "imports testbed.sample_ecg: what measures utility"),
    ("utility/records.py", "from tests.core import both_ways", "imports tests.core: what measures utility"),
    ("benchmarks/growth.py", "from tests.core import both_ways", "imports tests.core: a benchmark"),
    ("examples/demo.py", "from scripts import anonymize", "imports scripts.anonymize: an example"),
    # The rooms of the service, each broken once
    ("service/clock.py", "from service.telemetry import hub", "imports service.telemetry: every room builds on it"),
    ("service/exit_codes.py", "from anonymizer import errors", "imports anonymizer.errors: every room builds on it"),
    (
        "service/settings/load.py",
        "from service.wiring.sources import make_source",
        "imports service.wiring.sources: settings know",
    ),
    ("service/state/journal.py", "from service.telemetry.hub import Telemetry", "imports service.telemetry.hub: state knows"),
    ("service/state/spool.py", "from anonymizer.samples import Samples", "imports anonymizer.samples: state knows"),
    (
        "service/state/fence.py",
        "from service.settings.declared import Settings",
        "imports service.settings.declared: state knows",
    ),
    (
        "service/telemetry/log_lines.py",
        "from service.delivery import output_worker",
        "imports service.delivery: telemetry records",
    ),
    ("service/telemetry/totals.py", "from anonymizer import samples", "imports anonymizer.samples: telemetry records"),
    (
        "service/retry.py",
        "from service.delivery.output_worker import OutputWorker",
        "imports service.delivery.output_worker: a retry knows",
    ),
    ("service/signals.py", "from service import session", "imports service.session: signal handlers stop"),
    ("service/process.py", "from service.session import serve", "imports service.session: how a process starts"),
    ("service/delivery/output_worker.py", "from anonymizer.samples import Samples", "imports anonymizer.samples: delivery knows"),
    ("service/delivery/outbox.py", "from service.pipeline import chunks", "imports service.pipeline: delivery knows"),
    ("service/delivery/output_worker.py", "from outputs.csv_files import CsvFiles", "imports outputs.csv_files: delivery knows"),
    ("service/report/figures.py", "from anonymizer.samples import Samples", "imports anonymizer.samples: the report"),
    ("service/status/board.py", "from service.pipeline.chunks import Chunk", "imports service.pipeline.chunks: the status page"),
    ("service/pipeline/release_loop.py", "from service.status.board import Board", "imports service.status.board: the pipeline"),
    ("service/pipeline/chunks.py", "from outputs import memory", "imports outputs.memory: the pipeline"),
    ("service/wiring/recipe.py", "from inputs.file_source import FileSource", "imports inputs.file_source: how windows"),
    ("service/wiring/sources.py", "from service.session import serve", "imports service.session: wiring builds"),
    (
        "service/wiring/loop.py",
        "from service.delivery.delivery import Delivery",
        "imports service.delivery.delivery: wiring builds",
    ),
    ("service/startup.py", "from service.state.journal import Journal", "imports service.state.journal: the start"),
    ("service/preflight.py", "from service.state.spool import Spool", "imports service.state.spool: a preflight check"),
    ("service/observation.py", "from service.pipeline import release_loop", "imports service.pipeline: observation knows"),
    ("service/a_new_one.py", "", "belongs to no layer"),
    ("service/session.py", "from operations import audit", "imports operations.audit: the service"),
    ("operations/audit.py", "from scripts import state", "imports scripts.state: what an operator runs"),
    # pandas, and what brings it
    ("inputs/file_source.py", "import pandas as pd", "imports pandas: only ecg_frames.py may"),
    ("service/pipeline/release_loop.py", "def late():\n    from pandas import DataFrame", "line 2 imports pandas: only ecg"),
    (
        "service/pipeline/release_loop.py",
        "from ecg_frames import anonymize_frame",
        "imports ecg_frames.anonymize_frame: the pipeline",
    ),
    ("central_anonymizer.py", "import ecg_frames", "imports ecg_frames: what starts the service"),
    ("scripts/advise.py", "import pandas.api.types", "imports pandas.api.types: only ecg"),
    ("utility/records.py", "import pandas", "imports pandas: only ecg"),
    ("ecg_frames.py", "from tests.core import both_ways", "imports tests.core: frames know"),
    # Everywhere
    ("service/pipeline/release_loop.py", "import fcntl", "imports fcntl at its top: Windows has no such module"),
    ("scripts/a_new_one.py", "from pwd import getpwnam", "imports pwd at its top"),
    ("testbed/tether.py", "import resource", "imports resource at its top"),
    ("tests/core/test_x.py", "import termios", "imports termios at its top"),
    ("inputs/file_source.py", "class Lock:\n    import grp", "line 2 imports grp at its top"),
    ("central_anonymizer.py", "\n" * ROOT_LINES_BELOW, "has 150 lines: the composition root stays under 150"),
    ("a_new_one.py", "", "belongs to no layer"),
    ("a_new_folder/one.py", "", "belongs to no layer"),
]


@pytest.mark.parametrize(("path", "source", "sentence"), BROKEN, ids=[f"{path}: {source[:50]!r}" for path, source, _ in BROKEN])
def test_a_broken_rule_is_noticed(path: str, source: str, sentence: str) -> None:
    sentences = broken_rules(path, source)

    assert any(sentence in one for one in sentences), sentences
    assert all(one.startswith(path) for one in sentences)


KEPT = [
    (
        "anonymizer/anonymize.py",
        "from __future__ import annotations\nfrom collections.abc import Iterator\nimport numpy.typing as npt",
    ),
    ("anonymizer/anonymize.py", "from anonymizer import samples\nfrom .windows import Window\nfrom . import batch"),
    ("anonymizer/anonymize.py", "import numpy as np\nnp.sort(x); np.lib.stride_tricks.as_strided(x)"),
    ("anonymizer/anonymize.py", "self.load(x); self.random.choice()"),
    ("anonymizer/batch.py", "from anonymizer.windows import Window"),
    ("anonymizer/verify.py", "from anonymizer.batch import Batch\nfrom anonymizer import errors"),
    ("outputs/influxdb.py", "import os, threading\nimport numpy as np\nimport numpy.typing as npt"),
    (
        "outputs/influxdb.py",
        "from anonymizer import batch, errors\nfrom outputs import encoding\nfrom .encoding import joined\nfrom transport import influxdb",
    ),
    ("outputs/http_api.py", "import requests\nfrom requests.adapters import HTTPAdapter"),
    ("outputs/a_new_one.py", "import boto3\nfrom boto3.session import Session"),
    ("outputs/__init__.py", "from outputs import csv_files, http_api\nfrom anonymizer.ports import Output"),
    (
        "inputs/file_source.py",
        "import pyarrow.csv\nfrom anonymizer.samples import Samples\nfrom inputs.flux_csv import read_tables",
    ),
    (
        "service/pipeline/release_loop.py",
        "from anonymizer.samples import Samples\nfrom service.delivery import delivery",
    ),
    ("service/pipeline/release_loop.py", "def lock():\n    import fcntl"),
    ("service/pipeline/release_loop.py", "import sys\nif sys.platform != 'win32':\n    import fcntl"),
    ("service/pipeline/release_loop.py", "try:\n    import fcntl\nexcept ImportError:\n    pass"),
    (
        "scripts/ingest_heartbeat.py",
        "from scripts.anonymize import anonymize_data\nfrom anonymizer.pseudonyms import keyed_digest",
    ),
    ("tests/core/test_x.py", "from testbed import wearers\nfrom scripts import anonymize\nimport tests.core.both_ways"),
    ("testbed/replay.py", "from testbed.wearers import Wearers\nimport requests"),
    ("central_anonymizer.py", "\n" * (ROOT_LINES_BELOW - 1)),
    ("ecg_frames.py", "import pandas as pd\nfrom service.wiring.recipe import make_recipe"),
    ("example_usage.py", "import pandas as pd\nfrom ecg_frames import anonymize_frame"),
]


@pytest.mark.parametrize(("path", "source"), KEPT, ids=[f"{path}: {source[:50]!r}" for path, source in KEPT])
def test_what_is_allowed_is_not_taken_for_a_break(path: str, source: str) -> None:
    assert broken_rules(path, source) == []


def test_the_table_of_client_libraries_names_only_outputs_that_exist() -> None:
    assert set(CLIENT_LIBRARY) <= set(paths_of_modules())
