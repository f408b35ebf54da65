"""Attack 7: device ids are few and have a pattern; a reader who can list them can hash them all."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from anonymizer.pseudonyms import Pseudonymizer, derived_key, keyed_digest, stretched
from anonymizer.weak_keys import why_refused
from tests.attacks.recording import IDS, KEY, PSEUDONYMS, released_in, run, write_recording

#: Every id the maker of the devices can have given.
POSSIBLE_IDS = [f"device-{number:05}" for number in range(20_000)]
WORN = ("device-00042", "device-13370")

#: What a reader without the key may try: plain digests, and keys that people choose.
GUESSED_KEYS = ("", "secret", "salt", "password", "changeme", "PSEUDONYM_SALT", "0" * 32)


def digest(name: str, text: str) -> str:
    return hashlib.new(name, text.encode()).hexdigest()


def keyed(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


ATTACKS: dict[str, Callable[[str], str]] = {
    **{name: partial(digest, name) for name in ("sha256", "sha1", "md5", "sha512")},
    **{f"hmac {key!r}": partial(keyed, key) for key in GUESSED_KEYS},
    "id as key": lambda text: keyed(text, text),
}


def guessed(pseudonyms: Iterable[str], attack: Callable[[str], str]) -> set[str]:
    """Return the ids found behind pseudonyms by trying all."""
    wanted = set(pseudonyms)
    return {name for name in POSSIBLE_IDS if attack(name) in wanted or attack(name)[:16] in wanted}


def test_an_unkeyed_digest_hides_no_device() -> None:
    naive = {hashlib.sha256(name.encode()).hexdigest() for name in WORN}

    assert guessed(naive, ATTACKS["sha256"]) == set(WORN)


def test_a_keyed_pseudonym_is_found_by_none_of_these(tmp_path: Path) -> None:
    lines = [f"2025-11-03T14:30:00.{i:03}Z,{name},10" for name in WORN for i in range(10)]
    (tmp_path / "recording.csv").write_text("\n".join(["timestamp,source_id,ecg", *lines]) + "\n", encoding="utf-8")

    code, log = run(tmp_path, PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT=KEY)

    assert code == 0, log
    pseudonyms = {row[1] for row in released_in(tmp_path)}
    assert len(pseudonyms) == 2
    assert {name: guessed(pseudonyms, attack) for name, attack in ATTACKS.items()} == {name: set() for name in ATTACKS}
    # The attack works for holders of the key: that is why it is the secret.
    assert guessed(pseudonyms, partial(keyed, KEY)) == set(WORN)


#: What an attacker tries as keys: words with a year, and what people do to them to make them look random.
WORDS = ("hospital", "cardiology", "ecg-study", "zurich", "wearable", "sunshine")
MADE_OF_A_WORD: dict[str, Callable[[str], bytes]] = {
    "repeated": lambda word: (word * 8)[:64].encode(),
    "its hexadecimal digits, filled up": lambda word: (word.encode().hex() + "0" * 64)[:64].encode(),
    "base64": lambda word: base64.b64encode(f"the key of {word}, kept secret for ever".encode()),
    "md5 twice": lambda word: hashlib.md5(word.encode()).hexdigest().encode() * 2,
    "sha256": lambda word: hashlib.sha256(word.encode()).hexdigest().encode(),
    "a sentence": lambda word: f"this is the key of the {word} project, do not change it".encode(),
}


def found_key(pseudonym: str, source_id: str) -> bytes | None:
    """Return the key behind one pseudonym of a known id, if it is one that people choose."""
    guesses = (
        form(f"{word}{year}") for word in WORDS for year in ("", *map(str, range(2015, 2027))) for form in MADE_OF_A_WORD.values()
    )
    return next((key for key in guesses if keyed_digest(stretched(key), source_id.encode()) == pseudonym), None)


@pytest.mark.parametrize("form", MADE_OF_A_WORD)
def test_what_each_kind_of_key_is_worth_against_who_tries_what_people_choose(form: str) -> None:
    """Each falls to one pseudonym. All but the digest of a word are refused; that one cannot be told from a random key."""
    chosen = MADE_OF_A_WORD[form]("cardiology2021")
    pseudonym = Pseudonymizer(chosen).released_id(WORN[0])

    assert found_key(pseudonym, WORN[0]) == chosen
    assert bool(why_refused(chosen)) == (form != "sha256")
    assert found_key(Pseudonymizer(KEY.encode()).released_id(WORN[0]), WORN[0]) is None


def test_a_purpose_makes_pseudonyms_of_its_own(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}
    for purpose in ("", "registry-a", "registry-b"):
        folder = tmp_path / f"for {purpose}"
        folder.mkdir()
        write_recording(folder / "recording.csv")
        code, log = run(folder, **PSEUDONYMS, PSEUDONYM_PURPOSE=purpose)
        assert code == 0, log
        seen[purpose] = {row[1] for row in released_in(folder)}

    for purpose, others in (("registry-a", {"", "registry-b"}), ("registry-b", {""})):
        key = derived_key(KEY.encode(), f"pseudonyms for {purpose}")
        assert seen[purpose] == set(Pseudonymizer(key).released_ids(IDS))
        assert not any(seen[purpose] & seen[other] for other in others)
    assert seen[""] == set(Pseudonymizer(KEY.encode()).released_ids(IDS))

    # As another key does, a purpose changes the key's id, and needs an operator's word.
    code, log = run(tmp_path / "for registry-a", **PSEUDONYMS, PSEUDONYM_PURPOSE="registry-b")
    assert (code, "the pseudonym key changed" in log) == (78, True)


@pytest.mark.parametrize("key", ["hunter2", "fifteen bytes ."])
def test_a_key_short_enough_to_guess_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "recording.csv").write_text("timestamp,source_id,ecg\n", encoding="utf-8")

    code, log = run(tmp_path, PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT=key)

    assert (code, "PSEUDONYM_SALT" in log, key in log) == (78, True, False), log
