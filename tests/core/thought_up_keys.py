"""Keys that people make: common passwords and words, and what people do to them to make them longer or look random.

`python -m tests.core.thought_up_keys 1000000` tries so many and prints how many would be accepted.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import random
import sys
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

WORDS = [
    "password",
    "passwort",
    "secret",
    "geheim",
    "hospital",
    "klinik",
    "krankenhaus",
    "patient",
    "heart",
    "herz",
    "ecg",
    "ekg",
    "cardio",
    "kardiologie",
    "study",
    "studie",
    "wearable",
    "device",
    "sensor",
    "admin",
    "root",
    "test",
    "demo",
    "salt",
    "key",
    "pepper",
    "token",
    "pseudonym",
    "anonymizer",
    "registry",
    "ward",
    "station",
    "zurich",
    "berlin",
    "london",
    "paris",
    "vienna",
    "summer",
    "winter",
    "spring",
    "autumn",
    "dragon",
    "monkey",
    "sunshine",
    "princess",
    "football",
    "baseball",
    "welcome",
    "letmein",
    "qwerty",
    "master",
    "shadow",
    "ashley",
    "michael",
    "jordan",
    "harley",
    "hunter",
    "ranger",
    "buster",
    "soccer",
    "charlie",
    "andrew",
    "michelle",
    "jessica",
    "pepper",
    "daniel",
    "access",
    "thunder",
    "george",
    "computer",
    "maggie",
    "starwars",
    "klaster",
    "freedom",
    "whatever",
    "trustno",
    "one",
    "iloveyou",
    "superman",
    "batman",
    "pokemon",
    "liverpool",
    "chelsea",
    "arsenal",
    "bayern",
    "muenchen",
    "hallo",
    "schatz",
    "sommer",
    "anna",
    "bert",
    "carl",
    "dora",
    "emil",
    "fritz",
    "gustav",
    "heinrich",
    "ida",
    "julius",
    "konrad",
    "ludwig",
    "martha",
    "nora",
    "otto",
    "paula",
    "quelle",
    "richard",
    "samuel",
    "theodor",
    "ulrich",
    "viktor",
    "wilhelm",
    "xaver",
    "ypsilon",
    "zacharias",
    "correct",
    "horse",
    "battery",
    "staple",
    "purple",
    "elephant",
    "coffee",
    "laptop",
    "window",
    "garden",
    "river",
    "mountain",
    "bicycle",
    "library",
    "orange",
    "silver",
]
SENTENCES = (
    "the quick brown fox jumps over the lazy dog and then it runs away",
    "To be, or not to be, that is the question: whether tis nobler in the mind",
    "Auf der Mauer auf der Lauer sitzt auf dem See, Köpfchen in das Wasser",
    "this is the key for the pseudonyms of our study, please never change it",
    "ask the cardiology department for the real key before going live",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
)
WALKS = (
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "1q2w3e4r5t6y7u8i9o0p",
    "qazwsxedcrfv",
    "poiuytrewq",
    "0987654321",
)
LEET = str.maketrans("aeiostbl", "43105781")
SIGNS = "!?.#$%&*-_+ "

Form = Callable[[random.Random], str | bytes]


def _word(chance: random.Random) -> str:
    return chance.choice((str.lower, str.title, str.upper))(chance.choice(WORDS))


def _words(chance: random.Random, most: int = 12) -> str:
    between = chance.choice(("", "", "-", "_", " ", "."))
    return between.join(_word(chance) for _ in range(chance.randint(1, most)))


def _base(chance: random.Random) -> str:
    """Return what a person thinks of first."""
    year = str(chance.randint(1940, 2026))
    return chance.choice(
        (
            _words(chance),
            _words(chance, 3) + year,
            _words(chance, 2).translate(LEET) + chance.choice(SIGNS) * chance.randint(0, 3),
            _words(chance).translate(LEET),
            "".join(_word(chance).title() + str(chance.randint(0, 99)) for _ in range(chance.randint(1, 9))),
            chance.choice(SENTENCES),
            chance.choice(SENTENCES).title().replace(" ", "").replace(",", ""),
            "".join(chance.choice(WALKS) for _ in range(chance.randint(1, 8))),
            f"+{chance.randint(1, 99)} {chance.randint(100, 999)} {chance.randint(1000000, 9999999)}",
            f"{chance.randint(1, 28):02}.{chance.randint(1, 12):02}.{year}",
            f"{_word(chance).lower()}.{_word(chance).lower()}@hospital.example",
        )
    )


def _encoded(text: str, chance: random.Random) -> bytes:
    return text.encode(chance.choice(("utf-8", "utf-8", "latin-1", "utf-16-le", "cp1252")), errors="ignore")


def _filled(text: str, chance: random.Random, length: int = 64) -> str:
    filler = chance.choice(("0", "x", "=", "a", "f", "1", "0123456789abcdef", text))
    padding = (filler * length)[: max(0, length - len(text))]
    return chance.choice((text + padding, padding + text))


FORMS: dict[str, Form] = {
    "as it is": _base,
    "repeated": lambda chance: _base(chance) * chance.randint(2, 6),
    "padded": lambda chance: _filled(_base(chance), chance, chance.choice((32, 44, 64))),
    "in another encoding": lambda chance: _encoded(_base(chance), chance),
    "hexadecimal": lambda chance: _base(chance).encode().hex(),
    "hexadecimal, padded": lambda chance: _filled(_base(chance).encode().hex(), chance),
    "hexadecimal, repeated and cut": lambda chance: (_base(chance).encode().hex() * 64)[:64],
    "base64": lambda chance: base64.b64encode(_base(chance).encode()),
    "base64 twice": lambda chance: base64.b64encode(base64.b64encode(_base(chance).encode())),
    "base64url": lambda chance: base64.urlsafe_b64encode(_base(chance).encode()).rstrip(b"="),
    "md5": lambda chance: hashlib.md5(_base(chance).encode()).hexdigest(),
    "sha1": lambda chance: hashlib.sha1(_base(chance).encode()).hexdigest(),
    "md5 twice": lambda chance: hashlib.md5(_base(chance).encode()).hexdigest() * 2,
    "base64 of md5": lambda chance: base64.b64encode(hashlib.md5(_base(chance).encode()).digest()),
    "uuid": lambda chance: str(uuid.UUID(int=chance.getrandbits(128), version=4)),
    "two uuids": lambda chance: (
        str(uuid.UUID(int=chance.getrandbits(128), version=4)) + str(uuid.UUID(int=chance.getrandbits(128)))
    ),
    "uuid, repeated": lambda chance: uuid.UUID(int=chance.getrandbits(128), version=4).hex * 2,
    "sha256 of a word": lambda chance: hashlib.sha256(_word(chance).encode()).hexdigest(),
    "sha512 of a line": lambda chance: hashlib.sha512(f"{_word(chance)}\n".encode()).hexdigest(),
    "base64 of sha256": lambda chance: base64.b64encode(hashlib.sha256(_word(chance).encode()).digest()),
    "sha256 of md5": lambda chance: hashlib.sha256(hashlib.md5(_word(chance).encode()).hexdigest().encode()).hexdigest(),
    "compressed": lambda chance: base64.b64encode(zlib.compress(_base(chance).encode())),
    "a public key": lambda chance: base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + chance.randbytes(32)),
    "counted": lambda chance: (lambda first, step: bytes((first + step * at) % 256 for at in range(32)).hex())(
        chance.randrange(256), chance.choice((1, 3, 7, 17))
    ),
    "mirrored": lambda chance: (lambda half: half + half[::-1])(chance.randbytes(16).hex()),
    "of one maker": lambda chance: "".join(f"001a2b{chance.getrandbits(24):06x}" for _ in range(6))[:64],
    "scrypt, a date": lambda chance: (
        f"scrypt:{chance.randbytes(16).hex()}:{'.'.join(str(chance.randint(10, 99)) for _ in range(12))}"
    ),
    "rot13": lambda chance: codecs.encode(_base(chance), "rot13"),
    "backwards": lambda chance: _base(chance)[::-1],
    "one digit": lambda chance: chance.choice("0123456789abcdef") * 64,
    "a hexadecimal word": lambda chance: (chance.choice(("deadbeef", "cafebabe", "c0ffee", "0badf00d", "facade")) * 64)[:64],
    "digits only": lambda chance: "".join(chance.choice("0123456789") for _ in range(chance.choice((16, 32, 64)))),
    "with a prefix": lambda chance: chance.choice(("key:", "sha256:", "0x", "PSEUDONYM_SALT=")) + _base(chance),
    "scrypt without salt": lambda chance: f"scrypt:{_base(chance)}",
    "scrypt, no chance in the salt": lambda chance: f"scrypt:{chance.choice('0123456789abcdef') * 32}:{_words(chance)}",
}


def thought_up(number: int, *, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield so many keys, each with how it was made."""
    chance = random.Random(seed)
    forms = list(FORMS.items())
    for at in range(number):
        name, form = forms[at % len(forms)]
        key = form(chance)
        yield name, key if isinstance(key, bytes) else key.encode()


if __name__ == "__main__":
    from anonymizer.weak_keys import why_refused

    asked = int(sys.argv[1])
    accepted = [(name, key) for name, key in thought_up(asked, seed=20) if not why_refused(key)]
    print(f"{asked} keys, {len(accepted)} accepted", dict(Counter(name for name, _ in accepted)))
    print(*accepted[:10], sep="\n")
