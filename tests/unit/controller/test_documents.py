"""Documents of the admin API read back, and clients survive fields they do not know."""

from __future__ import annotations

import msgspec
import pytest

from controller.commands import Result, RuleRecord, Verdict
from controller.documents import AccessQuestion, ChangeDocument, Problem, RulePage

RECORD = RuleRecord(
    id="r-1",
    principal="a",
    resource="topic.x",
    operations="read",
    created_at=1.0,
    created_by="admin",
    created_epoch=1,
)


def test_documents_read_back() -> None:
    page = RulePage(epoch=1, rules=(RECORD,), next="r-1")
    assert msgspec.json.decode(msgspec.json.encode(page), type=RulePage) == page
    change = ChangeDocument(
        result=Result(verdict=Verdict.APPLIED, epoch=2), rule=RECORD, request_id="q-1"
    )
    assert msgspec.json.decode(msgspec.json.encode(change), type=ChangeDocument) == change


def test_client_ignores_fields_it_does_not_know() -> None:
    data = b'{"title":"t","status":403,"detail":"d","new":1}'
    assert msgspec.json.decode(data, type=Problem).status == 403


def test_server_refuses_fields_it_does_not_know() -> None:
    data = b'{"principal":"a","operation":"read","resource":"topic.x","extra":1}'
    with pytest.raises(msgspec.ValidationError, match="extra"):
        msgspec.json.decode(data, type=AccessQuestion)
