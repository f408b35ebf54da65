"""EXCLUDED_SOURCES_FILE: the sources whose rows are not released, one id per line. Read again for every chunk.

An added id acts at once. A removed one acts once the file has been unchanged for a minute, so that a file that is being rewritten
releases no source; and only rows measured after that are released. While the file cannot be read, nothing is.
"""

from __future__ import annotations

import logging
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from anonymizer.errors import ConfigurationError, StateUnavailable
from anonymizer.exclusion import Exclusion, id_digest
from anonymizer.pseudonyms import keyed_digest
from anonymizer.windows import NANOSECONDS
from service.clock import Clock
from service.log_event import LogEvent
from service.state.exclusions import SeenList
from service.state.journal import Journal

_LIST_CHANGED = LogEvent(
    "exclusion_list_changed",
    "🚫 EXCLUDED_SOURCES_FILE has changed: %d sources are excluded, %d of them from now on; %d return, with rows measured from now on",
    "sources added returned",
)
_RETURN_WAITS = LogEvent(
    "exclusion_return_waits",
    "🚫 %d sources are no longer in EXCLUDED_SOURCES_FILE; they stay excluded until it has been unchanged for %d s",
    "sources seconds",
)

_DOUBTFUL = LogEvent(
    "exclusion_list_doubtful",
    "⚠️ EXCLUDED_SOURCES_FILE: %d lines, such as line %d, hold a comma, a semicolon, a quote or a #, and count as one id each, as they "
    "are: write one id per line, without quotes or comments",
    "lines line",
    logging.WARNING,
)

#: What a table, or a list with comments, has in its lines, and ids seldom.
_OF_OTHER_FORMS = frozenset(',;"#')

#: Control characters, and others that end a line or a cell in some programs.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

#: Unicode's category of characters that cannot be seen.
_UNSEEN = "Cf"

#: How long the file must be unchanged before a removed id acts.
_UNCHANGED_S = 60

#: A larger file is not a list of sources.
_MOST_BYTES = 16 << 20

_PAUSED = "no window is released while it is unknown who is excluded"


class ExclusionList:
    """The list of one run. Not safe for use from several threads.

    Args:
        path: The file; None: there is none.
        journal: Remembers who is excluded, and who returned when.
        clock: The service's clock.

    Raises:
        ConfigurationError: There is no file, although the journal knows of sources that are excluded.
    """

    def __init__(self, path: Path | None, journal: Journal, clock: Clock) -> None:
        self._path = path
        self._journal = journal
        self._clock = clock
        self._key = journal.facts.digests.exclusion_key
        self._until_ns = journal.exclusions.until_ns()
        self._listed = journal.exclusions.listed()
        self._seen = journal.exclusions.seen_list()
        self._waiting: set[str] = set()
        if path is None and self._listed:
            raise ConfigurationError(
                f"EXCLUDED_SOURCES_FILE is not set, and {len(self._listed)} sources were excluded by it: set it again; an empty file "
                "excludes no source"
            )

    def snapshot(self) -> Exclusion:
        """Return whose rows are not released now.

        Raises:
            StateUnavailable: The file is missing, cannot be read, or cannot be understood.
        """
        if self._path is not None:
            self._follow(read_list(self._path))
        return Exclusion(self._key, self._until_ns)

    def _follow(self, content: bytes) -> None:
        now_ns, digest = self._clock.now_ns(), keyed_digest(self._key, content)
        is_new = self._seen is None or self._seen.digest != digest
        since_ns = now_ns if self._seen is None or is_new else min(self._seen.since_ns, now_ns)
        if not is_new and not self._waiting and self._is_followed:
            return
        current = {id_digest(self._key, source_id) for source_id in ids_in(content)}
        if not self._is_followed or is_new:
            _warn_of_doubtful(content)
        added, gone = current - self._listed, self._listed - current
        ended = gone if now_ns - since_ns >= _UNCHANGED_S * NANOSECONDS else set()
        if gone and not ended and gone != self._waiting:
            _RETURN_WAITS.log(len(gone), _UNCHANGED_S)
        if is_new or added or ended:
            self._record(SeenList(digest, since_ns), added, ended, now_ns)
        self._waiting, self._is_followed = gone - ended, True

    #: Whether this run has compared the file with the journal.
    _is_followed = False

    def _record(self, seen: SeenList, added: set[str], ended: set[str], now_ns: int) -> None:
        exclusions = self._journal.exclusions
        exclusions.record(seen=seen, added=added, ended=ended, now_ns=now_ns)
        self._seen, self._listed, self._until_ns = seen, exclusions.listed(), exclusions.until_ns()
        if added or ended:
            _LIST_CHANGED.log(len(self._listed), len(added), len(ended))


def read_list(path: Path) -> bytes:
    """Return the content of EXCLUDED_SOURCES_FILE.

    Raises:
        StateUnavailable: It is missing or cannot be read now, or holds something else than ids.
    """
    try:
        # A pipe would block the service for ever. A link is fine: secrets and lists of containers are links.
        if not stat.S_ISREG(path.stat().st_mode):
            raise StateUnavailable(f"EXCLUDED_SOURCES_FILE {path} is no regular file: {_PAUSED}")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise StateUnavailable(f"EXCLUDED_SOURCES_FILE {path} cannot be read ({error.strerror or error}): {_PAUSED}") from None
    if problem := next(_problems(content), ""):
        raise StateUnavailable(f"EXCLUDED_SOURCES_FILE {path}{problem}: {_PAUSED}")
    return content


def ids_in(content: bytes) -> list[str]:
    """Return the ids in a list, which has no problems: each as it is, and without characters that cannot be seen."""
    return [one for line in _lines(content) for one in dict.fromkeys((line, _seen(line))) if one.strip()]


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")


def _seen(text: str) -> str:
    """Return a text without what joined files (byte order marks) and web pages (soft hyphens, spaces without width) leave in it."""
    return text if text.isascii() else "".join(one for one in text if unicodedata.category(one) != _UNSEEN)


def _warn_of_doubtful(content: bytes) -> None:
    """Warn of lines that look like a table or a comment. They are not refused: an id may look so."""
    found = [number for number, line in enumerate(_lines(content), start=1) if not _OF_OTHER_FORMS.isdisjoint(line)]
    if found:
        _DOUBTFUL.log(len(found), found[0])


def _problems(content: bytes) -> Iterator[str]:
    if len(content) > _MOST_BYTES:
        yield f" has more than {_MOST_BYTES} bytes, which no list of source ids has"
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield f", line {number}, is not UTF-8 text"
        else:
            if _CONTROL.search(text.removesuffix("\r")):
                yield f", line {number}, holds a control character: write one id per line, as UTF-8 text"
