"""What another user may plant at a name that a program is going to use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Plant = Callable[[Path, Path], None]

LINKS: dict[str, Plant] = {
    "link": lambda path, victim: path.symlink_to(victim),
    "link to nothing": lambda path, victim: path.symlink_to(victim.with_name("made")),
    "hard link": lambda path, victim: path.hardlink_to(victim),
}
