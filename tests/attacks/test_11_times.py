"""Attack 11, which is not prevented: times and sampling phase lead back to the raw bucket, and from one pseudonym key to the next."""

from __future__ import annotations

import numpy as np

from tests.attacks.phases import HERTZ, rightly_linked
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import alone, batches_of


def test_times_leave_as_they_were_measured() -> None:
    released = np.concatenate([batch.times_ns for batch in batches_of(alone()[0], PlainSettings(k=20))])

    assert np.array_equal(released, alone()[0].times_ns)


def test_the_sampling_phase_links_every_wearer_across_a_change_of_key() -> None:
    assert rightly_linked() == (12, 12)


def test_times_cut_to_one_sample_would_link_no_wearer() -> None:
    # What would help, and is not built: all devices would tick at the same moments.
    assert rightly_linked(coarser_than_ns=10**9 // HERTZ)[0] <= 1
