"""The coordinator's side: keeps workers busy with chunks, and takes their answers in the order of the plan."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from anonymizer.anonymize import Recipe
from anonymizer.errors import (
    OutputDenied,
    OutputUnavailable,
    SourceDenied,
    SourceRefused,
    SourceUnavailable,
    StateUnavailable,
    WorkersUnavailable,
)
from anonymizer.exclusion import Exclusion
from anonymizer.ports import Output, Receipt
from anonymizer.samples import SampleSource
from service.delivery.remote_output_worker import Delivered
from service.pipeline.chunks import Chunk, FinishedChunk
from service.scale import tasks
from service.scale.answers import Answer, Code, NotAnAnswer, delivered_of, finished_of
from service.scale.cluster import Call, Cluster
from service.scale.confidential import NONE_EXCLUDED, HandOver
from service.scale.fingerprint import fingerprint_of
from service.settings.declared import Settings
from service.state.shared_spool import SharedSpool
from service.state.spool import SpoolDamaged

_T = TypeVar("_T")

#: Deliveries go first: released chunks fill the spool until every output has them.
_DELIVERY_FIRST = 1


@dataclass(frozen=True, slots=True)
class Run:
    """What every task of a run carries: enough for a worker to check that it fits; no token, key, id or sample.

    Args:
        name: Random, so that workers reopen the source for each run.
        label: The data set's, in batch ids.
        fingerprint: What a worker must have in common with the coordinator.
        hand_over: Gives workers what tasks must not carry.
        measures_fidelity: Whether workers sum up fidelity figures.
    """

    name: str
    label: str
    fingerprint: Mapping[str, str]
    hand_over: HandOver
    measures_fidelity: bool

    def task(self, *, exclusion: Exclusion = NONE_EXCLUDED, **more: object) -> dict[str, Any]:
        """Return a task of this run. Raises StateUnavailable if SPOOL_URL cannot be used now."""
        confidential = self.hand_over.name_for(exclusion)
        return {
            "run": self.name,
            "label": self.label,
            "fingerprint": dict(self.fingerprint),
            "confidential": confidential,
            **more,
        }


def make_run(settings: Settings, source: SampleSource, recipe: Recipe, outputs: Sequence[Output], spool: SharedSpool) -> Run:
    """Return the run; the source must be open. Raises StateUnavailable if SPOOL_URL cannot be used now."""
    written = [output for output in outputs if output.kind in tasks.WRITTEN_BY_WORKERS]
    fingerprint = fingerprint_of(settings, source, recipe, written, spool.address)
    hand_over = HandOver(spool, recipe.data_set, fingerprint.confidential)
    # Deliveries carry this one, which from now on is there.
    hand_over.name_for(NONE_EXCLUDED)
    return Run(secrets.token_hex(8), recipe.data_set, fingerprint.public, hand_over, recipe.measures_fidelity)


class Chunks:
    """Has workers anonymize chunks.

    Args:
        cluster: The workers.
        run: What tasks carry.
        exclusion: Returns whose rows are not released now; raises StateUnavailable while that is unknown.
    """

    def __init__(self, cluster: Cluster, run: Run, exclusion: Callable[[], Exclusion] = lambda: NONE_EXCLUDED) -> None:
        self._cluster = cluster
        self._run = run
        self._exclusion = exclusion

    def in_order(self, chunks: Iterable[Chunk]) -> Iterator[_Anonymizing]:
        """Yield every chunk in order, while workers process later ones."""
        waiting, under_way = iter(chunks), deque[_Anonymizing]()
        while True:
            while len(under_way) < self._cluster.most_at_a_time() and (chunk := next(waiting, None)) is not None:
                under_way.append(_Anonymizing(self._cluster, self._run, chunk, self._exclusion))
            if not under_way:
                return
            yield under_way.popleft()


class _Anonymizing:
    """A chunk that workers anonymize; empty chunks are not submitted."""

    def __init__(self, cluster: Cluster, run: Run, chunk: Chunk, exclusion: Callable[[], Exclusion]) -> None:
        self.chunk = chunk
        self._cluster = cluster
        self._run = run
        self._exclusion = exclusion
        self._excluded: Exclusion | None = None
        self._call: Call | None = None
        if not chunk.is_empty:
            # While it is unknown who is excluded, or SPOOL_URL does not take it, `finish` raises, and submits the task later.
            with suppress(StateUnavailable):
                self._begin(exclusion())

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Return once it is finished or has failed."""
        if self._call is not None:
            self._call.wait(meanwhile)

    def finish(self) -> FinishedChunk:
        """Return the results; the chunk is anonymized again if another source has been excluded meanwhile."""
        while True:
            excluded = self._exclusion()
            if self._call is None or excluded != self._excluded:
                self._begin(excluded)
            assert self._call is not None, "it has begun"
            finished = _read(
                self._run,
                self._call,
                lambda answer: finished_of(answer, self.chunk, self._run.label, measures_fidelity=self._run.measures_fidelity),
            )
            if self._exclusion() == excluded:
                return finished

    def _begin(self, excluded: Exclusion) -> None:
        if self._call is not None:
            self._call.forget()
        windows = self.chunk.windows
        task = self._run.task(
            windows=[windows.start_ns, windows.end_ns, windows.length_ns],
            counted=self.chunk.counted.tobytes(),
            exclusion=excluded,
        )
        self._excluded, self._call = excluded, Call(self._cluster, tasks.anonymize, task)


class OutputCourier:
    """Has workers write to one output.

    Args:
        cluster: The workers.
        run: What tasks carry.
        output: The output's name.
    """

    def __init__(self, cluster: Cluster, run: Run, output: str) -> None:
        self._cluster = cluster
        self._run = run
        self._output = output

    def begin(self, name: str, receipts: Mapping[str, Receipt]) -> _Delivering:
        """Have the spool file of that name written."""
        task = self._run.task(name=name, output=self._output, receipts={key: dict(one) for key, one in receipts.items()})
        return _Delivering(self._run, Call(self._cluster, tasks.deliver, task, priority=_DELIVERY_FIRST))

    def most_at_a_time(self) -> int:
        """Return how many chunks may be in progress."""
        return self._cluster.most_at_a_time()


@dataclass(frozen=True, slots=True)
class _Delivering:
    """A chunk that workers write to an output."""

    run: Run
    call: Call

    def wait(self) -> None:
        """Return once it is answered or has failed."""
        self.call.wait()

    def answer(self) -> Delivered:
        """Return the receipts and refusals."""
        return _read(self.run, self.call, delivered_of)


def _read(run: Run, call: Call, read: Callable[[Answer], _T]) -> _T:
    """Return the decoded answer, or raise the worker's error; the next call submits the task again."""
    answer = call.answer()
    if answer.get("code") == Code.DONE:
        try:
            return read(answer)
        except NotAnAnswer as error:
            call.forget()
            raise WorkersUnavailable(f"a worker's answer cannot be used: {error}") from None
    call.forget()
    if answer.get("code") == Code.SPOOL_UNAVAILABLE:
        run.hand_over.put_again()
    raise _exception_of(answer)


def _exception_of(answer: Answer) -> Exception:
    code, said = str(answer.get("code")), str(answer.get("said"))
    kinds: Mapping[str, type[Exception]] = {
        Code.SOURCE_UNAVAILABLE: SourceUnavailable,
        Code.SOURCE_DENIED: SourceDenied,
        Code.SOURCE_REFUSED: SourceRefused,
        Code.OUTPUT_DENIED: OutputDenied,
        Code.SPOOL_UNAVAILABLE: StateUnavailable,
        Code.SPOOL_DAMAGED: SpoolDamaged,
    }
    if code == Code.OUTPUT_UNAVAILABLE:
        return OutputUnavailable(said, retry_after_s=answer.get("retry_after_s"))
    kind = kinds.get(code)
    return WorkersUnavailable(f"a worker met an unexpected error ({said})") if kind is None else kind(said)
