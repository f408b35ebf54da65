"""The two tasks of a worker: anonymize a chunk into the spool, and deliver a spool file to an output.

A task may run more than once, on several workers, even after its result was used: so the same task gives the same file, and outputs
must accept a chunk twice. A task never raises: Dask would send exception messages through scheduler and logs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anonymizer.anonymize import Recipe
from anonymizer.batch import Batch
from anonymizer.errors import (
    BatchRejected,
    ConfigurationError,
    OutputDenied,
    OutputUnavailable,
    SourceDenied,
    SourceRefused,
    SourceUnavailable,
    StateUnavailable,
)
from anonymizer.ports import ChunkOutput, Output, Receipt
from anonymizer.samples import SampleSource
from anonymizer.windows import WindowRange
from service.delivery.write_pool import WritePool
from service.pipeline.chunks import Chunk, finish_chunk
from service.scale.answers import Code, answer_of, answer_of_delivery
from service.scale.confidential import Confidential, decode
from service.scale.fingerprint import Fingerprint, differences, fingerprint_of
from service.settings.declared import Settings
from service.settings.load import load
from service.startup import with_bucket_name
from service.state.shared_spool import SharedSpool
from service.state.spool import SpoolDamaged
from service.wiring.outputs import make_outputs, make_shared_spool
from service.wiring.recipe import load_hierarchy, make_recipe
from service.wiring.sources import make_source

#: The path of the worker's `.env`, if it is not `./.env`.
ENV_FILE_VARIABLE = "ECG_ANONYMIZER_ENV_FILE"

#: Outputs that any process may write to, repeatedly. CSV files grow and an API gets batches in order: the coordinator writes those.
WRITTEN_BY_WORKERS = frozenset({"influxdb", "parquet"})

Task = Mapping[str, Any]


class Unfit(Exception):
    """This worker differs from the coordinator; the message says how."""


def anonymize(task: Task) -> dict[str, Any]:
    """Count, read, anonymize and verify a chunk, and spool it; return counts and the spool file's name."""
    return _answered(_anonymize, task)


def deliver(task: Task) -> dict[str, Any]:
    """Write a spool file to an output; return its receipts, and which rows it refused."""
    return _answered(_deliver, task)


def _anonymize(task: Task) -> dict[str, Any]:
    workplace = _workplace_for(task)
    windows = WindowRange(*task["windows"])
    chunk = Chunk(windows, np.frombuffer(task["counted"], dtype=np.int64))
    exclusion = workplace.confidential(task["confidential"]).exclusion
    finished = finish_chunk(workplace.source, chunk, workplace.recipe, exclusion=lambda: exclusion)
    return answer_of(finished, workplace.spool.write(task["label"], finished.batches) if finished.batches else None)


def _deliver(task: Task) -> dict[str, Any]:
    workplace = _workplace_for(task)
    output = workplace.opened(task["output"], task["receipts"])
    return _written(output, workplace.spool.read(task["name"]))


def _written(output: Output, batches: Sequence[Batch]) -> dict[str, Any]:
    if isinstance(output, ChunkOutput):
        receipt = output.write_chunk(batches)
        return answer_of_delivery([] if receipt is None else [dict(receipt)], {})
    pool: WritePool[Batch, Receipt | BatchRejected | None] = WritePool(_writing(output), concurrency=output.concurrency)
    try:
        answers = pool.submit(batches).results()
    finally:
        pool.close()
    refused = {at: answer for at, answer in enumerate(answers) if isinstance(answer, BatchRejected)}
    return answer_of_delivery([dict(one) for one in answers if isinstance(one, Mapping)], refused)


def _writing(output: Output) -> Any:
    def write(batch: Batch) -> Receipt | BatchRejected | None:
        try:
            return output.write(batch)
        except BatchRejected as rejection:
            return rejection

    return write


@dataclass(slots=True)
class _Workplace:
    """What a worker keeps open during one run of the coordinator."""

    source: SampleSource
    recipe: Recipe
    spool: SharedSpool
    outputs: dict[str, Output]
    fingerprint: Fingerprint
    are_open: set[str] = field(default_factory=set)
    handed_over: dict[str, Confidential] = field(default_factory=dict)

    def opened(self, name: str, receipts: Mapping[str, Receipt]) -> Output:
        """Return an output, opened before its first use."""
        output = self.outputs[name]
        if name not in self.are_open:
            output.open(receipts)
            self.are_open.add(name)
        return output

    def confidential(self, name: str) -> Confidential:
        """Return what the coordinator has handed over under that name. Raises StateUnavailable."""
        if name not in self.handed_over:
            self.handed_over[name] = decode(self.spool.handed_over(name))
        return self.handed_over[name]


#: Sources and outputs serve one caller at a time; `dask worker` starts as many threads as there are cores unless told otherwise.
_one_at_a_time = threading.Lock()
_workplace: tuple[tuple[str, str], _Workplace] | None = None


def _workplace_for(task: Task) -> _Workplace:
    """Return the workplace of the coordinator's run; a new run opens everything anew.

    Raises:
        Unfit: This worker differs from the coordinator.
        StateUnavailable: What the coordinator has handed over cannot be read now.
    """
    global _workplace
    run = task["run"], task["label"]
    if _workplace is None or _workplace[0] != run:
        _close()
        _workplace = run, _set_up(task["label"])
    workplace = _workplace[1]
    _check_fits(task["fingerprint"], workplace.fingerprint.public)
    _check_fits(workplace.confidential(task["confidential"]).fingerprint, workplace.fingerprint.confidential)
    return workplace


def _check_fits(wanted: Mapping[str, str], found: Mapping[str, str]) -> None:
    if differing := differences(wanted, found):
        raise Unfit(
            f"A worker has another {'; another '.join(differing)}. Give every worker the .env, the code and the versions of the service"
        )


def _set_up(label: str) -> _Workplace:
    settings = worker_settings()
    spool, outputs = make_shared_spool(settings), [one for one in make_outputs(settings) if one.kind in WRITTEN_BY_WORKERS]
    recipe = make_recipe(settings, load_hierarchy(settings), label)
    source = make_source(settings, is_worker=True)
    source.open()
    return _Workplace(
        source=source,
        recipe=recipe,
        spool=spool,
        outputs={output.name: output for output in outputs},
        fingerprint=fingerprint_of(settings, source, recipe, outputs, spool.address),
    )


def worker_settings() -> Settings:
    """Return this worker's settings, from its `.env` and environment. Raises ConfigurationError."""
    return with_bucket_name(load(Path(os.environ.get(ENV_FILE_VARIABLE) or ".env"), os.environ).settings)


def _close() -> None:
    global _workplace
    if _workplace is not None:
        workplace, _workplace = _workplace[1], None
        workplace.source.close()
        for name in workplace.are_open:
            workplace.outputs[name].close()


#: The code for each expected exception; subclasses come before their base.
_CODES: tuple[tuple[type[Exception], Code], ...] = (
    (SourceDenied, Code.SOURCE_DENIED),
    (SourceUnavailable, Code.SOURCE_UNAVAILABLE),
    (SourceRefused, Code.SOURCE_REFUSED),
    (OutputDenied, Code.OUTPUT_DENIED),
    (OutputUnavailable, Code.OUTPUT_UNAVAILABLE),
    (StateUnavailable, Code.SPOOL_UNAVAILABLE),
    (SpoolDamaged, Code.SPOOL_DAMAGED),
    (ConfigurationError, Code.UNFIT),
    (Unfit, Code.UNFIT),
)


def _answered(work: Any, task: Task) -> dict[str, Any]:
    try:
        with _one_at_a_time:
            return dict(work(task))
    except Exception as error:  # noqa: BLE001  (Dask would show its message; only the service's own are sent, as answers)
        code = next((code for kind, code in _CODES if isinstance(error, kind)), Code.FAILED)
        said = type(error).__name__ if code is Code.FAILED else str(error)
        return {"code": str(code), "said": said, "retry_after_s": getattr(error, "retry_after_s", None)}
