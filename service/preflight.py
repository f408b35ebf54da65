"""Checks of folders, hierarchy, proxies and servers before a run. They leave no file behind."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from anonymizer.errors import ConfigurationError, OutputUnavailable, SourceError, StateUnavailable
from anonymizer.ports import Output
from anonymizer.pseudonyms import MINIMUM_KEY_BYTES, key_id_of
from anonymizer.samples import SampleSource
from anonymizer.weak_keys import MAKE_ANOTHER, why_refused
from disk.durable_file import PASSING, sync_folder, why_not_appendable, why_not_writable
from service.log_event import WARNING, LogEvent
from service.pipeline.claims import CutOtherwise, refuse_rival_claims
from service.pipeline.exclusion_list import read_list
from service.settings.declared import Settings
from service.startup import SERVER, with_bucket_name
from service.state.settings_changes import last_key_id
from service.wiring.cuts import claimant_of, openers_of_cuts
from service.wiring.outputs import held_csv, make_outputs
from service.wiring.recipe import load_hierarchy, make_method, pseudonym_key
from service.wiring.servers import proxies_in_use
from service.wiring.sources import address_of_input, make_source, recordings_of
from transport.addresses import shown_address

_FOLDERS_NOT_SYNCED = LogEvent(
    "folders_not_synced",
    "⚠️ %s %s: its disk cannot make names of new files durable (it does not sync folders), so a power cut may lose a "
    "file that was just written. Put it on a local disk; a crash of the service alone loses nothing",
    "setting folder",
    logging.WARNING,
)


def connection_problems(settings: Settings) -> list[str]:
    """Open source and outputs once; return the problems, one sentence each.

    File outputs are skipped, since opening one creates its folder; `folder_problems` checks those instead.
    """
    problems = []
    try:
        settings = with_bucket_name(settings)
    except (ConfigurationError, SourceError) as error:
        problems.append(str(error))
        settings = dataclasses.replace(settings, output_to_influx=False)
    source, outputs = make_source(settings), make_outputs(settings)
    for opening in (source.open, *(_opening(output) for output in outputs if not _is_folder(settings, output))):
        try:
            opening()
        except (SourceError, OutputUnavailable) as error:
            problems.append(str(error))
    for remark in source.remarks:
        WARNING.log(remark)
    if source.data_set and not settings.input_file:
        problems += _problems_with_other_cuts(settings, source)
    if not problems and source.server:
        SERVER.log(source.server)
    return problems


def _problems_with_other_cuts(settings: Settings, source: SampleSource) -> Iterator[str]:
    """Yield where a service has a claim that cuts the bucket in another way; that an output cannot be asked is a warning."""
    claimant = claimant_of(settings, (source.data_set, source.data_set_address))
    for open_cuts in openers_of_cuts(settings):
        with open_cuts() as (_, store):
            try:
                refuse_rival_claims(store, claimant)
            except CutOtherwise as error:
                yield str(error)
            except (SourceError, OutputUnavailable) as error:
                if claimant.cohort:
                    WARNING.log(
                        f"Whether another service cuts the bucket in another way cannot be seen in {store.place}: {error}"
                    )


def later_connection_problems(settings: Settings) -> Iterator[str]:
    """Yield what a run finds out once it has something to send: an API that speaks https at an http address, a scheduler that is away."""
    if settings.output_to_api:
        from transport.tls_faults import expects_https  # imported only if used

        if fault := expects_https(settings.api_endpoint):
            yield f"API at {shown_address(settings.api_endpoint)} cannot be reached: {fault.text}"
    if settings.dask_scheduler:
        from service.scale.cluster import why_unreachable  # imported only if used: Dask takes half a second

        if reason := why_unreachable(settings):
            yield f"{reason}. Is it running, and are DASK_SCHEDULER and, with tls://, the files that DASK_TLS_… name those of it?"


def warn_of_unsynced_folders(settings: Settings) -> None:
    """Warn of each folder on a disk that cannot sync folders, whether or not the folder exists yet.

    A disk that fails here is ignored; the run waits for it when it needs it.
    """
    for name, folder in _folders(settings).items():
        with suppress(OSError):
            nearest = next(one for one in (Path(folder), *Path(folder).absolute().parents) if one.is_dir())
            if not sync_folder(nearest):
                _FOLDERS_NOT_SYNCED.log(name, folder)


def _folders(settings: Settings) -> dict[str, str]:
    """Return the folders that the service writes to, by setting."""
    folders = {"STATE_DIR": settings.state_dir}
    if settings.output_to_csv:
        folders["CSV_OUTPUT_DIR"] = settings.csv_output_dir
    if settings.output_to_parquet and "://" not in settings.parquet_url:
        folders["PARQUET_URL"] = settings.parquet_url
    return folders


def _is_folder(settings: Settings, output: Output) -> bool:
    return output.kind == "csv" or (output.kind == "parquet" and "PARQUET_URL" in _folders(settings))


def _opening(output: Output) -> Callable[[], None]:
    return lambda: output.open({})


#: Settings that select what is read from recordings.
_OF_RECORDINGS = ("INPUT_CHANNEL", "INPUT_SOURCE_ID", "INPUT_START_TIME")


def input_problems(settings: Settings) -> list[str]:
    """Return the problems of INPUT_FILE and of the settings for recordings, one sentence each."""
    try:
        address = address_of_input(settings)
    except ConfigurationError as error:
        return list(error.problems)
    if address is None and recordings_of(settings):
        return [*_problems_with_recordings(settings), *_service_folders_in(Path(settings.input_file), settings)]
    problems = [] if address is None or address.bucket else list(_service_folders_in(Path(address.root), settings))
    unused = [name for name in _OF_RECORDINGS if getattr(settings, name.lower()) not in ("", (), None)]
    if not unused:
        return problems
    names_what = "INPUT_FILE names none" if settings.input_file else "the samples come from InfluxDB"
    return [
        *problems,
        f"{', '.join(unused)} would have no effect: only recordings (EDF, BDF, WFDB, DICOM; not gzip-compressed) need it, and {names_what}",
    ]


def _problems_with_recordings(settings: Settings) -> Iterator[str]:
    if settings.k_unit == "source" and settings.method != "rhythm" and not settings.input_source_id:
        yield (
            "K_UNIT=source counts wearers, but the service never reads from a recording whose it is: set INPUT_SOURCE_ID to one name per "
            "file, the same one for files of the same wearer"
        )


def _service_folders_in(folder: Path, settings: Settings) -> Iterator[str]:
    """Yield which of the service's folders are in the input folder: the next run would read their files as input."""
    written = {"STATE_DIR": settings.state_dir} | ({"CSV_OUTPUT_DIR": settings.csv_output_dir} if settings.output_to_csv else {})
    for name, path in written.items():
        if folder.resolve() in (resolved := Path(path).resolve(), *resolved.parents):
            yield f"{name} is in the folder that INPUT_FILE names: put it elsewhere"


#: What workers need beyond the service, by the name of the module.
_FOR_WORKERS = ("distributed", "cryptography")


def exclusion_problems(settings: Settings) -> list[str]:
    """Return why EXCLUDED_SOURCES_FILE cannot be read now; a run waits for it."""
    try:
        if settings.excluded_sources_file:
            read_list(Path(settings.excluded_sources_file))
    except StateUnavailable as error:
        return [str(error)]
    return []


def worker_problems(settings: Settings) -> list[str]:
    """Return which Python packages workers need and are missing."""
    if not settings.dask_scheduler:
        return []
    # Looked for, not loaded: Dask takes half a second.
    missing = [name for name in _FOR_WORKERS if importlib.util.find_spec(name) is None]
    return [
        f"DASK_SCHEDULER needs the Python package {name}, which is not installed: pip install -r requirements-dask.txt"
        for name in missing
    ]


def retention_problems(settings: Settings) -> list[str]:
    """Return why RETENTION_DAYS could not be kept."""
    if settings.retention_days is None or not settings.output_to_csv or held_csv(settings).unit_ns:
        return []
    return [
        f"RETENTION_DAYS={settings.retention_days} cannot remove files named by CSV_FILENAME_PATTERN={settings.csv_filename_pattern}: a "
        "name that comes again on other days or hours, or holds a week or a month, does not tell when its last row was released. Put the "
        "whole date, and of the time no part without those before it, into it, such as ecg_%Y%m%d.csv or ecg_%Y%m%d_%H.csv"
    ]


def proxy_problems(settings: Settings) -> list[str]:
    """Return the problems of the variables that name proxies."""
    try:
        list(proxies_in_use(settings))
    except ConfigurationError as error:
        return list(error.problems)
    return []


def key_problems(settings: Settings) -> list[str]:
    """Return why the pseudonym key is not accepted. A weak key goes on where STATE_DIR's last releases were made under it."""
    key = settings.pseudonym_salt.key()
    reason = why_refused(key) if settings.pseudonymize_source_id else ""
    # A shorter key was never accepted, and is refused as the settings are read.
    if not reason or len(key) < MINIMUM_KEY_BYTES:
        return []
    try:
        if last_key_id(Path(settings.state_dir)) == key_id_of(pseudonym_key(settings)):
            return []
        not_known = ""
    except StateUnavailable as error:
        not_known = f" Whether earlier releases were made under it is not known: {error}."
    return [
        f"PSEUDONYM_SALT is refused: {reason}. A reader of one pseudonym could find it and then every wearer; {MAKE_ANOTHER}. Only where "
        f"STATE_DIR holds releases made under it does the service go on with such a key.{not_known}"
    ]


def method_problems(settings: Settings) -> list[str]:
    """Return the problems of the hierarchy and what the method lacks, one sentence each."""
    try:
        hierarchy = load_hierarchy(settings)
        if hierarchy is None:
            make_method(settings, hierarchy)
    except ConfigurationError as error:
        return list(error.problems)
    return []


def folder_problems(settings: Settings) -> list[str]:
    """Return why a folder of the service, or its audit log, cannot be used, one sentence each. Creates none."""
    return _folder_problems(settings, but_for=frozenset())


def lasting_folder_problems(settings: Settings) -> list[str]:
    """Return the same without faults that may pass: a run waits for a failing disk when it needs it."""
    return _folder_problems(settings, but_for=PASSING)


def _folder_problems(settings: Settings, *, but_for: Collection[int]) -> list[str]:
    folders = _folders(settings)
    reasons = {name: why_not_writable(Path(folder), but_for=but_for) for name, folder in folders.items()}
    if settings.audit_log:
        folders["AUDIT_LOG"] = settings.audit_log
        reasons["AUDIT_LOG"] = why_not_appendable(Path(settings.audit_log), but_for=but_for)
    return [f"{name} {folders[name]} cannot be written to ({reason})" for name, reason in reasons.items() if reason]
