"""The clinic of tests/integration, for tests of frames that read what the service wrote."""

from __future__ import annotations

from tests.integration.conftest import clinic, filled

__all__ = ["clinic", "filled"]
