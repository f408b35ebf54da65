"""How hard the property tests search: `pytest tests/core --hypothesis-profile=thorough` tries twenty times as many examples."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a machine busy with something else is not a broken promise.
settings.register_profile("thorough", max_examples=2000, deadline=None)
