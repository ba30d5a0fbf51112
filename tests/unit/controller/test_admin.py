"""The admin client: what it sends, what it makes of answers, and when it repeats."""

from __future__ import annotations

import socket
import ssl

import msgspec
import pytest
from typing_extensions import override

from controller.admin import AdminClient
from controller.commands import Result, RuleDraft, RuleRecord, Verdict
from controller.documents import ChangeDocument, RulePage
from controller.errors import AdminError

DRAFT = RuleDraft(principal="a", resource="topic.x", operations="read")
APPLIED = msgspec.json.encode(
    ChangeDocument(
        result=Result(verdict=Verdict.APPLIED, epoch=2, rule_id="r"), request_id="q-0123456789ab"
    )
)
JSON = "application/json"
Sent = tuple[str, str, bytes | None, str]


class Scripted(AdminClient):
    """A client whose round trips are answered by a script."""

    def __init__(self, *answers: tuple[int, bytes] | AdminError) -> None:
        super().__init__(
            "localhost", 1, context=ssl.create_default_context(), new_id=lambda: "0123456789ab"
        )
        self.answers = list(answers)
        self.sent: list[Sent] = []

    @override
    def _round_trip(
        self, method: str, path: str, body: bytes | None, key: str
    ) -> tuple[int, str, bytes]:
        self.sent.append((method, path, body, key))
        answer = self.answers.pop(0)
        if isinstance(answer, AdminError):
            raise answer
        return answer[0], JSON, answer[1]


def test_write_without_an_answer_is_repeated_once_with_the_same_key() -> None:
    client = Scripted(AdminError("no answer"), (201, APPLIED))
    assert client.add_rule(DRAFT).result.rule_id == "r"
    assert client.sent[0] == client.sent[1]
    assert client.sent[0][3] == "q-0123456789ab"
    client = Scripted(AdminError("no answer"), AdminError("no answer"))
    with pytest.raises(AdminError, match="no answer"):
        client.add_rule(DRAFT)


def test_refused_write_is_not_repeated() -> None:
    told = b'{"title":"Forbidden","status":403,"detail":"no rule allows it"}'
    client = Scripted((403, told))
    with pytest.raises(AdminError, match="Forbidden: no rule allows it") as caught:
        client.delete_rule("r")
    assert (caught.value.status, len(client.sent)) == (403, 1)


def test_rule_ids_are_quoted_in_paths() -> None:
    client = Scripted((200, APPLIED))
    client.delete_rule("a/b c?", request_id="mine")
    assert client.sent == [("DELETE", "/v1/acl/rules/a%2Fb%20c%3F", None, "mine")]


def test_list_follows_pages() -> None:
    def rule(rule_id: str) -> RuleRecord:
        return RuleRecord(
            id=rule_id,
            principal="a",
            resource="topic.x",
            operations="read",
            created_at=1.0,
            created_by="b",
            created_epoch=1,
        )

    pages = (RulePage(epoch=1, rules=(rule("a"),), next="a"), RulePage(epoch=1, rules=(rule("b"),)))
    client = Scripted(*((200, msgspec.json.encode(page)) for page in pages))
    assert [r.id for r in client.list_rules()] == ["a", "b"]
    assert [path for _, path, _, _ in client.sent] == [
        "/v1/acl/rules?limit=1000&after=",
        "/v1/acl/rules?limit=1000&after=a",
    ]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"outcome":1}'])
@pytest.mark.parametrize("status", [200, 500])
def test_answer_that_is_not_understood_is_said(status: int, body: bytes) -> None:
    with pytest.raises(AdminError, match="not understood"):
        Scripted((status, body)).status()


def test_missing_controller_is_said_in_plain_words() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    client = AdminClient(
        "127.0.0.1", port, context=ssl.create_default_context(), new_id=str, deadline_s=2
    )
    with pytest.raises(AdminError, match="is the controller running") as caught:
        client.status()
    assert caught.value.status == 0


def test_silent_server_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        client = AdminClient(
            "127.0.0.1", port, context=ssl.create_default_context(), new_id=str, deadline_s=0.2
        )
        with pytest.raises(AdminError, match="timed out"):
            client.status()
