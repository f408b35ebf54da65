"""Keys that a person thought up are told from keys made by chance, and what is said of them never shows them."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

import pytest

from anonymizer.weak_keys import doubts_about

THOUGHT_UP = {
    "it has few different characters": ["a" * 32, "0" * 64, "abababababababab", "aaaabbbbccccdddd", "deadbeef" * 4],
    "it repeats itself": ["0123456789abcdef" * 2, "12345678901234567890", "Passwort!Passwort!", "s3cr3t-k3y-s3cr3t-k3y-"],
    "it is a sequence": [
        *("0123456789abcdef", "abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlk", "qwertyuiopasdfgh", "1q2w3e4r5t6y7u8i"),
        *("1qaz2wsx3edc4rfv", "00112233445566778899aabbccddeeff", "acegikmoqsuwybdf", "9876543210fedcba", "ABCDEFGH12345678"),
    ],
    "it is made of common words": [
        *("changeme-changeme", "change-me-please-now", "my-secret-salt-2025", "this-is-a-secret-key", "P@ssw0rdP@ssw0rd1"),
        *("your-secret-salt-here", "supersecretsalt123", "PSEUDONYM_SALT_32_BYTES", "correct horse battery staple"),
    ],
}


@pytest.mark.parametrize(("why", "key"), [(why, key) for why, keys in THOUGHT_UP.items() for key in keys])
def test_a_key_that_is_easy_to_guess_is_told_with_its_reason_and_not_shown(why: str, key: str) -> None:
    (doubt,) = (doubt for doubt in doubts_about(key.encode()) if doubt.startswith("is easy to guess: "))

    assert doubt.startswith("is easy to guess: ")
    assert why in doubt or "it repeats itself" in doubt
    assert key not in doubt


def test_a_key_made_by_chance_is_hardly_ever_doubted() -> None:
    chance = random.Random(7)
    draws: dict[str, Callable[[], str]] = {
        "64 hexadecimal digits": lambda: chance.randbytes(32).hex(),
        "32 hexadecimal digits": lambda: chance.randbytes(16).hex(),
        "base64": lambda: base64.b64encode(chance.randbytes(32)).decode("ascii"),
        "base64, short": lambda: base64.urlsafe_b64encode(chance.randbytes(12)).decode("ascii"),
    }
    for name, draw in draws.items():
        doubted = sum(any(doubts_about(draw().encode())) for _ in range(2000))
        assert doubted <= 2, name
    assert sum(any(doubts_about(chance.randbytes(32))) for _ in range(2000)) == 0
    assert not any(doubts_about(b" " + chance.randbytes(30) + b"\n"))


@pytest.mark.parametrize(
    ("key", "doubt"),
    [
        (b"7c1e4fa09b3d582611e0c94da5f87b36 ", "begins or ends with a blank or line end"),
        (b"\n7c1e4fa09b3d582611e0c94da5f87b36", "begins or ends with a blank or line end"),
        (b"'7c1e4fa09b3d582611e0c94da5f87b36'", "begins and ends with a quote"),
        (b"\xef\xbb\xbf7c1e4fa09b3d582611e0c94da5f87b36", "begins with a byte order mark"),
    ],
)
def test_what_another_program_may_read_in_another_way_is_told(key: bytes, doubt: str) -> None:
    assert [one.startswith(doubt) for one in doubts_about(key)] == [True]
