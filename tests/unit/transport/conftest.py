"""One PKI a session, and both contexts, for the tests of this room."""

from __future__ import annotations

import ssl

import pytest

from tests.pki import TestPki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestPki:
    return TestPki(tmp_path_factory.mktemp("transport"))


@pytest.fixture(scope="session")
def server_context(pki: TestPki) -> ssl.SSLContext:
    return pki.server_context(pki.broker())


@pytest.fixture(scope="session")
def client_context(pki: TestPki) -> ssl.SSLContext:
    return pki.client_context(pki.client("sensor"))


@pytest.fixture(scope="session")
def pki_client_without_alpn(pki: TestPki) -> ssl.SSLContext:
    return pki.client_context(pki.client("plain"), alpn=())
