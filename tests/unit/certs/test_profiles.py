from __future__ import annotations

from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.profiles import (
    ISSUING_LIFETIME_S,
    LEAF_LIFETIME_S,
    PROFILES,
    ROOT_LIFETIME_S,
    Role,
    authority_key_usage,
    leaf_key_usage,
)


def test_every_role_has_a_profile_of_its_own() -> None:
    assert set(PROFILES) == set(Role)
    assert all(profile.role is role for role, profile in PROFILES.items())


def test_what_only_connects_is_a_client_only() -> None:
    for role in (Role.CLIENT, Role.ADMIN):
        assert PROFILES[role].purposes == (ExtendedKeyUsageOID.CLIENT_AUTH,)
        assert not PROFILES[role].has_hosts
    for role in (Role.BROKER, Role.CONTROLLER):
        assert set(PROFILES[role].purposes) == {
            ExtendedKeyUsageOID.CLIENT_AUTH,
            ExtendedKeyUsageOID.SERVER_AUTH,
        }
        assert PROFILES[role].has_hosts


def test_key_usages_do_not_mix_signing_handshakes_and_certificates() -> None:
    leaf, authority = leaf_key_usage(), authority_key_usage()
    assert leaf.digital_signature
    assert not any((leaf.key_cert_sign, leaf.crl_sign, leaf.key_agreement, leaf.key_encipherment))
    assert authority.key_cert_sign
    assert authority.crl_sign
    assert not authority.digital_signature


def test_lifetimes_grow_towards_the_root() -> None:
    assert LEAF_LIFETIME_S < ISSUING_LIFETIME_S < ROOT_LIFETIME_S
    assert all(profile.max_lifetime_s == LEAF_LIFETIME_S for profile in PROFILES.values())
