from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs import development
from certs.development import DevelopmentPki, create_development_pki
from certs.errors import (
    CertificateUnusable,
    CertsError,
    DirectoryUnusable,
    IssueRefused,
    KeyUnusable,
)
from certs.identity import read_identity
from certs.keys import generate_key, is_pair, key_to_unsafe_pem, read_chain, read_key
from certs.profiles import DAY_S, ISSUING_LIFETIME_S, LEAF_LIFETIME_S, ROOT_LIFETIME_S
from vault.files import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from certs.development import Credentials
    from certs.identity import PeerIdentity

NOW = 1_800_000_000.0
LEAVES = ("broker", "controller", "sensor", "viewer", "admin")


def create(
    directory: Path,
    *,
    now: float = NOW,
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1"),
    trust_domain: str = "stockade.local",
) -> DevelopmentPki:
    return create_development_pki(
        directory, clients=("sensor", "viewer"), now=now, hosts=hosts, trust_domain=trust_domain
    )


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def leaves(pki: DevelopmentPki) -> list[Credentials]:
    return [pki.broker, pki.controller, *pki.clients.values()]


def identity(credentials: Credentials) -> PeerIdentity:
    return read_identity(read_chain(credentials.certificate)[0].public_bytes(Encoding.DER))


def test_development_pki_has_the_promised_layout(tmp_path: Path) -> None:
    pki = create(tmp_path / "dev")
    assert sorted(content(tmp_path / "dev")) == [
        "broker.key",
        "broker.pem",
        "ca.pem",
        "ca/issuing.key.sealed",
        "ca/issuing.pem",
        "ca/passphrase",
        "ca/root.key.sealed",
        "ca/root.pem",
        "clients/admin.key",
        "clients/admin.pem",
        "clients/sensor.key",
        "clients/sensor.pem",
        "clients/viewer.key",
        "clients/viewer.pem",
        "controller.key",
        "controller.pem",
        "issuing.pem",
    ]
    assert pki.issued == ("root", "issuing", *LEAVES)
    assert list(pki.clients) == ["sensor", "viewer", "admin"]
    assert len(read_chain(pki.ca)) == 2
    assert read_chain(pki.anchor) == read_chain(pki.ca)[1:]


def test_development_leaves_are_pairs_with_their_chain_and_private_keys(tmp_path: Path) -> None:
    pki = create(tmp_path)
    for credentials in leaves(pki):
        leaf, issuing = read_chain(credentials.certificate)
        assert (issuing,) == read_chain(pki.anchor)
        assert is_pair(read_key(credentials.key), leaf)
        assert credentials.key.stat().st_mode & 0o777 == 0o600
        assert credentials.not_after == NOW + LEAF_LIFETIME_S


def test_development_names_say_role_and_id(tmp_path: Path) -> None:
    pki = create(tmp_path)
    assert [credentials.uri for credentials in leaves(pki)] == [
        "spiffe://stockade.local/broker/broker",
        "spiffe://stockade.local/controller/controller",
        "spiffe://stockade.local/client/sensor",
        "spiffe://stockade.local/client/viewer",
        "spiffe://stockade.local/admin/admin",
    ]
    for credentials in leaves(pki):
        assert identity(credentials).uris == (credentials.uri,)
    assert identity(pki.broker).dns_names == ("localhost",)
    assert identity(pki.clients["sensor"]).purposes == {"client"}


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    first = create(tmp_path)
    before = content(tmp_path)
    again = create(tmp_path, now=NOW + DAY_S)
    assert again.issued == ()
    assert content(tmp_path) == before
    assert again.clients["sensor"] == first.clients["sensor"]


def test_leaves_are_renewed_when_under_a_third_is_left(tmp_path: Path) -> None:
    create(tmp_path)
    assert create(tmp_path, now=NOW + 20 * DAY_S).issued == ()
    assert create(tmp_path, now=NOW + 20 * DAY_S + 1).issued == LEAVES
    assert create(tmp_path, now=NOW + 90 * DAY_S).issued == LEAVES


def test_leaves_made_with_a_clock_ahead_are_issued_anew(tmp_path: Path) -> None:
    create(tmp_path, now=NOW + DAY_S)
    assert set(create(tmp_path, now=NOW).issued) >= set(LEAVES)


def test_changed_hosts_renew_the_servers_only(tmp_path: Path) -> None:
    create(tmp_path)
    changed = create(tmp_path, hosts=("broker.example", "127.0.0.1"))
    assert changed.issued == ("broker", "controller")
    assert identity(changed.broker).dns_names == ("broker.example",)
    assert create(tmp_path, hosts=("127.0.0.1", "BROKER.example", "127.0.0.1")).issued == ()


def test_changed_trust_domain_renews_every_leaf(tmp_path: Path) -> None:
    create(tmp_path)
    assert create(tmp_path, trust_domain="plant.example").issued == LEAVES


def test_new_client_is_added_and_a_former_one_left_alone(tmp_path: Path) -> None:
    create(tmp_path)
    before = content(tmp_path)
    pki = create_development_pki(tmp_path, clients=("bench",), now=NOW)
    assert pki.issued == ("bench",)
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before


def test_client_that_becomes_an_administrator_is_issued_anew(tmp_path: Path) -> None:
    create(tmp_path)
    pki = create_development_pki(tmp_path, clients=("sensor",), admins=("viewer",), now=NOW)
    assert pki.issued == ("viewer",)
    assert pki.clients["viewer"].uri == "spiffe://stockade.local/admin/viewer"


def test_renewed_issuing_authority_keeps_valid_leaves_and_replaces_their_chain(
    tmp_path: Path,
) -> None:
    late = NOW + ISSUING_LIFETIME_S - 61 * DAY_S
    create(tmp_path)
    create(tmp_path, now=late)
    before = read_chain(tmp_path / "broker.pem")
    pki = create(tmp_path, now=late + 2 * DAY_S)
    assert pki.issued == ("issuing",)
    after = read_chain(tmp_path / "broker.pem")
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert (after[1],) == read_chain(pki.anchor) == read_chain(pki.ca)[1:]


def test_renewed_root_is_published(tmp_path: Path) -> None:
    first = create(tmp_path)
    root = read_chain(first.ca)[0]
    later = create(tmp_path, now=NOW + ROOT_LIFETIME_S)
    assert later.issued[:2] == ("root", "issuing")
    assert read_chain(later.ca)[0] != root


def test_anchors_that_were_changed_or_removed_are_written_again(tmp_path: Path) -> None:
    pki = create(tmp_path)
    before = content(tmp_path)
    pki.ca.unlink()
    pki.anchor.write_bytes(b"changed")
    assert create(tmp_path).issued == ()
    assert content(tmp_path) == before


@pytest.mark.parametrize("suffix", ["pem", "key"])
def test_leaf_that_lacks_half_its_pair_is_issued_anew(tmp_path: Path, suffix: str) -> None:
    create(tmp_path)
    (tmp_path / "clients" / f"sensor.{suffix}").unlink()
    assert create(tmp_path).issued == ("sensor",)


def test_leaf_whose_renewal_was_cut_off_between_key_and_certificate_is_issued_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path)

    def cut_off(_path: Path, _data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(development, "write_public", cut_off)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path, now=NOW + 25 * DAY_S)
    monkeypatch.undo()
    assert not is_pair(read_key(tmp_path / "broker.key"), read_chain(tmp_path / "broker.pem")[0])
    assert create(tmp_path).issued == ("broker",)


def test_leaf_with_a_foreign_key_is_issued_anew(tmp_path: Path) -> None:
    create(tmp_path)
    write_private(tmp_path / "broker.key", key_to_unsafe_pem(generate_key()))
    assert create(tmp_path).issued == ("broker",)


@pytest.mark.parametrize(
    ("name", "garbage", "error"),
    [
        ("broker.key", b"garbage", KeyUnusable),
        ("clients/sensor.pem", b"garbage", CertificateUnusable),
        ("ca/issuing.key.sealed", b"garbage", KeyUnusable),
        ("ca/root.pem", b"garbage", CertificateUnusable),
    ],
)
def test_corrupt_file_stops_with_its_name_and_is_not_overwritten(
    tmp_path: Path, name: str, garbage: bytes, error: type[CertsError]
) -> None:
    create(tmp_path)
    (tmp_path / name).write_bytes(garbage)
    before = content(tmp_path)
    with pytest.raises(error, match=name):
        create(tmp_path)
    assert content(tmp_path) == before


def test_key_that_others_can_read_stops_with_advice(tmp_path: Path) -> None:
    pki = create(tmp_path)
    pki.clients["sensor"].key.chmod(0o644)
    with pytest.raises(KeyUnusable, match=f"chmod 600 {pki.clients['sensor'].key}"):
        create(tmp_path)


def test_directory_that_others_can_write_into_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "dev"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(DirectoryUnusable, match="chmod go-w"):
        create(directory)
    assert list(directory.iterdir()) == []
    directory.chmod(0o755)
    create(directory)
    (directory / "clients").chmod(0o775)
    with pytest.raises(DirectoryUnusable, match="clients"):
        create(directory)


def test_directory_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DirectoryUnusable, match="not a directory"):
        create(tmp_path / "file")
    with pytest.raises(DirectoryUnusable, match="cannot create"):
        create(tmp_path / "file" / "below")


def test_created_directory_is_private(tmp_path: Path) -> None:
    create(tmp_path / "a" / "dev")
    assert (tmp_path / "a" / "dev").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("clients", "admins", "message"),
    [
        (("a/b",), (), "cannot be a name"),
        (("..",), (), "cannot be a name"),
        (("",), (), "cannot be a name"),
        (("a\n",), (), "cannot be a name"),
        (("x" * 65,), (), "cannot be a name"),
        (("a", "a"), (), "two clients or administrators are called `a`"),
        (("admin",), ("admin",), "two clients or administrators are called `admin`"),
        (tuple(f"c{i}" for i in range(1_000)), (), "at most 1000"),
    ],
)
def test_names_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, clients: tuple[str, ...], admins: tuple[str, ...], message: str
) -> None:
    with pytest.raises(IssueRefused, match=message):
        create_development_pki(tmp_path / "dev", clients=clients, admins=admins, now=NOW)
    assert not (tmp_path / "dev").exists()


def test_hosts_and_trust_domain_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    for hosts in ((), ("*",), ("localhost:8883",)):
        with pytest.raises(IssueRefused, match="host"):
            create(tmp_path / "dev", hosts=hosts)
    with pytest.raises(IssueRefused, match="trust domain"):
        create(tmp_path / "dev", trust_domain="Stockade")
    assert not (tmp_path / "dev").exists()


def test_two_at_once_make_one_pki(tmp_path: Path) -> None:
    made: list[DevelopmentPki] = []
    threads = [
        threading.Thread(target=lambda: made.append(create(tmp_path / "dev"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(len(pki.issued) for pki in made) == [0, 0, 0, 7]
