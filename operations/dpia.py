"""A draft of a data protection impact assessment: what settings and journal tell is filled in, what only the site knows is a question.

The text, `dpia_template.md`, gets no id, value, secret or path of input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from anonymizer.windows import Window
from service.report.figures import Figures
from service.settings.declared import Settings, cohort_of
from service.settings.types import parse_address
from service.time_texts import many_text, moment_text
from service.version import VERSION
from transport.addresses import is_this_machine, shown_address

#: What only the site knows.
FILL_IN = "[…]"

#: All that a journal tells.
EVERYTHING = Window(-(1 << 62), 1 << 62)


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of a site.

    Args:
        settings: Its settings.
        figures: What its journal tells of all time; None before the first release.
        key_doubt: Why its pseudonym key is weak, as a clause; empty if it is not.
        linkage: What `scripts/advise.py` measured of recognition on its data; empty if nothing was measured.
        made_ns: When the draft is made.
    """

    settings: Settings
    figures: Figures | None
    key_doubt: str
    linkage: str
    made_ns: int


def draft(site: Site) -> str:
    """Return the draft in Markdown."""
    settings = site.settings
    reads_influx, writes_influx = not settings.input_file, settings.output_to_influx
    # Markdown, which `_escaped` escapes: HTML's entities would be shown as they are.
    texts = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=False)  # noqa: S701
    return texts.get_template("dpia_template.md").render(
        F=FILL_IN,
        md=_escaped,
        s=settings,
        made=moment_text(site.made_ns),
        version=VERSION,
        source=_source(settings),
        whose=_whose(settings),
        rhythm=settings.method == "rhythm",
        by_source=settings.k_unit == "source",
        outputs=list(_outputs(settings)),
        released=_so_far(site.figures),
        mode=f"{settings.output_file_mode:04o}",
        unencrypted=list(_unencrypted(settings)),
        status_is_open=bool(settings.status_address) and not parse_address(settings.status_address).is_loopback,
        same_server=reads_influx and writes_influx and settings.influx_output_url in ("", settings.influx_url),
        one_token=reads_influx
        and writes_influx
        and settings.influx_output_token.reveal() in ("", settings.influx_token.reveal()),
        key_doubt=site.key_doubt,
        verify_token=bool(settings.influx_verify_token.reveal()),
        exclusion=bool(settings.excluded_sources_file),
        linkage=site.linkage.strip(),
    )


def _escaped(text: str) -> str:
    """Return a setting's text so that it cannot become Markdown of its own."""
    return "".join(f"\\{one}" if one in "\\`*_[]<>|#" else " " if one in "\r\n" else one for one in text)


def _source(settings: Settings) -> str:
    if settings.input_file:
        return "the file, folder or object store that INPUT_FILE names"
    return f"bucket {_escaped(settings.influx_input_bucket)} of InfluxDB at {_escaped(shown_address(settings.influx_url))}"


def _whose(settings: Settings) -> str:
    cohort = cohort_of(settings)
    parts = [f"of the cohort {_escaped(str(cohort))}"] if cohort else []
    if settings.device_filter:
        parts.append(f"{len(settings.device_filter)} sources named by DEVICE_FILTER")
    return ", ".join(parts) or "all sources there"


def _outputs(settings: Settings) -> Iterator[str]:
    if settings.output_to_csv:
        yield f"CSV files in {_escaped(settings.csv_output_dir)}"
    if settings.output_to_influx:
        address = shown_address(settings.influx_output_url or settings.influx_url)
        yield f"bucket {_escaped(settings.influx_output_bucket)} of InfluxDB at {_escaped(address)}"
    if settings.output_to_parquet:
        yield f"Parquet files at {_escaped(settings.parquet_url)}"
    if settings.output_to_api:
        yield f"the API at {_escaped(shown_address(settings.api_endpoint))}"


def _unencrypted(settings: Settings) -> Iterator[tuple[str, str]]:
    is_used = {
        "InfluxDB": (
            settings.influx_url,
            not settings.input_file or (settings.output_to_influx and not settings.influx_output_url),
        ),
        "The output's InfluxDB": (settings.influx_output_url, settings.output_to_influx),
        "The API": (settings.api_endpoint, settings.output_to_api),
        "The object store": (settings.aws_endpoint_url, True),
    }
    for name, (url, used) in is_used.items():
        if used and url.lower().startswith("http://") and not is_this_machine(url):
            yield name, shown_address(url)


def _so_far(figures: Figures | None) -> str:
    if figures is None or not figures.windows_released:
        return ""
    counts, spans = figures.counts, figures.released_spans
    return (
        f"{many_text(figures.windows_released, 'window')} between {moment_text(spans[0].start_ns)} and {moment_text(spans[-1].end_ns)}: "
        f"{counts.read:,} rows read, {counts.released:,} released, {counts.withheld:,} withheld, {counts.invalid:,} invalid, "
        f"{counts.duplicate:,} duplicate; {figures.rows_late:,} came late and were not released"
    )
