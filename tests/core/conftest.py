"""How hard the property tests search: `pytest tests/core --hypothesis-profile=thorough` tries twenty times as many examples."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.core.both_ways import Way, through_the_plain_one, through_the_project

# No deadline: a machine busy with something else is not a broken promise.
settings.register_profile("thorough", max_examples=2000, deadline=None)


@pytest.fixture(params=[through_the_project, through_the_plain_one])
def way(request: pytest.FixtureRequest) -> Way:
    """Every golden window binds the project and the plain implementation alike."""
    chosen: Way = request.param
    return chosen
