"""Errors of the room: one base, and what they carry."""

from __future__ import annotations

import inspect

from controller import errors


def test_every_error_has_the_one_base() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    assert len(classes) > 10
    assert all(issubclass(c, errors.ControllerError) for c in classes)


def test_surely_not_applied_and_unknown_are_different_errors() -> None:
    assert not issubclass(errors.OutcomeUnknown, errors.NotCommitted)
    assert not issubclass(errors.NotCommitted, errors.OutcomeUnknown)


def test_admin_error_reads_as_title_and_detail() -> None:
    error = errors.AdminError("no rule allows it", status=403, title="denied")
    assert str(error) == "denied: no rule allows it"
    assert (error.status, error.detail) == (403, "no rule allows it")
    assert str(errors.AdminError("no answer")) == "no answer"
