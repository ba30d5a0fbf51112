from __future__ import annotations

import inspect

from certs import errors


def test_errors_all_descend_from_the_rooms_base() -> None:
    found = [item for _, item in inspect.getmembers(errors, inspect.isclass)]
    assert len(found) > 1
    assert all(issubclass(item, errors.CertsError) for item in found)


def test_errors_carry_what_the_caller_needs() -> None:
    invalid = errors.CertificateInvalid("the certificate is expired", reason="expired")
    refused = errors.PrincipalRefused("no rule matches", reasons=("rule `a`: absent",))
    assert (str(invalid), invalid.reason) == ("the certificate is expired", "expired")
    assert (str(refused), refused.reasons) == ("no rule matches", ("rule `a`: absent",))
