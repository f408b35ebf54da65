"""The version, as shown by `--version`, log, report, metrics, status page, archive and image alike."""

from __future__ import annotations

#: Major, minor, patch; a change that makes an old STATE_DIR or `.env` unusable changes the first.
VERSION = "1.0.0"

# `git archive` fills this in (.gitattributes), so an archive knows what it was made from.
_ARCHIVED = "$Format:%H$"

#: The commit that a source archive was made from; empty in a clone, which has git to ask.
COMMIT = "" if _ARCHIVED.startswith("$") else _ARCHIVED

#: Both, in words.
VERSION_IN_WORDS = f"{VERSION}, commit {COMMIT[:12]}" if COMMIT else VERSION
