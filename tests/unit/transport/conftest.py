"""One authority a session, and both contexts, for the tests of this room."""

from __future__ import annotations

import ssl

import pytest

from tests.unit.transport.lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def server_context(lab: Lab) -> ssl.SSLContext:
    return lab.server_context("mqtt")


@pytest.fixture(scope="session")
def client_context(lab: Lab) -> ssl.SSLContext:
    return lab.client_context(lab.issue("sensor"), "mqtt")
