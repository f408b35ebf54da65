"""A progress bar on a terminal, and only there: windows, rows per second, time left.

Its own thread draws it, so a terminal that is stopped with Ctrl+S, or gone, blocks nothing else.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from service.telemetry.log_writer import lines_written_within

#: How often the bar is drawn.
_DRAW_EVERY_S = 0.1

#: How long drawing the last state may take.
_LAST_DRAW_S = 0.5


@contextmanager
def progress_of(windows: int | None) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call after each chunk, with its windows and rows.

    Args:
        windows: The number of windows of the run; None for a run without an end, which has no bar.
    """
    if not windows or sys.stderr is None or not sys.stderr.isatty():
        yield lambda _windows, _rows: None
        return
    bar = _Bar(windows)
    try:
        yield bar.advance
    finally:
        bar.end()


class _Bar:
    """Draws until `end`.

    Args:
        windows: The number of windows of the run.
    """

    def __init__(self, windows: int) -> None:
        from tqdm import tqdm

        self._windows = self._rows = 0
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._draw_all, args=(tqdm, windows), name="progress", daemon=True)
        self._thread.start()

    def advance(self, windows: int, rows: int) -> None:
        """Record the progress of the run. Only one thread may call it."""
        self._windows += windows
        self._rows += rows

    def end(self) -> None:
        """Draw the last state, if the terminal takes it."""
        self._has_ended.set()
        self._thread.join(_LAST_DRAW_S)

    def _draw_all(self, make_bar: Any, windows: int) -> None:
        hidden_bar = partial(make_bar.external_write_mode, file=sys.stdout)
        with make_bar(total=windows, unit="window", dynamic_ncols=True) as bar, lines_written_within(hidden_bar):
            while not self._has_ended.wait(_DRAW_EVERY_S):
                self._draw(bar)
            self._draw(bar)

    def _draw(self, bar: Any) -> None:
        done = self._windows - bar.n
        if done:
            elapsed_s = bar.format_dict["elapsed"] or 1e-9
            bar.set_postfix_str(f"{self._rows / elapsed_s:,.0f} rows/s", refresh=False)
            bar.update(done)
