"""Cohorts on the real server: services that share a bucket, and those that may not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.integration.clinic import FIRST_MINUTE, START_NS, Clinic
from tests.integration.service_process import Service, run_service, state

pytestmark = pytest.mark.influxdb

#: What is said to a service that would release what another one releases.
REFUSED = "is used by a service that releases this data set"


def settings_of(clinic: Clinic, ward: str | None, tag: str = "ward", **more: object) -> dict[str, object]:
    """Return the settings of one ward's service; None: without cohorts."""
    cohort = {} if ward is None else {"COHORT_TAG": tag, "COHORT": ward}
    token = clinic.server.make_token(read=[clinic.raw, clinic.released], write=[clinic.released])
    return {
        **clinic.settings,
        **FIRST_MINUTE,
        "PSEUDONYMIZE_SOURCE_ID": "false",
        "OUTPUT_TO_CSV": "false",
        "INFLUX_OUTPUT_TOKEN": token,
        **cohort,
        **more,
    }


def fill_wards(clinic: Clinic, wards: tuple[str, ...] = ("3", "4", "")) -> None:
    """Put 20 rows of one wearer of each ward into the first three windows; the ward without a name has no tag."""
    tags = {ward: f",ward={ward},site=A" if ward else "" for ward in wards}
    lines = [
        f"ecg,source_id=of{ward or 'none'}{tags[ward]} ecg={i % 2 + 10 * at} {START_NS + window * 5 * 10**9 + i * 10**6 + at}"
        for at, ward in enumerate(wards)
        for window in range(3)
        for i in range(20)
    ]
    clinic.server.write_lines(clinic.raw, "\n".join(lines).encode())


def sources_of(clinic: Clinic) -> Counter[str]:
    """Return how many rows of each wearer were released."""
    return Counter(source for _, source in clinic.stored())


def test_each_ward_is_released_once_beside_the_others_and_no_other_cut_is(clinic: Clinic, tmp_path: Path) -> None:
    fill_wards(clinic)
    folders = {name: tmp_path / name for name in ("3", "4", "none", "site", "whole", "again")}
    for folder in folders.values():
        folder.mkdir()

    for ward in ("3", "4"):
        code, log = run_service(folders[ward], settings_of(clinic, ward))
        assert code == 0, log
    rows = sources_of(clinic)
    # Who is cut otherwise is refused; whoever is cut alike goes on.
    for name, settings in (
        ("site", settings_of(clinic, "A", "site")),
        ("whole", settings_of(clinic, None)),
    ):
        code, log = run_service(folders[name], settings)
        assert (
            code,
            [
                text
                for text in (
                    REFUSED,
                    "accept-gap",
                )
                if text not in log
            ],
        ) == (78, []), log
        assert sources_of(clinic) == rows == {"of3": 60, "of4": 60}
    code, log = run_service(folders["none"], settings_of(clinic, ""))
    assert code == 0, log
    assert "rows without the tag ward" in log
    assert sources_of(clinic) == {"of3": 60, "of4": 60, "ofnone": 60}

    flux = (
        f'from(bucket: "{clinic.released}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "ecg_anonymized_windows") '
        '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
    )
    summaries = clinic.server.rows(flux)
    assert Counter(row.get("ward", "") for row in summaries) == {"3": 3, "4": 3, "": 3}
    assert all((row["rows_released"], row["k"]) == ("20", "5") and int(row["smallest_group"]) >= 5 for row in summaries)
    # A state folder that is lost is told of by its own summaries, and of no other ward.
    code, log = run_service(folders["again"], settings_of(clinic, "3"))
    assert (code, [text for text in ("released with a state folder that is lost",) if text not in log]) == (78, []), log


def test_an_installation_is_split_into_wards_after_accept_gap_and_the_whole_never_comes_back(
    clinic: Clinic, tmp_path: Path
) -> None:
    fill_wards(clinic)
    whole, three, four = (tmp_path / name for name in ("whole", "three", "four"))
    for folder in (whole, three, four):
        folder.mkdir()
    two_windows = {"QUERY_END_TIME": "2025-11-03T14:30:10Z"}
    code, log = run_service(whole, settings_of(clinic, None, **two_windows))
    assert code == 0, log
    rows = sources_of(clinic)

    code, log = run_service(three, settings_of(clinic, "3"))
    assert (code, [text for text in (REFUSED,) if text not in log]) == (78, []), log
    for folder in (three, four):
        (folder / "state").mkdir(exist_ok=True)
    (four / ".env").write_text((three / ".env").read_text().replace("COHORT=3", "COHORT=4").replace(str(three), str(four)))
    # The second one finds no claim any more, and the summaries just the same.
    for folder, ended in ((three, 1), (four, 0)):
        code, said = state(folder, "accept-gap")
        assert (code, [text for text in (f"{ended} of them lost their claim",) if text not in said]) == (0, []), said
    for folder, ward in ((three, "3"), (four, "4")):
        code, log = run_service(folder, settings_of(clinic, ward))
        assert code == 0, log
    assert sources_of(clinic) - rows == {"of3": 20, "of4": 20}, "only the window that the whole had not released"

    code, log = run_service(whole, settings_of(clinic, None))
    assert (code, [text for text in (REFUSED,) if text not in log]) == (78, []), log
    assert sources_of(clinic)["ofnone"] == 40


def test_services_of_two_cuts_that_start_at_the_same_moment_never_both_release(clinic: Clinic, tmp_path: Path) -> None:
    fill_wards(clinic)
    cuts = {"3": ("3", "ward"), "4": ("4", "ward"), "site": ("A", "site"), "whole": (None, "ward")}
    services = {}
    for name, (ward, tag) in cuts.items():
        (tmp_path / name).mkdir()
        services[name] = Service(tmp_path / name, settings_of(clinic, ward, tag))

    codes = {name: service.exit_code() for name, service in services.items()}

    logs = "\n".join(service.log for service in services.values())
    for service in services.values():
        service.__exit__(None, None, None)
    assert set(codes.values()) <= {0, 78}, logs
    went_on = {name for name, code in codes.items() if code == 0}
    assert went_on <= {"3", "4"} or len(went_on) == 1, (went_on, logs)
    assert went_on, logs
    assert logs.count(REFUSED) == 4 - len(went_on)
