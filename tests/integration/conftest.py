"""Each test has a clinic of its own on the server that all tests share."""

from __future__ import annotations

import pytest

from testbed.influxdb_server import InfluxServer
from tests.integration.clinic import Clinic


@pytest.fixture
def clinic(influxdb: InfluxServer) -> Clinic:
    return Clinic(influxdb)


@pytest.fixture
def filled(clinic: Clinic) -> Clinic:
    """A clinic with twenty rows in the first window."""
    clinic.fill()
    return clinic
