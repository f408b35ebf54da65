"""The part of the journal that records what it belongs to: the data set and its labels, and where STATE_DIR and the spool were last."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping

from anonymizer.errors import JournalDamaged
from service.state.digests import KEYED, Digests
from service.state.journal_file import JournalFile
from service.time_texts import moment_text

#: Takes a function that recognises a version of a file by its plain digest, and returns that version's digest; None if there is none.
EarlierVersion = Callable[[Callable[[str], bool]], str | None]


class Facts:
    """What one journal knows of itself and its data set.

    Args:
        file: The journal's file.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._first_file = ""

    @property
    def name(self) -> str:
        """A random secret name of this journal; empty before it has a data set."""
        return str(self._all().get("journal", ""))

    @property
    def digests(self) -> Digests:
        """What makes this journal's digests."""
        return Digests(self.name)

    @property
    def data_set(self) -> str:
        """The data set's name at first use, which batch ids keep forever; empty before that, and of a file that was not opened."""
        recorded = self._all().get("data_set", "")
        return self._first_file if recorded.startswith(KEYED) else recorded

    def first_version(self, data_set: str, earlier_version: EarlierVersion) -> str | None:
        """Return the plain digest that the input file had at first use; None if it is another file now.

        Args:
            data_set: The plain digest that it has now.
            earlier_version: Finds an earlier version of it.
        """
        if self._first_file:
            return self._first_file
        recorded = self._all().get("data_set", "")

        def is_first(digest: str) -> bool:
            # Versions up to form 4 recorded the plain digest.
            return recorded in (digest, self.digests.of_file(digest))

        return data_set if not recorded or is_first(data_set) else earlier_version(is_first)

    def labels(self) -> dict[str, str]:
        """Return the labels that an input file was released under, by the id of the pseudonym key; empty: without pseudonyms."""
        rows = self._file.rows("SELECT value FROM facts WHERE name = 'labels'")
        return {str(key_id): str(label) for key_id, label in self._file.parsed(rows[0][0]).items()} if rows else {}

    def remember_label(self, key_id: str, label: str) -> None:
        """Remember an input file's label, which could not be computed again once the file is gone."""
        before = self.labels()
        self._remember("labels", json.dumps({**before, key_id: label}, sort_keys=True), json.dumps(before, sort_keys=True))

    @property
    def place(self) -> str:
        """The last recorded path of STATE_DIR; empty if there is none."""
        return self._all().get("state_dir", "")

    @property
    def spool_address(self) -> str:
        """Where workers spool chunks, as it was last remembered; empty: in STATE_DIR."""
        return self._all().get("spool_url", "")

    @property
    def spool_label(self) -> str:
        """The label of workers' files, as it was last remembered; empty: there never were any."""
        return self._all().get("spool_label", "")

    def remember_spool(self, address: str) -> None:
        """Remember where workers spool chunks."""
        self._remember("spool_url", address, self.spool_address)

    def remember_spool_label(self, label: str) -> None:
        """Remember the label of workers' files: those of a run that was killed are found by it."""
        self._remember("spool_label", label, self.spool_label)

    def remember_place(self, place: str) -> None:
        """Record the path of STATE_DIR."""
        self._remember("state_dir", place, self.place)

    def _remember(self, name: str, value: str, before: str) -> None:
        if value != before:
            with self._file.transaction() as db:
                db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def accept_labels(self, ends_ns: Mapping[str, int]) -> None:
        """Remember that the windows of other labels up to these times, in nanoseconds since the epoch, count as released here."""
        accepted = self.accepted_labels()
        accepted |= {label: max(end_ns, accepted.get(label, end_ns)) for label, end_ns in ends_ns.items()}
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES ('accepted_labels', ?)", (json.dumps(accepted, sort_keys=True),))

    def accepted_labels(self) -> dict[str, int]:
        """Return up to which time the windows of other labels count as released here."""
        rows = self._file.rows("SELECT value FROM facts WHERE name = 'accepted_labels'")
        return {str(label): int(end_ns) for label, end_ns in self._file.parsed(rows[0][0]).items()} if rows else {}

    def check_data_set(self, data_set: str | None, address: str, earlier_version: EarlierVersion | None) -> None:
        """Check that the journal belongs to this data set, by its name or address, and record both; of a file only a keyed digest."""
        if data_set is None:
            return
        facts = self._all()
        if "data_set" not in facts:
            facts = {**facts, "data_set": data_set, "journal": uuid.uuid4().hex}
            self._record_data_set(facts, data_set, address)
            return
        first = data_set if address else self.first_version(data_set, earlier_version or (lambda _: None))
        if first is None or (address and not _is_same_data_set(facts, data_set, address)):
            # A file's name is its digest, which is not shown: it would let a reader verify guessed values.
            is_shown = address and not facts["data_set"].startswith(KEYED)
            difference = f" ({facts['data_set']}, this one is {data_set})" if is_shown else ""
            raise JournalDamaged(
                f"{self._file.path} belongs to another data set{difference}: another server, bucket, measurement, field, cohort, file or "
                f"folder. Give each data set a STATE_DIR of its own{'' if address else self._advice_if_rewritten()}"
            )
        self._record_data_set(facts, data_set if address else first, address)

    def _record_data_set(self, facts: dict[str, str], data_set: str, address: str) -> None:
        known, facts = self._all(), {**facts, "data_set_address": address}
        is_plain_file = not address and not facts["data_set"].startswith(KEYED)
        if not address:
            self._first_file, facts["data_set"] = data_set, Digests(facts["journal"]).of_file(data_set)
            facts.pop("data_set_id", None)
        elif data_set != address:
            facts["data_set_id"] = data_set
        if facts == known:
            return
        with self._file.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
            if is_plain_file and "data_set" in known:
                db.execute("DELETE FROM facts WHERE name = 'data_set_id'")
                self._file.replaces_plain_text(db)
        self._file.scrub_after_upgrade()

    def _advice_if_rewritten(self) -> str:
        """Return further advice for a file that may be a new version of the recorded one."""
        end_ns: int | None = self._file.value("SELECT max(end_ns) FROM intervals")
        if end_ns is None:
            return ""
        return (
            ". Added rows are recognised only at the end of a CSV file: if INPUT_FILE is the same recording, rewritten with rows added, "
            f"also set QUERY_START_TIME={moment_text(end_ns)} (the end of the released time), or the rest is released twice"
        )

    def _all(self) -> dict[str, str]:
        return dict(
            self._file.rows(
                "SELECT name, value FROM facts "
                "WHERE name IN ('data_set', 'data_set_id', 'data_set_address', 'journal', 'state_dir', 'spool_url', 'spool_label')"
            )
        )


def _is_same_data_set(facts: Mapping[str, str], data_set: str, address: str) -> bool:
    """Return whether a journal's facts name this data set: by its id if both sides know it, else by its address."""
    known, known_id = facts["data_set"], facts.get("data_set_id", "")
    if known_id and data_set != address:
        return data_set == known_id
    # A journal of an earlier version recorded one of the two, without saying which.
    return data_set == known or address in {known, facts.get("data_set_address")} - {""}
