"""Detects guessable keys: repeats, sequences, words. An attacker with one pseudonym can try such keys until one fits.

A key that passes may still be weak: only a random key is good.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from anonymizer.pseudonyms import MAKE_A_KEY

#: Only the beginning of a long key is checked.
_MOST_LOOKED_AT = 256

#: A random key has more different bytes: sixteen hexadecimal digits have about ten.
_FEWEST_DIFFERENT = 6

#: By step: from this share of neighbours (in an alphabet or on a keyboard) on, a key is a sequence. In a random key it is about a fifth.
_MOST_IN_SEQUENCE = {1: 0.66, 2: 0.8}

#: If no more than this share of a key is left without its common words, it is made of words.
_MOST_BESIDE_WORDS = 0.34

_ROWS = re.findall(
    r"\S+",
    "abcdefghijklmnopqrstuvwxyz 0123456789abcdef 12345678901 qwertyuiop qwertzuiop azertyuiop asdfghjkl qsdfghjklm zxcvbnm yxcvbnm wxcvbn "
    "1qaz 2wsx 3edc 4rfv 5tgb 6yhn 7ujm 8ik 9ol !@#$%^&*()",
)

_NEXT_TO = frozenset(pair for row in _ROWS for pair in (*pairwise(row), *pairwise(row[::-1])))

_ONLY_WORDS = re.compile(
    "(?:"
    "changeme|change|replace|insert|enter|fill|todo|fixme|default|example|sample|test|demo|dummy|placeholder|your|mine|our"
    "|the|this|that|here|for|with|and|not|is|are|was|please|value|password|passwort|passwd|pass|passphrase|secret|geheim"
    "|geheimnis|key|salt|pepper|token|pseudonym|pseudonymize|anonym|anonymous|anonymize|anonymizer|anonymization|admin"
    "|administrator|root|user|guest|login|letmein|welcome|hello|world|qwerty|master|monkey|dragon|sunshine|princess|football"
    "|hospital|clinic|klinik|krankenhaus|ward|patient|doctor|nurse|heart|ecg|ekg|cardio|cardiology|kardiologie|wearable"
    "|device|sensor|medical|health|study|research|data|server|service|influx|influxdb|docker|compose|production|prod|staging"
    "|dev|development|local|localhost|internal|company|long|short|very|super|really|some|random|string|text|hash|hmac|sha"
    "|bytes|byte|sixteen|thirty|two|chars|characters|minimum|least|must|keep|private|safe|secure|security|strong|good|new|old"
    "|correct|horse|battery|staple|my|an|to|of|in|on|at|be|it|no|it|me|beat|set|er|s|you|love|i"
    ")+"
)

_LETTERS = re.compile("[a-z]+")

#: Digits and signs that replace letters.
_LETTER_OF = str.maketrans("0134578@$!", "oieastbasi")


def doubts_about(key: bytes) -> Iterator[str]:
    """Yield warnings about a key, each the end of a sentence that begins with its setting. They do not show the key."""
    if why := _obvious(key):
        yield f"is easy to guess: {why}. A reader of one pseudonym can find it and then every wearer; make a key with: {MAKE_A_KEY}"
    if _is_text(key):
        yield from _slips_of_an_editor(key)


def _is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _slips_of_an_editor(key: bytes) -> Iterator[str]:
    if key.strip() != key:
        yield "begins or ends with a blank or line end, which is part of the key; only one line end at the end of a file is not"
    if key[:1] == key[-1:] and key[:1] in (b"'", b'"'):
        yield "begins and ends with a quote, which is part of the key here; in .env it would not be"
    if key.startswith(b"\xef\xbb\xbf"):
        yield "begins with a byte order mark, which is part of the key; another editor may leave it out"


def _obvious(key: bytes) -> str:
    """Return why a key is easy to guess; empty if no reason was found."""
    text = key[:_MOST_LOOKED_AT].decode("latin-1").strip().lower()
    if len(set(text)) < _FEWEST_DIFFERENT:
        return "it has few different characters"
    if _repeats(text):
        return "it repeats itself"
    if any(_share_in_sequence(text, step) >= most for step, most in _MOST_IN_SEQUENCE.items()):
        return "it is a sequence, as of an alphabet or a keyboard"
    if _is_words(text):
        return "it is made of common words"
    return ""


def _repeats(text: str) -> bool:
    return any(text == (text[:length] * len(text))[: len(text)] for length in range(1, len(text) // 2 + 1))


def _share_in_sequence(text: str, step: int) -> float:
    pairs = list(zip(text, text[step:], strict=False))
    in_rows = sum(one == other or (one, other) in _NEXT_TO for one, other in pairs)
    same_step = max(Counter(ord(other) - ord(one) for one, other in pairs).values(), default=0)
    return max(in_rows, same_step) / max(len(pairs), 1)


def _is_words(text: str) -> bool:
    """Return whether a key consists mostly of common words, also with digits for letters. At least a third must be letters."""
    bare = text.rstrip("0123456789!?. ")
    if sum("a" <= character <= "z" for character in text) * 3 < len(text):
        return False
    readings = (bare.translate(_LETTER_OF), bare)
    return any(_rest(words) <= _MOST_BESIDE_WORDS * sum(map(len, words)) for words in map(_LETTERS.findall, readings) if words)


def _rest(words: Sequence[str]) -> int:
    """Return how many letters belong to no common word, or to several put together."""
    return sum(0 if _ONLY_WORDS.fullmatch(word) else len(word) for word in words)
