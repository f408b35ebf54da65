"""What is left out tells where the R waves were: the price of `RESIDUAL=drop`, which the service warns of."""

from __future__ import annotations

import numpy as np

from tests.attacks.gaps import dropped, near_a_beat
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import alone


def test_dropped_rows_lie_about_the_beats() -> None:
    missing = np.concatenate([dropped(record, PlainSettings(residual="drop")) for record in alone()])
    near = np.concatenate([near_a_beat(record) for record in alone()])

    assert missing[near].mean() > 5 * missing[~near].mean()


def test_by_default_nothing_is_missing() -> None:
    assert not any(dropped(record, PlainSettings()).any() for record in alone())
