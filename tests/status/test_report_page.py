"""A run's report in a real browser: it fits a telephone, and everything on it can be read, in the dark too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anonymizer.windows import NANOSECONDS
from service.report.figures import Attacked, Detail, Figures
from service.report.page import page
from tests.service.test_run_report import figures_of_a_run
from tests.status.test_page import CONTRASTS

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

#: As long as names of outputs become.
LONG = "influxdb:http://influxdb.department-of-cardiology.hospital.example:8086/anonymized-data-of-the-ward"

#: As many attackers and ways as are ever compared.
ATTACKED = Attacked(
    20,
    300,
    ("average beat", "nearest beats", "rhythm alone"),
    tuple((name, ((100, 100), (97, 100), (0, 0))) for name in ("as measured", "this run", "k = 20 rows", "METHOD=rhythm")),
)

#: Returns the labels of plots that lie upon each other, are cut off, or have letters smaller than a person can read.
UNREADABLE = """
const found = [];
for (const plot of document.querySelectorAll(".plot")) {
  const labels = [...plot.querySelectorAll("span")].filter((one) => one.checkVisibility());
  const boxes = labels.map((one) => [one.textContent, one.getBoundingClientRect()]);
  if (labels.length < 4) found.push(`${plot.ariaLabel} has too few labels`);
  for (const one of labels) {
    const pixels = parseFloat(getComputedStyle(one).fontSize);
    if (one.getBoundingClientRect().right > innerWidth) found.push(`${one.textContent} is cut off`);
    if (one.getBoundingClientRect().left < 0) found.push(`${one.textContent} is cut off at the left`);
    if (pixels < 9) found.push(`${one.textContent}: ${pixels.toFixed(1)} px`);
  }
  boxes.forEach(([text, a], index) => {
    for (const [other, b] of boxes.slice(index + 1)) {
      if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) found.push(`${text} upon ${other}`);
    }
  });
}
return found;
"""


#: Returns the numbers that are broken into two lines.
BROKEN = """
const lines = (cell) => { const all = document.createRange(); all.selectNodeContents(cell); return all.getClientRects().length; };
const numbers = [...document.querySelectorAll("td")].filter((one) => /^[\\d,]+$/.test(one.textContent) && one.checkVisibility());
return numbers.filter((one) => lines(one) > 1).map((one) => one.textContent);
"""


def many_bars() -> Figures:
    """Return a report of something wrong, with long names, and with bars over some days."""
    figures = figures_of_a_run(INFLUX_INPUT_BUCKET="raw_ecg_" + 60 * "x")
    outputs = (*figures.outputs, dataclasses.replace(figures.outputs[0], name=LONG, taken=123_456_789, pending=41_040))
    starts = tuple(day * 3600 * NANOSECONDS for day in range(200))
    series = tuple((name, tuple(float(index * 1234 % 99_999) for index in range(200))) for name, _ in figures.over_time.series)
    plot = dataclasses.replace(figures.over_time, starts_ns=starts, width_ns=3600 * NANOSECONDS, series=series)
    counts = dataclasses.replace(figures.counts, withheld=366_768_123)
    return dataclasses.replace(figures, outputs=outputs, over_time=plot, detail=wrong(figures), counts=counts)


def wrong(figures: Figures) -> Detail:
    assert figures.detail is not None
    return dataclasses.replace(figures.detail, violations=1, smallest_group=4, attacked=ATTACKED)


def show(browser: Chrome, folder: Path, figures: Figures, *, width: int, dark: bool = False) -> None:
    path = folder / "report.html"
    path.write_text(page(figures), encoding="utf-8")
    metrics = {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(path.as_uri())
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")


@pytest.mark.parametrize("figures", [figures_of_a_run(), many_bars()], ids=["a run", "long names"])
@pytest.mark.parametrize("width", [320, 390, 1200])
def test_a_report_never_scrolls_sideways_and_its_plots_can_be_read(
    browser: Chrome, tmp_path: Path, width: int, figures: Figures
) -> None:
    show(browser, tmp_path, figures, width=width)

    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(UNREADABLE) == []
    assert browser.execute_script(BROKEN) == []
    assert browser.execute_script("return document.querySelectorAll('.plot').length") >= 2


@pytest.mark.parametrize("figures", [figures_of_a_run(), many_bars()], ids=["kept", "something wrong"])
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_of_a_report_stands_out_from_its_ground(browser: Chrome, tmp_path: Path, dark: bool, figures: Figures) -> None:
    show(browser, tmp_path, figures, width=1200, dark=dark)

    assert browser.execute_script(CONTRASTS) == [], "WCAG asks for 4.5 to 1, or 3 to 1 where letters are large"
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark
