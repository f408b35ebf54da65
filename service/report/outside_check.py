"""What a report says of the check that needs no trust in it: the command, with what was promised filled in."""

from __future__ import annotations

from collections.abc import Iterator

from anonymizer.batch import Promise
from anonymizer.windows import Window
from service.report.figures import Figures
from service.report.markup import spans_text


def outside_check(figures: Figures) -> Iterator[str]:
    """Yield how to check what was released without us; an API cannot be read back."""
    times: dict[str, list[Window]] = {}
    for one in figures.promised:
        if one.promise is not None:
            times.setdefault(_options(figures, one.promise, one.window_s), []).extend(one.spans)
    kinds = {one.name.partition(":")[0] for one in figures.outputs}
    if not times or not kinds & {"csv", "influxdb"}:
        return
    yield (
        "<p>All of this is the service's own word. Whoever need not take it runs the outside check, one file that uses nothing of "
        "this program and reads what was released:</p>"
    )
    for options, spans in times.items():
        if len(times) > 1:
            yield f"<p>Of {spans_text(sorted(spans))}:</p>"
        if "csv" in kinds:
            yield f"<p><code>python scripts/verify_output.py FILES {options}</code> (FILES: the CSV files)</p>"
        if "influxdb" in kinds:
            yield (
                f"<p><code>python scripts/verify_output.py --env-file .env {options}</code> (the output bucket, with a token in "
                "INFLUX_VERIFY_TOKEN that may read it)</p>"
            )


def _options(figures: Figures, promise: Promise, window_s: int) -> str:
    imputed = " --imputed" if figures.counts.starred or figures.counts.suppressed else ""
    return f"--k {promise.k} --batch-seconds {window_s} --k-unit {promise.k_unit}{imputed}"
