"""The layers, written down: which module may import what, and why. Judges the text of a module; touches no file.

`operations → service → inputs, outputs, core → vocabulary`, with `transport` and `disk` below inputs and outputs. Within `service`, each
room has a contract of its own: `session → wiring → pipeline → delivery → telemetry → state → settings`. Imports count wherever they
stand, in a function or under `TYPE_CHECKING` too: what an output cannot import, it cannot pass on by mistake.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Every top-level module of the project.
PROJECT = _words(
    "anonymizer detection disk inputs outputs recognition transport service operations scripts utility examples benchmarks testbed tests "
    "central_anonymizer ecg_frames example_usage"
)

VOCABULARY = frozenset({"anonymizer.batch", "anonymizer.cohorts", "anonymizer.errors", "anonymizer.ports", "anonymizer.windows"})

#: Standard library modules that the core may use: they compute, and have no side effects.
PURE_STANDARD_LIBRARY = _words(
    "__future__ abc base64 binascii bisect codecs "
    "collections contextlib copy dataclasses enum fractions functools hashlib heapq hmac itertools json math "
    "numbers operator re statistics string struct textwrap types typing unicodedata zlib"
)

#: What an output may use besides the standard library: numpy, because a batch's columns are arrays, and its one client library.
CLIENT_LIBRARY = {
    "outputs/influxdb.py": frozenset[str](),
    "outputs/http_api.py": frozenset({"requests"}),
    "outputs/encoding.py": frozenset({"pyarrow"}),
    "outputs/csv_files.py": frozenset[str](),
    "outputs/csv_lines.py": frozenset[str](),
    "outputs/memory.py": frozenset[str](),
    "outputs/parquet_files.py": frozenset[str](),
    "outputs/parquet_encoding.py": frozenset({"pyarrow"}),
    "outputs/parquet_held.py": frozenset({"pyarrow"}),
    "outputs/parquet_removal.py": frozenset({"pyarrow"}),
    "outputs/csv_held.py": frozenset({"pyarrow"}),
    "outputs/parquet_places.py": frozenset[str](),
    "outputs/influx_claims.py": frozenset[str](),
    "outputs/parquet_claims.py": frozenset[str](),
}

#: Outputs that are more than one file: the modules that only they may use.
OWN_MODULES = {
    "outputs/influxdb.py": frozenset({"outputs.influx_lines", "outputs.influx_refusals"}),
    "outputs/influx_lines.py": frozenset({"outputs.placed_texts"}),
    "outputs/influx_refusals.py": frozenset({"outputs.influx_lines"}),
    "outputs/influx_claims.py": frozenset({"outputs.influx_lines"}),
    "outputs/parquet_claims.py": frozenset({"outputs.parquet_encoding", "outputs.parquet_places"}),
    "outputs/http_api.py": frozenset({"outputs.api_parts"}),
    "outputs/csv_files.py": frozenset({"outputs.committed_file", "outputs.csv_lines", "outputs.csv_names"}),
    "outputs/csv_lines.py": frozenset({"outputs.placed_texts"}),
    "outputs/parquet_files.py": frozenset({"outputs.parquet_encoding", "outputs.parquet_places"}),
    "outputs/parquet_held.py": frozenset({"outputs.parquet_encoding", "outputs.parquet_places"}),
    "outputs/parquet_removal.py": frozenset({"outputs.parquet_encoding", "outputs.parquet_held", "outputs.parquet_places"}),
    "outputs/csv_held.py": frozenset({"outputs.csv_names"}),
}

#: Modules that Windows does not have.
POSIX_ONLY = _words("crypt curses fcntl grp nis posix pty pwd readline resource spwd syslog termios tty")

#: Parts of numpy that use files or random numbers.
NUMPY_BANNED = _words(
    "DataSource ctypeslib fromfile fromregex genfromtxt load loadtxt memmap open_memmap random save savetxt savez savez_compressed"
)

#: The same as methods of an array.
METHODS_BANNED = frozenset({"dump", "tofile"})

#: Files that may import pandas: the module for notebooks, and what exercises it. All others run without it (decision 005).
PANDAS_ALLOWED = ("ecg_frames.py", "example_usage.py", "examples/", "benchmarks/", "tests/")

#: Files that may import Dask. All others run without it.
DASK_ALLOWED = ("service/scale/cluster.py", "service/scale/dask_log.py", "benchmarks/", "tests/")

#: Builtins that have side effects.
BUILTINS_BANNED = frozenset({"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"})

#: The composition root only connects parts. Above this length it probably does more.
ROOT_LINES_BELOW = 150


class Import(NamedTuple):
    """One module that is imported, and where."""

    line: int
    module: str
    #: Whether it happens as soon as the module is loaded, with no `if` or `try` around it.
    at_top: bool

    @property
    def package(self) -> str:
        """The top-level module it belongs to."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Layer:
    """What the modules of one layer may import.

    Args:
        why: The rule, as the end of a sentence.
        project: Modules of the project, each with all it contains.
        standard_library: Modules of the standard library; None for all.
        libraries: Third-party libraries; None for all.
    """

    why: str
    project: frozenset[str]
    standard_library: frozenset[str] | None = None
    libraries: frozenset[str] | None = None

    def allows(self, imported: Import) -> bool:
        """Return whether the layer may import that."""
        if imported.package in PROJECT:
            return any(imported.module == known or imported.module.startswith(known + ".") for known in self.project)
        if imported.package in sys.stdlib_module_names:
            return self.standard_library is None or imported.package in self.standard_library
        return self.libraries is None or imported.package in self.libraries


_NUMPY = frozenset({"numpy"})
_ABOVE = frozenset({"anonymizer", "detection", "disk", "inputs", "outputs", "recognition", "transport", "service"})

_VOCABULARY = Layer(
    "every layer may import the vocabulary, so it imports only itself, numpy and pure modules",
    VOCABULARY,
    PURE_STANDARD_LIBRARY,
    _NUMPY,
)
_SECOND_OPINION = Layer(
    "verification shares no code with what it checks: it knows the vocabulary, numpy and pure modules",
    VOCABULARY | {"anonymizer.verify_rhythm"},
    PURE_STANDARD_LIBRARY,
    _NUMPY,
)
_SECOND_OPINION_ON_RHYTHM = Layer(
    "verification of rhythm knows the vocabulary and the table of the public beat, and nothing that builds batches",
    VOCABULARY | {"anonymizer.public_beat"},
    PURE_STANDARD_LIBRARY,
    _NUMPY,
)
_CORE = Layer(
    "the core has no side effects: it imports numpy, pure modules of the standard library and itself",
    frozenset({"anonymizer"}),
    PURE_STANDARD_LIBRARY,
    _NUMPY,
)
_TRANSPORT = Layer(
    "transport moves bytes: it knows neither samples nor batches, nor anything else of the project", frozenset({"transport"})
)
_DISK = Layer(
    "what uses a disk knows bytes, paths and the standard library, nothing else of the project",
    frozenset({"disk"}),
    None,
    frozenset(),
)
_DETECTION = Layer(
    "a detector knows numpy, its library and the core's errors",
    frozenset({"anonymizer.errors", "detection"}),
    None,
    frozenset({"numpy", "sleepecg"}),
)
_RECOGNITION = Layer(
    "what measures recognition computes, like the core: it knows the core, whose port brings it a detector, and no world",
    frozenset({"anonymizer", "recognition"}),
    PURE_STANDARD_LIBRARY,
    _NUMPY,
)
_INPUT = Layer(
    "an input knows the core, transport, disk and its libraries, never an output or the service",
    frozenset({"anonymizer", "disk", "inputs", "transport"}),
)
_OUTPUT_KNOWS = VOCABULARY | {"outputs.encoding", "transport", "disk"}
_OUTPUT = "an output knows the vocabulary, outputs.encoding, transport, disk, numpy and its one client library"
_OUTPUT_TABLE = Layer("the table of outputs knows the vocabulary and the outputs", VOCABULARY | {"outputs"}, None, _NUMPY)
_SERVICE = Layer("the service knows every layer below it, and nothing that tests or operates it", _ABOVE)


def _room(why: str, project: str, *, more: frozenset[str] = frozenset()) -> Layer:
    """Return what one room of `service/` may import: those rooms of the service, and those modules of the project below it. All may log."""
    names = [name if "." in name or name in PROJECT else f"service.{name}" for name in ["log_event", *project.split()]]
    return Layer(why, frozenset(names) | more)


_BASE = Layer("every room builds on it, so it imports none of them", frozenset({"anonymizer.windows"}))

#: The rooms of the service, from the bottom up. Only `pipeline` and what puts parts together may name a sample.
ROOMS = {
    "service/exit_codes.py": _BASE,
    "service/crash_points.py": _BASE,
    "service/log_event.py": _BASE,
    "service/clock.py": _BASE,
    "service/time_texts.py": _BASE,
    "service/version.py": _BASE,
    "service/settings/": _room(
        "settings know what was asked for, and no part of the service that acts on it",
        "settings exit_codes time_texts version transport anonymizer.batch anonymizer.cohorts anonymizer.errors anonymizer.hierarchy "
        "anonymizer.pseudonyms anonymizer.weak_keys anonymizer.windows",
    ),
    "service/state/": _room(
        "state knows disks and releases: it reads no settings, reports to nothing, and cannot name a sample",
        "state crash_points time_texts disk transport.addresses transport.object_store anonymizer.pseudonyms",
        more=VOCABULARY,
    ),
    "service/telemetry/": _room(
        "telemetry records what happens: it controls nothing, and cannot name a sample",
        "telemetry state clock time_texts anonymizer.anonymize anonymizer.fidelity_sums anonymizer.hierarchy anonymizer.units",
        more=VOCABULARY,
    ),
    "service/retry.py": _room(
        "a retry knows the clock and telemetry, not the operation that is retried", "clock telemetry", more=VOCABULARY
    ),
    "service/signals.py": _room(
        "signal handlers stop the clock and flush the log; they know nothing of the run", "clock telemetry"
    ),
    "service/process.py": _room("how a process starts and ends does not depend on what runs in it", "exit_codes telemetry"),
    "service/delivery/": _room(
        "delivery knows released batches, state and outputs' contract; it cannot name a sample or a setting",
        "delivery state telemetry retry clock crash_points",
        more=VOCABULARY,
    ),
    "service/report/": _room(
        "the report knows counts and settings; it cannot name a sample",
        "report telemetry state settings clock time_texts version disk",
        more=VOCABULARY,
    ),
    "service/status/": _room(
        "the status page knows counts and settings; it cannot name a sample",
        "status telemetry state settings clock time_texts version anonymizer.hierarchy",
        more=VOCABULARY,
    ),
    "service/pipeline/": _room(
        "the pipeline brings windows from a source to delivery; it knows no output and no observer",
        "pipeline delivery retry telemetry state settings clock crash_points time_texts anonymizer inputs.window_summaries "
        "recognition",
    ),
    "service/retention/": _room(
        "what removes old files knows the journal and what outputs hold; it releases nothing and cannot name a sample",
        "retention telemetry state clock crash_points time_texts disk outputs.csv_held outputs.parquet_removal",
        more=VOCABULARY,
    ),
    "service/wiring/servers.py": _room(
        "where a server is and how it is reached depends on no source and no output", "settings transport anonymizer.errors"
    ),
    "service/wiring/recipe.py": _room(
        "how windows are anonymized depends on no source, output or journal", "settings anonymizer detection"
    ),
    "service/wiring/": _room(
        "wiring builds parts from settings; it starts none of them",
        "wiring pipeline retention telemetry state settings clock anonymizer inputs outputs transport",
    ),
    "service/recognition.py": _room(
        "the trial of recognition knows the source and the report's figures; it releases nothing",
        "wiring pipeline report telemetry state settings anonymizer recognition",
    ),
    "service/startup.py": _room(
        "the start checks settings and the source; it releases nothing", "wiring settings retry version anonymizer transport"
    ),
    "service/scale/answers.py": _room(
        "a worker's answer contains counts and messages: it knows no source, no settings and no journal",
        "pipeline delivery state anonymizer",
    ),
    "service/scale/fingerprint.py": _room(
        "the fingerprint is computed from settings and parts, and decides nothing", "wiring settings anonymizer"
    ),
    "service/scale/confidential.py": _room(
        "what workers must know and the scheduler must not goes through the spool", "service.state.shared_spool anonymizer"
    ),
    "service/scale/tasks.py": _room(
        "a worker's tasks know the source, the spool and outputs, never the journal: only the coordinator releases",
        "service.scale.answers service.scale.confidential service.scale.fingerprint startup wiring pipeline service.delivery.write_pool "
        "service.state.shared_spool service.state.spool settings anonymizer",
    ),
    "service/scale/dask_log.py": _room("what becomes of Dask's own lines depends on nothing of the service", ""),
    "service/scale/cluster.py": _room(
        "the connection to Dask carries tasks and answers: it knows neither samples nor releases",
        "service.scale.tasks service.scale.answers service.scale.dask_log settings retry telemetry clock anonymizer.errors",
    ),
    "service/scale/": _room(
        "what gives chunks to workers knows the pipeline, delivery and the spool; it releases nothing",
        "scale pipeline delivery retry telemetry state settings clock anonymizer",
    ),
    "service/preflight.py": _room(
        "a preflight check changes nothing: it knows no delivery, and of the state only its last key",
        "startup wiring settings service.state.settings_changes service.pipeline.claims service.pipeline.exclusion_list "
        "service.scale.cluster anonymizer disk transport",
    ),
    "service/first_look/": _room(
        "a first look reads a little and leaves no trace: it knows no state and no delivery",
        "first_look startup wiring settings anonymizer transport",
    ),
    "service/observation.py": _room(
        "observation knows the observers, and nothing that releases",
        "report status telemetry state settings clock",
        more=VOCABULARY,
    ),
    "service/session.py": _SERVICE,
    "service/__init__.py": _BASE,
}

_OPERATIONS = Layer(
    "what an operator runs knows the project, never the scripts that start it, the tests or the test bed", _ABOVE | {"operations"}
)
_ROOT = Layer("what starts the service knows its layers, and nothing that tests or maintains it", _ABOVE)
_SCRIPT = Layer(
    "a script knows the project and other scripts, never the tests or the test bed", _ABOVE | {"scripts", "operations"}
)
_OUTSIDE_CHECK = Layer(
    "the independent check of an output shares no code with the project and needs only Python, and pyarrow for Parquet",
    frozenset(),
    None,
    frozenset({"pyarrow"}),
)
_ADVICE = Layer(
    "the advice knows the project and what measures utility, never the tests or the test bed", _ABOVE | {"scripts", "utility"}
)
_UTILITY = Layer(
    "what measures utility knows the project as its users do, and the outside check, never the tests or the test bed",
    _ABOVE | {"utility", "scripts.verify_output"},
)
_EXAMPLE = Layer(
    "an example knows the project, never its scripts, tests or test bed",
    _ABOVE | {"examples", "central_anonymizer", "ecg_frames"},
)
_BENCHMARK = Layer(
    "a benchmark knows the project and the test bed, never the tests",
    _ABOVE | {"benchmarks", "testbed", "central_anonymizer", "ecg_frames"},
)
_FRAMES = Layer("frames know the project as its users do, never the tests or the test bed", _ABOVE | {"utility"})
_FIRST_EXAMPLE = Layer(
    "what starts the service knows its layers and frames, and nothing that tests or maintains it",
    _ABOVE | {"ecg_frames"},
)
_ANYTHING = Layer("tests, benchmarks and the test bed may import anything", PROJECT)

_LAYER_OF_FILE = {
    **{name.replace(".", "/") + ".py": _VOCABULARY for name in VOCABULARY},
    "anonymizer/verify.py": _SECOND_OPINION,
    "anonymizer/verify_rhythm.py": _SECOND_OPINION_ON_RHYTHM,
    "outputs/__init__.py": _OUTPUT_TABLE,
    "scripts/verify_output.py": _OUTSIDE_CHECK,
    "scripts/advise.py": _ADVICE,
    "central_anonymizer.py": _ROOT,
    "ecg_frames.py": _FRAMES,
    "example_usage.py": _FIRST_EXAMPLE,
}

_LAYER_OF_FOLDER = {
    "anonymizer": _CORE,
    "transport": _TRANSPORT,
    "detection": _DETECTION,
    "recognition": _RECOGNITION,
    "disk": _DISK,
    "inputs": _INPUT,
    "operations": _OPERATIONS,
    "scripts": _SCRIPT,
    "utility": _UTILITY,
    "examples": _EXAMPLE,
    "benchmarks": _BENCHMARK,
    "testbed": _ANYTHING,
    "tests": _ANYTHING,
}


def broken_rules(path: str, source: str) -> list[str]:
    """Return a sentence for every rule that the module at `path`, from the project's folder and with slashes, breaks.

    Args:
        path: Where the module stands, such as `outputs/influxdb.py`.
        source: Its text.
    """
    tree = ast.parse(source)
    imports = list(_imports(path, tree))
    found = [*_forbidden_imports(path, imports), *_posix_imports(path, imports)]
    if path.startswith(("anonymizer/", "recognition/")):
        found += chain(_banned_numpy(path, tree), _banned_calls(path, tree))
    if path.startswith("outputs/") and path != "outputs/__init__.py":
        found += _imports_by_name(path, tree)
    if path == "central_anonymizer.py" and (lines := len(source.splitlines())) >= ROOT_LINES_BELOW:
        found.append(f"{path} has {lines} lines: the composition root stays under {ROOT_LINES_BELOW}")
    return found


def _layer_of(path: str, imports: list[Import]) -> Layer | None:
    folder, slash, _ = path.partition("/")
    if path in _LAYER_OF_FILE or not slash:
        return _LAYER_OF_FILE.get(path)
    if folder == "service":
        return ROOMS.get(path) or ROOMS.get("/".join(path.split("/")[:2]) + "/")
    if folder != "outputs":
        return _LAYER_OF_FOLDER.get(folder)
    return Layer(
        _OUTPUT,
        _OUTPUT_KNOWS | OWN_MODULES.get(path, frozenset()),
        None,
        _NUMPY | CLIENT_LIBRARY.get(path, _first_library(imports)),
    )


def _first_library(imports: list[Import]) -> frozenset[str]:
    """Return the client library of an output that is not in the table: the first that it imports; a second is refused."""
    foreign = [one.package for one in imports if one.package not in PROJECT | sys.stdlib_module_names | _NUMPY]
    return frozenset(foreign[:1])


def _forbidden_imports(path: str, imports: list[Import]) -> Iterator[str]:
    layer = _layer_of(path, imports)
    if layer is None:
        yield f"{path} belongs to no layer: say in tests/architecture/layers.py what it may import"
        return
    for one in imports:
        if not layer.allows(one):
            yield f"{path} line {one.line} imports {one.module}: {layer.why}"
        elif one.package in ("pandas", "polars") and not path.startswith(PANDAS_ALLOWED):
            yield f"{path} line {one.line} imports {one.module}: only ecg_frames.py may; the service runs without it"
        elif one.package in ("dask", "distributed") and not path.startswith(DASK_ALLOWED):
            yield f"{path} line {one.line} imports {one.module}: only service/scale/cluster.py and dask_log.py may"


def _posix_imports(path: str, imports: list[Import]) -> Iterator[str]:
    for one in imports:
        if one.package in POSIX_ONLY and one.at_top:
            yield f"{path} line {one.line} imports {one.module} at its top: Windows has no such module, so it could not load this one"


def _imports(path: str, tree: ast.Module) -> Iterator[Import]:
    at_top = set(_nodes_at_top(tree))
    for node in ast.walk(tree):
        for module in _modules_named(path, node):
            yield Import(getattr(node, "lineno", 0), module, node in at_top)


def _nodes_at_top(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs unconditionally as soon as the module is loaded."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.If | ast.Try | ast.TryStar):
            yield from _nodes_at_top(child)


def _modules_named(path: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = _absolute(path, node)
        if module in PROJECT or not node.module:
            # `from anonymizer import samples` imports anonymizer.samples.
            yield from (f"{module}.{alias.name}" for alias in node.names)
        else:
            yield module
    elif isinstance(node, ast.Call) and _called(node) in {"__import__", "import_module"}:
        yield from (one.value for one in node.args[:1] if isinstance(one, ast.Constant) and isinstance(one.value, str))


def _absolute(path: str, node: ast.ImportFrom) -> str:
    """Return the module a `from … import` means, dots in front resolved."""
    if not node.level:
        return node.module or ""
    folders = path.split("/")[: -node.level]
    return ".".join([*folders, *([node.module] if node.module else [])])


def _called(node: ast.Call) -> str:
    """Return the last part of the name that is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _imports_by_name(path: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in {"__import__", "import_module"}:
            yield f"{path} line {node.lineno} imports by name: an output's imports must be visible in its source"


def _banned_numpy(path: str, tree: ast.Module) -> Iterator[str]:
    names = _names_of_numpy(tree)
    for node in ast.walk(tree):
        for used in _banned_parts_of_numpy(node, names):
            yield f"{path} line {getattr(node, 'lineno', 0)} uses {used}: the core reads and writes no file and uses no random numbers"
        if isinstance(node, ast.Attribute) and node.attr in METHODS_BANNED:
            yield f"{path} line {node.lineno} uses .{node.attr}: the core writes no file"


def _names_of_numpy(tree: ast.Module) -> frozenset[str]:
    """Return the names that numpy goes by in a module."""
    aliases = (alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names)
    return frozenset(alias.asname or "numpy" for alias in aliases if alias.name.partition(".")[0] == "numpy")


def _banned_parts_of_numpy(node: ast.AST, names: frozenset[str]) -> Iterator[str]:
    """Yield the banned parts of numpy that one node imports, or names by its last part (the parts before are nodes of their own)."""
    if isinstance(node, ast.Import):
        imported = [alias.name for alias in node.names if alias.name.startswith("numpy.")]
    elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "numpy":
        imported = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        imported = []
    yield from (name for name in imported if NUMPY_BANNED.intersection(name.split(".")))
    if isinstance(node, ast.Attribute) and node.attr in NUMPY_BANNED and _first_name(node) in names:
        yield ast.unparse(node)


def _first_name(node: ast.expr) -> str:
    """Return `np` of `np.lib.format`; nothing where it does not begin with a name."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _banned_calls(path: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILTINS_BANNED:
            yield f"{path} line {node.lineno} calls {node.func.id}: the core has no side effects"
