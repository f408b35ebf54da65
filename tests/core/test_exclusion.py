"""Rows of excluded sources are taken out before anything is computed from rows, and counted apart."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest

from anonymizer.anonymize import Recipe, anonymize_chunk
from anonymizer.batch import Promise
from anonymizer.exclusion import FOR_EVER_NS, Exclusion, id_digest, released_id_digest, without_excluded
from anonymizer.hierarchy import parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.pseudonyms import KeptIds
from anonymizer.samples import NO_SOURCE, make_samples
from anonymizer.windows import WindowRange
from service.settings.declared import SHIPPED_HIERARCHY

KEY = b"k" * 32
S = 10**9
WINDOWS = WindowRange(0, 10 * S, 5 * S)


@pytest.mark.parametrize("listed", ["Müller-1", "  müller-1\t", "MÜLLER-1", "Mu\u0308ller-1", "\uff2düller-1", "Müller-1\u00a0"])
def test_an_id_is_recognised_however_its_case_blanks_and_characters_are_written(listed: str) -> None:
    exclusion = Exclusion(KEY, {id_digest(KEY, listed): FOR_EVER_NS})

    assert exclusion.until_ns_of("Müller-1", "pseudonym") == FOR_EVER_NS
    assert exclusion.until_ns_of("Müller-2", "pseudonym") is None
    assert "Müller" not in repr(exclusion)
    assert "kkk" not in repr(exclusion)


def test_digests_are_keyed_and_never_a_pseudonym() -> None:
    # RFC 2104 with Python's hmac: a digest of the plain id, keyed or not, is something else.
    plain = {hashlib.sha256(b"a").hexdigest(), hmac.new(KEY, b"a", "sha256").hexdigest()}

    assert plain.isdisjoint({id_digest(KEY, "a"), released_id_digest(KEY, "a")})
    assert len({id_digest(KEY, "a"), released_id_digest(KEY, "a"), id_digest(b"other", "a")}) == 3


def test_rows_before_the_time_are_taken_out_with_the_id_if_none_is_left_and_others_stay_as_they_are() -> None:
    times = np.array([0, 1, 2, 6, 7, 8]) * S
    samples = make_samples(times, [0, 1, 2, 1, NO_SOURCE, 2], ["gone", "back", "here"], [1, 2, 3, 4, 5, 6])
    exclusion = Exclusion(KEY, {id_digest(KEY, "gone"): FOR_EVER_NS, released_id_digest(KEY, "P"): 6 * S})

    # Samples keep their sources in ascending order: back, gone, here.
    left, counts = without_excluded(samples, ("P", "Q", "R"), WINDOWS, exclusion)

    assert left.source_ids == ("back", "here")
    rows = [
        (t // S, left.source_ids[c] if c >= 0 else None, v)
        for t, c, v in zip(left.times_ns, left.source_codes, left.values_uv, strict=True)
    ]
    assert rows == [(2, "here", 3.0), (6, "back", 4.0), (7, None, 5.0), (8, "here", 6.0)]
    assert counts.tolist() == [2, 0]


def test_a_window_is_that_of_its_other_sources_and_only_the_result_counts_excluded_rows() -> None:
    chance = np.random.default_rng(7)
    times, codes = np.tile(np.arange(200) * S // 20, 3), np.repeat([0, 1, 2], 200)
    values = chance.integers(-300, 300, 600).astype(float)
    method = LevelHierarchyAnonymizer(hierarchy=parse_hierarchy(SHIPPED_HIERARCHY.read_text(encoding="utf-8")), k=5)
    recipe = Recipe(method, KeptIds(), Promise(5, "record", "hierarchy"), "data")
    others = codes != 1

    found = anonymize_chunk(
        make_samples(times, codes, ["a", "b", "c"], values), WINDOWS, recipe, Exclusion(KEY, {id_digest(KEY, "B"): FOR_EVER_NS})
    )

    expected = anonymize_chunk(make_samples(times[others], codes[others], ["a", "b", "c"], values[others]), WINDOWS, recipe)
    for result, without in zip(found.results, expected.results, strict=True):
        assert result.counts.are_conserved()
        assert (result.counts.read, result.counts.excluded, result.counts.released) == (300, 100, 200)
        assert result.batch is not None
        assert without.batch is not None
        assert result.batch.counts == without.batch.counts
        assert result.batch.source_ids == ("a", "c")
        assert (result.batch.values_uv == without.batch.values_uv).all()
