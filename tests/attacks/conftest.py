"""Each test has a clinic of its own on the server that all tests share."""

from __future__ import annotations

import pytest

from testbed.influxdb_server import InfluxServer
from tests.integration.clinic import Clinic


@pytest.fixture
def clinic(influxdb: InfluxServer) -> Clinic:
    return Clinic(influxdb)
