"""What the data set is called: its labels in batch ids and in Parquet files, and the digest of what is read of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

from anonymizer.cohorts import label_at, place_of
from anonymizer.pseudonyms import derived_key, key_id_of, keyed_digest
from anonymizer.samples import SampleSource
from service.settings.declared import Settings
from service.state.journal import Journal
from service.wiring.recipe import pseudonym_key


def data_set_label(settings: Settings, source: SampleSource, journal: Journal) -> str:
    """Return the data set's label in batch ids, which every reader sees; the source must be open.

    A reader who knows all of a file but one value could try values until the file's plain digest matches. So the digest is keyed: with the
    pseudonym key, so that the label is the same wherever the file is released. Without pseudonyms it begins with a digest of the file's or
    folder's path, by which releases are found again if the journal is lost; the rest is the journal's, so that no two services have one
    label. A journal keeps the label it has released under, also if the file is another one now.
    """
    if not source.data_set_tells_samples:
        return journal.facts.data_set or source.data_set
    if settings.pseudonymize_source_id:
        key = pseudonym_key(settings)
        return _label_under(key, source, journal) or journal.facts.labels().get(key_id_of(key), source.data_set)
    if remembered := journal.facts.labels().get(""):
        return remembered
    key = journal.facts.name.encode()
    if journal.epochs.has_key(""):
        # A version that remembered no labels derived it from the journal's secret name alone.
        return _label_under(key, source, journal) or source.data_set
    return label_at(_digest_of_path(_place_of_input(settings)), keyed_digest(key, b"\0label")[:12])


def _label_under(key: bytes, source: SampleSource, journal: Journal) -> str:
    """Return the label that a key makes of the input file as it was at first; empty if it is another file now."""
    first = journal.facts.first_version(source.data_set, source.earlier_version)
    return "" if first is None else keyed_digest(key, f"\0data set {first}".encode())[:12]


def _place_of_input(settings: Settings) -> str:
    """Return the real path of the file or folder that INPUT_FILE names; of a glob that of its folder."""
    from inputs.data_set_address import data_set_address

    address = data_set_address(settings.input_file)
    return os.path.realpath(settings.input_file if address is None else address.root)


@lru_cache(maxsize=8)
def _digest_of_path(path: str) -> str:
    """Return a digest of a path, 12 hexadecimal digits. Readers see it, so it is slow: a guess takes some 50 ms."""
    salt = b"ecg-anonymizer path of an input"
    return hashlib.scrypt(path.encode(errors="surrogateescape"), salt=salt, n=1 << 14, r=8, p=1, dklen=6).hex()


def data_set_labels(settings: Settings, source: SampleSource, journal: Journal) -> tuple[str, ...]:
    """Return every label, or beginning of one, that the data set may have in batch ids.

    That of a bucket depends on whether a token could see its id, that of a file on which journal released it, under which pseudonym key.
    """
    label = data_set_label(settings, source, journal)
    if not source.data_set_tells_samples:
        return tuple(dict.fromkeys((label, source.data_set, source.data_set_address)))
    places = () if settings.pseudonymize_source_id else (place_of(label), _digest_of_path(_place_of_input(settings)))
    return tuple(dict.fromkeys((label, *places, *_earlier_labels(settings, journal))))


def _earlier_labels(settings: Settings, journal: Journal) -> Iterator[str]:
    """Yield the labels that a file was released under: those of other keys, and in Parquet files without pseudonyms that of its path."""
    for key_id, label in journal.facts.labels().items():
        yield label
        # Without pseudonyms, `parquet_label` is one of the labels anyway.
        if not key_id and settings.pseudonymize_source_id and (of_path := _label_of_path(settings)):
            yield of_path


def _label_of_path(settings: Settings) -> str:
    """Return the label of a single input file's path; empty if there is none."""
    if not (settings.input_file and Path(settings.input_file).is_file()):
        return ""
    return hashlib.sha256(f"file {os.path.realpath(settings.input_file)}".encode(errors="surrogateescape")).hexdigest()[:12]


def parquet_label(settings: Settings) -> str:
    """Return the label in Parquet files of a single input file without pseudonyms; empty: that of batch ids.

    Every version derived it from the file's path, so that released files are found again if the journal is lost.
    """
    return "" if settings.pseudonymize_source_id else _label_of_path(settings)


def parquet_labels(settings: Settings, labels: Collection[str]) -> tuple[str, ...]:
    """Return the labels of the data set in Parquet files, given all that it may have in batch ids."""
    own = parquet_label(settings)
    return tuple(dict.fromkeys((*([own] if own else []), *labels)))


def selection_digest(settings: Settings) -> str:
    """Return a digest of the sources and series that are read, 16 hexadecimal digits. Counts under different digests are not comparable."""
    selection: list[object] = [sorted(settings.device_filter), sorted(settings.influx_tag_filter)]
    if settings.input_channel:
        selection.append(settings.input_channel)
    return hashlib.sha256(json.dumps(selection).encode()).hexdigest()[:16]


def filters_in(journal: Journal, settings: Settings) -> str:
    """Return the digest under which a journal knows the current filters; the one that form 4 made is replaced."""
    plain = selection_digest(settings)
    if settings.pseudonymize_source_id:
        key_of_form_4 = derived_key(pseudonym_key(settings), "digests in the journal")
        journal.epochs.replace_digest_of_filters(key_of_form_4, plain, journal.facts.digests)
    return journal.facts.digests.of_filters(plain)
