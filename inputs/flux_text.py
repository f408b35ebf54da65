"""Escapes text for Flux queries, so that no bucket, tag or source id is executed as code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def flux_text(text: str) -> str:
    """Return a Flux string literal for any text."""
    return '"' + "".join(_escaped(text)) + '"'


def flux_list(texts: Sequence[str]) -> str:
    """Return a Flux list of string literals."""
    return "[" + ", ".join(map(flux_text, texts)) + "]"


def _escaped(text: str) -> Iterator[str]:
    special = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    for index, character in enumerate(text):
        if character == "$" and text[index + 1 : index + 2] == "{":
            yield "\\"
        yield special.get(character, character)
