"""Which controller a command talks to: from the folder of a running system, or said in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from certs.development import create_development_pki
from cli.failure import CommandFailed
from cli.ready import ClientFiles, ListeningBroker, ListeningController, report, write_ready
from cli.target import admin_client, split_url

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a running system, as far as these tests look at it."""
    root = tmp_path_factory.mktemp("system")
    pki = create_development_pki(root / "pki", clients=(), now=NOW)
    admin = pki.clients["admin"]
    write_ready(
        root / "ready.json",
        report(
            controller=ListeningController(rpc="127.0.0.1:1", api="127.0.0.1:2"),
            broker=ListeningBroker(mqtts="127.0.0.1:3", wss="127.0.0.1:4", metrics="127.0.0.1:5"),
            clients={
                "admin": ClientFiles(
                    ca=str(pki.ca), cert=str(admin.certificate), key=str(admin.key)
                )
            },
        ),
    )
    return root


def test_folder_says_everything(folder: Path) -> None:
    assert admin_client(folder, api=None, ca=None, cert=None, key=None) is not None


def test_everything_can_be_said_without_a_folder(folder: Path) -> None:
    clients = folder / "pki" / "clients"
    files = {
        "ca": folder / "pki" / "ca.pem",
        "cert": clients / "admin.pem",
        "key": clients / "admin.key",
    }
    assert admin_client(None, api="https://localhost:7444", **files) is not None


def test_folder_of_nothing_running_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="stockade up"):
        admin_client(tmp_path, api=None, ca=None, cert=None, key=None)


def test_no_controller_is_never_guessed() -> None:
    with pytest.raises(CommandFailed, match="which controller"):
        admin_client(None, api=None, ca=None, cert=None, key=None)


def test_no_identity_is_never_guessed() -> None:
    with pytest.raises(CommandFailed, match="who are you"):
        admin_client(None, api="https://localhost:1", ca=None, cert=None, key=None)


def test_half_an_identity_is_refused(folder: Path) -> None:
    with pytest.raises(CommandFailed, match="all three"):
        admin_client(folder, api=None, ca=folder / "pki" / "ca.pem", cert=None, key=None)


def test_url_has_a_default_port() -> None:
    assert split_url("https://controller.example") == ("controller.example", 7444)
    assert split_url("https://[::1]:9") == ("::1", 9)


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "localhost:1", "https://", "https://a:b", "https://a:1/x"]
)
def test_url_without_tls_or_with_more_is_refused(url: str) -> None:
    with pytest.raises(CommandFailed):
        split_url(url)
