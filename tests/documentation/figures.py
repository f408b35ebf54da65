"""The figures that the documentation gives of the sample ECG: `python -m tests.documentation.figures [NAME …]`, all without a name.

Each is printed as the table that stands on its page. They come out the same on every machine, and a test compares them with the pages.
Times do not: `python -m tests.documentation.timings`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from anonymizer.batch import Batch
from anonymizer.hierarchy import STAR_LEVEL
from anonymizer.samples import Samples, make_samples
from anonymizer.windows import NANOSECONDS
from testbed.sample_ecg import read_sample_ecg
from testbed.wearers import Wearers
from tests.attacks.downcoding import counted_on, downcode
from tests.attacks.gaps import dropped, near_a_beat
from tests.attacks.phases import rightly_linked
from tests.attacks.undoing import (
    Pair,
    average_beats,
    by_five_of_six,
    error_percent,
    in_company,
    released,
    with_a_prior,
    with_a_second_release,
)
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import CLASSIC, Ints, alone, batches_of, released_values, results_of, together
from utility import tables
from utility.choices import CLASSIC as CLASSIC_CHOICE
from utility.choices import DEFAULT, OPTIMAL, SOURCE, SOURCE_OPTIMAL, Choice, recipe_of
from utility.fidelity_measures import likeness
from utility.measurements import Setting, measure
from utility.measurements import error_percent as error_of
from utility.outcome import outcome_of
from utility.tables import markdown

KS = (5, 10, 20)

MAX_LEVELS = (2, 3, 4, 7)


def unchanged() -> Iterator[str]:
    """How many rows keep the value that was measured."""
    yield _row("k", "six records together", "each alone: lowest", "mean", "highest")
    yield _rule(5)
    for k in KS:
        settings = PlainSettings(k=k)
        each = [_share_unchanged(samples, settings) for samples in alone()]
        yield _row(k, *map(_percent, (_share_unchanged(together(), settings), min(each), float(np.mean(each)), max(each))))


def _share_unchanged(samples: Samples, settings: PlainSettings) -> float:
    results = results_of(samples, settings)
    return sum(one.statistics.unchanged for one in results) / sum(one.counts.released for one in results)


def sharers() -> Iterator[str]:
    """How many wearers stand behind a value, six records together."""
    yield _row("k", "rows whose value only their own wearer has", "rows whose value fewer than five of the six wearers have")
    yield _rule(3)
    for k in KS:
        wearers = np.concatenate([_wearers_behind_rows(batch) for batch in batches_of(together(), PlainSettings(k=k))])
        yield _row(k, _percent((wearers == 1).mean()), _percent((wearers < 5).mean()))


def _wearers_behind_rows(batch: Batch) -> Ints:
    """Return for each row how many sources share its value."""
    _, value = np.unique(batch.values_uv, return_inverse=True)
    pairs = np.unique(np.stack((value, batch.source_index)), axis=1)
    return np.bincount(pairs[0])[value]


def moved() -> Iterator[str]:
    """How far released values are from the measured ones, each record alone."""
    yield _row(
        "k", "half of all rows moved by at most", "99 in 100 by at most", "any by at most", "lowest correlation of the six"
    )
    yield _rule(5)
    for k in KS:
        pairs = [(samples.values_uv, released_values(samples, PlainSettings(k=k))) for samples in alone()]
        distances = np.concatenate([np.abs(after - before) for before, after in pairs])
        lowest = min(np.corrcoef(before, after)[0, 1] for before, after in pairs)
        yield _row(k, *(f"{moved_uv:.0f} µV" for moved_uv in np.quantile(distances, (0.5, 0.99, 1))), f"{lowest:.4f}")


def recognition() -> Iterator[str]:
    """How often attackers name the right one of six people, from the recording and from what is released."""
    yield from markdown(tables.recognition()).splitlines()


def undone() -> Iterator[str]:
    """How much of the error is left after attacks that undo some of the blur: PRDN, the mean of six."""
    yield _row("attack", "settings", "error as released", "error left")
    yield _rule(4)
    for k in (5, 20):
        before = _error_left([(signal.raw_uv, signal.released_uv) for signal in released(k)])
        for attack, pairs in (
            ("what other people's ECG teaches", with_a_prior(k)),
            ("a second release, windows of 7 s", with_a_second_release(k)),
            ("the average beat of five minutes", average_beats(k)),
        ):
            yield _row(attack, f"default, k = {k}", before, _error_left(pairs))
    shared = error_of(Setting(SOURCE, 360, 5, shared=True))
    yield _row("five of the six wearers together", "source, k = 5", _percent(shared / 100), _error_left(by_five_of_six(5)))


def _error_left(pairs: Sequence[Pair]) -> str:
    return _percent(float(np.mean([error_percent(*pair) for pair in pairs])) / 100)


def company() -> Iterator[str]:
    """How the error of a record depends on which four of the other five share its windows, where k = 5 counts sources."""
    yield _row("record", "error in the best company", "in the worst")
    yield _rule(3)
    for record, errors in in_company(5).items():
        yield _row(record, *(_percent(one / 100) for one in (min(errors), max(errors))))


def counts() -> Iterator[str]:
    """What a reader gets out of how many rows share a value, each record alone; all together where k counts sources."""
    yield _row(
        "where",
        "rows said to lie in 2 µV",
        "rightly",
        "rows said to keep their value",
        "rightly",
        "rows narrowed in 8 µV",
        "rightly",
    )
    yield _rule(7)
    others = [(hertz, 5, choice) for choice in (OPTIMAL, SOURCE, SOURCE_OPTIMAL) for hertz in (360, 128)]
    for hertz, k, choice in ((360, 5, DEFAULT), (360, 20, DEFAULT), (128, 5, DEFAULT), (128, 20, DEFAULT), *others):
        one = counted_on(hertz, k, choice)
        yield _row(
            f"{hertz} Hz, k = {k}" + ("" if choice is DEFAULT else f", {choice.name}"),
            *(_percent(one.claimed / one.rows), _percent(one.claimed_rightly / one.claimed)),
            *(_percent(one.on_step / one.rows), _percent(one.on_step_rightly / one.on_step)),
            f"{one.narrowed:,} of {one.wider:,}",
            _percent(one.narrowed_rightly / one.narrowed) if one.narrowed else "–",
        )


def phases() -> Iterator[str]:
    """How many of twelve wearers a reader links across a change of the pseudonym key by the moments at which their devices measure."""
    yield _row("times are released", "linked rightly across a change of key")
    yield _rule(2)
    for what, coarser_than_ns in (("to the nanosecond, as they are", 1), ("if they were cut to one sample, 1/128 s", 7_812_500)):
        right, wearers = rightly_linked(coarser_than_ns=coarser_than_ns)
        yield _row(what, f"{right} of {wearers}")


def sources() -> Iterator[str]:
    """What counting sources costs when there are more of them: one minute at 128 Hz, wearers made of the six records."""
    yield _row("wearers in a window", "PRDN, k = 5 rows", "PRDN, k = 5 sources")
    yield _rule(3)
    start_ns = int(read_sample_ecg().times_ns[0])
    for count in (6, 12, 24, 48):
        wearers = Wearers(count, hertz=128)
        worn = wearers.samples_between(start_ns, start_ns + 60 * NANOSECONDS)
        samples = make_samples(worn.times_ns, worn.wearer, wearers.source_ids, worn.values_uv)
        outcomes = [outcome_of(samples, recipe_of(choice, k=5, window_s=5), window_s=5) for choice in (DEFAULT, SOURCE)]
        yield _row(
            count, *(_percent(float(np.mean([likeness(one).prdn for one in outcome.signals()])) / 100) for outcome in outcomes)
        )


def midpoint() -> Iterator[str]:
    """How many rows of classic output a reader can narrow by downcoding."""
    yield _row("k", "rows at level 2 or above", "of these narrowed, classic settings")
    yield _rule(3)
    for k in KS:
        classic = [downcode(batch.values_uv) for samples in alone() for batch in batches_of(samples, CLASSIC(k=k))]
        above = sum(one.above for one in classic)
        share = sum(one.narrowed for one in classic) / above
        yield _row(k, f"{above:,}", _percent(share))


def drop() -> Iterator[str]:
    """How the gaps that RESIDUAL=drop leaves lie about the beats."""
    yield _row("k", "rows dropped", "of the rows within 20 ms of an annotated beat", "of all other rows")
    yield _rule(4)
    near = np.concatenate([near_a_beat(samples) for samples in alone()])
    for k in KS:
        missing = np.concatenate([dropped(samples, PlainSettings(k=k, residual="drop")) for samples in alone()])
        yield _row(k, *map(_percent, (missing.mean(), missing[near].mean(), missing[~near].mean())))


def squared_error() -> Iterator[str]:
    """The squared error, divided by the least there is, for several MAX_LEVEL and for the classic settings: pooled (worst record)."""
    yield _row("k", *(f"`MAX_LEVEL={level}`" for level in MAX_LEVELS), "classic")
    yield _rule(len(MAX_LEVELS) + 2)
    choices = [*(Choice(f"max level {level}", {"MAX_LEVEL": str(level)}) for level in MAX_LEVELS), CLASSIC_CHOICE]
    for k in KS:
        columns = [measure(Setting(choice, 360, k)) for choice in choices]
        yield _row(k, *(f"{one.pooled_ratio:.2f} ({one.worst_ratio:.2f})" for one in columns))


def regrouped() -> Iterator[str]:
    """Which share of the rows no level up to MAX_LEVEL can place."""
    yield _row("k", *(f"`MAX_LEVEL={level}`" for level in MAX_LEVELS))
    yield _rule(len(MAX_LEVELS) + 1)
    for k in KS:
        yield _row(k, *(_percent(_share_past_the_levels(PlainSettings(k=k, max_level=level))) for level in MAX_LEVELS))


def _share_past_the_levels(settings: PlainSettings) -> float:
    rows_at_level = np.array([one.statistics.rows_at_level for samples in alone() for one in results_of(samples, settings)])
    return float(rows_at_level[:, STAR_LEVEL].sum() / rows_at_level.sum())


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _rule(columns: int) -> str:
    return "|" + " --- |" * columns


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


#: Every figure by its name, with the page it stands on.
FIGURES: dict[str, tuple[Callable[[], Iterator[str]], str]] = {
    "unchanged": (unchanged, "documentation/PRIVACY.md"),
    "sharers": (sharers, "documentation/PRIVACY.md"),
    "moved": (moved, "documentation/PRIVACY.md"),
    "recognition": (recognition, "documentation/PRIVACY.md"),
    "counts": (counts, "documentation/PRIVACY.md"),
    "undone": (undone, "documentation/PRIVACY.md"),
    "company": (company, "documentation/PRIVACY.md"),
    "phases": (phases, "documentation/PRIVACY.md"),
    "sources": (sources, "documentation/UTILITY.md"),
    "midpoint": (midpoint, "documentation/PRIVACY.md"),
    "drop": (drop, "documentation/PRIVACY.md"),
    "squared-error": (squared_error, "documentation/decisions/003-regroup-and-max-level-3.md"),
    "regrouped": (regrouped, "documentation/decisions/003-regroup-and-max-level-3.md"),
}


def print_asked(arguments: Sequence[str], program: str, what: str, known: Mapping[str, Callable[[], Iterator[str]]]) -> int:
    """Print the tables asked for by name, or all of them."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.documentation.{program}", description=f"Measure the documentation's {program}."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(known)}")
    names = parser.parse_args(arguments).names
    if unknown := set(names) - set(known):
        parser.error(f"no {what} is called {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    for name in names or known:
        print(f"{name}:", *known[name](), "", sep="\n")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Print the figures asked for."""
    return print_asked(arguments, "figures", "figure", {name: measure for name, (measure, _) in FIGURES.items()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
