"""Selects the channel to read, and decides which channel labels may be shown.

Labels are header text, which may contain patient names. A label is shown only if it consists of the words below, such as `ECG II`; any
other channel is shown by its number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from inputs.recordings.recording import Unreadable

#: Words that may be shown: leads, electrodes, signals recorded beside an ECG, and short numbers.
_SHOWN_WORD = re.compile(
    r"(e[ck]g|lead|ch|chan|channel|einthoven|goldberger|wilson|frank|mod|modified|derived|i{1,3}|d[123]|d?i{1,3}|av[rlf]|m?li{1,3}|"
    r"m?v\d?|v[1-9]r|mcl\d|c[mcsb]\d|e[ck]g\d|ch\d{1,2}|nasa|v?[xyz]|[rl][al]?|exg\d|"
    r"eeg|eog|emg|resp|respiration|pleth|ppg|spo2|sao2|abp|cvp|pap|icp|hr|temp|status|trigger|event|marker|\d{1,2})",
    re.IGNORECASE | re.ASCII,
)

_NUMBER = re.compile(r"(#?)(\d{1,6})", re.ASCII)

#: Longer labels, in words, are not shown.
_MOST_WORDS = 6

#: Further channels are not listed.
_MOST_LISTED = 40

#: Words that only say that the channel is a lead.
_PLAIN_WORDS = frozenset({"ecg", "ekg", "lead", "einthoven"})


def chosen(labels: Sequence[str], wanted: str) -> int:
    """Return the position of the channel to read.

    Args:
        labels: The labels of the file's channels.
        wanted: A label, or a number from 1, with a leading # if labels are numbers too; empty if the file has one channel only.

    Raises:
        Unreadable: The channel is missing or ambiguous. The message lists the channels.
    """
    if not labels:
        raise Unreadable("has no channel with samples")
    if not wanted:
        if len(labels) == 1:
            return 0
        raise Unreadable(f"has {_listed(labels)}: set INPUT_CHANNEL to one of them, by its label or its number")
    found = _matching(labels, wanted.strip())
    if len(found) == 1:
        return found[0]
    if found:
        raise Unreadable(
            f"has {_listed(labels)}; INPUT_CHANNEL fits {len(found)} of them: set it to # and the number of one, such as #2"
        )
    raise Unreadable(f"has {_listed(labels)}; INPUT_CHANNEL names none of them")


def _matching(labels: Sequence[str], wanted: str) -> list[int]:
    """Return the channels that a text names: by label, number, label in another case, or lead (`II` for `ECG II`)."""
    exact = [position for position, label in enumerate(labels) if label.strip() == wanted]
    number = _NUMBER.fullmatch(wanted)
    if number and 1 <= int(number[2]) <= len(labels):
        # A label may itself be a number: then both must agree.
        return sorted({*(() if number[1] else exact), int(number[2]) - 1})
    for form in (str.casefold, _lead):
        if not exact:
            exact = [position for position, label in enumerate(labels) if form(label.strip()) == form(wanted)]
    return exact


def _lead(label: str) -> tuple[str, ...]:
    words = _words(label.casefold())
    return tuple(word for word in words if word not in _PLAIN_WORDS) or words


def _words(label: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s()\[\]:._/,+-]+", label) if word)


def _listed(labels: Sequence[str]) -> str:
    shown = [f"{position} {_shown(label)}".strip() for position, label in enumerate(labels[:_MOST_LISTED], start=1)]
    more = "" if len(labels) <= _MOST_LISTED else f", and {len(labels) - _MOST_LISTED} more"
    return f"{len(labels)} channels ({', '.join(shown)}{more})"


def _shown(label: str) -> str:
    """Return a label that looks like a lead's; for any other, a placeholder."""
    words = _words(label)
    if not words:
        return ""
    # Two numbers may be part of a date of birth.
    is_shown = (
        len(words) <= _MOST_WORDS
        and label.strip().isprintable()
        and all(_SHOWN_WORD.fullmatch(word) for word in words)
        and sum(word.isdigit() for word in words) <= 1
    )
    return label.strip() if is_shown else "(label not shown)"
