"""A worker's answer: a code, with counts or one of the service's messages. It contains no row, value or id, and no library message.

Arrays are sent as bytes: hundreds of windows take a few kilobytes and a millisecond to decode.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from anonymizer.anonymize import WindowResult, WindowStatistics
from anonymizer.batch import Certificate, WindowCounts
from anonymizer.errors import BatchRejected
from anonymizer.fidelity_sums import Fidelity
from anonymizer.hierarchy import SUPPRESSED_LEVEL
from anonymizer.samples import Contradictions
from anonymizer.units import UnitDoubts
from service.delivery.remote_output_worker import Delivered
from service.pipeline.chunks import Chunk, FinishedChunk
from service.state.shared_spool import Spooled, span_of

Answer = Mapping[str, Any]


class Code(enum.StrEnum):
    """How a task ended."""

    DONE = "done"
    SOURCE_UNAVAILABLE = "source unavailable"
    SOURCE_DENIED = "source denied"
    SOURCE_REFUSED = "source refused"
    OUTPUT_UNAVAILABLE = "output unavailable"
    OUTPUT_DENIED = "output denied"
    SPOOL_UNAVAILABLE = "spool unavailable"
    SPOOL_DAMAGED = "spool damaged"
    #: The worker's settings differ or are invalid: another worker must do the task.
    UNFIT = "unfit"
    #: An unexpected exception.
    FAILED = "failed"


class NotAnAnswer(Exception):
    """An answer does not fit the task."""


_COUNTS = len(WindowCounts.__slots__)
_LEVELS = SUPPRESSED_LEVEL + 1
_CERTIFIED = len(Certificate.__slots__)

#: Columns of a window: counts, rows by level, groups, coded, unchanged, contradictory, noisy, beats, whether it has a batch, and
#: its certificate.
_TOLD = 7
_WIDTH = _COUNTS + _LEVELS + _TOLD + _CERTIFIED


def answer_of(finished: FinishedChunk, spooled: Spooled | None) -> dict[str, Any]:
    """Return the answer for a finished chunk."""
    windows = np.array([_row_of(result) for result in finished.results], dtype=np.int64)
    found, units = finished.contradictions, finished.units
    contradictions = np.array([found.rows, found.contradicting, found.throughout, found.sources], dtype=np.int64)
    fidelity = sum((one.statistics.fidelity for one in finished.results if one.has_batch and one.statistics.fidelity), Fidelity())
    return {
        "code": str(Code.DONE),
        "windows": windows.tobytes(),
        "contradictions": contradictions.tobytes(),
        "units": [units.sources, units.still, units.apart],
        "chunk": [finished.violations, finished.outside, finished.without_source, finished.ids_like_formulas, finished.ids_alike],
        "fidelity": [fidelity.rows, fidelity.raw, fidelity.released, fidelity.together, fidelity.error],
        "spooled": None if spooled is None else [spooled.name, spooled.size_bytes],
    }


def finished_of(answer: Answer, chunk: Chunk, label: str, *, measures_fidelity: bool) -> FinishedChunk:
    """Return a chunk's results from a worker's answer.

    Args:
        answer: The answer.
        chunk: The chunk that was given to the worker.
        label: The data set's.
        measures_fidelity: Whether fidelity sums were requested.

    Raises:
        NotAnAnswer: It does not fit this chunk.
    """
    try:
        rows = _array(answer["windows"], _WIDTH, len(chunk.windows))
        contradictions = Contradictions(*_array(answer["contradictions"], len(chunk.windows), 4))
        violations, outside, without_source, formulas, alike = map(int, answer["chunk"])
        fidelity = Fidelity(*answer["fidelity"]) if measures_fidelity else None
        results = list(_results(rows, chunk, fidelity))
        spooled = None if answer["spooled"] is None else Spooled(str(answer["spooled"][0]), int(answer["spooled"][1]))
        units = UnitDoubts(*map(int, answer["units"]))
    except (KeyError, TypeError, ValueError) as error:
        raise NotAnAnswer(type(error).__name__) from None
    _check(results, spooled, label)
    return FinishedChunk(
        chunk, tuple(results), violations, outside, contradictions, units, without_source, formulas, alike, spooled=spooled
    )


def _row_of(result: WindowResult) -> list[int]:
    statistics, certificate = result.statistics, result.certificate
    certified = [0] * _CERTIFIED
    if certificate is not None:
        certified = [certificate.distinct_values, certificate.smallest_group, certificate.distinct_sources]
    told = [statistics.groups, statistics.coded, statistics.unchanged, statistics.contradictory, statistics.noisy]
    told += [statistics.beats, int(result.has_batch)]
    return [*result.counts.numbers(), *statistics.rows_at_level.tolist(), *told, *certified]


def _array(content: bytes, width: int, length: int) -> npt.NDArray[np.int64]:
    return np.frombuffer(content, dtype=np.int64).reshape(length, width)


def _results(rows: npt.NDArray[np.int64], chunk: Chunk, fidelity: Fidelity | None) -> Any:
    levels = rows[:, _COUNTS : _COUNTS + _LEVELS]
    for window, row, rows_at_level in zip(chunk.windows, rows.tolist(), levels, strict=True):
        groups, coded, unchanged, contradictory, noisy, beats, has_batch = row[_COUNTS + _LEVELS :][:_TOLD]
        of_window = None
        if fidelity is not None and has_batch:
            # The first window carries the sums of the whole chunk: they are only reported over many windows.
            of_window, fidelity = fidelity, Fidelity()
        yield WindowResult(
            window,
            WindowCounts(*row[:_COUNTS]),
            WindowStatistics(rows_at_level, groups, coded, unchanged, contradictory, noisy, of_window, beats),
            None,
            Certificate(*row[-_CERTIFIED:]) if has_batch else None,
        )


def _check(results: list[WindowResult], spooled: Spooled | None, label: str) -> None:
    """Raise NotAnAnswer if counts do not add up, or the spool file belongs to other windows."""
    released = [result for result in results if result.has_batch]
    if not all(result.counts.are_conserved() and (result.counts.released > 0) == result.has_batch for result in results):
        raise NotAnAnswer("its counts do not add up")
    found = span_of(spooled.name) if spooled else None
    expected = (label, released[0].window.start_ns, released[-1].window.end_ns) if released else None
    if found != expected:
        raise NotAnAnswer("its spool file belongs to other windows")


def answer_of_delivery(receipts: list[Any], refused: Mapping[int, BatchRejected]) -> dict[str, Any]:
    """Return the answer for a chunk written to an output."""
    rejections = {at: [str(one), None if one.rows is None else list(one.rows)] for at, one in refused.items()}
    return {"code": str(Code.DONE), "receipts": receipts, "refused": rejections}


def delivered_of(answer: Answer) -> Delivered:
    """Return the receipts and refusals in a worker's answer. Raises NotAnAnswer."""
    try:
        refused = {int(at): BatchRejected(str(said), rows=rows) for at, (said, rows) in answer["refused"].items()}
        return Delivered(tuple(dict(one) for one in answer["receipts"]), refused)
    except (KeyError, TypeError, ValueError) as error:
        raise NotAnAnswer(type(error).__name__) from None
