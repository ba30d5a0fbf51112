from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from certs import development_ca
from certs.development_ca import Authorities, is_fresh, open_authorities
from certs.errors import CertificateUnusable, DirectoryUnusable, KeyUnusable
from certs.keys import chain_to_pem
from certs.profiles import DAY_S, ISSUING_LIFETIME_S, ROOT_LIFETIME_S
from tests.pki import TestPki

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
FILES = ["issuing.key.sealed", "issuing.pem", "passphrase", "root.key.sealed", "root.pem"]


def opened(directory: Path, now: float = NOW) -> Authorities:
    return open_authorities(directory / "ca", trust_domain="stockade.local", now=now)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "ca").iterdir()}


def test_authorities_are_created_complete_and_private(tmp_path: Path) -> None:
    authorities = opened(tmp_path)
    assert authorities.renewed == ("root", "issuing")
    assert sorted(content(tmp_path)) == FILES
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    for name in ("issuing.key.sealed", "root.key.sealed", "passphrase"):
        assert (tmp_path / "ca" / name).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


def test_authorities_keys_are_sealed_at_a_cost_within_the_bounds(tmp_path: Path) -> None:
    opened(tmp_path)
    for name in ("root", "issuing"):
        sealed = json.loads((tmp_path / "ca" / f"{name}.key.sealed").read_bytes())
        assert sealed["header"]["name"] == name
        assert sealed["header"]["cost"] == {"memory_kib": 19_456, "iterations": 2, "lanes": 1}


def test_authorities_are_found_again_unchanged(tmp_path: Path) -> None:
    first = opened(tmp_path)
    before = content(tmp_path)
    second = opened(tmp_path, NOW + 100 * DAY_S)
    assert second.renewed == ()
    assert (second.root, second.issuing.certificate) == (first.root, first.issuing.certificate)
    assert content(tmp_path) == before


def test_issuing_authority_is_renewed_under_its_own_key_before_it_ends(tmp_path: Path) -> None:
    first = opened(tmp_path)
    later = opened(tmp_path, NOW + ISSUING_LIFETIME_S - 30 * DAY_S)
    assert later.renewed == ("issuing",)
    assert later.root == first.root
    assert later.issuing.certificate != first.issuing.certificate
    assert later.issuing.certificate.public_key() == first.issuing.certificate.public_key()
    assert opened(tmp_path, NOW + ISSUING_LIFETIME_S).renewed == ()


def test_root_is_renewed_under_its_own_key_before_it_ends(tmp_path: Path) -> None:
    first = opened(tmp_path)
    later = opened(tmp_path, NOW + ROOT_LIFETIME_S + DAY_S)
    assert later.renewed == ("root", "issuing")
    assert later.root.public_key() == first.root.public_key()
    later.issuing.certificate.verify_directly_issued_by(later.root)


def test_authorities_made_with_a_clock_ahead_are_renewed(tmp_path: Path) -> None:
    opened(tmp_path, NOW + 10 * DAY_S)
    assert opened(tmp_path, NOW).renewed == ("root", "issuing")


def test_creation_that_was_cut_off_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / ".ca.new").mkdir()
    (tmp_path / ".ca.new" / "passphrase").write_bytes(b"half")
    assert opened(tmp_path).renewed == ("root", "issuing")
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


def test_creation_that_fails_leaves_no_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(development_ca, "write_public", full)
    with pytest.raises(DirectoryUnusable, match="No space left"):
        opened(tmp_path)
    assert not (tmp_path / "ca").exists()
    monkeypatch.undo()
    assert opened(tmp_path).renewed == ("root", "issuing")


@pytest.mark.parametrize("name", FILES)
def test_missing_file_stops_with_advice_and_changes_nothing(tmp_path: Path, name: str) -> None:
    opened(tmp_path)
    (tmp_path / "ca" / name).unlink()
    before = content(tmp_path)
    with pytest.raises(DirectoryUnusable, match=f"lacks `{name}`: restore it, or move .* away"):
        opened(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "garbage"),
    [
        ("issuing.key.sealed", b"garbage"),
        ("issuing.key.sealed", b""),
        ("passphrase", b"another pass phrase"),
        ("passphrase", b""),
    ],
)
def test_key_that_does_not_open_stops_with_advice_and_changes_nothing(
    tmp_path: Path, name: str, garbage: bytes
) -> None:
    opened(tmp_path)
    (tmp_path / "ca" / name).write_bytes(garbage)
    before = content(tmp_path)
    with pytest.raises(KeyUnusable, match="sealed` cannot be used") as caught:
        opened(tmp_path)
    assert "issuing.key.sealed" in str(caught.value)
    assert "; restore it, or move" in str(caught.value)
    assert content(tmp_path) == before


def test_root_key_that_does_not_open_stops_the_renewal_only(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "ca" / "root.key.sealed").write_bytes(b"garbage")
    assert opened(tmp_path).renewed == ()
    before = content(tmp_path)
    with pytest.raises(KeyUnusable, match="sealed` cannot be used"):
        opened(tmp_path, NOW + ISSUING_LIFETIME_S)
    assert content(tmp_path) == before


def test_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "a")
    opened(tmp_path / "b")
    for name in ("issuing.key.sealed", "passphrase"):
        (tmp_path / "a" / "ca" / name).write_bytes((tmp_path / "b" / "ca" / name).read_bytes())
    with pytest.raises(KeyUnusable, match="is not the key of"):
        opened(tmp_path / "a")


def test_certificate_that_is_unfit_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    pki = TestPki(tmp_path, now=NOW)
    for name, certificates, message in (
        ("issuing.pem", [pki.issuing.certificate], "not signed by its issuer"),
        ("root.pem", [pki.client("leaf").certificate], "unfit"),
        ("root.pem", [pki.root.certificate] * 2, "must hold one certificate"),
        ("root.pem", [], "no readable PEM certificate"),
    ):
        (tmp_path / "ca" / name).write_bytes(chain_to_pem(certificates))
        with pytest.raises(CertificateUnusable, match=message):
            opened(tmp_path)


@pytest.mark.parametrize("exposed", [0o755, 0o770, 0o701])
def test_directory_that_others_can_enter_is_refused(tmp_path: Path, exposed: int) -> None:
    opened(tmp_path)
    (tmp_path / "ca").chmod(exposed)
    with pytest.raises(DirectoryUnusable, match="chmod 700"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["issuing.key.sealed", "passphrase"])
def test_key_or_passphrase_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    opened(tmp_path)
    (tmp_path / "ca" / name).chmod(0o644)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        opened(tmp_path)


def test_fresh_is_valid_now_and_for_the_margin(tmp_path: Path) -> None:
    certificate = opened(tmp_path).root
    end = certificate.not_valid_after_utc.timestamp()
    assert is_fresh(certificate, now=NOW, margin_s=DAY_S)
    assert is_fresh(certificate, now=end - DAY_S, margin_s=DAY_S)
    assert not is_fresh(certificate, now=end - DAY_S + 1, margin_s=DAY_S)
    assert not is_fresh(certificate, now=NOW - DAY_S, margin_s=0)
