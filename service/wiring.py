"""Builds the source, recipe, outputs and schedule from the settings. Creates no folder and contacts no server."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from anonymizer.anonymize import Method, Names, Recipe
from anonymizer.batch import Promise
from anonymizer.cohorts import Cohort, base_of, label_at, place_of
from anonymizer.errors import ConfigurationError, SourceDenied, SourceUnavailable
from anonymizer.hierarchy import Hierarchy, HierarchyProblem, parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.optimal_anonymizer import OptimalAnonymizer
from anonymizer.ports import Output
from anonymizer.pseudonyms import KeptIds, Pseudonymizer, derived_key, key_id_of, keyed_digest, stretched
from anonymizer.public_beat import TEMPLATE_DIGEST
from anonymizer.rhythm_anonymizer import BeatDetector, RhythmAnonymizer
from anonymizer.samples import SampleSource
from anonymizer.windows import NANOSECONDS
from detection.sleepecg_detector import SleepecgDetector
from recognition.trial import Way
from service.clock import Clock
from service.pipeline.claims import Claimant
from service.pipeline.cut_guard import CutGuard, OpenCuts
from service.pipeline.recounts import Recounts
from service.pipeline.schedule import Schedule, SpanRequest, Stream, first_position_ns, make_span
from service.pipeline.upkeep import Upkeep
from service.settings.declared import SHIPPED_HIERARCHY, Settings, cohort_of
from service.settings.load import RHYTHM_WINDOW_S
from service.settings.types import Secret
from service.state.journal import Journal
from service.state.trail import Trail
from service.telemetry.hub import Telemetry
from transport.addresses import canonical_address
from transport.proxies import UnusableProxy, proxy_for

if TYPE_CHECKING:
    from inputs.data_set_address import DataSetAddress
    from inputs.recordings.folder import Recordings
    from inputs.window_summaries import WindowSummaries
    from outputs.csv_held import HeldCsv
    from outputs.influx_claims import InfluxClaims
    from outputs.influxdb import InfluxTarget
    from outputs.parquet_claims import ParquetClaims
    from outputs.parquet_held import HeldParquet
    from outputs.parquet_places import Place
    from service.retention.places import Place as RetentionPlace
    from service.retention.sweep import Retention
    from service.state.shared_spool import SharedSpool
    from transport.influx_connection import InfluxConnection
    from transport.influx_versions import Address
    from transport.object_store import StoreAccess

_T = TypeVar("_T")

#: Services that are started together have all asked within this time.
_SETTLE_S = 2.0

_MICROVOLTS = {"uV": 1.0, "mV": 1000.0}


def make_source(
    settings: Settings, token: Secret | None = None, *, index_file: Path | None = None, is_worker: bool = False
) -> SampleSource:
    """Return the source that the settings name, not yet open.

    Args:
        settings: The settings.
        token: Replaces INFLUX_TOKEN.
        index_file: The file that caches the index of a data set; None: no cache.
        is_worker: Whether it is read by one Dask worker of many, after the coordinator has surveyed it.
    """
    # Imported only if used: importing the database client takes half a second.
    if not settings.input_file:
        return _make_influx_source(settings, token)
    address = address_of_input(settings)
    return _make_file_source(settings) if address is None else _make_data_set(settings, address, index_file, is_worker=is_worker)


def address_of_input(settings: Settings) -> DataSetAddress | None:
    """Return the address of the data set that INPUT_FILE names; None if it names a file or recordings.

    Raises:
        ConfigurationError: It is an address of an unsupported kind.
    """
    from inputs.data_set_address import data_set_address

    try:
        address = data_set_address(settings.input_file) if settings.input_file else None
    except ValueError as error:
        raise ConfigurationError(f"INPUT_FILE {error}") from None
    return None if address is not None and not address.bucket and recordings_of(settings) else address


def _make_file_source(settings: Settings) -> SampleSource:
    from inputs.file_source import FileSource

    return FileSource(
        Path(settings.input_file),
        sources=settings.device_filter,
        microvolts_per_unit=_MICROVOLTS[settings.value_unit],
        start_ns=settings.query_start_time,
        end_ns=settings.query_end_time,
        recordings=recordings_of(settings),
    )


def _make_data_set(settings: Settings, address: DataSetAddress, index_file: Path | None, *, is_worker: bool) -> SampleSource:
    from inputs.data_set import DataSetSource, Use
    from inputs.data_set_parts import Folder, PartStore

    store: PartStore = Folder(Path(address.root), address.is_requested(), address.pattern)
    if address.bucket:
        from inputs.data_set_bucket import BucketFolder
        from transport.object_store import ObjectStore

        store = BucketFolder(
            lambda: ObjectStore(address.bucket, store_access(settings), timeout_s=settings.parquet_timeout_seconds),
            address.root,
            address.is_requested(),
            address.pattern,
        )
    return DataSetSource(
        store,
        sources=settings.device_filter,
        microvolts_per_unit=_MICROVOLTS[settings.value_unit],
        start_ns=settings.query_start_time,
        end_ns=settings.query_end_time,
        index_file=index_file,
        use=Use.PARTS if is_worker else Use.PLAN if settings.dask_scheduler else Use.WHOLE,
    )


def _make_influx_source(settings: Settings, token: Secret | None) -> SampleSource:
    from inputs.influx_dialect import InfluxSeries
    from inputs.influx_source import InfluxSource
    from transport.influx_connection import InfluxConnection

    used = token or settings.influx_token
    address = _address(settings, settings.influx_url, settings.influx_org, used, policy=settings.influx_retention_policy)
    cohort = cohort_of(settings)
    series = InfluxSeries(
        bucket=settings.influx_input_bucket,
        measurement=settings.influx_measurement,
        field=settings.influx_field,
        source_tag=settings.source_tag,
        sources=settings.device_filter,
        tags=(*settings.influx_tag_filter, *([(cohort.tag, cohort.value)] if cohort else [])),
        cohort=cohort,
        microvolts_per_unit=_MICROVOLTS[settings.value_unit],
    )
    return InfluxSource(InfluxConnection(address, used.current), series)


def recordings_of(settings: Settings) -> Callable[[], Recordings] | None:
    """Return a function that opens the recordings that INPUT_FILE names; None if it names none."""
    from inputs.recordings.paths import recordings_at

    if not (settings.input_file and recordings_at(settings.input_file)):
        return None
    from inputs.recordings.folder import RecordingSettings, opener_of

    wanted = RecordingSettings(
        channel=settings.input_channel,
        source_ids=settings.input_source_id,
        start_ns=settings.input_start_time,
        given_unit="" if settings.value_unit == "uV" else settings.value_unit,
    )
    return opener_of(settings.input_file, wanted)


def _make_csv(settings: Settings) -> Output:
    from outputs.csv_files import CsvFiles

    folder, pattern = Path(settings.csv_output_dir), settings.csv_filename_pattern
    return CsvFiles(folder, pattern, file_mode=settings.output_file_mode, is_alone=True)


def _make_influxdb(settings: Settings) -> Output:
    from outputs.influxdb import InfluxOutput
    from transport.influx_connection import InfluxConnection

    token: Secret = settings.influx_output_token or settings.influx_token
    return InfluxOutput(InfluxConnection(output_address(settings, token), token.current), influx_target(settings))


def influx_target(settings: Settings) -> InfluxTarget:
    """Return where rows and summaries go in the output bucket."""
    from outputs.influxdb import InfluxTarget

    cohort = cohort_of(settings)
    return InfluxTarget(
        bucket=settings.influx_output_bucket,
        measurement=settings.influx_measurement,
        field=settings.influx_field,
        source_tag=settings.source_tag,
        lines_per_write=settings.influx_write_batch_size,
        summary_tags=cohort.tags if cohort else (),
    )


def output_address(settings: Settings, token: Secret) -> Address:
    """Return the address of the output server, to be used with a token."""
    url = settings.influx_output_url or settings.influx_url
    return _address(settings, url, settings.influx_output_org or settings.influx_org, token)


def _address(settings: Settings, url: str, org: str, token: Secret, *, policy: str = "") -> Address:
    from transport.influx_versions import Address

    # Another token than the usual one was set in place of the usual user too.
    is_usual = token is settings.influx_token or not token
    return Address(
        url=url,
        org=org,
        ca_file=settings.influx_ca_file,
        timeout_s=settings.influx_query_timeout,
        gzip=settings.influx_gzip,
        proxy=_proxy_for(url),
        language=settings.influx_query_language,
        username=settings.influx_username if is_usual else "",
        password=settings.influx_password.current,
        retention_policy=policy,
        token_setting=_token_setting(settings, token),
    )


def _token_setting(settings: Settings, token: Secret) -> str:
    others = {"INFLUX_VERIFY_TOKEN": settings.influx_verify_token, "INFLUX_OUTPUT_TOKEN": settings.influx_output_token}
    return next((name for name, secret in others.items() if token is secret), "INFLUX_TOKEN")


def _make_parquet(settings: Settings) -> Output:
    from outputs.parquet_files import ParquetFiles

    return ParquetFiles(parquet_place(settings), settings.parquet_partition, label=parquet_label(settings))


def parquet_label(settings: Settings) -> str:
    """Return the label in Parquet files of a single input file without pseudonyms; empty: that of batch ids.

    Every version derived it from the file's path, so that released files are found again if the journal is lost.
    """
    return "" if settings.pseudonymize_source_id else _label_of_path(settings)


def _label_of_path(settings: Settings) -> str:
    """Return the label of a single input file's path; empty if there is none."""
    if not (settings.input_file and Path(settings.input_file).is_file()):
        return ""
    return hashlib.sha256(f"file {os.path.realpath(settings.input_file)}".encode(errors="surrogateescape")).hexdigest()[:12]


def held_parquet(settings: Settings, labels: Collection[str]) -> HeldParquet:
    """Return a reader of the data set's earlier releases in Parquet files.

    Args:
        settings: The settings.
        labels: Present and past labels of the data set in batch ids.
    """
    from outputs.parquet_held import HeldParquet

    return HeldParquet(parquet_place(settings), parquet_labels(settings, labels))


def parquet_labels(settings: Settings, labels: Collection[str]) -> tuple[str, ...]:
    """Return the labels of the data set in Parquet files, given all that it may have in batch ids."""
    own = parquet_label(settings)
    return tuple(dict.fromkeys((*([own] if own else []), *labels)))


def held_csv(settings: Settings) -> HeldCsv:
    """Return a reader of the CSV files."""
    from outputs.csv_held import HeldCsv

    return HeldCsv(Path(settings.csv_output_dir), settings.csv_filename_pattern)


def parquet_place(settings: Settings) -> Place:
    """Return where Parquet files are kept."""
    from outputs.parquet_places import Bucket, Folder

    address = settings.parquet_url.removeprefix("s3://")
    if address == settings.parquet_url:
        return Folder(Path(address), file_mode=settings.output_file_mode)

    return _in_bucket(Bucket, settings, address)


def make_shared_spool(settings: Settings) -> SharedSpool:
    """Return the spool that Dask workers share, in SPOOL_URL or else in STATE_DIR. Creates no folder."""
    from service.state.shared_spool import SharedSpool, SpoolBucket, SpoolFolder

    address = settings.spool_url.removeprefix("s3://")
    if address == settings.spool_url:
        return SharedSpool(SpoolFolder(Path(settings.spool_url or Path(settings.state_dir) / "chunks")))

    return SharedSpool(_in_bucket(SpoolBucket, settings, address))


def _in_bucket(make: Callable[..., _T], settings: Settings, address: str) -> _T:
    """Return what keeps files in a bucket, at the address `bucket/prefix`."""
    from transport.object_store import ObjectStore

    bucket, _, prefix = address.partition("/")
    return make(
        lambda: ObjectStore(bucket, store_access(settings), timeout_s=settings.parquet_timeout_seconds),
        name=canonical_address(f"{store_access(settings).endpoint}/{address}"),
        prefix=prefix,
    )


def store_access(settings: Settings) -> StoreAccess:
    """Return the current access to object stores; keys in files may have been rotated."""
    from transport.object_store import StoreAccess

    keys = (settings.aws_access_key_id, settings.aws_secret_access_key, settings.aws_session_token)
    given = {
        "AWS_ENDPOINT_URL": settings.aws_endpoint_url,
        "AWS_REGION": settings.aws_region,
        "AWS_CA_BUNDLE": settings.aws_ca_bundle,
        **dict(
            zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), (key.current() for key in keys), strict=True)
        ),
    }
    access = StoreAccess.of({**os.environ, **{name: text for name, text in given.items() if text}})
    return dataclasses.replace(access, proxy=_proxy_for(access.endpoint))


def _make_api(settings: Settings) -> Output:
    from outputs.http_api import ApiTarget, HttpApi

    target = ApiTarget(
        endpoint=settings.api_endpoint,
        ca_file=settings.api_ca_file,
        timeout_s=settings.api_timeout_seconds,
        proxy=_proxy_for(settings.api_endpoint),
    )
    return HttpApi(target, settings.api_token.current)


#: Every output: the setting that enables it, and the function that makes it. Add a new output here (outputs/README.md).
OUTPUTS: tuple[tuple[str, Callable[[Settings], Output]], ...] = (
    ("output_to_csv", _make_csv),
    ("output_to_influx", _make_influxdb),
    ("output_to_parquet", _make_parquet),
    ("output_to_api", _make_api),
)


def make_outputs(settings: Settings) -> list[Output]:
    """Return the enabled outputs, not yet open."""
    return [make(settings) for setting, make in OUTPUTS if getattr(settings, setting)]


def reading_token(settings: Settings) -> Secret:
    """Return the token for reading from the output server."""
    return settings.influx_verify_token or settings.influx_output_token or settings.influx_token


def can_write_with_input_token(settings: Settings, bucket: str) -> bool:
    """Return whether the credentials that read could write a bucket of the same server. Stores nothing.

    Raises:
        SourceUnavailable: The server does not tell.
    """
    with _connected(_input_address(settings), settings.influx_token) as connection:
        if not connection.version.tells_writers:
            raise SourceUnavailable(
                f"{connection.version.title} tells only by storing something; each token of its edition Core can"
            )
        with suppress(SourceDenied), _asking(connection):
            connection.try_to_write(bucket)
            return True
    return False


def retention_of_input_s(settings: Settings) -> int | None:
    """Return how long the input bucket keeps rows, 0: for ever; None if the server does not tell. Raises as above."""
    with _connected(_input_address(settings), settings.influx_token) as connection:
        return _retention_s(connection, settings.influx_input_bucket)


def retention_of_output_s(settings: Settings) -> int | None:
    """Return how long the output bucket keeps rows, 0: for ever; None if the server does not tell any of the tokens. Raises as above."""
    tokens = (settings.influx_verify_token, settings.influx_output_token, settings.influx_token)
    for token in (one for one in tokens if one or (one is settings.influx_token and settings.influx_username)):
        with suppress(SourceDenied), _connected(output_address(settings, token), token) as connection:
            found = _retention_s(connection, settings.influx_output_bucket)
            if found is not None:
                return found
    return None


def _input_address(settings: Settings) -> Address:
    url, org = settings.influx_url, settings.influx_org
    return _address(settings, url, org, settings.influx_token, policy=settings.influx_retention_policy)


@contextmanager
def _connected(address: Address, token: Secret) -> Iterator[InfluxConnection]:
    from transport.influx_connection import InfluxConnection

    connection = InfluxConnection(address, token.current)
    try:
        with _asking(connection):
            yield connection
    finally:
        connection.close()


@contextmanager
def _asking(connection: InfluxConnection) -> Iterator[None]:
    """Translate what goes wrong while a server is asked."""
    from transport.influx_connection import InfluxFault

    try:
        yield
    except InfluxFault as fault:
        kind = SourceDenied if fault.is_denial else SourceUnavailable
        raise kind(f"InfluxDB at {connection.address.url}: {fault}") from None


def _retention_s(connection: InfluxConnection, bucket: str) -> int | None:
    facts = connection.bucket(bucket)
    # Whoever tells the retention tells the length of shard groups too; a version that tells neither says 0 of both.
    return facts.retention_s if facts is not None and facts.shard_group_s else None


@contextmanager
def open_summaries(settings: Settings) -> Iterator[WindowSummaries]:
    """Yield the output bucket's window summaries, read with INFLUX_VERIFY_TOKEN or else with the write token."""
    from inputs.window_summaries import WindowSummaries
    from transport.influx_connection import InfluxConnection

    token = reading_token(settings)
    connection = InfluxConnection(output_address(settings, token), token.current)
    try:
        yield WindowSummaries(connection, bucket=settings.influx_output_bucket, measurement=settings.influx_measurement)
    finally:
        connection.close()


@contextmanager
def open_influx_cuts(settings: Settings) -> Iterator[tuple[WindowSummaries, InfluxClaims]]:
    """Yield what the output bucket tells of other cuts: read with INFLUX_VERIFY_TOKEN or else with the write token."""
    from outputs.influx_claims import InfluxClaims
    from transport.influx_connection import InfluxConnection

    token: Secret = settings.influx_output_token or settings.influx_token
    connection = InfluxConnection(output_address(settings, token), token.current)
    try:
        with open_summaries(settings) as summaries:
            yield summaries, InfluxClaims(connection, influx_target(settings), summaries.claims)
    finally:
        connection.close()


@contextmanager
def open_parquet_cuts(settings: Settings, *, must_hold: bool) -> Iterator[tuple[HeldParquet, ParquetClaims]]:
    """Yield what Parquet files tell of other cuts.

    Args:
        settings: What was asked for.
        must_hold: Whether files were written there: a folder without any is then a disk that is not mounted.
    """
    from outputs.parquet_claims import ParquetClaims

    yield held_parquet(settings, ()), ParquetClaims(parquet_place(settings), must_hold=must_hold)


def make_cut_guard(settings: Settings, source: SampleSource, journal: Journal, clock: Clock) -> CutGuard:
    """Return what looks for services that cut the bucket otherwise; the source must be open. A file is never cut."""
    outputs: list[OpenCuts] = []
    if not settings.input_file:
        outputs = openers_of_cuts(settings, journal)
    claimant = claimant_of(settings, data_set_labels(settings, source, journal), journal)
    # A stream's first window is not due before: the wait delays nothing, and cohorts that start with it are seen and go first.
    settle_s = min(_SETTLE_S, settings.allowed_lateness_seconds) if settings.streaming_mode else 0.0
    return CutGuard(outputs, claimant, journal, clock, settle_s=settle_s)


def openers_of_cuts(settings: Settings, journal: Journal | None = None) -> list[OpenCuts]:
    """Return what opens each output that tells of other cuts; without a journal to read there, not to write."""
    openers: list[OpenCuts] = []
    if settings.output_to_influx:
        openers.append(lambda: open_influx_cuts(settings))
    if settings.output_to_parquet:
        name = f"parquet:{parquet_place(settings).name}"
        openers.append(
            lambda: open_parquet_cuts(settings, must_hold=journal is not None and bool(journal.outputs.receipts(name)))
        )
    return openers


def serves_rows_without_cohort(settings: Settings, source: SampleSource, guard: CutGuard) -> bool:
    """Return whether the rows without COHORT_TAG are released: by this service, or by one that has a claim on them."""
    rest = Cohort(settings.cohort_tag, "")
    return not settings.cohort or any(
        guard.is_claimed(rest.label(base_of(label))) for label in (source.data_set, source.data_set_address)
    )


def claimant_of(settings: Settings, labels: tuple[str, ...], journal: Journal | None = None) -> Claimant:
    """Return who claims the data set that these labels name; without a journal, one that claims nothing itself."""
    cohort = cohort_of(settings)
    service = "" if journal is None else keyed_digest(journal.name.encode(), b"\0claims of this service")[:12]
    return Claimant(service, labels, "" if cohort is None else str(cohort))


def load_hierarchy(settings: Settings) -> Hierarchy | None:
    """Return the hierarchy that the settings name; None where the method uses none.

    Raises:
        ConfigurationError: It cannot be read or is not a hierarchy; with every problem and its row.
    """
    if settings.method == "rhythm":
        return None
    path = Path(settings.hierarchy_csv_path) if settings.hierarchy_csv_path else SHIPPED_HIERARCHY
    try:
        return parse_hierarchy(path.read_text(encoding="utf-8-sig"))
    except HierarchyProblem as error:
        raise ConfigurationError([f"HIERARCHY_CSV_PATH {path}: {problem}" for problem in error.problems]) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"HIERARCHY_CSV_PATH {path} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"HIERARCHY_CSV_PATH {path} cannot be read ({error.strerror})") from None


def make_recipe(settings: Settings, hierarchy: Hierarchy | None, data_set: str) -> Recipe:
    """Return how windows are anonymized."""
    names: Names = KeptIds()
    key_id = ""
    if settings.pseudonymize_source_id:
        names = pseudonymizer = Pseudonymizer(pseudonym_key(settings))
        key_id = pseudonymizer.key_id
    return Recipe(
        method=make_method(settings, hierarchy),
        names=names,
        promise=_make_promise(settings, hierarchy, key_id),
        data_set=data_set,
        # A public beat is not to be like the heart's.
        measures_fidelity=settings.utility_metrics and settings.method != "rhythm",
    )


def ways_to_release(settings: Settings) -> list[Way]:
    """Return what recognition is compared for: these settings, k of rows and of sources with windows of the same length, and rhythm.

    Raises:
        ConfigurationError: The detector is not installed, or the hierarchy cannot be read.
    """
    plain = dataclasses.replace(settings, pseudonymize_source_id=False, utility_metrics=False)
    by_rows = dataclasses.replace(plain, k_unit="record", method="hierarchy" if settings.method == "rhythm" else settings.method)
    by_sources = dataclasses.replace(by_rows, k_value=5, k_unit="source", residual="regroup")
    rhythm = (
        plain if settings.method == "rhythm" else dataclasses.replace(plain, method="rhythm", batch_size_seconds=RHYTHM_WINDOW_S)
    )
    named = {
        "this run": plain,
        "k = 5 rows": dataclasses.replace(by_rows, k_value=5),
        "k = 20 rows": dataclasses.replace(by_rows, k_value=20),
        "k = 5 sources": by_sources,
        "METHOD=rhythm": rhythm,
    }
    ways = [
        Way(name, make_recipe(one, load_hierarchy(one), "recognition"), one.batch_size_seconds) for name, one in named.items()
    ]
    (own, *others) = ways
    return [own, *(way for way in others if way.recipe.promise != own.recipe.promise)]


def pseudonym_key(settings: Settings) -> bytes:
    """Return the key that pseudonyms are made with: that of PSEUDONYM_SALT, or one derived from it for PSEUDONYM_PURPOSE."""
    key = stretched(settings.pseudonym_salt.key())
    return derived_key(key, f"pseudonyms for {settings.pseudonym_purpose}") if settings.pseudonym_purpose else key


def filters_in(journal: Journal, settings: Settings) -> str:
    """Return the digest under which a journal knows the current filters; the one that form 4 made is replaced."""
    plain = selection_digest(settings)
    if settings.pseudonymize_source_id:
        journal.replace_digest_of_filters(derived_key(pseudonym_key(settings), "digests in the journal"), plain)
    return journal.digests.of_filters(plain)


def _make_promise(settings: Settings, hierarchy: Hierarchy | None, key_id: str) -> Promise:
    digest = settings_digest(settings, hierarchy)
    if settings.method == "rhythm":
        return Promise(method=settings.method, settings_digest=digest, key_id=key_id, template_digest=TEMPLATE_DIGEST)
    return Promise(settings.k_value, settings.k_unit, settings.method, digest, key_id)


def make_detector() -> BeatDetector:
    """Return what finds heartbeats.

    Raises:
        ConfigurationError: Its library is not installed.
    """
    return SleepecgDetector()


def make_method(settings: Settings, hierarchy: Hierarchy | None) -> Method:
    """Return what makes released values of measured ones.

    Raises:
        ConfigurationError: It needs a library that is not installed.
    """
    if settings.method == "rhythm":
        return RhythmAnonymizer(make_detector())
    assert hierarchy is not None, "every other method needs one"
    if settings.method == "optimal":
        return OptimalAnonymizer(hierarchy=hierarchy, k=settings.k_value, k_unit=settings.k_unit)
    return LevelHierarchyAnonymizer(
        hierarchy=hierarchy,
        k=settings.k_value,
        max_level=settings.max_level,
        residual=settings.residual,
        imputation=settings.imputation,
        k_unit=settings.k_unit,
    )


def data_set_label(settings: Settings, source: SampleSource, journal: Journal) -> str:
    """Return the data set's label in batch ids, which every reader sees; the source must be open.

    A reader who knows all of a file but one value could try values until the file's plain digest matches. So the digest is keyed: with the
    pseudonym key, so that the label is the same wherever the file is released. Without pseudonyms it begins with a digest of the file's or
    folder's path, by which releases are found again if the journal is lost; the rest is the journal's, so that no two services have one
    label. A journal keeps the label it has released under, also if the file is another one now.
    """
    if not source.data_set_tells_samples:
        return journal.data_set or source.data_set
    if settings.pseudonymize_source_id:
        key = pseudonym_key(settings)
        return _label_under(key, source, journal) or journal.labels().get(key_id_of(key), source.data_set)
    if remembered := journal.labels().get(""):
        return remembered
    key = journal.name.encode()
    if journal.has_epoch_of(""):
        # A version that remembered no labels derived it from the journal's secret name alone.
        return _label_under(key, source, journal) or source.data_set
    return label_at(_digest_of_path(_place_of_input(settings)), keyed_digest(key, b"\0label")[:12])


def _label_under(key: bytes, source: SampleSource, journal: Journal) -> str:
    """Return the label that a key makes of the input file as it was at first; empty if it is another file now."""
    first = journal.first_version(source.data_set, source.earlier_version)
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
    for key_id, label in journal.labels().items():
        yield label
        # Without pseudonyms, `parquet_label` is one of the labels anyway.
        if not key_id and settings.pseudonymize_source_id and (of_path := _label_of_path(settings)):
            yield of_path


def settings_digest(settings: Settings, hierarchy: Hierarchy | None) -> str:
    """Return a digest of every setting that affects values, 16 hexadecimal digits; filters and paths are not part of it."""
    if settings.method == "rhythm":
        rhythm = {"method": settings.method, "window_s": settings.batch_size_seconds, "template": TEMPLATE_DIGEST}
        return hashlib.sha256(json.dumps(rhythm, sort_keys=True).encode()).hexdigest()[:16]
    assert hierarchy is not None, "every other method needs one"
    shaping = {
        "k": settings.k_value,
        "k_unit": settings.k_unit,
        "window_s": settings.batch_size_seconds,
        "method": settings.method,
        "max_level": settings.max_level,
        "residual": settings.residual,
        "imputation": settings.imputation,
        "hierarchy": hierarchy.digest,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]


def selection_digest(settings: Settings) -> str:
    """Return a digest of the sources and series that are read, 16 hexadecimal digits. Counts under different digests are not comparable."""
    selection: list[object] = [sorted(settings.device_filter), sorted(settings.influx_tag_filter)]
    if settings.input_channel:
        selection.append(settings.input_channel)
    return hashlib.sha256(json.dumps(selection).encode()).hexdigest()[:16]


def make_upkeep(
    settings: Settings,
    source: SampleSource,
    journal: Journal,
    telemetry: Telemetry,
    clock: Clock,
    *,
    looks: Sequence[Callable[[], None]] = (),
) -> Upkeep:
    """Return the loop's periodic tasks. A file is not counted again, since it does not grow during a run."""
    after_s = settings.late_recount_seconds
    recounts = None if settings.input_file else Recounts(source, journal, telemetry, clock, after_s=after_s)
    return Upkeep(source, journal, recounts, clock, most_recounts=len(after_s), looks=looks)


def make_retention(
    settings: Settings,
    source: SampleSource,
    journal: Journal,
    telemetry: Telemetry,
    clock: Clock,
    *,
    trail: Callable[[], Trail | None],
) -> Retention:
    """Return what removes old files; the source must be open. Without RETENTION_DAYS it only finishes what was begun."""
    from service.retention.places import CsvPlace, ParquetPlace, ReportsPlace, SetAsidePlace
    from service.retention.sweep import Retention
    from service.state.set_aside import SetAside

    state_dir = Path(settings.state_dir)
    places: list[RetentionPlace] = []
    if settings.output_to_csv:
        places.append(CsvPlace(held_csv(settings), journal, is_stream=settings.streaming_mode))
    if settings.output_to_parquet:
        from outputs.parquet_removal import OldParquet

        labels = parquet_labels(settings, data_set_labels(settings, source, journal))
        places.append(ParquetPlace(OldParquet(parquet_place(settings), labels), journal))
    folder = state_dir / "set_aside"
    refused_by = {one.name for one in journal.outputs.positions()} | {kept.output for kept in SetAside(folder).all()}
    places += [SetAsidePlace(folder, output, journal) for output in sorted(refused_by)]
    places.append(ReportsPlace(state_dir))
    return Retention(settings.retention_days, places, journal, clock, telemetry, is_stream=settings.streaming_mode, trail=trail)


def make_schedule(settings: Settings, source: SampleSource, clock: Clock, *, stream_position_ns: int | None) -> Schedule:
    """Return which windows to release; the source must be open.

    Args:
        settings: The settings.
        source: Supplies its clock and its extent.
        clock: The service's clock.
        stream_position_ns: Where an earlier stream stopped; None if there was none.
    """
    length_ns = settings.batch_size_seconds * NANOSECONDS
    lateness_ns = settings.allowed_lateness_seconds * NANOSECONDS
    if not settings.streaming_mode:
        request = SpanRequest(
            start_ns=settings.query_start_time,
            end_ns=settings.query_end_time,
            hours=settings.default_query_hours,
            length_ns=length_ns,
            lateness_ns=lateness_ns,
            is_by_hour=plans_by_hour(settings),
        )
        return make_span(request, source, clock)
    return Stream(
        source=source,
        clock=clock,
        position_ns=_first_stream_position_ns(settings, source, clock, stream_position_ns),
        length_ns=length_ns,
        lateness_ns=lateness_ns,
        interval_s=settings.streaming_interval,
    )


def _first_stream_position_ns(settings: Settings, source: SampleSource, clock: Clock, stopped_at_ns: int | None) -> int:
    length_ns = settings.batch_size_seconds * NANOSECONDS
    if stopped_at_ns is not None:
        # With a new window length, the stream starts at the first whole window after that position.
        return -(-stopped_at_ns // length_ns) * length_ns
    if settings.query_start_time is not None:
        return settings.query_start_time // length_ns * length_ns
    return first_position_ns(source, clock, length_ns=length_ns)


def plans_by_hour(settings: Settings) -> bool:
    """Return whether chunks follow whole hours, so that file names do not depend on where a run was killed.

    A stream releases windows as they fall due; its files are named after the windows that were due together.
    """
    return bool(settings.output_to_parquet or settings.dask_scheduler) and not settings.streaming_mode


def proxies_in_use(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield, for each server in use, the setting that names it and its proxy; empty: no proxy.

    Raises:
        ConfigurationError: A variable names a proxy that cannot be used.
    """
    own_output = settings.output_to_influx and bool(settings.influx_output_url)
    used = {
        "INFLUX_URL": not settings.input_file or (settings.output_to_influx and not own_output),
        "INFLUX_OUTPUT_URL": own_output,
        "API_ENDPOINT": settings.output_to_api,
    }
    for name in (name for name, is_used in used.items() if is_used):
        yield name, _proxy_for(getattr(settings, name.lower()))
    if settings.input_file.lower().startswith("s3://"):
        yield "INPUT_FILE", store_access(settings).proxy
    if settings.output_to_parquet and settings.parquet_url.startswith("s3://"):
        yield "PARQUET_URL", store_access(settings).proxy


def _proxy_for(url: str) -> str:
    try:
        return proxy_for(url, os.environ)
    except UnusableProxy as error:
        raise ConfigurationError(str(error)) from None
