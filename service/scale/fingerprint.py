"""What a worker must have in common with the coordinator, part by part: settings, data set, targets, code and versions.

A worker loads its own `.env`. One with another VALUE_UNIT would release values times 1000; so each task carries the coordinator's
fingerprint, and a worker with another refuses it and says in what it differs.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from anonymizer.anonymize import Recipe
from anonymizer.ports import Output
from anonymizer.pseudonyms import keyed_digest
from anonymizer.samples import SampleSource
from service.settings.declared import Settings
from service.wiring.data_set import parquet_label, selection_digest
from service.wiring.recipe import pseudonym_key

#: Packages that determine what is released.
_PACKAGES = ("anonymizer", "detection", "disk", "inputs", "outputs", "service", "transport")

_ROOT = Path(__file__).resolve().parents[2]

_DIGITS = 16

#: Names of parts in refusals.
_KEY = "PSEUDONYMIZE_SOURCE_ID or PSEUDONYM_SALT"
_SHAPE = (
    "a setting that shapes values (K_VALUE, K_UNIT, BATCH_SIZE_SECONDS, METHOD, MAX_LEVEL, RESIDUAL, IMPUTATION, the hierarchy)"
)

#: Settings that shape files and points, besides the outputs' names.
_OF_OUTPUTS = ("parquet_partition", "output_file_mode", "influx_measurement", "influx_field", "source_tag")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A digest of each part, by its name in messages.

    Args:
        public: Those that tasks carry.
        confidential: Those that could be matched by guessing: of ids in filters, and of a file's digest.
    """

    public: Mapping[str, str]
    confidential: Mapping[str, str]


def fingerprint_of(
    settings: Settings, source: SampleSource, recipe: Recipe, outputs: Sequence[Output], spool_address: str
) -> Fingerprint:
    """Return the fingerprint.

    Args:
        settings: The settings.
        source: Open.
        recipe: How windows are anonymized.
        outputs: Those that workers write to.
        spool_address: Where workers spool.
    """
    targets = [sorted(output.name for output in outputs), *(getattr(settings, name) for name in _OF_OUTPUTS)]
    public: dict[str, object] = {
        _KEY: recipe.promise.key_id,
        _SHAPE: recipe.promise.settings_digest,
        "VALUE_UNIT": settings.value_unit,
        "an output, or where it goes": targets,
        # Files of two names would hold the same rows.
        "path of INPUT_FILE": parquet_label(settings) if settings.output_to_parquet else "",
        "SPOOL_URL": spool_address,
        "UTILITY_METRICS": settings.utility_metrics,
        "the program's code": _code(),
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
        # Another version may find other beats.
        "sleepecg": version("sleepecg") if settings.method == "rhythm" else "",
    }
    confidential: dict[str, object] = {
        "DEVICE_FILTER, INFLUX_TAG_FILTER or INPUT_CHANNEL": selection_digest(settings),
        "INFLUX_RETENTION_POLICY": settings.influx_retention_policy,
        "QUERY_START_TIME or QUERY_END_TIME": [settings.query_start_time, settings.query_end_time],
        "INPUT_SOURCE_ID or INPUT_START_TIME": [settings.input_source_id, settings.input_start_time],
        "COHORT_TAG or COHORT": [settings.cohort_tag, settings.cohort],
        "the data set": source.data_set,
    }
    key = pseudonym_key(settings) if settings.pseudonymize_source_id else b""
    return Fingerprint(_digests(key, public), _digests(key, confidential))


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return the parts in which two fingerprints differ."""
    names = list(dict.fromkeys((*wanted, *found)))
    differing = [name for name in names if wanted.get(name) != found.get(name)]
    # With another key, every digest differs.
    return differing[:1] if _KEY in differing and len(differing) == len(names) else differing


def _digests(key: bytes, parts: Mapping[str, object]) -> dict[str, str]:
    return {name: _digest(key, name, part) for name, part in parts.items()}


def _digest(key: bytes, name: str, part: object) -> str:
    text = json.dumps([name, part]).encode()
    return (keyed_digest(key, b"\0" + text) if key else hashlib.sha256(text).hexdigest())[:_DIGITS]


@cache
def _code() -> str:
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
