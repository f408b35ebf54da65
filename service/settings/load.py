"""Loads and checks settings from `.env` and the environment. Reports all mistakes at once, one sentence each, without secrets."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from anonymizer.errors import ConfigurationError
from anonymizer.pseudonyms import MAKE_A_KEY, ShortKey, check_key
from anonymizer.weak_keys import doubts_about
from service.settings.declared import DECLARED, FORMS_OF_A_SECRET, KNOWN_NAMES, PERSONAL, SECRETS, Settings
from service.settings.env_file import EnvFile, UnreadableValue, can_be_read_by_others, meaning, read_env_file
from service.settings.types import EMPTY, Secret, parse_address, read_secret
from service.settings.types import path as written_out
from service.settings.unknown_names import unknown_names
from transport.addresses import is_loopback, is_this_machine, shown_address

#: Printed if there is no configuration at all.
REMEDY = ("cp .env.example .env", "nano .env    # set INFLUX_URL, INFLUX_TOKEN and INFLUX_ORG")

#: Rejected values are shown up to this length.
_LONGEST_SHOWN = 200

#: Minimum length, since other machines may try to guess the token.
_SHORTEST_STATUS_TOKEN = 16

#: The only secret that is a key: every byte counts, and it need not be text.
_KEY = "PSEUDONYM_SALT"

#: The size of what stands for a secret that could not be read.
_UNREAD_BYTES = 32

#: BATCH_SIZE_SECONDS of METHOD=rhythm unless it is set: shorter windows show the heartbeat detector too little.
RHYTHM_WINDOW_S = 10

#: Nanovolts times nanoseconds between two beats of a longer window might not fit into 64 bits.
LONGEST_RHYTHM_WINDOW_S = 3600


class NoConfiguration(ConfigurationError):
    """There is neither an `.env` nor the variables that would replace it."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Checked settings and warnings about them."""

    settings: Settings
    warnings: tuple[str, ...]


Check = Callable[[Settings], Iterable[str]]


def load(
    env_file: Path, environment: Mapping[str, str], *, must_exist: bool = False, checks: Sequence[Check] = ()
) -> Configuration:
    """Read and check all settings. The environment beats the file, the file beats defaults.

    Args:
        env_file: The `.env`.
        environment: The process's variables.
        must_exist: Whether a missing file is an error even if the environment is complete.
        checks: Further checks, such as whether files can be read; each yields problems.

    Raises:
        NoConfiguration: There is no file, and the environment lacks required variables.
        ConfigurationError: With every problem found.
    """
    file = read_env_file(env_file, KNOWN_NAMES)
    if file is None and (must_exist or not ("INPUT_FILE" in environment or _names_a_server(environment))):
        raise NoConfiguration(f".env file not found at {env_file}")
    file = file or EnvFile(str(env_file))
    name_problems, name_warnings = unknown_names(file, environment)
    from_environment, problems, warnings = environment_settings(environment)
    given = _merged(file.values, from_environment)
    warnings += _empty(file, from_environment)
    given, secret_files, file_problems, file_warnings = _with_secret_files(given)
    settings, value_problems = _parse(given)
    if settings.method == "rhythm" and not given.get("BATCH_SIZE_SECONDS", "").strip():
        settings = dataclasses.replace(settings, batch_size_seconds=RHYTHM_WINDOW_S)
    from_files: dict[str, Any] = {name.lower(): Secret(given[name], path) for name, path in secret_files.items()}
    settings = dataclasses.replace(settings, **from_files)
    problems = [*file.problems, *name_problems, *problems, *file_problems, *value_problems, *_problems_between(settings, given)]
    problems += _csv_problems(settings, env_file)
    problems += [problem for check in checks for problem in check(settings)]
    if problems:
        # A misspelt name is often why another one is missing.
        raise ConfigurationError([*problems, *name_warnings])
    exposed = [_readable_by_others(file.name)] if file.others_can_read else []
    warnings = [*exposed, *file.warnings, *warnings, *file_warnings, *name_warnings]
    return Configuration(settings, (*warnings, *_warnings_about(settings, given)))


def _names_a_server(environment: Mapping[str, str]) -> bool:
    has_token = any(f"INFLUX_TOKEN{form}" in environment for form in FORMS_OF_A_SECRET)
    has_place = "INFLUX_ORG" in environment or "INFLUX_QUERY_LANGUAGE" in environment
    return (has_place and has_token) or "INFLUX_USERNAME" in environment


def _merged(from_file: Mapping[str, str], from_environment: Mapping[str, str]) -> dict[str, str]:
    """Merge both. The environment wins, also if it gives a secret in another form than `.env`, such as a file.

    An empty variable sets nothing: it may come from `${K_VALUE:-}` in a compose file, and must not replace the file's value by a default.
    """
    merged = {**from_file, **{name: text for name, text in from_environment.items() if text or not from_file.get(name)}}
    for name in SECRETS:
        forms = {f"{name}{form}" for form in FORMS_OF_A_SECRET}
        if any(map(from_environment.get, forms)):
            for form in forms - set(from_environment):
                merged.pop(form, None)
    return merged


def _empty(file: EnvFile, from_environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each setting that is present but empty, so that another value applies."""
    is_rhythm = (from_environment.get("METHOD") or file.values.get("METHOD", "")).strip().lower() == "rhythm"
    for name, field in DECLARED.items():
        default = str(RHYTHM_WINDOW_S) if is_rhythm and name == "BATCH_SIZE_SECONDS" else field.metadata["default"]
        if from_environment.get(name) == "" and file.values.get(name):
            yield f"{name} in the environment is empty and sets nothing: the value in {file.name} applies"
        elif default and not from_environment.get(name) and file.values.get(name) == "":
            yield f"{file.at(file.lines[name])} {name} is empty: its default, {default}, applies"
        elif default and from_environment.get(name) == "":
            yield f"{name} in the environment is empty: its default, {default}, applies"


def environment_settings(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the settings in the environment, with problems and warnings.

    They are parsed like lines of `.env`, because `docker run --env-file` passes quotes on literally.
    """
    values, problems, warnings = {}, list[str](), list[str]()
    for name in sorted(KNOWN_NAMES & set(environment)):
        text = environment[name]
        try:
            values[name] = meaning(text)
        except UnreadableValue as problem:
            problems.append(f"{name} in the environment cannot be read: {problem}")
            continue
        if name in SECRETS and values[name] != text.strip():
            warnings.append(f"{name} in the environment is quoted; the quotes are not part of the value, as in .env")
        elif name not in SECRETS and not _is_text(text):
            problems.append(f"{name} in the environment contains bytes that are not UTF-8")
        elif " #" in text and values[name] == text.strip():
            warnings.append(
                f"{name} in the environment contains # after a blank, which is part of the value here; .env rejects it"
            )
    return values, problems, warnings


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _readable_by_others(path: str) -> str:
    return f"{path} contains secrets and can be read by users other than its owner: chmod 600 {path}"


def _with_secret_files(given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Path], list[str], list[str]]:
    """Replace each `NAME_FILE` and `NAME_COMMAND` by `NAME`, with the file's content or what the command prints.

    Also return the file of each, problems and warnings.
    """
    merged, files, problems = dict(given), dict[str, Path](), list[str]()
    for name in SECRETS:
        forms = {f"{name}{form}": merged.get(f"{name}{form}") for form in FORMS_OF_A_SECRET}
        path_text, command = merged.pop(f"{name}_FILE", ""), merged.pop(f"{name}_COMMAND", "")
        try:
            if len(given_forms := [form for form, text in forms.items() if text]) > 1:
                both = "both" if len(given_forms) == 2 else "all"
                raise ValueError(f"{' and '.join(given_forms)} are {both} set; keep one of them")
            if command:
                merged[name] = _secret_of_command(name, command)
            if path_text:
                merged[name], files[name] = _secret_of_file(name, path_text)
        except ValueError as problem:
            problems.append(str(problem))
            # So that it is not called missing or too short as well. The settings are refused; a key that is in the code must not exist.
            merged[name] = os.urandom(_UNREAD_BYTES).hex()
    warnings = [_readable_by_others(str(path)) for path in files.values() if can_be_read_by_others(path)]
    return merged, files, problems, warnings


def _secret_of_command(name: str, command: str) -> str:
    from service.settings.secret_command import secret_of_command  # no other run starts processes

    try:
        return secret_of_command(command, may_be_bytes=name == _KEY)
    except ValueError as error:
        raise ValueError(f"{name}_COMMAND {error}") from None


def _secret_of_file(name: str, path_text: str) -> tuple[str, Path]:
    try:
        path = Path(written_out(path_text))
    except ValueError as error:
        raise ValueError(f"{name}_FILE must be {error}, got {path_text!r}") from None
    try:
        secret = read_secret(path, may_be_bytes=name == _KEY)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{name}_FILE names {path}, which cannot be read ({reason})") from None
    if not secret:
        raise ValueError(f"{name}_FILE names {path}, which is empty")
    return secret, path


def _parse(given: Mapping[str, str]) -> tuple[Settings, list[str]]:
    values, problems = {}, []
    for name, field in DECLARED.items():
        default = field.metadata["default"]
        text = given.get(name, "") if name in SECRETS else given.get(name, "").strip() or default
        try:
            values[field.name] = _value(field, text)
        except ValueError as error:
            problems.append(f"{name} must be {error}, got {_shown(name, text)}")
            values[field.name] = _value(field, default)
    return Settings(**values), problems


def _value(field: dataclasses.Field[Any], text: str) -> Any:
    parse = field.metadata["parse"]
    return parse(text) if text else EMPTY.get(parse, "")


def _shown(name: str, text: str) -> str:
    """Return a rejected value, unless it may be a secret in the wrong place: an = may begin the next line, whose line end was lost."""
    is_private = name in SECRETS or name in PERSONAL or "=" in text or shown_address(text) != text
    return "a value not shown here" if is_private else repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")


def _problems_between(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    """Yield conflicts between settings that are each valid alone."""
    if settings.influx_query_language == "flux":
        yield from (
            f"{name} is required: the service reads from or writes to InfluxDB 2" for name in _missing_for_2(settings, given)
        )
    yield from _user_problems(settings)
    yield from _output_problems(settings)
    yield from _token_problems(settings)
    yield from _pseudonym_problems(settings)
    yield from _span_problems(settings)
    yield from _status_problems(settings)
    yield from _tag_name_problems(settings)
    if settings.method == "rhythm" and settings.batch_size_seconds > LONGEST_RHYTHM_WINDOW_S:
        yield f"METHOD=rhythm takes windows of at most {LONGEST_RHYTHM_WINDOW_S} s: lower BATCH_SIZE_SECONDS"
    yield from _cohort_problems(settings)
    yield from _worker_problems(settings)
    if settings.method == "hierarchy" and settings.residual == "impute" and settings.k_unit == "source":
        yield "RESIDUAL=impute cannot guarantee that k sources share a value: with K_UNIT=source set RESIDUAL=regroup or drop"
    yield from _audit_log_problems(settings)
    yield from _file_problems(settings)


#: Names that InfluxDB, or an answer of it, uses for something else than a tag.
_NO_TAGS = frozenset({"time", "_time", "_start", "_stop", "_value", "_field", "_measurement", "result", "table"})

#: The fields of a window's summary, which has the cohort as a tag. A tag of the same name would hide a field from readers.
SUMMARY_FIELDS = frozenset(
    {"schema", "batch_id", "window_seconds", "rows_read", "rows_released", "rows_withheld", "rows_invalid", "rows_duplicate"}
    | {"rows_starred", "rows_suppressed", "k", "k_unit", "method", "distinct_values", "smallest_group", "distinct_sources"}
    | {"settings_digest", "key_id", "partial", "template_digest"}
)

#: What line protocol cannot carry in the name or value of a tag.
_NO_TAG_TEXT = re.compile(r"[\n\r\0]|\\$")


def _tag_name_problems(settings: Settings) -> Iterator[str]:
    """Yield tags that InfluxDB 2 cannot select by: a query finds no row with them, and without them all (tried with 2.7.12)."""
    for name, tags in (("COHORT_TAG", [settings.cohort_tag]), ("INFLUX_TAG_FILTER", dict(settings.influx_tag_filter))):
        if any("@" in tag for tag in tags):
            yield f"{name} has a tag with an @ in its name, by which InfluxDB 2 cannot select rows: choose a tag of another name"
    if "@" in settings.source_tag and settings.device_filter and not settings.input_file:
        yield (
            "SOURCE_TAG has an @ in its name, by which InfluxDB 2 cannot select the sources of DEVICE_FILTER: leave that empty, or "
            "choose a tag of another name"
        )


def _cohort_problems(settings: Settings) -> Iterator[str]:
    tag, value = settings.cohort_tag, settings.cohort
    for name, text in (("COHORT_TAG", tag), ("COHORT", value)):
        if _NO_TAG_TEXT.search(text):
            yield f"{name} holds a line end, or a backslash last, which no tag of InfluxDB does"
    if settings.input_file and (tag or value):
        yield (
            "COHORT_TAG and COHORT cut a bucket of InfluxDB into parts, INPUT_FILE is read whole: leave them empty, and give each part of "
            "a file a file of its own"
        )
    elif value and not tag:
        yield "COHORT needs COHORT_TAG, the tag that COHORT is a value of, such as ward"
    if not tag:
        return
    if tag == settings.source_tag:
        yield "COHORT_TAG is SOURCE_TAG: the output would name the wearer, and k count one person. Choose a tag of a group, such as ward"
    elif tag in _NO_TAGS or (tag in SUMMARY_FIELDS and settings.output_to_influx):
        yield f"COHORT_TAG={tag} has a meaning of its own in the output: cut the bucket by a tag of another name"
    if tag in dict(settings.influx_tag_filter):
        yield "INFLUX_TAG_FILTER names the tag of COHORT_TAG too: COHORT alone says which of its values is read"


def _missing_for_2(settings: Settings, given: Mapping[str, str]) -> list[str]:
    """Return which settings are empty that an InfluxDB 2 needs, if any InfluxDB is used."""
    is_used = not settings.input_file or settings.output_to_influx
    return [name for name in ("INFLUX_TOKEN", "INFLUX_ORG") if is_used and not given.get(name, "").strip()]


def _user_problems(settings: Settings) -> Iterator[str]:
    if settings.influx_username and not settings.influx_password:
        yield "INFLUX_USERNAME needs INFLUX_PASSWORD or INFLUX_PASSWORD_FILE"
    if ":" in settings.influx_username:
        yield "INFLUX_USERNAME holds a colon, with which no user can be sent to InfluxDB"


_DASK_CERTIFICATES = ("DASK_TLS_CA_FILE", "DASK_TLS_CERT_FILE")


def _file_problems(settings: Settings) -> Iterator[str]:
    for name in ("INFLUX_CA_FILE", "API_CA_FILE", "AWS_CA_BUNDLE", *_DASK_CERTIFICATES):
        path = getattr(settings, name.lower())
        if path and (reason := _file_problem(path)):
            yield f"{name} names {path}, which {reason}"
        elif path and not _is_certificate_file(path):
            yield f"{name} names {path}, which contains no certificate in PEM format"
    reason = _file_problem(settings.input_file) if settings.input_file else ""
    # Folders, patterns and buckets are checked once all settings are known (`service/preflight.py`).
    if reason and not _is_folder_or_pattern(settings.input_file):
        # The name is not shown: a recording may be named after a person.
        yield f"INPUT_FILE names a path that {reason}"


def _output_problems(settings: Settings) -> Iterator[str]:
    if not (settings.output_to_csv or settings.output_to_influx or settings.output_to_parquet or settings.output_to_api):
        yield "no output is enabled: set OUTPUT_TO_CSV, OUTPUT_TO_INFLUX, OUTPUT_TO_PARQUET or OUTPUT_TO_API to true"
    if settings.output_to_api and not settings.api_endpoint:
        yield "OUTPUT_TO_API=true needs API_ENDPOINT, such as http://localhost:5000/api/data"
    if settings.output_to_parquet:
        yield from _parquet_problems(settings)
    used = (settings.input_file.lower(), settings.parquet_url if settings.output_to_parquet else "", settings.spool_url)
    is_half_a_key = bool(settings.aws_access_key_id) != bool(settings.aws_secret_access_key)
    if is_half_a_key and any(address.startswith("s3://") for address in used):
        yield "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together: set both, or neither"


def _parquet_problems(settings: Settings) -> Iterator[str]:
    """Yield where Parquet files would be mixed with other files, or be read as raw ECG."""
    is_bucket = settings.parquet_url.startswith("s3://")
    folder = PurePosixPath(settings.parquet_url) if is_bucket else Path(settings.parquet_url).resolve()
    state = Path(settings.state_dir).resolve()
    if folder == state or any(state / name in (folder, *folder.parents) for name in _FOLDERS_OF_THE_STATE):
        yield "PARQUET_URL is STATE_DIR, or a folder that the service keeps in it: give the Parquet files a folder of their own"
    if settings.input_file:
        # The part before the first wildcard that matches folders of any depth.
        given = settings.input_file.partition("**")[0] or "."
        source = PurePosixPath(given) if given.startswith("s3://") else Path(given).resolve()
        if folder in (source, *source.parents) or (source in folder.parents and not _is_file(given)):
            yield "INPUT_FILE is in PARQUET_URL, or the other way round: released rows would be read as raw ECG. Keep them apart"


#: Files that it keeps there.
_FILES_OF_THE_STATE = (
    *("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "fence", "lock", "audit_log"),
    *("data_set_index", "report.html"),
)


def _audit_log_problems(settings: Settings) -> Iterator[str]:
    """Yield that the audit log is one of the service's other files: one would be written over the other."""
    if not settings.audit_log:
        return
    path, state = Path(settings.audit_log).resolve(), Path(settings.state_dir).resolve()
    kept = (*_FILES_OF_THE_STATE, *_FOLDERS_OF_THE_STATE, "erasures")
    if any(state / name in (path, *path.parents) for name in kept):
        yield "AUDIT_LOG is a file or in a folder that the service keeps in STATE_DIR for something else: call it audit.jsonl"
    used = {"EXCLUDED_SOURCES_FILE": settings.excluded_sources_file, "INPUT_FILE": settings.input_file}
    yield from (f"AUDIT_LOG and {name} are one file" for name, other in used.items() if other and Path(other).resolve() == path)


def _is_file(path: str) -> bool:
    return not _file_problem(path)


#: Folders that the service keeps in STATE_DIR.
_FOLDERS_OF_THE_STATE = ("spool", "set_aside", "given_up", "reports", "chunks", "dask")


def _worker_problems(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the settings that hand chunks to workers."""
    yield from _spool_url_problems(settings)
    scheduler = settings.dask_scheduler
    if not scheduler:
        return
    if settings.streaming_mode:
        yield "DASK_SCHEDULER hands the chunks of a one-shot run to workers: leave it empty, or set STREAMING_MODE=false"
    if scheduler.startswith("tcp://"):
        yield from _problems_without_tls(settings)
    if scheduler.startswith("tls://"):
        for name in (*_DASK_CERTIFICATES, "DASK_TLS_KEY_FILE"):
            if not (path := getattr(settings, name.lower())):
                yield f"{name} is required with DASK_SCHEDULER=tls://…"
            elif name not in _DASK_CERTIFICATES and (reason := _file_problem(path)):
                yield f"{name} names {path}, which {reason}"
    if not (scheduler.startswith("local:") or settings.spool_url):
        yield "SPOOL_URL is required with a DASK_SCHEDULER elsewhere: workers put there what the service reads"


def _problems_without_tls(settings: Settings) -> Iterator[str]:
    host = settings.dask_scheduler.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    is_loopback_address = host != "localhost" and is_loopback(host)
    if not is_loopback_address:
        yield (
            f"DASK_SCHEDULER={settings.dask_scheduler} is not encrypted, and anyone who can reach it can run code as this service: use "
            "tls://, or local:2 for workers on this machine"
        )
    elif not settings.dask_insecure_loopback:
        yield (
            f"DASK_SCHEDULER={settings.dask_scheduler} lets every user of this machine run code as this service: use tls:// or local:2; "
            "for a test, set DASK_INSECURE_LOOPBACK=true"
        )


def _spool_url_problems(settings: Settings) -> Iterator[str]:
    """Yield where waiting chunks would be mixed with other files."""
    if not settings.spool_url:
        return
    others = {
        "PARQUET_URL": settings.parquet_url if settings.output_to_parquet else "",
        "CSV_OUTPUT_DIR": settings.csv_output_dir if settings.output_to_csv else "",
        "INPUT_FILE": settings.input_file.partition("*")[0],
        **{f"STATE_DIR/{name}": str(Path(settings.state_dir) / name) for name in _FOLDERS_OF_THE_STATE},
    }
    spool = _place_of(settings.spool_url)
    for name, address in others.items():
        if address and (other := _place_of(address)) and (spool in (other, *other.parents) or other in spool.parents):
            yield f"SPOOL_URL and {name} are in one another: give SPOOL_URL a place of its own, as private as STATE_DIR"


def _place_of(address: str) -> PurePosixPath | Path:
    return PurePosixPath(address) if "://" in address else Path(address).resolve()


def _csv_problems(settings: Settings, env_file: Path) -> Iterator[str]:
    """Yield where CSV files would be mixed with other files: one with the same name would be moved aside."""
    if not settings.output_to_csv:
        return
    folder, state = Path(settings.csv_output_dir).resolve(), Path(settings.state_dir).resolve()
    if folder == state or any(state / name in (folder, *folder.parents) for name in _FOLDERS_OF_THE_STATE):
        yield "CSV_OUTPUT_DIR is STATE_DIR, or a folder that the service keeps in it: give the CSV files a folder of their own"
    any_time = re.sub("%.", ".*", re.escape(settings.csv_filename_pattern).replace("\\%", "%"))
    others = {"INPUT_FILE": Path(settings.input_file).resolve() if settings.input_file else None, "This .env": env_file.resolve()}
    for name, path in others.items():
        if path and path.parent == folder and re.fullmatch(any_time, path.name):
            yield f"{name} is in CSV_OUTPUT_DIR under a name that CSV_FILENAME_PATTERN may produce: put it elsewhere"


def _is_folder_or_pattern(path: str) -> bool:
    """Return whether a path names a folder, an address, or a pattern that is not itself a file."""
    try:
        return "://" in path or Path(path).is_dir() or (glob.has_magic(path) and not Path(path).exists())
    except OSError:
        return False


def _file_problem(path: str) -> str:
    """Return why a path is not a file, as the end of a sentence; empty if it is one."""
    try:
        return "" if stat.S_ISREG(Path(path).stat().st_mode) else "is not a file"
    except FileNotFoundError:
        return "is not a file"
    except OSError as error:
        return f"cannot be reached ({error.strerror})"


def _is_certificate_file(path: str) -> bool:
    import ssl  # imported only if used

    try:
        ssl.create_default_context(cafile=path)
    except (ssl.SSLError, OSError, ValueError):
        return False
    return True


def _status_problems(settings: Settings) -> Iterator[str]:
    if not settings.status_address:
        return
    try:
        address = parse_address(settings.status_address)
    except ValueError as error:
        yield f"STATUS_ADDRESS must be {error}, got {_shown('STATUS_ADDRESS', settings.status_address)}"
        return
    if not (address.is_loopback or settings.status_token):
        yield f"STATUS_ADDRESS={address} is reachable from other machines and needs STATUS_TOKEN; make one with: {MAKE_A_KEY}"
    if settings.status_token and len(settings.status_token.reveal()) < _SHORTEST_STATUS_TOKEN:
        yield f"STATUS_TOKEN must be at least {_SHORTEST_STATUS_TOKEN} characters; make one with: {MAKE_A_KEY}"


def _token_problems(settings: Settings) -> Iterator[str]:
    for name in SECRETS:
        text = getattr(settings, name.lower()).reveal()
        if name != _KEY and text != text.strip():
            yield f"{name} begins or ends with a blank or line end, which no token does: remove it (one line end of a file is ignored)"


def _pseudonym_problems(settings: Settings) -> Iterator[str]:
    if not settings.pseudonymize_source_id:
        return
    if not settings.pseudonym_salt:
        yield f"PSEUDONYMIZE_SOURCE_ID=true needs PSEUDONYM_SALT or PSEUDONYM_SALT_FILE; make a key with: {MAKE_A_KEY}"
        return
    try:
        check_key(settings.pseudonym_salt.key())
    except ShortKey as error:
        yield f"PSEUDONYM_SALT {error}"


def _span_problems(settings: Settings) -> Iterator[str]:
    start, end = settings.query_start_time, settings.query_end_time
    if start is not None and end is not None and start >= end:
        yield "QUERY_START_TIME must be before QUERY_END_TIME"
    if start is None and end is not None and not (settings.streaming_mode or settings.input_file):
        yield "QUERY_END_TIME needs QUERY_START_TIME"
    if settings.streaming_mode and settings.input_file:
        yield "STREAMING_MODE=true reads from InfluxDB, not from a file: set STREAMING_MODE=false or leave INPUT_FILE empty"
    if settings.streaming_mode and end is not None:
        yield "STREAMING_MODE=true has no end: leave QUERY_END_TIME empty or set STREAMING_MODE=false"


def _warnings_about(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    if not settings.pseudonymize_source_id:
        yield "PSEUDONYMIZE_SOURCE_ID=false: source ids are released unchanged, so the output is identified personal data"
        if settings.pseudonym_purpose:
            yield "PSEUDONYM_PURPOSE is not used without PSEUDONYMIZE_SOURCE_ID=true"
    else:
        yield from (f"{_KEY} {doubt}" for doubt in doubts_about(settings.pseudonym_salt.key()))
    yield from _warnings_about_the_method(settings, given)
    yield from _warnings_about_versions(settings)
    yield from unencrypted(settings)
    yield from _warnings_about_retention(settings)
    if settings.status_address and not parse_address(settings.status_address).is_loopback:
        yield f"STATUS_ADDRESS={settings.status_address} is not encrypted: allow access only through a TLS proxy or a private network"
    if settings.input_file and settings.influx_tag_filter:
        yield "INFLUX_TAG_FILTER does not apply to INPUT_FILE and is ignored"
    if settings.input_file and given.get("DEFAULT_QUERY_HOURS"):
        yield "DEFAULT_QUERY_HOURS does not apply to INPUT_FILE: the whole file is read, or QUERY_START_TIME to QUERY_END_TIME"


def _warnings_about_retention(settings: Settings) -> Iterator[str]:
    outputs = {"the bucket of InfluxDB": settings.output_to_influx, "what the API has taken": settings.output_to_api}
    beyond = [name for name, is_used in outputs.items() if is_used]
    if settings.retention_days is not None and beyond:
        yield (
            f"RETENTION_DAYS does not reach {' and '.join(beyond)}: set a retention there too"
            f"{' (of a bucket: influx bucket update --retention)' if settings.output_to_influx else ''}"
        )


def untold_without_connection(settings: Settings) -> Iterator[str]:
    """Yield what is missing if the server is an InfluxDB 2; only the server states its version."""
    given = {"INFLUX_TOKEN": "set" if settings.influx_token else "", "INFLUX_ORG": settings.influx_org}
    missing = _missing_for_2(settings, given)
    if missing and not settings.influx_username:
        yield (
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set: an InfluxDB 2 needs both, and which version a server "
            "is only a connection tells (--check --connect)"
        )


def _warnings_about_versions(settings: Settings) -> Iterator[str]:
    """Yield what is set and not used."""
    if settings.influx_password and not settings.influx_username:
        yield "INFLUX_PASSWORD is not used without INFLUX_USERNAME"
    of_version_1 = [name for name in ("INFLUX_USERNAME", "INFLUX_RETENTION_POLICY") if getattr(settings, name.lower())]
    if of_version_1 and settings.influx_query_language == "flux":
        yield f"INFLUX_QUERY_LANGUAGE=flux means an InfluxDB 2, which does not use {' and '.join(of_version_1)}"


def unencrypted(settings: Settings) -> Iterator[str]:
    """Yield a warning for each address to which a token, ECG or a query string would be sent unencrypted over a network."""
    reads, writes = not settings.input_file, settings.output_to_influx
    own_output = settings.influx_output_url not in ("", settings.influx_url)
    if reads or (writes and not own_output):
        yield from _sent_in_clear("INFLUX_URL", settings.influx_url, "its token", "INFLUX_CA_FILE")
    if writes and own_output:
        yield from _sent_in_clear("INFLUX_OUTPUT_URL", settings.influx_output_url, "its token", "INFLUX_CA_FILE")
    if settings.aws_endpoint_url and (settings.output_to_parquet or settings.input_file or settings.spool_url):
        yield from _sent_in_clear("AWS_ENDPOINT_URL", settings.aws_endpoint_url, "ECG", "AWS_CA_BUNDLE")
    if settings.output_to_api:
        sent = "API_TOKEN" if settings.api_token else "its query string" if "?" in settings.api_endpoint else "released rows"
        yield from _sent_in_clear("API_ENDPOINT", settings.api_endpoint, sent, "API_CA_FILE")


def _sent_in_clear(name: str, address: str, sent: str, ca_file: str) -> Iterator[str]:
    if address.lower().startswith("http://") and not is_this_machine(address):
        yield (
            f"{name}={shown_address(address)} is not encrypted: others on the network can read {sent}; use https:// "
            f"({ca_file} names a private certificate authority)"
        )


def _warnings_about_the_method(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    if settings.method != "hierarchy":
        yield from _unused_by_the_method(settings, given)
    if settings.method == "rhythm" and settings.batch_size_seconds < RHYTHM_WINDOW_S:
        yield (
            f"BATCH_SIZE_SECONDS={settings.batch_size_seconds} is short for METHOD=rhythm: the heartbeat detector misses fewer beats in "
            f"windows of {RHYTHM_WINDOW_S} s or more"
        )
    if settings.method != "hierarchy":
        return
    if settings.imputation == "midpoint":
        yield "IMPUTATION=midpoint reveals each value's range, which narrows other rows; mean does not (documentation/PRIVACY.md)"
    if settings.residual == "drop":
        yield "RESIDUAL=drop leaves gaps where values were rare, which shows where the R peaks were"


def _unused_by_the_method(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    """Yield other methods' settings that were changed in vain. `.env.example` sets all to their defaults, so defaults do not count."""
    is_rhythm = settings.method == "rhythm"
    names = ("MAX_LEVEL", "RESIDUAL", "IMPUTATION", *(("K_VALUE", "K_UNIT") if is_rhythm else ()))
    fields = {name: DECLARED[name] for name in names}
    unused = [
        name
        for name, field in fields.items()
        if getattr(settings, field.name) != field.metadata["parse"](field.metadata["default"])
    ]
    if is_rhythm and given.get("HIERARCHY_CSV_PATH", "").strip():
        unused.append("HIERARCHY_CSV_PATH")
    if unused:
        forms = "forms no groups" if is_rhythm else "uses no hierarchy levels"
        yield f"METHOD={settings.method} {forms} and ignores {', '.join(unused)}"
    if is_rhythm:
        return
    if given.get("HIERARCHY_CSV_PATH", "").strip():
        yield "METHOD=optimal uses only the first and the last value of HIERARCHY_CSV_PATH: values beyond them are clipped to them"
