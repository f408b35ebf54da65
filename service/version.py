"""Which version this is."""

from __future__ import annotations

#: Major, minor, patch; a change that makes an old STATE_DIR or `.env` unusable changes the first.
VERSION = "1.0.0"
