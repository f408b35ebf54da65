"""The same work for many things, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_lanes(work: Callable[[_T], _R], things: Sequence[_T], *, lanes: int) -> list[_R]:
    """Return what `work` returns for each thing, in order, at most `lanes` of them under way at a time.

    Nothing is begun after the first failure, which is raised once nothing is under way any more. The threads are daemons, unlike those of
    `concurrent.futures`: a write that hangs must not keep the process from ending.
    """
    results: dict[int, _R] = {}
    failures: list[BaseException] = []
    waiting, lock = iter(range(len(things))), threading.Lock()

    def lane() -> None:
        while not failures:
            with lock:
                index = next(waiting, None)
            if index is None:
                return
            try:
                results[index] = work(things[index])
            except BaseException as error:  # noqa: BLE001  (raised below, by the thread that asked)
                failures.append(error)

    others = [threading.Thread(target=lane, daemon=True) for _ in range(min(lanes, len(things)) - 1)]
    for other in others:
        other.start()
    lane()
    for other in others:
        other.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(things))]
