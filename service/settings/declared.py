"""Every setting: its name, default and meaning, declared once.

A field's name in capitals is the setting's name. `.env.example` and `documentation/CONFIGURATION.md` are checked against this file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymizer.batch import KUnit
from anonymizer.cohorts import Cohort
from anonymizer.hierarchy import LEVELS, Imputation, Residual
from service.settings.types import (
    LONGEST_REQUEST_S,
    MOST_K,
    Gzip,
    LogFormat,
    LogLevel,
    MethodName,
    ParquetPartition,
    Parser,
    QueryLanguage,
    Secret,
    ValueUnit,
    boolean,
    dask_scheduler,
    days,
    file_mode,
    file_name_pattern,
    files_address,
    hours,
    moment,
    names,
    one_of,
    path,
    purpose,
    seconds,
    seconds_list,
    secret,
    server_address,
    tag_filter,
    text,
    web_address,
    whole_number,
)

SHIPPED_HIERARCHY = Path(__file__).resolve().parents[2] / "anonymizer" / "smarko_hierarchy_ecg.csv"


def _setting(parse: Parser, default: str, meaning: str, *, section: str = "") -> Any:
    # The query string of an address may contain a key.
    return dataclasses.field(
        repr=parse is not web_address, metadata={"parse": parse, "default": default, "meaning": meaning, "section": section}
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked settings. `repr` never shows a secret."""

    influx_url: str = _setting(
        server_address,
        "http://localhost:8086",
        "The InfluxDB server (1, 2 or 3) to read from; also written to, unless INFLUX_OUTPUT_URL names another.",
        section="InfluxDB",
    )
    influx_query_language: QueryLanguage = _setting(
        one_of(QueryLanguage),
        "auto",
        "Language of the queries. auto: Flux if the server reports version 2, InfluxQL for versions 1 and 3. flux: treat the "
        "server as version 2, whatever it reports. influxql: use InfluxQL for version 2 too. What else to set for each version: "
        "documentation/QUICKSTART.md.",
    )
    influx_token: Secret = _setting(
        secret,
        "",
        "Token to read with, preferably one that can only read the input bucket. Required for InfluxDB 2; for InfluxDB 1 it may "
        "be user:password.",
    )
    influx_org: str = _setting(
        text, "", "Organization of the input bucket, by name or id. Required for InfluxDB 2; other versions have none."
    )
    influx_username: str = _setting(
        text,
        "",
        "User of InfluxDB 1, for reading and writing. A token other than INFLUX_TOKEN, such as INFLUX_OUTPUT_TOKEN, replaces it "
        "where that token applies.",
    )
    influx_password: Secret = _setting(secret, "", "Password of INFLUX_USERNAME.")
    influx_retention_policy: str = _setting(
        text,
        "",
        "Retention policy of InfluxDB 1 to read from, in the input database; empty: the default one. A bucket may also be given as "
        "database/policy, for reading and writing.",
    )
    influx_output_url: str = _setting(server_address, "", "The server to write to; empty: INFLUX_URL.")
    influx_output_token: Secret = _setting(
        secret, "", "Token to write with, preferably one that can only write the output bucket. Empty: INFLUX_TOKEN."
    )
    influx_output_org: str = _setting(text, "", "Organization of the output bucket, by name or id; empty: INFLUX_ORG.")
    influx_input_bucket: str = _setting(
        text,
        "raw_data",
        "Bucket with raw ECG, by name; or by id, if INFLUX_TOKEN may look it up. For InfluxDB 1 and 3: the database.",
    )
    influx_output_bucket: str = _setting(
        text,
        "anonymized-data",
        "Bucket for anonymized ECG, by name; or by id, if a configured token may look it up (a write-only token may not).",
    )
    influx_measurement: str = _setting(
        text,
        "ecg",
        "Measurement to read. The service writes <INFLUX_MEASUREMENT>_anonymized and <INFLUX_MEASUREMENT>_anonymized_windows.",
    )
    influx_field: str = _setting(text, "ecg", "Field that holds the value, in both buckets.")
    source_tag: str = _setting(text, "source_id", "Tag that names the wearer (not one of a wearer's devices), in both buckets.")
    device_filter: tuple[str, ...] = _setting(names, "", "Read only these source ids, comma-separated; empty: all.")
    influx_tag_filter: tuple[tuple[str, str], ...] = _setting(
        tag_filter, "", "Read only series with these tags, such as lead=I; empty: all."
    )
    cohort_tag: str = _setting(
        text,
        "",
        "The tag that divides the input bucket into cohorts, each released by its own service, such as ward; empty: one service "
        "releases the whole bucket. The tag and its values are visible in the output: use one that identifies no person.",
    )
    cohort: str = _setting(
        text, "", "The value of COHORT_TAG whose rows this service releases, such as 3; empty: the rows without that tag."
    )
    excluded_sources_file: str = _setting(
        path,
        "",
        "File with ids of sources that are not released, such as after a withdrawn consent: one per line, UTF-8. It is read again for "
        "every chunk of windows; while it is missing, nothing is released. Empty: no source is excluded.",
    )
    influx_ca_file: str = _setting(path, "", "Certificate authority file for https; empty: the system's.")
    influx_query_timeout: int = _setting(seconds(1, LONGEST_REQUEST_S), "30", "Time-out of a query, in seconds.")
    influx_write_batch_size: int = _setting(
        whole_number(1, 1_000_000),
        "50000",
        "Most lines in one write request; fewer after the server, or a proxy, has answered 413 to that many.",
    )
    influx_gzip: Gzip = _setting(
        one_of(Gzip),
        "auto",
        "Compress rows in transit; auto: once the network proves slow, never for a server on this machine.",
    )

    input_file: str = _setting(
        path,
        "",
        "Read this file instead of InfluxDB: CSV, CSV.gz or Parquet with the columns timestamp, source_id, ecg; a data set of Parquet "
        "files (a folder, a glob, or s3://bucket/prefix); a recording in EDF, BDF, WFDB or DICOM, or a folder of them. The end of "
        "documentation/CONFIGURATION.md says what is read from each.",
        section="Input",
    )
    input_channel: str = _setting(
        text,
        "",
        "Recordings: the channel to read, by label or number (from 1), such as MLII or 2; #2 if labels are numbers. Empty: the only one.",
    )
    input_source_id: tuple[str, ...] = _setting(
        names,
        "",
        "Recordings: the source id, or one per file, comma-separated, by file name. Empty: recording, or recording-1 and so on; "
        "never from a header.",
    )
    input_start_time: int | None = _setting(
        moment,
        "",
        "Recordings that do not say when they were made: the time of the first sample, ISO 8601, UTC without a zone.",
    )
    value_unit: ValueUnit = _setting(
        one_of(ValueUnit), "uV", "Unit of raw values; recordings state their own. Released values are always microvolts."
    )
    max_records_per_query: int = _setting(
        whole_number(1),
        "1000000",
        "About how many rows to hold in memory; a query reads a fifth of them. Never splits a window; a smaller number needs "
        "less memory.",
    )

    k_value: int = _setting(
        whole_number(2, limit=MOST_K),
        "5",
        "k: at least this many rows (or sources, see K_UNIT) share each released value. Common advice for other data: "
        "5 general, 10 sensitive, 20 public. No k makes ECG fit for publication: "
        "anyone who has a person's ECG from elsewhere finds that person at any k.",
        section="Anonymization",
    )
    k_unit: KUnit = _setting(one_of(KUnit), "record", "What k counts: rows (record) or different sources (source).")
    batch_size_seconds: int = _setting(
        seconds(1),
        "5",
        "Length of a window. 5 to 10 is usual; shorter means less delay, and fewer equal values to share. METHOD=rhythm: 10 or more, and "
        "10 if this is empty.",
    )
    method: MethodName = _setting(
        one_of(MethodName),
        "hierarchy",
        "How groups are formed: level by level (hierarchy) or with minimal error (optimal). rhythm forms none: it replaces every "
        "heartbeat by the same public beat, at its own time (needs requirements-rhythm.txt).",
    )
    max_level: int = _setting(whole_number(1, LEVELS), "3", "METHOD=hierarchy: the widest level of a group. Classic: 7.")
    residual: Residual = _setting(
        one_of(Residual),
        "regroup",
        "METHOD=hierarchy: what rows that no level could place get: optimal groups of k (regroup), the window's mean (impute, classic), "
        "or no release (drop).",
    )
    imputation: Imputation = _setting(
        one_of(Imputation), "mean", "A group's value: the mean of its members or the midpoint of its range (classic)."
    )
    hierarchy_csv_path: str = _setting(
        path, "", "Your own value hierarchy; empty: the shipped anonymizer/smarko_hierarchy_ecg.csv."
    )

    pseudonymize_source_id: bool = _setting(
        boolean,
        "false",
        "Replace source ids by a keyed pseudonym (HMAC-SHA256). If false, ids are released unchanged.",
        section="Pseudonyms",
    )
    pseudonym_salt: Secret = _setting(
        secret,
        "",
        "Key of the pseudonyms, generated at random: 64 hexadecimal digits, or another form that documentation/PRIVACY.md "
        "lists. Required when PSEUDONYMIZE_SOURCE_ID=true.",
    )
    pseudonym_purpose: str = _setting(
        purpose,
        "",
        "Name of a recipient or study, such as registry-a: its pseudonyms are made with their own key, derived from "
        "PSEUDONYM_SALT, and cannot be joined with those of another purpose. Empty: PSEUDONYM_SALT itself. A change counts as a "
        "change of the key.",
    )
    accept_new_pseudonym_key: bool = _setting(
        boolean, "false", "Confirm a changed key: pseudonyms are new from here on. Set for one start only."
    )

    output_to_csv: bool = _setting(boolean, "true", "Write CSV files.", section="Outputs")
    output_to_influx: bool = _setting(boolean, "true", "Write to INFLUX_OUTPUT_BUCKET.")
    output_to_parquet: bool = _setting(boolean, "false", "Write Parquet files to PARQUET_URL.")
    output_to_api: bool = _setting(boolean, "false", "POST to API_ENDPOINT.")
    csv_output_dir: str = _setting(path, "./output", "Folder of the CSV files.")
    csv_filename_pattern: str = _setting(
        file_name_pattern,
        "ecg_anonymized_%Y%m%d_%H%M%S.csv",
        "Name of a CSV file, filled with the window's start in UTC; windows that produce the same name share a file.",
    )
    parquet_url: str = _setting(
        files_address,
        "./output/parquet",
        "Folder or s3://bucket/prefix of the Parquet files: rows/ holds rows, windows/ a summary per window.",
    )
    parquet_partition: ParquetPartition = _setting(
        one_of(ParquetPartition), "hour", "Span of one folder of Parquet files: hour or day (UTC)."
    )
    parquet_timeout_seconds: int = _setting(
        seconds(1, LONGEST_REQUEST_S), "60", "Time-out of a request to an object store, read or written, in seconds."
    )
    output_file_mode: int = _setting(
        file_mode,
        "0600",
        "Octal permissions of new CSV and Parquet files and reports: 0640 lets the group read them. Existing files keep theirs.",
    )
    api_endpoint: str = _setting(
        web_address, "", "Address of the API, such as http://localhost:5000/api/data. Required if OUTPUT_TO_API=true."
    )
    api_token: Secret = _setting(secret, "", "Bearer token of the API; empty: none is sent.")
    api_timeout_seconds: int = _setting(seconds(1, LONGEST_REQUEST_S), "30", "Time-out of a request to the API, in seconds.")
    api_ca_file: str = _setting(path, "", "Certificate authority file for the API; empty: the system's.")

    aws_endpoint_url: str = _setting(
        server_address,
        "",
        "Address of an S3-compatible server (MinIO, Ceph), for s3:// addresses; empty: Amazon's.",
        section="Object store",
    )
    aws_region: str = _setting(text, "", "Region of the object store; empty: us-east-1.")
    aws_access_key_id: Secret = _setting(
        secret,
        "",
        "Key for the object store; empty: from the shared credentials file.",
    )
    aws_secret_access_key: Secret = _setting(secret, "", "The secret that belongs to AWS_ACCESS_KEY_ID.")
    aws_session_token: Secret = _setting(secret, "", "Session token of temporary credentials.")
    aws_ca_bundle: str = _setting(path, "", "Certificate authority file for the object store; empty: the system's.")

    streaming_mode: bool = _setting(
        boolean,
        "false",
        "false: process a time span, then exit. true: process each window as it falls due.",
        section="Mode",
    )
    streaming_interval: int = _setting(seconds(1), "5", "Streaming: longest pause between two looks at the source, in seconds.")
    allowed_lateness_seconds: int = _setting(
        seconds(0), "10", "How long a window waits for late rows after its end (collectors often flush every 10 s)."
    )
    default_query_hours: float = _setting(hours, "1", "One-shot: the last hours to release, in whole windows.")
    query_start_time: int | None = _setting(
        moment, "", "One-shot: start of the span, ISO 8601, UTC without a zone. Streaming: where a first start begins."
    )
    query_end_time: int | None = _setting(moment, "", "One-shot: end of the span, exclusive.")
    retry_budget_seconds: int = _setting(
        seconds(0),
        "300",
        "One-shot: how long to retry a server or API that does not answer. A stream retries for ever.",
    )

    state_dir: str = _setting(path, "./state", "Folder of the service's memory between runs; one per data set.", section="State")
    spool_max_bytes: int = _setting(
        whole_number(1), str(1 << 30), "How many bytes may wait on disk for slow outputs before reading pauses."
    )
    late_recount_seconds: tuple[int, ...] = _setting(
        seconds_list, "30,300,86400", "Seconds after its release when a window is counted again, for late rows."
    )
    audit_log: str = _setting(
        path,
        "",
        "File that records starts, changed settings and keys, releases by time and operators' commands, as a chain of hashes; "
        "empty: none. documentation/AUDIT.md.",
    )
    retention_days: int | None = _setting(
        days,
        "",
        "Remove CSV files, Parquet files, reports and rows set aside this many days after their release; empty: never. What was released "
        "stays on record, so that nothing is released again. Not reached: InfluxDB, an API, copies, backups. documentation/OPERATIONS.md.",
    )
    influx_verify_token: Secret = _setting(
        secret, "", "Token that may read both buckets, for the verifying tools, and for the comparison at the start."
    )

    dask_scheduler: str = _setting(
        dask_scheduler,
        "",
        "One-shot: hand chunks to Dask workers: local:2 (that many worker processes of this machine) or tls://host:8786 (a Dask "
        "scheduler). Empty: this process does all. Needs requirements-dask.txt; documentation/SCALE.md.",
        section="Workers",
    )
    spool_url: str = _setting(
        files_address,
        "",
        "Where workers put anonymized chunks until every output has them: a folder that all machines have under this path, or "
        "s3://bucket/prefix. As private as STATE_DIR. Required with tls://; empty with local: a folder in STATE_DIR.",
    )
    dask_tls_ca_file: str = _setting(path, "", "Certificate authority of scheduler and workers, for tls://.")
    dask_tls_cert_file: str = _setting(
        path, "", "This process's certificate for tls://. Anyone who holds one can run code on every worker."
    )
    dask_tls_key_file: str = _setting(path, "", "The private key that belongs to DASK_TLS_CERT_FILE.")
    dask_insecure_loopback: bool = _setting(
        boolean,
        "false",
        "Accept tcp://127.0.0.1 without TLS: any user of this machine can then run code as this service. For tests.",
    )

    log_level: LogLevel = _setting(one_of(LogLevel), "INFO", "How much is logged.", section="Observation")
    log_format: LogFormat = _setting(one_of(LogFormat), "text", "Form of the log.")
    verbose_logging: bool = _setting(boolean, "true", "Also log the statistics of every window.")
    utility_metrics: bool = _setting(
        boolean,
        "false",
        "Log and export what is left of the signal (correlation, PRDN; with METHOD=rhythm beats, and what is withheld), over at least 12 "
        "windows together; the report of a one-shot run also says how often attackers would name the right wearer (needs "
        "requirements-rhythm.txt).",
    )
    status_address: str = _setting(
        text, "", "Where to serve metrics, health and the status page, such as 127.0.0.1:9464; empty: off."
    )
    status_token: Secret = _setting(secret, "", "Token of the status page, required on any address but loopback.")


def cohort_of(settings: Settings) -> Cohort | None:
    """Return the cohort to read from the input bucket; None: all of the bucket."""
    return Cohort(settings.cohort_tag, settings.cohort) if settings.cohort_tag else None


#: Every setting by its name.
DECLARED: Mapping[str, dataclasses.Field[Any]] = {field.name.upper(): field for field in dataclasses.fields(Settings)}

#: A secret can also be given as a file or a command (`FORMS_OF_A_SECRET`).
SECRETS: tuple[str, ...] = tuple(name for name, field in DECLARED.items() if field.metadata["parse"] is secret)

#: Addresses. Show them only through `transport.addresses.shown_address`.
ADDRESSES: tuple[str, ...] = tuple(
    name for name, field in DECLARED.items() if field.metadata["parse"] in (web_address, server_address)
)

#: Values that may identify a wearer; never shown.
PERSONAL: tuple[str, ...] = ("DEVICE_FILTER", "INFLUX_TAG_FILTER", "INPUT_FILE", "INPUT_CHANNEL", "INPUT_SOURCE_ID")

#: How a secret may be given: as text, as the path of a file, or as a command that prints it.
FORMS_OF_A_SECRET = ("", "_FILE", "_COMMAND")

#: Every name that `.env` may set.
KNOWN_NAMES: frozenset[str] = frozenset(DECLARED) | {f"{name}{form}" for name in SECRETS for form in FORMS_OF_A_SECRET}
