"""Show STATE_DIR, compare it with the outputs, and carry out actions that need an operator's decision.

Reads `.env`, or the file that --env-file names; some commands need only STATE_DIR, which --state-dir can name instead. `show` and `verify`
only read, also while the service runs; stop it for every other command. No command prints data.
Exit codes: 0 good; 1 `verify` found a disagreement, `erase` nothing of the source or rows out of its reach; 64 usage; 65 rows are still
refused; 69 unreachable; 75 the service is running; 78 the configuration or the state cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.errors import (
    ConfigurationError,
    JournalDamaged,
    OutputDenied,
    OutputUnavailable,
    SourceDenied,
    SourceError,
    SourceRefused,
    StateUnavailable,
)
from anonymizer.pseudonyms import Pseudonymizer, stretched
from anonymizer.samples import SampleSource
from anonymizer.windows import Window
from operations.audit import Audit, audit
from operations.erasure.erase import Erasure, Found, Places, digest_of_id, digest_of_pseudonym, was_erased
from operations.erasure.parquet_place import ParquetPlace
from operations.erasure.places import make_bucket_rows
from operations.erasure.rows import Person, forms_of, person_of_id
from operations.journal_copy import copied_journal
from operations.output_readers import make_output_readers
from operations.retry_set_aside import offer_again, unknown
from service import crash_points, exit_codes
from service.pipeline.claims import ClaimStore, end_rival_claims, rival_labels
from service.pipeline.cut_guard import LabelReader
from service.pipeline.released_elsewhere import ANY_TIME, SummaryReader, unknown_releases
from service.process import run
from service.settings.arguments import Parser, argument, path_argument
from service.settings.declared import DECLARED, KNOWN_NAMES, Settings
from service.settings.env_file import settings_in
from service.settings.load import NoConfiguration, environment_settings, load
from service.settings.types import moment, path
from service.startup import with_bucket_name
from service.state.instance_lock import AnotherInstance, InstanceLock
from service.state.intervals import missing
from service.state.journal import Journal
from service.state.journal_file import FORMAT_VERSION
from service.state.output_names import NameHistory, match_outputs, names_now
from service.state.removals import set_aside_place
from service.state.set_aside import SetAside
from service.state.shared_spool import MixedSpool, SharedSpool, SpoolFolder
from service.state.spool import GIVEN_UP, Spool, SpoolDamaged
from service.state.trail import told
from service.telemetry.log_writer import make_printable
from service.time_texts import date_and_time, span_text
from service.wiring.cuts import claimant_of, open_influx_cuts, open_parquet_cuts
from service.wiring.data_set import data_set_labels, parquet_labels
from service.wiring.outputs import held_parquet, make_outputs, make_shared_spool, open_summaries, parquet_place
from service.wiring.recipe import pseudonym_key
from service.wiring.sources import make_source

#: Further disagreements are counted but not listed.
_MOST_LISTED = 50

#: Advice when the operating system denies access.
_AS_ITS_USER = "Run this as the user that STATE_DIR belongs to, such as with: sudo -u ecg-anonymizer"

#: Commands that read a copy of the journal and change nothing, also while the service runs.
_READING = ("show", "verify")

#: How often `verify` looks again, if files are removed meanwhile.
_AUDITS = 3

#: Reads of a spool file before it counts as lost, and the pause between them.
_READS = 3
_BETWEEN_READS_S = 0.5


def show(folder: Path) -> int:
    """Print what was released, the position of the stream and of each output, and how many rows came late. Changes nothing."""
    with copied_journal(folder) as (journal, form):
        _print_state(folder, journal)
    if form not in (0, FORMAT_VERSION):
        print(f"form       {form}, of an earlier version; the service upgrades it to form {FORMAT_VERSION} at its next start")
    return exit_codes.DONE


def _print_state(folder: Path, journal: Journal) -> None:
    totals, position_ns, spooled = journal.totals(), journal.stream_position_ns(), journal.outputs.spooled()
    print(f"STATE_DIR  {folder}")
    print(f"released   {totals.released} rows of {totals.read} read")
    for interval in journal.released_intervals():
        print(f"           {span_text(interval)}")
    print(f"late       {journal.late_rows.total()} rows came after their windows were released")
    print(f"stream     {'never started' if position_ns is None else 'at ' + date_and_time(position_ns)}")
    print(f"spool      {spooled.chunks} chunks, {spooled.size_bytes} bytes wait for outputs")
    removed = journal.removals.rows_by_place()
    for one in journal.outputs.positions():
        set_aside = f"{one.set_aside} set aside{_of_these_removed(removed.get(set_aside_place(one.name), 0))}"
        taken = f"{one.taken} rows taken{_of_these_removed(removed.get(one.name, 0))}"
        print(f"output     {one.name}: {taken}, {set_aside}, {one.pending} pending")
    if begun := sum(map(len, journal.removals.begun().values())):
        print(f"removal    of {begun} files by RETENTION_DAYS was interrupted; the service finishes it at its next start")
    if given_up := sorted((folder / GIVEN_UP).glob("*")):
        print(f"given up   {len(given_up)} spool files are kept in {folder / GIVEN_UP}")
    known = {one.name for one in journal.outputs.positions()}
    for kept in SetAside(folder / "set_aside").all():
        is_off = "" if kept.output in known else " (turned off or renamed, so that nothing is offered to it again)"
        print(f"set aside  {kept.batch_id}, {kept.count} rows, refused by {kept.output}{is_off}: {kept.reason}")


def drop_output(folder: Path, name: str) -> int:
    """Forget an output and the rows that are pending for it."""
    journal = Journal(folder, data_set=None)
    known = {one.name: one for one in journal.outputs.positions()}
    history = NameHistory(Path(os.path.realpath(folder)))
    found = [one for one in known if one == name] or [
        one for one in known if history.current_names(one) & history.current_names(name)
    ]
    if len(found) != 1:
        print(f"There is no output {name!r}; there are: {', '.join(known) or 'none'}")
        return exit_codes.USAGE
    journal.outputs.drop_output(found[0])
    print(f"Output {found[0]} was forgotten; its {known[found[0]].pending} pending released rows will not be delivered to it.")
    journal.close()
    return exit_codes.DONE


def accept_gap(folder: Path, settings: Settings | None) -> int:
    """Mark as released whatever the fence or the outputs' summaries record and the journal does not.

    This includes releases of services that divide the bucket differently.
    """
    journal = Journal(folder, data_set=None, accepting_gap=True)
    if settings is not None and (settings.output_to_influx or settings.output_to_parquet):
        for sentence in _accept_what_outputs_tell(journal, settings):
            print(sentence)
    else:
        print("Without a configuration that writes to InfluxDB or Parquet files, only the fence can tell what was released.")
    print("These intervals now count as released. Releases that only the old journal recorded remain unknown:")
    for interval in journal.released_intervals():
        print(f"  {span_text(interval)} will not be released again")
    journal.close()
    return exit_codes.DONE


class HeldReader(SummaryReader, LabelReader, Protocol):
    """Reads which windows an output holds, and of which data sets."""


def _accept_what_outputs_tell(journal: Journal, settings: Settings) -> Iterator[str]:
    source = make_source(settings)
    try:
        source.open()
        labels = data_set_labels(settings, source, journal)
    except SourceDenied as error:
        yield f"Only the fence can tell what was released: {error}. INFLUX_VERIFY_TOKEN may name a token that can read both buckets."
        return
    finally:
        source.close()

    claimant = claimant_of(settings, labels, journal)

    def accept(summaries: HeldReader, store: ClaimStore, place: str, remedy: str) -> Iterator[str]:
        try:
            rivals = rival_labels(summaries.newest_labels() | summaries.labels(ANY_TIME), claimant)
            found = journal.accept_gap(unknown_releases(summaries, journal, (*labels, *rivals), ANY_TIME))
            journal.facts.accept_labels(rivals)
            yield f"{place} holds {len(found)} more released intervals."
            ended = 0 if settings.input_file else end_rival_claims(store, claimant)
        except SourceDenied as error:
            yield f"Only the fence can tell what was released: {error}. {remedy}"
            return
        if rivals or ended:
            yield (
                f"Services that divide the bucket in another way have written to {place}: what they released counts as released, and "
                f"{ended} of them lost their claim. Never start them again."
            )

    if settings.output_to_influx:
        with open_influx_cuts(settings) as (summaries, claims):
            remedy = "INFLUX_VERIFY_TOKEN may name a token that can read both buckets."
            yield from accept(summaries, claims, f"Bucket {settings.influx_output_bucket}", remedy)
    if settings.output_to_parquet:
        with open_parquet_cuts(settings, must_hold=False) as (held, parquet_claims):
            yield from accept(held, parquet_claims, "PARQUET_URL", "Fix that, and run this again.")


def give_up_lost(folder: Path, *, is_confirmed: bool, env_file: Path = Path(".env")) -> int:
    """Count released batches whose spool file is lost or damaged as set aside, so that outputs go on without them.

    Every file is read again here, whatever the log said. A file that the disk cannot read now may not be lost: then nothing is given up.
    """
    journal = Journal(folder, data_set=None)
    try:
        spool = _spool_of(folder, env_file, journal)
        lost = {number: loss for number in journal.outputs.spooled_chunks() if (loss := _loss_of(spool, number))}
        for number, loss in lost.items():
            print(f"Chunk {number}, {journal.outputs.rows_of(number)} rows: {loss.partition('. ')[0]}")
        if lost and not (is_confirmed or _is_confirmed_by_a_person()):
            print(f"Nothing was given up. Put good copies into {folder / 'spool'}; or run it again with --yes")
            return exit_codes.USAGE
        for number in lost:
            kept = spool.move_aside(number)
            rows = journal.outputs.give_up_chunk(number)
            print(f"Chunk {number}: {rows} released rows will not be delivered to the outputs that lack them.")
            print(f"  What is left of its file is kept as {kept}" if kept else "  It has no file.")
        print(f"{len(lost)} chunks were given up; their windows stay released.")
        return exit_codes.DONE
    finally:
        journal.close()


def _spool_of(folder: Path, env_file: Path, journal: Journal) -> Spool:
    try:
        return MixedSpool(folder / "spool", _shared_spool(folder, env_file, journal.facts.spool_address), journal.outputs)
    except StateUnavailable as error:
        raise StateUnavailable(
            f"{error}: nothing was given up. If it is lost for good, forget each output that lacks these rows with "
            "scripts/state.py drop-output NAME"
        ) from None


def _shared_spool(folder: Path, env_file: Path, address: str) -> SharedSpool:
    """Return the spool that the journal names for workers; the settings supply only the keys of a bucket."""
    if "://" in address:
        return make_shared_spool(load(env_file, os.environ).settings)
    return SharedSpool(SpoolFolder(Path(address or folder / "chunks")))


def _loss_of(spool: Spool, number: int) -> str:
    """Return what is wrong with a spool file, read several times; empty once a read finds it intact.

    Raises:
        StateUnavailable: The disk could not read it in the last attempt.
    """
    error: SpoolDamaged | StateUnavailable | None = None
    for _ in range(_READS):
        if error is not None:
            time.sleep(_BETWEEN_READS_S)
        try:
            spool.read(number)
        except (SpoolDamaged, StateUnavailable) as this_time:
            error = this_time
        else:
            return ""
    if isinstance(error, StateUnavailable):
        raise StateUnavailable(
            f"{error}: nothing was given up. Run it again when the disk answers; a file that it will never give again is lost once "
            "you move it out of the spool"
        )
    return str(error)


def _is_confirmed_by_a_person() -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        return input("Give them up? Outputs that lack these rows will never get them. Type yes: ").strip().lower() == "yes"
    except EOFError:
        return False


def retry_set_aside(folder: Path, settings: Settings) -> int:
    """Offer every batch that was set aside to its output again."""
    journal, set_aside = Journal(folder, data_set=None), SetAside(folder / "set_aside")
    refused = taken = 0
    outputs = make_outputs(settings)
    match_outputs(journal, set_aside, [output.name for output in outputs], state_dir=folder)
    for output in outputs:
        for answer in offer_again(output, journal, set_aside):
            taken, refused = taken + answer.taken, refused + answer.refused
            still = f", {answer.refused} still refused: {answer.reason}" if answer.refused else ""
            print(f"{answer.batch_id}: {output.name} took {answer.taken} rows{still}")
    print(f"{taken} rows were taken, {refused} are still set aside.")
    if left := unknown(journal, set_aside):
        print(
            f"{left} batches in {folder / 'set_aside'} are not known to the journal: their output took them or was turned off, or the "
            "journal is an older copy. They were not offered and are kept."
        )
    journal.close()
    return exit_codes.SET_ASIDE if refused else exit_codes.DONE


def verify(folder: Path, settings: Settings, span: Window) -> int:
    """Compare journal, raw bucket and outputs; print the row balances and every window in which they disagree. Changes nothing."""
    if not settings.influx_verify_token and not settings.input_file:
        print("Set INFLUX_VERIFY_TOKEN (or _FILE) to a token that may read both buckets; without it INFLUX_TOKEN is tried.")
    source = make_source(settings, token=settings.influx_verify_token or None)
    source.open()
    try:
        for _ in range(_AUDITS):
            removed = _removed_now(folder)
            found = _audited(folder, settings, source, span)
            # A running service removed files after the journal was copied, which looks like a loss.
            if not found.disagreements or removed == _removed_now(folder):
                break
    finally:
        source.close()
    _print_audit(found, span)
    return exit_codes.DISAGREEMENT if found.disagreements else exit_codes.DONE


def _removed_now(folder: Path) -> tuple[dict[str, int], dict[str, list[str]]]:
    with copied_journal(folder) as (journal, _):
        return journal.removals.rows_by_place(), journal.removals.begun()


def _audited(folder: Path, settings: Settings, source: SampleSource, span: Window) -> Audit:
    with (
        copied_journal(
            folder, data_set=source.data_set, address=source.data_set_address, earlier_version=source.earlier_version
        ) as (journal, _),
        open_summaries(settings) as summaries,
    ):
        journal.erasures.refuse_open_one()
        labels = data_set_labels(settings, source, journal)
        readers = make_output_readers(settings, summaries, labels)
        journal.outputs.rename_outputs(names_now(journal, [reader.name for reader in readers], state_dir=folder))
        found = audit(journal, span, count_raw=source.count, kept_since_ns=source.kept_since_ns(), readers=readers)
        places: list[tuple[str, SummaryReader]] = []
        if settings.output_to_influx:
            places.append((f"bucket {settings.influx_output_bucket}", summaries))
        if settings.output_to_parquet:
            places.append(("PARQUET_URL", held_parquet(settings, labels)))
        for place, reader in places:
            unknown = _unknown_now(folder, unknown_releases(reader, journal, labels, span))
            found.disagreements += [
                f"{span_text(one)}: {place} holds summaries that the journal does not know" for one in unknown
            ]
    return found


def _unknown_now(folder: Path, unknown: list[Window]) -> list[Window]:
    """Return intervals that the journal does not know now either: a running service released others after the journal was copied."""
    if not unknown:
        return []
    with copied_journal(folder) as (journal, _):
        return missing(unknown, journal.released_intervals())


def erase(folder: Path, settings: Settings, options: argparse.Namespace, env_file: Path) -> int:
    """Take one source's rows back from everything that was released, or say what that would take."""
    crash_points.switch_on(os.environ)
    given = options.source if options.source is not None else options.pseudonym
    if not given.strip():
        print("--source and --pseudonym need an id")
        return exit_codes.USAGE
    journal = Journal(folder, data_set=None, is_erasing=True)
    try:
        if not journal.facts.name:
            print(f"The journal in {folder} knows no data set: nothing was ever released from it")
            return exit_codes.USAGE
        by_id = options.source is not None
        keys = _keys(settings, journal) if settings.pseudonymize_source_id else []
        doubts = [*_doubts_about_keys(journal, keys)] if by_id else []
        person = person_of_id(given, keys, is_released="" in journal.epochs.key_ids()) if by_id else Person(frozenset({given}))
        places = _places(folder, settings, options, journal, given if by_id else "", env_file, doubts)
        erasure = Erasure(places, person, strict=options.strict, now_ns=time.time_ns)
        digest = digest_of_id(journal, given) if by_id else digest_of_pseudonym(journal, given)
        is_known = was_erased(folder, digest)
        if not options.yes:
            found, certificate = erasure.find(), None
            _print_erasure(found, "would be erased")
        else:
            found, certificate = erasure.run(digest)
            _print_erasure(found, "erased")
        is_found = any(found.rows_in_all.values()) or is_known
        if not is_found:
            print("Nothing of this source was found. Is the id written as in the raw data, and are these its service's settings?")
        print(
            "Nothing was changed. Run it again with --yes; --strict takes rows of others too whose value fewer than k still share."
            if certificate is None
            else f"The certificate, without the id, is {certificate}"
        )
        return exit_codes.DONE if is_found and not found.left_behind else exit_codes.NOT_ERASED
    finally:
        journal.close()


def _keys(settings: Settings, journal: Journal) -> list[bytes]:
    """Return the keys of pseudonyms: that in use, and that of PSEUDONYM_SALT without a purpose if windows were released under it."""
    in_use, plain = pseudonym_key(settings), stretched(settings.pseudonym_salt.key())
    return [in_use, *([plain] if plain != in_use and Pseudonymizer(plain).key_id in journal.epochs.key_ids() else [])]


def _doubts_about_keys(journal: Journal, keys: list[bytes]) -> Iterator[str]:
    """Yield what cannot be found from an id: windows that were released under another key."""
    if others := {one for one in journal.epochs.key_ids() if one} - {Pseudonymizer(key).key_id for key in keys}:
        yield (
            f"windows that were released under {len(others)} other keys ({', '.join(sorted(others))}): the source has other pseudonyms "
            "there. Run this again with --pseudonym for each"
        )


def _places(
    folder: Path,
    settings: Settings,
    options: argparse.Namespace,
    journal: Journal,
    source_id: str,
    env_file: Path,
    doubts: list[str],
) -> Places:
    """Return everything that may hold released rows."""
    from scripts.heartbeat.erasure import erase_from_ledger

    salt, ids = _salt_of_ledgers() if options.ledger else None, forms_of(source_id) if source_id else frozenset()
    names: dict[str, list[str]] = {"csv": [], "parquet": [], "influxdb": [], "api": []}
    for output in make_outputs(settings):
        names[output.kind].append(output.name)
    shared = _shared_spool(folder, env_file, journal.facts.spool_address)
    return Places(
        state_dir=folder,
        journal=journal,
        spool=MixedSpool(folder / "spool", shared, journal.outputs),
        csv={name: Path(settings.csv_output_dir) for name in names["csv"]},
        parquet={name: partial(_parquet_place, settings, name, journal) for name in names["parquet"]},
        buckets={name: make_bucket_rows(settings, name, journal) for name in names["influxdb"]},
        apis=names["api"],
        ledgers=[Path(path) for path in options.ledger],
        erase_ledger=lambda path, person, is_dry: erase_from_ledger(path, person.is_named_by, ids, salt, is_dry=is_dry),
        doubts=doubts,
    )


def _parquet_place(settings: Settings, output: str, journal: Journal) -> ParquetPlace:
    source = make_source(settings)
    source.open()
    try:
        labels = parquet_labels(settings, data_set_labels(settings, source, journal))
        return ParquetPlace(parquet_place(settings), labels, output, journal)
    finally:
        source.close()


def _salt_of_ledgers() -> bytes | None:
    from scripts.heartbeat.salt import ACCEPT_WEAK, SALT, SALT_COMMAND, SALT_FILE, find_salt

    environment = {name: os.environ[name] for name in (SALT, SALT_FILE, SALT_COMMAND) if name in os.environ}
    if not environment:
        return None
    # Whatever a ledger was begun with, its entries must be found.
    return stretched(find_salt(None, environment={**environment, ACCEPT_WEAK: "true"}, ask=str, warn=print))


def _print_erasure(found: Found, what: str) -> None:
    for place, rows in found.rows_in_all.items():
        print(f"{what}: {rows} rows in {place}")
    print(f"{found.windows_in_all} released windows lose rows; they stay released.")
    if found.outside:
        print(f"{found.outside} of these rows are in no window that the journal knows.")
    values, traced = found.certificate.get("trace", found.trace).values()
    if traced:
        print(
            f"Trace: of {values} values left in these windows, {traced} ({traced / values:.0%}) are of groups that held a row of the "
            "source. They stay as they were released."
        )
    for sentence in found.out_of_reach:
        print(f"Out of reach: {sentence}")


def _print_audit(found: Audit, span: Window) -> None:
    counts = found.counts
    print(f"{span_text(span)}: {found.windows} released windows")
    if found.accepted:
        print(f"           {found.accepted} intervals were accepted as released; nothing more is known about them")
    print(
        f"read       {counts.read} = {counts.released} released + {counts.withheld} withheld + {counts.invalid} invalid "
        f"+ {counts.duplicate} duplicate{f' + {counts.excluded} excluded' if counts.excluded else ''}"
    )
    print(f"late       {found.late} rows are in the source now that were not when their windows were read")
    if found.expired:
        print(f"expired    {found.expired} windows are older than what the source keeps and were not counted there")
    for one in found.outputs:
        released = one.taken + one.set_aside + one.pending
        held = "cannot be read back" if one.held is None else f"holds {one.held}"
        set_aside = f"{one.set_aside} set aside{_of_these_removed(one.removed_set_aside)}"
        taken = f"{one.taken} taken{_of_these_removed(one.removed)}"
        print(f"output     {one.name}: {released} released = {taken} + {set_aside} + {one.pending} pending; {held}")
    for sentence in found.disagreements[:_MOST_LISTED]:
        print(f"DISAGREES  {sentence}")
    if len(found.disagreements) > _MOST_LISTED:
        print(f"           … and {len(found.disagreements) - _MOST_LISTED} more")
    print("OK: journal, source and outputs agree." if not found.disagreements else f"{len(found.disagreements)} disagreements.")


def _of_these_removed(rows: int) -> str:
    return f" ({rows} of them removed by RETENTION_DAYS)" if rows else ""


def main(arguments: list[str]) -> int:
    """Run the command; return the exit code."""
    make_printable(sys.stdout)
    options = _parse(arguments)
    env_file = Path(options.env_file or ".env")
    try:
        folder = Path(options.state_dir or _state_dir_of(env_file))
    except ConfigurationError as error:
        print("\n".join(error.problems))
        return exit_codes.CONFIGURATION
    try:
        if not folder.is_dir() and options.command != "accept-gap":
            print(f"There is no STATE_DIR {folder}; name it with --state-dir, or the .env that does with --env-file")
            return exit_codes.USAGE
        # Held until the process ends, so that no other process uses the folder; a command that reads works on a copy.
        _lock = None if options.command in _READING else InstanceLock(folder)
        return _do_and_tell(options, folder, env_file)
    except AnotherInstance as error:
        print(error)
        return exit_codes.ANOTHER_INSTANCE
    except (ConfigurationError, JournalDamaged, SpoolDamaged, SourceDenied, SourceRefused, OutputDenied) as error:
        for problem in getattr(error, "problems", (error,)):
            print(problem)
        return exit_codes.CONFIGURATION
    except (SourceError, OutputUnavailable, StateUnavailable) as error:
        print(error)
        return exit_codes.UNREACHABLE
    except OSError as error:
        print(f"{error.filename or folder} cannot be used ({error.strerror or error}). {_AS_ITS_USER}")
        return exit_codes.CONFIGURATION


def _do_and_tell(options: argparse.Namespace, folder: Path, env_file: Path) -> int:
    """Carry out the command; the audit log, if there is one, tells it before and after. It names no ids."""
    return told(folder, options.command, time.time_ns, lambda: _do(options, folder, env_file))


def _do(options: argparse.Namespace, folder: Path, env_file: Path) -> int:
    if options.command == "show":
        return show(folder)
    if options.command == "drop-output":
        return drop_output(folder, options.name)
    if options.command == "give-up-lost":
        return give_up_lost(folder, is_confirmed=options.yes, env_file=env_file)
    if options.command == "accept-gap":
        return accept_gap(folder, _settings_if_any(env_file))
    settings = with_bucket_name(load(env_file, os.environ, must_exist=options.env_file is not None).settings)
    if options.command == "erase":
        return erase(folder, settings, options, env_file)
    if options.command == "retry-set-aside":
        return retry_set_aside(folder, settings)
    return verify(folder, settings, Window(options.start, options.end))


def _settings_if_any(env_file: Path) -> Settings | None:
    """Return the settings; None where neither `.env` nor the environment, as in a container, has any."""
    try:
        return with_bucket_name(load(env_file, os.environ).settings)
    except NoConfiguration:
        return None


def _state_dir_of(env_file: Path) -> str:
    environment, problems, _ = environment_settings({"STATE_DIR": os.environ.get("STATE_DIR", "")})
    if problems:
        raise ConfigurationError(problems)
    folder = environment["STATE_DIR"] or settings_in(env_file, KNOWN_NAMES).get("STATE_DIR")
    try:
        return str(path(folder or str(DECLARED["STATE_DIR"].metadata["default"])))
    except ValueError as error:
        raise ConfigurationError(f"STATE_DIR must be {error}, got {folder!r}") from None


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-file", metavar="PATH", type=path_argument, help="settings file (default: .env)")
    parser.add_argument("--state-dir", metavar="FOLDER", type=path_argument, help="state folder, instead of STATE_DIR")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    commands.add_parser("show", help="show what was released, the position of each output, and late rows")
    verifying = commands.add_parser("verify", help="compare the journal with the raw bucket and with what outputs hold")
    verifying.add_argument(
        "--start", metavar="TIME", type=argument(moment), help="start of the span (ISO 8601, UTC); default: everything"
    )
    verifying.add_argument("--end", metavar="TIME", type=argument(moment), help="end of the span")
    commands.add_parser("retry-set-aside", help="offer refused rows to their outputs again")
    drop = commands.add_parser("drop-output", help="forget an output that was turned off while rows are pending for it")
    drop.add_argument("name", metavar="NAME", help="name of the output, as in the message or in `show`")
    commands.add_parser(
        "accept-gap", help="mark as released what the fence or the output bucket records and the journal does not"
    )
    giving_up = commands.add_parser("give-up-lost", help="go on without released rows whose spool file is lost")
    giving_up.add_argument("--yes", action="store_true", help="do not ask; required where there is no terminal")
    erasing = commands.add_parser("erase", help="take one source's rows back from outputs and STATE_DIR (GDPR Art. 17)")
    who = erasing.add_mutually_exclusive_group(required=True)
    who.add_argument("--source", metavar="ID", help="the source's id")
    who.add_argument("--pseudonym", metavar="P", help="its released id, where the id is not known or its key is another now")
    erasing.add_argument("--yes", action="store_true", help="erase; without it, only what would be erased is said")
    erasing.add_argument("--strict", action="store_true", help="take rows of others too whose value fewer than k still share")
    erasing.add_argument(
        "--ledger", metavar="PATH", action="append", default=[], type=path_argument, help="a ledger of the heartbeat tools, too"
    )
    options = parser.parse_args(arguments)
    if options.command == "verify":
        options.start = ANY_TIME.start_ns if options.start is None else options.start
        options.end = ANY_TIME.end_ns if options.end is None else options.end
        if options.end <= options.start:
            parser.error("--end must be after --start, and after 1970-01-01 if there is no --start")
    return options


if __name__ == "__main__":
    run(main)
