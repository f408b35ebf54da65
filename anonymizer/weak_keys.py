"""Which keys are accepted: those that only chance makes, and passphrases that are stretched. Everything else is refused with its reason.

Every pseudonym, and the key's id beside it, lets an attacker test a guess in microseconds, so a key that a person thinks up falls. A digest
(`sha256sum`) of a common word is recognised; one of anything else has the form of a random key and cannot be told from one: only the
command that makes the key can promise chance.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import accumulate, pairwise, product
from typing import Any

from anonymizer.pseudonyms import MAKE_A_KEY, STRETCHED

#: 256 bits: as hexadecimal digits, as base64 without its padding, and as bytes.
_FEWEST_HEX_DIGITS = 64
_FEWEST_BASE64_CHARACTERS = 43
_FEWEST_BYTES = 32

#: A random key of 64 hexadecimal digits has fewer different ones once in 10⁵ keys.
_FEWEST_DIFFERENT_DIGITS = 10

_FEWEST_PASSPHRASE_CHARACTERS = 24

#: Only the beginning of a long key is checked for patterns.
_MOST_LOOKED_AT = 256

#: A thought-up text has often fewer different characters than this.
_FEWEST_DIFFERENT = 6

#: So many characters occur twice in a random key of 64 hexadecimal digits once in a million keys, and one digit is repeated as often.
_LONGEST_REPEAT = 8

#: So many characters occur three times in a random key of 64 hexadecimal digits once in 10⁵ keys.
_THREEFOLD_REPEAT = 4

#: By step: from this share of neighbours (in an alphabet or on a keyboard) on, a key is a sequence. In a random key it is about a fifth.
_MOST_IN_SEQUENCE = {1: 0.5, 2: 0.6}

#: From this share on that one byte, or one difference of neighbours, has among bytes, these were counted up or are numbers.
_MOST_ALIKE_BYTES = 0.3

#: If no more than this share of a key is left without its common words, it is made of words.
_MOST_BESIDE_WORDS = 0.34

#: In random base64: the share of common pairs among pairs of letters (digits read as letters), of signs and of digits, and of neighbours
#: of one kind (capitals, small letters, digits), also with a digit counted as the letter before it.
_COMMON_BY_CHANCE, _SIGNS_BY_CHANCE, _DIGITS_BY_CHANCE = 0.3, 2 / 64, 10 / 64
_ALIKE_BY_CHANCE, _ALIKE_BUT_FOR_DIGITS_BY_CHANCE = 0.355, 0.565

#: From so many standard deviations beyond chance on, in sum, base64 is text. Some two in 10⁵ random keys are taken for text; the keys that
#: people make have 13 or more.
_DEVIATIONS_OF_TEXT = 12.0

#: From this share of bytes on that text in some encoding has, bytes are text. Of random bytes, three in eight are.
_MOST_TEXT = 0.8

#: The same of text with letters of both kinds, such as umlauts in Latin-1. Of random bytes, five in eight are.
_MOST_TEXT_OF_BOTH = 0.97

_ROWS = re.findall(
    r"\S+",
    "abcdefghijklmnopqrstuvwxyz 0123456789abcdef 12345678901 qwertyuiop qwertzuiop azertyuiop asdfghjkl qsdfghjklm zxcvbnm yxcvbnm wxcvbn "
    "1qaz 2wsx 3edc 4rfv 5tgb 6yhn 7ujm 8ik 9ol !@#$%^&*()",
)

_NEXT_TO = frozenset(pair for row in _ROWS for pair in (*pairwise(row), *pairwise(row[::-1])))

# Patterns of words are compiled only where a key calls for it: those of random bytes or digits never do.
_ONLY_WORDS = (
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

#: The most frequent letter pairs of English and German text, a quarter of all pairs: four in five of a text's.
_COMMON_PAIRS = frozenset(
    re.findall(
        "..",
        "thinerhereonteoranatitedseenaresouistilecondnthaaltostngdelimeioroasofvepenensceicriranootecuteaemfosichhicamadiusyotallac"
        "unfictprwiilbeomurloexettrgelapaowsotsrsssifnaopwhsulyblamncelwabuhoodrtdoeekepoadmpieefplckulabibrlmoimmivaaiigniolidumay"
        "ryshrragepbyclocosiawottrmubirlurnfeeiaudaschrrurdehhlfuahwetzmmnnhtltkakrku",
    )
)

#: Passwords that lists of leaked ones begin with, and words that people choose.
_COMMON_PASSWORDS = re.findall(
    r"\S+",
    "123456 12345678 123456789 1234567890 111111 000000 123123 abc123 password1 iloveyou rockyou nicole daniel babygirl lovely "
    "jessica michael ashley iloveu michelle chocolate soccer anthony friends butterfly purple angel jordan liverpool justin "
    "loveme andrea carlos jennifer joshua bubbles superman hannah amanda loveyou pretty basketball andrew angels tweety flower "
    "playboy elizabeth tinkerbell charlie samantha barbie chelsea jasmine brandon melissa matthew robert danielle forever family "
    "jonathan computer whatever vanessa cookie naruto summer spongebob joseph junior softball taylor yellow lauren mickey alexandra "
    "alexis jesus william thomas beautiful mylove angela patrick sakura adrian alexander destiny christian america dancer monica "
    "richard katie diamond hunter orange mustang batman shadow killer trustno1 starwars azerty qwertz access buster george harley "
    "zaq12wsx ginger maggie lakers phoenix pokemon corvette ferrari merlin cowboy magic diablo matrix hunter2 s3cret postgres oracle "
    "mysql grafana holter pulse charite studie krank herz kennwort hallo schatz sommer winter bayern motdepasse soleil bonjour "
    "contrasena hola amor qwerty123 foo bar foobar registry station zurich berlin london paris vienna spring autumn baseball ranger "
    "thunder klaster freedom trustno one arsenal muenchen anna bert carl dora emil fritz gustav heinrich ida julius konrad ludwig "
    "martha nora otto paula quelle samuel theodor ulrich viktor wilhelm xaver ypsilon zacharias elephant coffee laptop window garden "
    "river mountain bicycle library silver",
)

#: Random base64 holds a word of six letters of these once in some 10⁴ keys, and two words of five letters more seldom.
_WORDS = {*_ONLY_WORDS[3:-2].split("|"), *_COMMON_PASSWORDS}
_LONG_WORD, _MIDDLE_WORD = ("|".join(word for word in sorted(_WORDS) if len(word) >= least) for least in (6, 5))

#: Letters as in words put together, no two capitals one after another. Random base64 has so many of them once in some 10⁴ keys.
_CAMEL_CASE = re.compile("(?:[A-Z]?[a-z])+")
_LONGEST_CAMEL_CASE = 30

#: What people write around a word before they hash it.
_AFTER_A_WORD = ("", "\n")

#: Their digests, in hexadecimal, base64 or as bytes, have the form of a key, two of the shorter ones together. Computing all of them takes
#: some 15 ms at a start, so only what is likely is among them.
_DIGESTS: tuple[Callable[[bytes], Any], ...] = (
    hashlib.sha256,
    hashlib.sha512,
    hashlib.sha3_256,
    hashlib.blake2b,
    partial(hashlib.md5, usedforsecurity=False),
    partial(hashlib.sha1, usedforsecurity=False),
)
_MOST_NUMBERS = 1000
_DIGEST_BYTES_COMPARED = 8

#: The fraction of π, and the constants of SHA-256, in hexadecimal digits.
_PUBLIC_DIGITS = (
    "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89452821e638d01377be5466cf34e90c6cc0ac29b7c97c50dd3f84d5b5b5470917",
    "6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19" * 2,
)
_PUBLIC_DIGITS_COMPARED = 32

#: How public keys, certificates, pictures and archives begin.
_HEADS_OF_FILES = (
    b"\0\0\0",
    b"\x30\x59\x30\x13",
    b"\x30\x2a\x30\x05",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"PK\3\4",
    b"%PDF",
    b"\x1f\x8b\x08",
)

#: A sequence in DER with a length of two bytes, and what begins in it: another sequence, a number or an identifier.
_HEAD_OF_DER = re.compile(rb"\x30\x82..[\x30\x02\x06]", re.DOTALL)

_MOST_DECOMPRESSED_BYTES = 1 << 16

#: Encodings of text whose bytes look random, and the share of common letters from which on they are text.
_ENCODINGS = ("utf-16-le", "utf-16-be", "shift_jis", "big5")
_MOST_LETTERS = 0.9
_COMMON_LETTER = re.compile("[0-9A-Za-z\u00c0-\u024f\u0370-\u04ff\u3040-\u30ff\u4e00-\u9fff]")

_LETTERS = re.compile("[a-z]+")

#: Digits and signs that replace letters.
_LETTER_OF = str.maketrans("0134578@$!", "oieastbasi")

_PRINTABLE = b"\0\t\n\r" + bytes(range(0x20, 0x7F))

#: Letters of one-byte encodings of other scripts, with blanks, digits and punctuation.
_OTHER_LETTERS = bytes((*range(0x20, 0x40), *range(0xC0, 0x100)))

_FROM_EBCDIC = bytes(range(256)).decode("cp500").encode("latin-1")

#: From base64 for addresses to the usual one.
_BASE64_OF_URL = str.maketrans("-_", "+/")

#: What editors and shells leave around a key.
_AROUND = " \t\r\n'\"\ufeff"

#: What to do about a refused key.
MAKE_ANOTHER = (
    f"make a key with: {MAKE_A_KEY}; or stretch a passphrase, as scrypt:<32 hexadecimal digits>:<24 characters or more>"
)


def why_refused(key: bytes) -> str:
    """Return why a key is not accepted, as a clause that does not show the key; empty if it is accepted.

    Accepted are, if made by chance: at least 64 hexadecimal digits, base64 of at least 32 bytes, at least 32 bytes that are no text; and
    `scrypt:<32 hexadecimal digits or more>:<24 characters or more>`.
    """
    if key.startswith(b"scrypt:"):
        return _why_not_stretched(key)
    return _why_not_of_a_form(key) or next(filter(None, map(_why_not_random_content, _contents_of(key))), "")


def _why_not_of_a_form(key: bytes) -> str:
    text = _text_of(key)
    if text is None:
        return _why_not_random_bytes(key)
    if re.fullmatch("[0-9A-Fa-f]+", text):
        return _why_not_random_digits(text.lower())
    if found := re.fullmatch("([A-Za-z0-9+/_-]+)={0,2}", text):
        return _why_not_random_base64(found[1])
    bare = text.strip(_AROUND)
    if bare != text and not why_refused(bare.encode()):
        return "it begins or ends with a blank, a line end, a quote or a byte order mark, which would be part of it"
    return _obvious(text) or "it is text, which a person can think up"


def doubts_about(key: bytes) -> Iterator[str]:
    """Yield warnings about a key, each the end of a sentence that begins with its setting. They do not show the key."""
    if why := why_refused(key):
        yield f"is easy to guess: {why}. A reader of one pseudonym can find it and then every wearer; {MAKE_ANOTHER}"
    if _text_of(key) is not None:
        yield from _slips_of_an_editor(key)


def _text_of(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _slips_of_an_editor(key: bytes) -> Iterator[str]:
    if key.strip() != key:
        yield "begins or ends with a blank or line end, which is part of the key; only one line end at the end of a file is not"
    if key[:1] == key[-1:] and key[:1] in (b"'", b'"'):
        yield "begins and ends with a quote, which is part of the key here; in .env it would not be"
    if key.startswith(b"\xef\xbb\xbf"):
        yield "begins with a byte order mark, which is part of the key; another editor may leave it out"


def _why_not_stretched(key: bytes) -> str:
    form, text = STRETCHED.fullmatch(key), _text_of(key)
    if form is None or text is None:
        return "after scrypt: it needs 32 hexadecimal digits or more, a colon and the passphrase in UTF-8"
    salt, passphrase = form[1].decode().lower(), form[2].decode()
    if _pattern_in(salt) or _share_of(_PRINTABLE, bytes.fromhex(salt[: len(salt) // 2 * 2])) >= _MOST_TEXT:
        return "its scrypt salt was not made by chance"
    if len(passphrase) < _FEWEST_PASSPHRASE_CHARACTERS:
        return f"its passphrase has {len(passphrase)} characters and needs {_FEWEST_PASSPHRASE_CHARACTERS}"
    if not any(map(str.isalpha, passphrase)):
        return "its passphrase has no letters"
    return _obvious(passphrase)


def _why_not_random_digits(digits: str) -> str:
    if why := _pattern_in(digits[:_MOST_LOOKED_AT]):
        return why
    if len(digits) < _FEWEST_HEX_DIGITS:
        return f"it has {len(digits)} hexadecimal digits and needs {_FEWEST_HEX_DIGITS}"
    if len(set(digits)) < _FEWEST_DIFFERENT_DIGITS:
        return "it has few different characters"
    if digits.isdecimal():
        return "it is a decimal number"
    if any(
        _is_text(bytes.fromhex(part[: len(part) // 2 * 2]))
        for part in (digits, digits[1:], digits.rstrip("0"), digits.lstrip("0"))
    ):
        return "it is text in hexadecimal digits"
    return _repeat_in(digits[:_MOST_LOOKED_AT])


def _why_not_random_base64(characters: str) -> str:
    if why := _obvious(characters):
        return why
    if len(characters) < _FEWEST_BASE64_CHARACTERS:
        return f"it has {len(characters)} characters and needs {_FEWEST_BASE64_CHARACTERS} (base64) or {_FEWEST_HEX_DIGITS} (hexadecimal)"
    if _holds_words(characters):
        return "it is made of words"
    # Seven in 10⁴ random keys have no digit; none lacks capitals or small letters.
    if not all(re.search(kind, characters) for kind in ("[A-Z]", "[a-z]")):
        return "it lacks the capitals or small letters that base64 has"
    try:
        decoded = base64.b64decode(
            characters + "=" * (-len(characters) % 4), altchars=b"-_" if re.search("[_-]", characters) else None
        )
    except binascii.Error:
        return "it is text, which a person can think up"
    if any(map(_is_text, (decoded, *_decoded_otherwise(characters)))):
        # `openssl rand -hex 32 | base64` is as good as what it encodes.
        inner = decoded.rstrip(b"\r\n")
        return "" if re.fullmatch(b"[0-9A-Fa-f]+", inner) and not why_refused(inner) else "it is text in base64"
    if _deviations_of_text(characters[:_MOST_LOOKED_AT]) > _DEVIATIONS_OF_TEXT:
        return "it is made of words"
    return _repeat_in(characters[:_MOST_LOOKED_AT])


def _why_not_random_bytes(key: bytes) -> str:
    if len(key) < _FEWEST_BYTES:
        return f"it has {len(key)} bytes and needs {_FEWEST_BYTES}"
    if _is_text(key) and why_refused(bytes(byte for byte in key if 0x20 <= byte < 0x7F)):
        return "it is text in another encoding than UTF-8"
    characters = key[:_MOST_LOOKED_AT].decode("latin-1")
    return _pattern_in(characters) or _repeat_in(characters)


def _decoded_otherwise(characters: str) -> Iterator[bytes]:
    """Yield what base64 holds that was written backwards or in rot13."""
    for other in (characters[::-1], codecs.encode(characters, "rot13")):
        yield base64.b64decode(other[: len(other) // 4 * 4].translate(_BASE64_OF_URL))


def _contents_of(key: bytes) -> Iterator[bytes]:
    """Yield the bytes that a key of one of the forms is made of."""
    text = _text_of(key)
    if text is None:
        yield key
        return
    if re.fullmatch("[0-9A-Fa-f]+", text):
        yield bytes.fromhex(text[: len(text) // 2 * 2])
        return
    decoded = base64.b64decode(text.rstrip("=").translate(_BASE64_OF_URL) + "=" * (-len(text.rstrip("=")) % 4))
    inner = decoded.rstrip(b"\r\n")
    yield bytes.fromhex(inner[: len(inner) // 2 * 2].decode()) if re.fullmatch(b"[0-9A-Fa-f]+", inner) else decoded


def _why_not_random_content(content: bytes) -> str:
    looked_at = content[: _MOST_LOOKED_AT // 2]
    if looked_at.startswith(_HEADS_OF_FILES) or _HEAD_OF_DER.match(looked_at):
        return "it is the beginning of a public key, a certificate or another file"
    with suppress(zlib.error):
        stream = zlib.decompressobj()
        stream.decompress(content, _MOST_DECOMPRESSED_BYTES)
        if stream.eof:
            return "it is compressed text"
    if _is_text_of_another_encoding(looked_at):
        return "it is text in another encoding"
    if any(looked_at.hex()[:_PUBLIC_DIGITS_COMPARED] in digits for digits in _PUBLIC_DIGITS):
        return "it is a number that everybody knows"
    differences = [(other - one) % 256 for one, other in pairwise(looked_at)]
    if max(Counter(looked_at).values()) > _MOST_ALIKE_BYTES * len(looked_at) or (
        max(Counter(differences).values()) > _MOST_ALIKE_BYTES * len(differences)
    ):
        return "it is a sequence, or numbers"
    if looked_at.hex()[::-1] == looked_at.hex():
        return "it repeats itself"
    return "it is the digest of a common word" if content[:_DIGEST_BYTES_COMPARED] in _digests_of_words() else ""


@lru_cache(maxsize=1)
def _digests_of_words() -> frozenset[bytes]:
    """Return the beginnings of the digests of common words."""
    texts = {
        (form + after).encode()
        for word in ("", *_WORDS)
        for form, after in product((word, word.capitalize(), word.upper()), _AFTER_A_WORD)
    }
    texts |= {str(number).encode() for number in range(_MOST_NUMBERS)}
    digests = [digest(text) for digest, text in product(_DIGESTS, texts)]
    digests += [hashlib.sha256(one.hexdigest().encode()) for one in digests if one.name in ("sha256", "md5")]
    return frozenset(one.digest()[:_DIGEST_BYTES_COMPARED] for one in digests)


def _is_text(content: bytes) -> bool:
    """Return whether bytes are text in a usual encoding, or nearly so."""
    is_of_a_kind = max(_share_of(kind, content) for kind in (_PRINTABLE, _OTHER_LETTERS)) >= _MOST_TEXT
    return is_of_a_kind or _share_of(_PRINTABLE + _OTHER_LETTERS, content) >= _MOST_TEXT_OF_BOTH


def _share_of(kind: bytes, content: bytes) -> float:
    return 1 - len(content.translate(None, kind)) / len(content)


def _is_text_of_another_encoding(content: bytes) -> bool:
    # Random bytes, as many as a key has, are never all above 127. Text in EUC and GBK is.
    if min(content) > 127 or _share_of(_PRINTABLE, content.translate(_FROM_EBCDIC)) >= _MOST_TEXT:
        return True
    for encoding in _ENCODINGS:
        with suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            if len(_COMMON_LETTER.findall(text)) >= _MOST_LETTERS * len(text):
                return True
    return False


def _obvious(key: str) -> str:
    """Return why a text is easy to guess; empty if no reason was found."""
    text = key[:_MOST_LOOKED_AT].strip().lower()
    if why := _pattern_in(text):
        return why
    return "it is made of common words" if _is_words(text) else ""


def _pattern_in(text: str) -> str:
    if len(set(text)) < _FEWEST_DIFFERENT:
        return "it has few different characters"
    if _repeats(text):
        return "it repeats itself"
    if any(_share_in_sequence(text, step) >= most for step, most in _MOST_IN_SEQUENCE.items()):
        return "it is a sequence, as of an alphabet or a keyboard"
    return ""


def _repeats(text: str) -> bool:
    return any(text == (text[:length] * len(text))[: len(text)] for length in range(1, len(text) // 2 + 1))


def _repeat_in(text: str) -> str:
    """Return why a text that should be random is not: part of it occurs twice, or one character many times in a row."""
    quads = {text[at : at + _THREEFOLD_REPEAT] for at in range(len(text) - _THREEFOLD_REPEAT + 1)}
    parts = [text[at : at + _LONGEST_REPEAT] for at in range(len(text) - _LONGEST_REPEAT + 1)]
    return "it repeats itself" if len(set(parts)) < len(parts) or any(text.count(quad) > 2 for quad in quads) else ""


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
    readings = [words for words in map(_LETTERS.findall, (bare.translate(_LETTER_OF), bare)) if words]
    return any(_rest(words) <= _MOST_BESIDE_WORDS * sum(map(len, words)) for words in readings)


def _holds_words(characters: str) -> bool:
    """Return whether base64 holds common words, also backwards, in rot13 or with digits for letters, or a long run in words' cases."""
    if any(len(run[0]) >= _LONGEST_CAMEL_CASE for run in _CAMEL_CASE.finditer(characters)):
        return True
    lower = characters.lower()
    written = (lower, lower[::-1], codecs.encode(lower, "rot13"))
    readings = (*written, *(one.translate(_LETTER_OF) for one in written))
    return any(re.search(_LONG_WORD, one) or len(re.findall(_MIDDLE_WORD, one)) > 1 for one in readings)


def _rest(words: Sequence[str]) -> int:
    """Return how many letters belong to no common word, or to several put together."""
    return sum(0 if re.fullmatch(_ONLY_WORDS, word) else len(word) for word in words)


def _deviations_of_text(characters: str) -> float:
    """Return by how many standard deviations characters of base64 are more like text than chance is.

    Text has more of the pairs that words have (also backwards or in rot13), fewer capitals, fewer changes between kinds,
    and more signs between words
    or digits for letters.
    """
    kinds = [_kind(one) for one in characters]
    letters = [kind for kind in kinds if kind in ("capital", "small")]
    alike = sum(one == other for one, other in pairwise(kinds))
    cases = list(accumulate(kinds, _kind_but_for_digits))
    alike_but_for_digits = sum(one == other for one, other in pairwise(cases))
    return (
        max(map(_deviations_in_pairs, (characters, characters[::-1], codecs.encode(characters, "rot13"))))
        + _deviations(letters.count("small"), len(letters), 0.5)
        + max(
            _deviations(alike, len(kinds) - 1, _ALIKE_BY_CHANCE),
            _deviations(alike_but_for_digits, len(kinds) - 1, _ALIKE_BUT_FOR_DIGITS_BY_CHANCE),
        )
        + _deviations(kinds.count("sign"), len(kinds), _SIGNS_BY_CHANCE)
        + _deviations(kinds.count("digit"), len(kinds), _DIGITS_BY_CHANCE)
    )


def _deviations_in_pairs(characters: str) -> float:
    pairs = ["".join(pair) for pair in pairwise(characters.translate(_LETTER_OF).lower())]
    of_letters = [pair for pair in pairs if pair.isalpha()]
    return _deviations(sum(pair in _COMMON_PAIRS for pair in of_letters), len(of_letters), _COMMON_BY_CHANCE)


def _deviations(found: int, of: int, share: float) -> float:
    """Return by how many standard deviations a count exceeds what chance gives; 0 if it does not."""
    return max(0.0, (found - share * of) / math.sqrt(max(1, of) * share * (1 - share)))


def _kind_but_for_digits(before: str, kind: str) -> str:
    return before if kind == "digit" else kind


def _kind(character: str) -> str:
    return "digit" if character.isdigit() else "capital" if character.isupper() else "small" if character.islower() else "sign"
