"""Cohorts on the real server: services that share a raw and an output bucket, and those that may not."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest

from scripts.verify_output import main as verify_output
from tests.faults.ward import wait_until
from tests.integration.clinic import FIRST_MINUTE, START_NS, Clinic
from tests.integration.service_process import Service, free_address, run_service, state

pytestmark = pytest.mark.influxdb

#: What is said to a service that would release what another one releases.
REFUSED = "is used by a service that releases this data set"

#: How many windows wards are live in `make test`, of a second each, and how long those wait for rows.
LIVE_S, LATENESS_S = 4, 1

SECOND_NS = 10**9


def settings_of(clinic: Clinic, ward: str | None, tag: str = "ward", **more: Any) -> dict[str, object]:
    """Return the settings of one ward's service; None: without cohorts."""
    cohort = {} if ward is None else {"COHORT_TAG": tag, "COHORT": ward}
    token = clinic.server.make_token(read=[clinic.raw, clinic.released], write=[clinic.released])
    usual = {**clinic.settings, **FIRST_MINUTE, "PSEUDONYMIZE_SOURCE_ID": "false", "OUTPUT_TO_CSV": "false"}
    return {**usual, "INFLUX_OUTPUT_TOKEN": token, **cohort, **more}


def fill_wards(clinic: Clinic) -> None:
    """Put 20 rows of one wearer of each of wards 3 and 4 and of none into the first three windows."""
    lines = [
        f"ecg,source_id=of{ward or 'none'}{f',ward={ward},site=A' if ward else ''} ecg={i % 2} {START_NS + start * SECOND_NS + i * 10**6}"
        for ward in ("3", "4", "")
        for start in (0, 5, 10)
        for i in range(20)
    ]
    clinic.server.write_lines(clinic.raw, "\n".join(lines).encode())


def sources_of(clinic: Clinic) -> Counter[str]:
    """Return how many rows of each wearer were released."""
    return Counter(source for _, source in clinic.stored())


def summaries_of(clinic: Clinic) -> list[dict[str, str]]:
    flux = (
        f'from(bucket: "{clinic.released}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "ecg_anonymized_windows") '
        '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
    )
    return clinic.server.rows(flux)


def summaries_by_ward(clinic: Clinic) -> dict[str, dict[str, dict[str, str]]]:
    """Return the summaries of each ward by their windows."""
    rows = summaries_of(clinic)
    return {ward: {row["_time"]: row for row in rows if row.get("ward") == ward} for ward in ("3", "4")}


def both_wards(clinic: Clinic) -> list[str]:
    """Return the windows that both wards have released."""
    by_ward = summaries_by_ward(clinic)
    return sorted(set(by_ward["3"]) & set(by_ward["4"]))


@contextmanager
def services(folder: Path, settings: Mapping[str, dict[str, object]]) -> Iterator[dict[str, Service]]:
    """Start services at one moment, each in a folder of its own."""
    with ExitStack() as all_of_them:
        started = {}
        for name, given in settings.items():
            (folder / name).mkdir(exist_ok=True)
            started[name] = all_of_them.enter_context(Service(folder / name, given))
        yield started


@contextmanager
def live_wards(clinic: Clinic, moved: list[int], slowest_ns: list[int]) -> Iterator[list[int]]:
    """Let wearers of two wards and one of none send 40 rows a second; `w3` moves to ward 4 in the middle of a second, which is noted.

    So is how long it took at most until a row was stored.
    """
    stop, sent_ns = threading.Event(), list[int]()

    def send() -> None:
        began_ns = time.time_ns()
        while not stop.is_set():
            now_ns = time.time_ns() // 25_000_000 * 25_000_000
            is_middle = (
                400 * 10**6 < now_ns % SECOND_NS < 600 * 10**6 and sent_ns and sent_ns[-1] // SECOND_NS == now_ns // SECOND_NS
            )
            if not moved and now_ns - began_ns > 2 * SECOND_NS and is_middle:
                moved.append(now_ns)
            lines = [
                f"ecg,source_id=w3,ward={4 if moved else 3} ecg={now_ns // 25_000_000 % 2} {now_ns}",
                f"ecg,source_id=s3,ward=3 ecg={now_ns // 25_000_000 % 2} {now_ns}",
                f"ecg,source_id=w4,ward=4 ecg={now_ns // 25_000_000 % 2} {now_ns}",
                f"ecg,source_id=visitor ecg=1 {now_ns}",
            ]
            clinic.server.write_lines(clinic.raw, "\n".join(lines).encode())
            sent_ns.append(now_ns)
            slowest_ns[0] = max(slowest_ns[0], time.time_ns() - now_ns)
            time.sleep(max(0.0, 0.025 - (time.time_ns() - now_ns) / SECOND_NS))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield sent_ns
    finally:
        stop.set()
        thread.join(10)


def test_two_wards_stream_side_by_side_and_no_other_cut_of_the_bucket_does(clinic: Clinic, tmp_path: Path) -> None:
    live: dict[str, Any] = {
        "STREAMING_MODE": "true",
        "BATCH_SIZE_SECONDS": 1,
        "ALLOWED_LATENESS_SECONDS": LATENESS_S,
        "QUERY_START_TIME": "",
        "QUERY_END_TIME": "",
    }
    address, moved, slowest_ns = free_address(), list[int](), [0]
    wards = {
        "3": settings_of(clinic, "3", **live, STATUS_ADDRESS=address),
        "4": settings_of(clinic, "4", **live, LOG_FORMAT="json"),
    }
    others = {"site": settings_of(clinic, "A", "site", **live), "whole": settings_of(clinic, None, **live)}

    with live_wards(clinic, moved, slowest_ns) as sent_ns, services(tmp_path, wards) as running:
        for ward in ("3", "4"):
            running[ward].wait_for("Pushing")
        with services(tmp_path, others) as refused:
            codes = {name: service.exit_code() for name, service in refused.items()}
            logs = {name: service.log for name, service in refused.items()}
        wait_until(lambda: len(both_wards(clinic)) >= LIVE_S and bool(moved), "windows of both wards, and a wearer who moves")
        with urlopen(f"http://{address}/metrics") as page:
            metrics = page.read().decode()
        assert {service.stop() for service in running.values()} == {0}
        log = {ward: service.log for ward, service in running.items()}

    assert codes == {"site": 78, "whole": 78}, logs
    assert "cut into cohorts by another tag, and this one releases the cohort site=A" in logs["site"]
    assert "cut into cohorts, and this one releases all of it, without COHORT_TAG" in logs["whole"]
    # Every row once, in windows of its ward: those of both wards that were done to the end of the shorter one.
    summaries, both = summaries_by_ward(clinic), both_wards(clinic)
    assert len(summaries_of(clinic)) == len(summaries["3"]) + len(summaries["4"])
    stored = Counter(time_text[:19] for time_text, _ in clinic.stored())
    assert all(int(row["smallest_group"]) >= 5 == int(row["k"]) for each in summaries.values() for row in each.values())
    assert all(stored[at[:19]] == sum(int(summaries[ward][at]["rows_released"]) for ward in ("3", "4")) for at in both)
    assert "visitor" not in sources_of(clinic)
    change = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moved[0] // SECOND_NS))
    if change in both and slowest_ns[0] < LATENESS_S * SECOND_NS:  # else the machine was too busy, and rows came late
        rows = {ward: int(summaries[ward][change]["rows_read"]) for ward in ("3", "4")}
        sent = sum(at // SECOND_NS == moved[0] // SECOND_NS for at in sent_ns)
        assert sum(rows.values()) == 3 * sent
        assert all(sent < part < 2 * sent for part in rows.values()), "split in the middle of the window"
    # Each says which cohort it is of.
    assert re.search(r'ecg_anonymizer_cohort_info\{tag="ward",value="3"\} 1', metrics)
    assert all('"cohort": "ward=4"' in line for line in log["4"].splitlines() if line.startswith("{"))
    env = {"INFLUX_VERIFY_TOKEN": str(wards["3"]["INFLUX_OUTPUT_TOKEN"])}
    where = ["--url", clinic.server.url, "--org", clinic.server.org, "--bucket", clinic.released]
    assert verify_output([*where, "--stop", both[-1]], env) == 0
    code, said = state(tmp_path / "3", "verify")
    assert code == 0, said


def test_an_installation_is_split_into_wards_and_the_whole_never_comes_back(clinic: Clinic, tmp_path: Path) -> None:
    fill_wards(clinic)
    (tmp_path / "whole").mkdir()
    code, log = run_service(tmp_path / "whole", settings_of(clinic, None, QUERY_END_TIME="2025-11-03T14:30:10Z"))
    assert code == 0, log
    rows = sources_of(clinic)
    wards = {ward: settings_of(clinic, ward[1:]) for ward in ("w3", "w4", "w")}

    with services(tmp_path, wards) as refused:
        assert {service.exit_code() for service in refused.values()} == {78}
        assert all(REFUSED in service.log for service in refused.values())
    # The first one ends the claim. The others find the summaries.
    for ward, ended in (("w3", 1), ("w4", 0), ("w", 0)):
        code, said = state(tmp_path / ward, "accept-gap")
        assert (code, f"{ended} of them lost their claim" in said) == (0, True), said
    with services(tmp_path, wards) as going_on:
        assert {service.exit_code() for service in going_on.values()} == {0}, [service.log for service in going_on.values()]
        logs = {ward: service.log for ward, service in going_on.items()}
    assert sources_of(clinic) - rows == {"of3": 20, "of4": 20, "ofnone": 20}, "only the window that the whole had not released"
    assert "60 rows have no tag ward" in logs["w3"] + logs["w4"] or "belong to no cohort" not in logs["w3"] + logs["w4"]

    code, log = run_service(tmp_path / "whole", settings_of(clinic, None))
    assert (code, REFUSED in log) == (78, True), log


def test_services_of_three_cuts_that_start_at_one_moment_never_release_beside_each_other(clinic: Clinic, tmp_path: Path) -> None:
    fill_wards(clinic)
    cuts = {"3": ("3", "ward"), "4": ("4", "ward"), "site": ("A", "site"), "whole": (None, "ward")}
    shared: dict[str, Any] = {"OUTPUT_TO_INFLUX": "false", "OUTPUT_TO_PARQUET": "true", "PARQUET_URL": tmp_path / "shared"}

    with services(tmp_path, {name: settings_of(clinic, ward, tag, **shared) for name, (ward, tag) in cuts.items()}) as started:
        codes = {name: service.exit_code() for name, service in started.items()}
        logs = {name: service.log for name, service in started.items()}

    went_on = {name for name, code in codes.items() if code == 0}
    assert went_on, logs
    assert went_on <= {"3", "4"} or len(went_on) == 1, logs
    assert {name for name, log in logs.items() if REFUSED in log} == {name for name, code in codes.items() if code == 78}
    assert set(codes.values()) <= {0, 78}, logs
    rows = Counter(pq.read_table(tmp_path / "shared" / "rows").column("source_id").to_pylist())
    assert rows == Counter({f"of{name}": 60 for name in went_on if name in "34"}) or went_on in ({"site"}, {"whole"})
    if went_on <= {"3", "4"}:
        # Weeks later, when no claim of theirs is read any more, their summaries still tell.
        shutil.rmtree(tmp_path / "shared" / "claims")
        code, log = run_service(tmp_path / "whole", settings_of(clinic, None, **shared))
        assert (code, "PARQUET_URL is used by a service that releases this data set cut into cohorts" in log) == (78, True), log


#: By which fixture a version's server comes.
VERSIONS = {"1": "influxdb1", "3": "influxdb3"}


@pytest.mark.parametrize("version", VERSIONS)
def test_wards_share_a_database_of_version_1_or_3_and_no_other_cut_of_it_is_released(
    version: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    clinic = Clinic(request.getfixturevalue(VERSIONS[version]))
    fill_wards(clinic)
    cuts = {"3": ("3", "ward"), "4": ("4", "ward"), "rest": ("", "ward"), "site": ("A", "site"), "whole": (None, "ward")}
    settings = {name: settings_of(clinic, ward, tag) for name, (ward, tag) in cuts.items()}

    with services(tmp_path, {name: settings[name] for name in ("3", "4", "rest")}) as wards:
        codes = {name: service.exit_code() for name, service in wards.items()}
        logs = {name: service.log for name, service in wards.items()}
    assert set(codes.values()) == {0}, logs
    with services(tmp_path, {name: settings[name] for name in ("site", "whole")}) as others:
        codes = {name: service.exit_code() for name, service in others.items()}
        refused = {name: service.log for name, service in others.items()}
    assert codes == {"site": 78, "whole": 78}, refused
    assert all(REFUSED in log for log in refused.values())

    # The stand-in for version 3 keeps rows in version 1.
    store: Any = getattr(clinic.server, "kept_in", clinic.server)
    summaries, rows = (
        store.ask(f'SELECT * FROM "{measurement}"', database=clinic.released)
        for measurement in ("ecg_anonymized_windows", "ecg_anonymized")
    )
    found = [(row.get("ward") or "", int(row["rows_released"])) for row in summaries]
    assert Counter(found) == {("3", 20): 3, ("4", 20): 3, ("", 20): 3}
    assert Counter(row["source_id"] for row in rows) == {"of3": 60, "of4": 60, "ofnone": 60}
    code, said = state(tmp_path / "3", "verify")
    assert code == 0, said
