"""The status page in a real browser: with clicks and keys, on a narrow screen, in dark mode, and when things break."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anonymizer.windows import NANOSECONDS
from service.settings.types import Secret, StatusAddress
from service.status.snapshot import Levels, Snapshot
from service.status.web import StatusServer
from tests.status import states
from tests.status.events import settings_with

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

#: Where to save pictures of each state; empty: none are taken.
PICTURES = os.environ.get("STATUS_PICTURES", "")

#: How long the page may take to show what changed; it asks every two seconds.
TIMEOUT_S = 60.0


class Shown:
    """The page in the browser, of a service whose state tests change."""

    def __init__(self, browser: Chrome, *, token: str = "") -> None:
        self.browser = browser
        self.make: Callable[[int], Snapshot] = states.healthy
        settings = settings_with(DEVICE_FILTER="patient-17", PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT="0123456789abcdef-key")
        self.server = StatusServer(StatusAddress("127.0.0.1", 0), lambda: self.make(time.time_ns()), settings, Secret(token))
        self.url = f"http://127.0.0.1:{self.server.port}/"
        self.screen(1200, 1400)

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, path: str = "") -> None:
        self.browser.get(self.url + path)
        if not path:
            self.wait_until(lambda: self.text("#headline") != "Asking …")

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def click(self, selector: str) -> None:
        self.browser.find_element("css selector", selector).click()

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not is_so():
            assert time.monotonic() < deadline, self.text("body")
            time.sleep(0.05)

    def picture(self, name: str) -> None:
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(str(Path(PICTURES) / f"status_{name}.png"))


@pytest.fixture
def shown(browser: Chrome) -> Iterator[Shown]:
    shown = Shown(browser)
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    browser.get_log("performance")  # type: ignore[no-untyped-call]
    yield shown
    browser.get("about:blank")
    shown.server.close()


def test_ten_seconds_tell_that_data_flows(shown: Shown) -> None:
    shown.open()

    assert shown.text("#headline") == "All is well"
    assert shown.text("#sentence").startswith("Up to 20")
    assert (shown.text("#lag-name"), shown.text("#lag")) == ("Behind", "0 s")
    assert shown.text("#windows-released") == "412"
    assert shown.text("#rows-released") == "889,920"
    assert shown.text("#rows-unaccounted") == "0"
    assert [shown.text(f"#outputs li:nth-child({index}) .says") for index in (1, 2, 3)] == ["Takes data"] * 3
    assert shown.text("#group-mean") == "28.5 rows"
    assert "408 windows" in shown.text("#levels-note")
    assert shown.text("#levels li:first-child .share") == "35.0 %"
    assert shown.run("return document.querySelectorAll('canvas').length") == 3
    assert shown.text("#spool") == "The spool holds 0 bytes; there is room for 1 GiB."
    shown.picture("healthy")


def test_an_output_that_is_down_is_named_with_its_error_and_what_to_do(shown: Shown) -> None:
    shown.make = states.one_output_down
    shown.open()

    assert shown.text("#headline") == "An output does not take data"
    assert "41,040 rows wait for it" in shown.text("#findings")
    assert "connection refused" in shown.text("#outputs li:nth-child(3) .error")
    assert shown.run("return document.getElementById('banner').dataset.state") == "trouble"
    assert shown.text("#spool") == "The spool holds 801.6 KiB; there is room for 1 GiB."
    shown.picture("output_down")

    shown.click("#findings a")
    shown.wait_until(lambda: shown.browser.current_url.endswith("/help#output_unreachable"))
    assert "The service retries until the output takes the rows" in shown.text("#output_unreachable + dd")


def test_a_stream_says_how_far_it_is_behind_and_a_run_with_an_end_how_much_is_done(shown: Shown) -> None:
    shown.make = states.behind
    shown.open()
    assert (shown.text("#headline"), shown.text("#lag")) == ("Behind", "45 min")
    shown.picture("behind")

    with_an_end = {"run.is_stream": False, "run.windows_in_all": 720, "run.up_to_ns": states.NOW_NS // NANOSECONDS * NANOSECONDS}
    shown.make = lambda now_ns: states.healthy(now_ns, {**with_an_end, "levels": Levels((0,) * 9, 0)})
    shown.open()
    assert (shown.text("#lag-name"), shown.text("#lag")) == ("Done", "418 of 720 windows")
    assert "Shown once 12 windows were released" in shown.text("#levels-note")
    assert shown.run("return document.querySelectorAll('#levels li').length") == 0


def test_the_page_follows_without_being_loaded_again_unless_updates_are_paused(shown: Shown) -> None:
    shown.open()
    shown.run("window.untouched = true")

    shown.make = states.source_down
    shown.wait_until(lambda: shown.text("#headline") == "The source does not answer")
    assert shown.browser.title.startswith("The source does not answer")
    shown.make = states.healthy
    shown.wait_until(lambda: shown.text("#headline") == "All is well")
    assert shown.text("#findings") == ""

    shown.click("#pause")
    time.sleep(1)  # for an answer that is on its way
    shown.make = states.behind
    time.sleep(3)
    assert shown.text("#headline") == "All is well"
    assert shown.run("return document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    shown.click("#pause")
    shown.wait_until(lambda: shown.text("#headline") == "Behind")
    assert shown.run("return window.untouched") is True


def test_a_service_that_ended_is_not_shown_as_well(shown: Shown) -> None:
    shown.open()

    def network(*, offline: bool) -> None:
        conditions = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        shown.browser.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    shown.server.close()
    # The browser keeps a connection open; a server that has ended keeps none.
    shown.browser.execute_cdp_cmd("Network.enable", {})
    network(offline=True)
    try:
        shown.wait_until(lambda: shown.text("#headline") == "The service does not answer")
        assert re.search(r"What is below is from \d\d:\d\d:\d\d UTC", shown.text("#sentence"))
    finally:
        network(offline=False)


def test_the_charts_can_be_read_as_a_table(shown: Shown) -> None:
    shown.open()
    shown.click("#as-table")

    shown.wait_until(lambda: shown.run("return document.querySelectorAll('#table-rows tr').length") > 25)
    first = shown.run("return [...document.querySelectorAll('#table-rows tr:nth-child(2) td')].map((one) => one.textContent)")
    assert re.fullmatch(r"\d\d:\d\d", first[0])
    assert int(first[1]) + int(first[2]) == 12, "twelve windows a minute"


def test_pointing_at_a_chart_shows_its_figures_and_only_then(shown: Shown) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    shown.open()
    told = [shown.text(f"#windows-chart .u-series:nth-child({index}) .u-value").strip() for index in (1, 2, 3, 4)]
    assert told == ["", "", "", ""]

    # A little left of the right end, where the last minutes are.
    chart = shown.browser.find_element("css selector", "#windows-chart .u-over")
    ActionChains(shown.browser).move_to_element_with_offset(chart, int(chart.size["width"] * 0.4), 0).perform()

    shown.wait_until(lambda: shown.text("#windows-chart .u-series:nth-child(1) .u-value").strip() != "")
    time_of_day, released, withheld = (shown.text(f"#windows-chart .u-series:nth-child({index}) .u-value") for index in (1, 2, 3))
    assert re.fullmatch(r"\d\d:\d\d", time_of_day)
    assert int(released) + int(withheld) == 12, "twelve windows a minute"


@pytest.mark.parametrize("width", [320, 360, 768])
def test_a_narrow_screen_never_scrolls_sideways(shown: Shown, width: int) -> None:
    shown.screen(width, 1800)
    shown.make = states.one_output_down
    shown.open()

    assert shown.run("return document.documentElement.scrollWidth") <= width
    shown.open("help")
    assert shown.run("return document.documentElement.scrollWidth") <= width
    if width == 360:
        shown.open()
        shown.picture("narrow")


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_from_its_ground(shown: Shown, dark: bool) -> None:
    shown.screen(1200, 1400, dark=dark)
    for make in (states.healthy, states.one_output_down):
        shown.make = make
        shown.open()
        faint = shown.run(CONTRASTS)
        assert not faint, "WCAG asks for 4.5 to 1, or 3 to 1 where letters are large"
    shown.make = states.healthy
    shown.open()
    shown.picture("dark" if dark else "light")


#: Returns every piece of text whose contrast is too low, by the formula of WCAG 2.
CONTRASTS = """
const channel = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = (color) => {
  const [r, g, b] = color.match(/[\\d.]+/g).map((one) => channel(one / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (one) => {
  while (one && /rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(one).backgroundColor)) one = one.parentElement;
  return one ? getComputedStyle(one).backgroundColor : "rgb(255, 255, 255)";
};
const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const holder = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !holder.checkVisibility()) continue;
  const style = getComputedStyle(holder);
  const [high, low] = [light(style.color), light(ground(holder))].sort((a, b) => b - a);
  const contrast = (high + 0.05) / (low + 0.05);
  const needed = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
  if (contrast < needed) faint.push(`${contrast.toFixed(2)}: ${walker.currentNode.textContent.trim().slice(0, 40)}`);
}
return faint;
"""


def test_the_keyboard_reaches_everything_in_order(shown: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    shown.make = states.one_output_down
    shown.open()
    reached = []
    for _ in range(10):
        shown.browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(str(shown.run("return document.activeElement.textContent.trim().slice(0, 20)")))

    assert reached[:6] == ["Skip to the state", "Metrics", "Readiness", "What it all means", "What to do", "Show as a table"]
    assert "Show all settings; s" in reached
    assert "Pause updates" in reached


def test_everything_has_a_label_for_screen_readers(shown: Shown) -> None:
    shown.make = states.one_output_down
    shown.open()
    tree = shown.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored")]

    headings = [name for role, name in named if role == "heading"]
    # The browser lists what is nested deeper later.
    assert sorted(headings) == sorted(
        ["ECG anonymizer", "An output does not take data", "Outputs", "The last hour", "Levels", "Groups", "Settings"]
    )
    assert "status" in [role for role, _ in named], "changes are announced"
    for role in ("button", "link", "image", "region"):
        assert [name for found, name in named if found == role], role
        assert all(name for found, name in named if found == role), f"every {role} has a name"


def test_a_browser_that_was_told_the_token_once_goes_on_asking_with_it(browser: Chrome) -> None:
    guarded = Shown(browser, token="a-token-of-the-status-page")
    try:
        browser.get(guarded.url.replace("http://", "http://operator:a-token-of-the-status-page@"))
        guarded.wait_until(lambda: guarded.text("#headline") == "All is well")
        guarded.make = states.behind
        guarded.wait_until(lambda: guarded.text("#headline") == "Behind")
        guarded.click("#settings-details summary")
        guarded.wait_until(lambda: "K_VALUE" in guarded.text("#settings"))
    finally:
        browser.get("about:blank")
        guarded.server.close()


def test_settings_show_no_secret_or_person_and_nothing_is_loaded_from_elsewhere_or_goes_wrong(shown: Shown) -> None:
    shown.open()
    shown.click("#settings-details summary")
    shown.wait_until(lambda: "K_VALUE" in shown.text("#settings"))
    assert "(set, not shown)" in shown.text("#settings")
    for private in ("patient-17", "read-only-token", "0123456789abcdef"):
        assert private not in shown.text("body")
    shown.open("help")

    log = shown.browser.get_log("browser")  # type: ignore[no-untyped-call]
    messages = [json.loads(entry["message"])["message"] for entry in shown.browser.get_log("performance")]  # type: ignore[no-untyped-call]
    asked = {one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"}
    assert [entry for entry in log if entry["level"] in ("SEVERE", "WARNING")] == []
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {shown.url.split("/")[2]}
    assert any(url.endswith("/status.json") for url in asked)
