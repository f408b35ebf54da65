"""A progress bar on a terminal: windows, rows a second, time left. Nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_of(windows: int | None) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be told after each chunk how many windows and rows it had.

    Args:
        windows: How many windows there will be; None when there is no end, and so no bar.
    """
    if not windows or not sys.stderr.isatty():
        yield lambda _windows, _rows: None
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with tqdm(total=windows, unit="window", dynamic_ncols=True) as bar, logging_redirect_tqdm():
        rows_in_all = 0

        def advance(done: int, rows: int) -> None:
            nonlocal rows_in_all
            rows_in_all += rows
            elapsed_s = bar.format_dict["elapsed"] or 1e-9
            bar.set_postfix_str(f"{rows_in_all / elapsed_s:,.0f} rows/s", refresh=False)
            bar.update(done)

        yield advance
