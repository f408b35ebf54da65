"""Encodes samples as InfluxDB line protocol. Independent of the service's encoder, so that tests do not share its mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class SeriesNames:
    """Names of measurement, field and tag of raw samples; the defaults are the service's."""

    measurement: str = "ecg"
    field: str = "ecg"
    source_tag: str = "source_id"


def line_protocol(
    sources: Sequence[str],
    *,
    source_index: npt.NDArray[np.integer],
    values_uv: npt.NDArray[np.integer],
    times_ns: npt.NDArray[np.int64],
    names: SeriesNames,
) -> bytes:
    """Return one line per sample, in the order given.

    Args:
        sources: The source ids.
        source_index: Each sample's index into `sources`, shape (n,).
        values_uv: Whole microvolts, shape (n,); written as floats, the type of the service's output.
        times_ns: Nanoseconds since 1970, UTC, shape (n,).
        names: Names of measurement, field and tag.
    """
    if times_ns.size == 0:
        return b""
    heads = pa.array([_head(source, names) for source in sources]).take(pa.array(source_index))
    values = pc.cast(pa.array(values_uv), pa.string())
    times = pc.cast(pa.array(times_ns), pa.string())
    lines = pc.binary_join_element_wise(heads, values, ".0 ", times, "\n", "")
    # Each line includes its line end, so the column's buffer is the whole text.
    text: bytes = lines.buffers()[2].to_pybytes()
    return text


def _head(source: str, names: SeriesNames) -> str:
    measurement = names.measurement.replace(",", r"\,").replace(" ", r"\ ")
    return f"{measurement},{_escaped(names.source_tag)}={_escaped(source)} {_escaped(names.field)}="


def _escaped(name: str) -> str:
    for special in ",= ":
        name = name.replace(special, "\\" + special)
    return name
