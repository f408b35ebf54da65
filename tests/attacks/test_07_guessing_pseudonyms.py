"""Attack 7: device ids are few and have a pattern; whoever can list them can hash them all."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from tests.attacks.recording import KEY, released_in, run

#: Every id the maker of the devices can have given.
POSSIBLE_IDS = [f"device-{number:05}" for number in range(20_000)]
WORN = ("device-00042", "device-13370")

#: What somebody without the key may try: plain digests, and keys that people choose.
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
    # The attack does work for whoever holds the key: that is why it is the secret.
    assert guessed(pseudonyms, partial(keyed, KEY)) == set(WORN)


@pytest.mark.parametrize("key", ["hunter2", "fifteen bytes ."])
def test_a_key_short_enough_to_guess_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "recording.csv").write_text("timestamp,source_id,ecg\n", encoding="utf-8")

    code, log = run(tmp_path, PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT=key)

    assert (code, "PSEUDONYM_SALT" in log, key in log) == (78, True, False), log
