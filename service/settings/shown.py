"""The settings in a form that may be shown: without secrets, and without values that may identify a wearer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anonymizer.windows import NANOSECONDS
from service.settings.declared import ADDRESSES, DECLARED, PERSONAL, SECRETS, Settings
from service.settings.types import Secret
from service.time_texts import as_datetime
from transport.addresses import shown_address

_MOMENTS = ("QUERY_START_TIME", "QUERY_END_TIME", "INPUT_START_TIME")


def shown_settings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield every setting's name and what may be shown of its value."""
    for name, field in DECLARED.items():
        yield name, _shown(name, getattr(settings, field.name))


def _shown(name: str, value: Any) -> str:
    if name in SECRETS or isinstance(value, Secret):
        return "(set, not shown)" if value else "(not set)"
    if value is None or value in ("", ()):
        return ""
    if name in PERSONAL:
        return f"({len(value)} named, not shown)" if isinstance(value, tuple) else "(set, not shown)"
    if name in _MOMENTS:
        return as_datetime(value).strftime("%Y-%m-%dT%H:%M:%SZ") + ("" if value % NANOSECONDS == 0 else " (and a fraction)")
    if name in ADDRESSES:
        return shown_address(value)
    if name == "OUTPUT_FILE_MODE":
        return f"{value:04o}"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
