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
    Secret,
    ValueUnit,
    boolean,
    file_mode,
    file_name_pattern,
    files_address,
    hours,
    moment,
    names,
    one_of,
    path,
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
    # A key can follow the question mark of an address.
    return dataclasses.field(
        repr=parse is not web_address, metadata={"parse": parse, "default": default, "meaning": meaning, "section": section}
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked settings. Secrets are held so that no `repr` shows them."""

    influx_url: str = _setting(
        server_address,
        "http://localhost:8086",
        "The InfluxDB 2 server to read from, and to write to unless INFLUX_OUTPUT_URL says otherwise.",
        section="InfluxDB",
    )
    influx_token: Secret = _setting(
        secret, "", "The token to read with; one that can only read the input bucket is best. Required."
    )
    influx_org: str = _setting(text, "", "The organization of the input bucket, by name or id. Required.")
    influx_output_url: str = _setting(server_address, "", "The server to write to; empty: INFLUX_URL.")
    influx_output_token: Secret = _setting(
        secret, "", "The token to write with; one that can only write the output bucket is best. Empty: INFLUX_TOKEN."
    )
    influx_output_org: str = _setting(text, "", "The organization of the output bucket, by name or id; empty: INFLUX_ORG.")
    influx_input_bucket: str = _setting(
        text, "raw_data", "The bucket with raw ECG, by name; or by its id, if INFLUX_TOKEN may look it up."
    )
    influx_output_bucket: str = _setting(
        text,
        "anonymized-data",
        "The bucket for anonymized ECG, by name; or by its id, if a configured token may look it up (one that can only write may not).",
    )
    influx_measurement: str = _setting(
        text,
        "ecg",
        "The measurement to read. Written are <INFLUX_MEASUREMENT>_anonymized and <INFLUX_MEASUREMENT>_anonymized_windows.",
    )
    influx_field: str = _setting(text, "ecg", "The field that holds the value, in both buckets.")
    source_tag: str = _setting(
        text, "source_id", "The tag that names the wearer (not one of a wearer's devices), in both buckets."
    )
    device_filter: tuple[str, ...] = _setting(names, "", "Only these source ids, between commas; empty: all.")
    influx_tag_filter: tuple[tuple[str, str], ...] = _setting(
        tag_filter, "", "Only series with these tags, such as lead=I; empty: all."
    )
    influx_ca_file: str = _setting(path, "", "Certificate authority file for https; empty: the system's.")
    influx_query_timeout: int = _setting(seconds(1, LONGEST_REQUEST_S), "30", "Seconds until a query is given up.")
    influx_write_batch_size: int = _setting(whole_number(1, 1_000_000), "20000", "Lines in one write request, at most.")
    influx_gzip: Gzip = _setting(
        one_of(Gzip),
        "auto",
        "Whether rows are compressed on their way; auto: when the network turns out to be slow, never within this machine.",
    )

    input_file: str = _setting(
        path,
        "",
        "Read this file instead of InfluxDB: CSV, CSV.gz or Parquet with the columns timestamp, source_id, ecg; a data set of Parquet "
        "files (a folder, a glob, or s3://bucket/prefix); a recording in EDF, BDF, WFDB or DICOM, or a folder of them. What of it is read: "
        "at the end of documentation/CONFIGURATION.md.",
        section="Input",
    )
    input_channel: str = _setting(
        text,
        "",
        "Of recordings: the channel to read, by its label or by its number from 1, such as MLII or 2; #2 where labels are numbers. Empty: "
        "the only one.",
    )
    input_source_id: tuple[str, ...] = _setting(
        names,
        "",
        "Of recordings: the source id, or one for each file between commas, in the order of their names. Empty: recording, or recording-1 "
        "and so on; nothing is taken from a header.",
    )
    input_start_time: int | None = _setting(
        moment,
        "",
        "Of recordings that do not say when they were made: the time of the first sample, ISO 8601, UTC when no zone is given.",
    )
    value_unit: ValueUnit = _setting(
        one_of(ValueUnit), "uV", "What raw values are in; recordings say it themselves. Released values are microvolts always."
    )
    max_records_per_query: int = _setting(
        whole_number(1),
        "1000000",
        "About how many rows are kept in memory; a query asks for a fifth of them. Never cuts a window; smaller needs less memory.",
    )

    k_value: int = _setting(
        whole_number(2, limit=MOST_K),
        "5",
        "k: how many rows (or sources, see K_UNIT) share each released value, at least. 5 general, 10 sensitive, 20 public data.",
        section="Anonymization",
    )
    k_unit: KUnit = _setting(one_of(KUnit), "record", "What k counts: rows (record) or different sources (source).")
    batch_size_seconds: int = _setting(
        seconds(1), "5", "Length of a window. 5 to 10 is usual; shorter means less delay and fewer alike values to share."
    )
    method: MethodName = _setting(
        one_of(MethodName),
        "hierarchy",
        "How groups are formed: level by level (hierarchy) or with the least error (optimal).",
    )
    max_level: int = _setting(
        whole_number(1, LEVELS), "3", "For METHOD=hierarchy: the widest level a group may be made at. Classic: 7."
    )
    residual: Residual = _setting(
        one_of(Residual),
        "regroup",
        "For METHOD=hierarchy: what happens to rows no level could place: optimal groups of k (regroup), "
        "the window's mean (impute, classic), or nothing is released of them (drop).",
    )
    imputation: Imputation = _setting(
        one_of(Imputation), "mean", "A group's value: the mean of its members or the midpoint of its range (classic)."
    )
    hierarchy_csv_path: str = _setting(
        path, "", "A value hierarchy of your own; empty: the shipped anonymizer/smarko_hierarchy_ecg.csv."
    )

    pseudonymize_source_id: bool = _setting(
        boolean,
        "false",
        "Replace source ids by a keyed pseudonym (HMAC-SHA256). While false, ids leave as they are.",
        section="Pseudonyms",
    )
    pseudonym_salt: Secret = _setting(
        secret, "", "The key of the pseudonyms, at least 16 bytes, 32 recommended. Required when PSEUDONYMIZE_SOURCE_ID=true."
    )
    accept_new_pseudonym_key: bool = _setting(boolean, "false", "Go on with another key than before, as a new epoch.")

    output_to_csv: bool = _setting(boolean, "true", "Write CSV files.", section="Outputs")
    output_to_influx: bool = _setting(boolean, "true", "Write to INFLUX_OUTPUT_BUCKET.")
    output_to_parquet: bool = _setting(boolean, "false", "Write Parquet files to PARQUET_URL.")
    output_to_api: bool = _setting(boolean, "false", "POST to API_ENDPOINT.")
    csv_output_dir: str = _setting(path, "./output", "Folder of the CSV files.")
    csv_filename_pattern: str = _setting(
        file_name_pattern,
        "ecg_anonymized_%Y%m%d_%H%M%S.csv",
        "Name of a CSV file, filled with the window's start in UTC; windows that give the same name share a file.",
    )
    parquet_url: str = _setting(
        files_address,
        "./output/parquet",
        "Where Parquet files go: a folder, or s3://bucket/prefix. Rows are under rows/, a summary of each window under windows/.",
    )
    parquet_partition: ParquetPartition = _setting(
        one_of(ParquetPartition), "hour", "How long a span of time one folder of Parquet files holds: hour or day (UTC)."
    )
    parquet_timeout_seconds: int = _setting(
        seconds(1, LONGEST_REQUEST_S), "60", "Seconds until a request to an object store is given up."
    )
    output_file_mode: int = _setting(
        file_mode,
        "0600",
        "Permissions of new CSV and Parquet files and reports, in octal: 0640 lets the group read them. Existing files keep theirs.",
    )
    api_endpoint: str = _setting(
        web_address, "", "Address of the API, such as http://localhost:5000/api/data. Required when OUTPUT_TO_API=true."
    )
    api_token: Secret = _setting(secret, "", "Bearer token of the API; empty: none is sent.")
    api_timeout_seconds: int = _setting(seconds(1, LONGEST_REQUEST_S), "30", "Seconds until a request to the API is given up.")
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
        "Key for the object store; empty: from the file that AWS_SHARED_CREDENTIALS_FILE names, or the machine's role.",
    )
    aws_secret_access_key: Secret = _setting(secret, "", "The secret that belongs to AWS_ACCESS_KEY_ID.")
    aws_session_token: Secret = _setting(secret, "", "Session token of temporary credentials.")
    aws_ca_bundle: str = _setting(path, "", "Certificate authority file for the object store; empty: the system's.")

    streaming_mode: bool = _setting(
        boolean,
        "false",
        "false: one run over a span of time, then exit. true: window by window as they fall due.",
        section="Mode",
    )
    streaming_interval: int = _setting(
        seconds(1), "5", "Streaming: the longest pause between two looks at the source, in seconds."
    )
    allowed_lateness_seconds: int = _setting(
        seconds(0), "10", "How long after its end a window waits for stragglers (collectors often flush every 10 s)."
    )
    default_query_hours: float = _setting(hours, "1", "One-shot: the last so many hours of whole windows.")
    query_start_time: int | None = _setting(
        moment, "", "One-shot: start of the span, ISO 8601, UTC when no zone is given. Streaming: where a first start begins."
    )
    query_end_time: int | None = _setting(moment, "", "One-shot: end of the span, not included.")
    retry_budget_seconds: int = _setting(
        seconds(0),
        "300",
        "One-shot: how long to keep trying a server or API that does not answer. Streaming tries for ever.",
    )

    state_dir: str = _setting(
        path, "./state", "Folder for what the service must remember between runs; one for each data set.", section="State"
    )
    spool_max_bytes: int = _setting(
        whole_number(1), str(1 << 30), "How much may wait on disk for slow outputs before reading pauses."
    )
    late_recount_seconds: tuple[int, ...] = _setting(
        seconds_list, "30,300,86400", "When a released window is counted again to see what came late."
    )
    influx_verify_token: Secret = _setting(secret, "", "A token that may read both buckets, for the verifying tools only.")

    log_level: LogLevel = _setting(one_of(LogLevel), "INFO", "How much is logged.", section="Observation")
    log_format: LogFormat = _setting(one_of(LogFormat), "text", "Form of the log.")
    verbose_logging: bool = _setting(boolean, "true", "Log the anonymization statistics of every window too.")
    utility_metrics: bool = _setting(
        boolean, "false", "Log and export how much of the signal is left (correlation, PRDN), over 12 windows or more together."
    )
    status_address: str = _setting(
        text, "", "Where to serve metrics, health and the status page, such as 127.0.0.1:9464; empty: nowhere."
    )
    status_token: Secret = _setting(secret, "", "Token of the status page, required on any address but loopback.")


#: Every setting by its name.
DECLARED: Mapping[str, dataclasses.Field[Any]] = {field.name.upper(): field for field in dataclasses.fields(Settings)}

#: These may be given as a file's content too, under their name with `_FILE` behind it.
SECRETS: tuple[str, ...] = tuple(name for name, field in DECLARED.items() if field.metadata["parse"] is secret)

#: Addresses, to be shown only through `transport.addresses.shown_address`.
ADDRESSES: tuple[str, ...] = tuple(
    name for name, field in DECLARED.items() if field.metadata["parse"] in (web_address, server_address)
)

#: Everything that may stand in `.env`.
KNOWN_NAMES: frozenset[str] = frozenset(DECLARED) | {f"{name}_FILE" for name in SECRETS}
