"""The admin API as a function from requests to responses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import msgspec
import pytest

from acl.combine import Combination
from acl.model import Principal
from certs.errors import CertificateInvalid
from certs.identity import PeerIdentity
from controller.api import AdminApi
from controller.commands import RuleDraft
from controller.consensus import Role
from controller.documents import (
    ChangeDocument,
    GrantsDocument,
    Problem,
    Revision,
    RulePage,
    StatusDocument,
)
from controller.errors import NotCommitted, OutcomeUnknown
from controller.metrics import ControllerMetrics, Reading
from tests.pki import TestPki
from tests.unit.controller.parts import Parts, Recorder, build_parts
from transport.http import Request, Response
from transport.tls import TlsStream

ADMIN = Principal("admin")
RULE = b'{"principal":"s","resource":"topic.x","operations":"read"}'


class Api:
    """An API with an administrator, and what it counted and recorded."""

    def __init__(self) -> None:
        self.parts: Parts = build_parts()
        self.audit = Recorder()
        self.metrics = ControllerMetrics()
        self.metrics.observe_state(
            lambda: Reading(log=self.parts.log.status(), epoch=1, rules=1, brokers=())
        )
        self.now = 1000.0
        self.api = AdminApi(
            authority=self.parts.authority,
            state=self.parts.state,
            read_status=self._status,
            is_ready=lambda: self.parts.log.role is Role.LEADER,
            metrics=self.metrics,
            audit=self.audit,
            trust_domain="stockade.local",
            clock=lambda: self.now,
            new_id=lambda: "0123456789ab",
        )

    def _status(self) -> StatusDocument:
        state = self.parts.state
        return StatusDocument(
            version="1",
            log=self.parts.log.status(),
            epoch=state.epoch,
            rules=len(state.rules),
            applied=state.applied,
            chain=state.chain,
            brokers=(),
        )

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        principal: Principal = ADMIN,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        identity: PeerIdentity | None = None,
    ) -> Response:
        return await self.api.handle(
            Request(
                method=method,
                path=path,
                segments=tuple(path[1:].split("/")),
                query=query or {},
                headers={"content-type": "application/json", **(headers or {})},
                body=body,
                identity=identity,
                principal=principal,
            )
        )


@pytest.fixture
async def api() -> Api:
    made = Api()
    await made.parts.authority.bootstrap(
        [
            RuleDraft(id="a", principal="admin", resource="acl.**", operations="all"),
            RuleDraft(id="c", principal="admin", resource="cluster.**", operations="all"),
        ],
        by="boot",
    )
    return made


def problem_of(response: Response) -> Problem:
    assert response.content_type == "application/problem+json"
    return msgspec.json.decode(response.body, type=Problem)


async def test_added_rule_is_201_with_the_rule_as_kept(api: Api) -> None:
    response = await api.call("POST", "/v1/acl/rules", RULE)
    change = msgspec.json.decode(response.body, type=ChangeDocument)
    assert response.status == 201
    assert change.rule is not None
    assert (change.rule.created_by, change.rule.created_at) == ("admin", 1000.0)
    assert change.request_id == "q-0123456789ab"
    [event] = api.audit.of("acl.rule_added")
    assert cast("dict[str, str]", event["details"])["changed_rule"] == change.result.rule_id


async def test_repeated_write_is_200_and_recorded_as_such(api: Api) -> None:
    headers = {"idempotency-key": "mine"}
    first = await api.call("POST", "/v1/acl/rules", RULE, headers=headers)
    again = await api.call("POST", "/v1/acl/rules", RULE, headers=headers)
    assert (first.status, again.status) == (201, 200)
    assert api.parts.state.epoch == 2
    verdicts = [cast("dict[str, str]", e["details"])["verdict"] for e in api.audit.events]
    assert verdicts == ["applied", "repeated"]


@pytest.mark.parametrize("key", ["x" * 65, "\u00e4", "a\tb"])
async def test_idempotency_key_is_bounded(api: Api, key: str) -> None:
    response = await api.call("POST", "/v1/acl/rules", RULE, headers={"idempotency-key": key})
    assert response.status == 400
    assert api.parts.state.epoch == 1


@pytest.mark.parametrize(
    ("failure", "status"),
    [(NotCommitted("no leader"), 503), (OutcomeUnknown("no confirmation"), 504)],
)
async def test_write_without_a_clear_outcome_tells_how_to_repeat(
    api: Api, failure: Exception, status: int
) -> None:
    api.parts.log.failure = failure
    response = await api.call("POST", "/v1/acl/rules", RULE, headers={"idempotency-key": "mine"})
    told = problem_of(response)
    assert (told.status, told.detail, told.request_id) == (status, str(failure), "mine")
    assert len(api.audit.of("acl.rule_added")) == (status == 504)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"\xff", {}, 400),
        (b'{"principal":"s","resource":"topic.x","operations":"read","x":1}', {}, 400),
        (b'{"principal":"s"}', {}, 400),
        (RULE, {"content-type": "text/plain"}, 415),
        (RULE.replace(b"topic.x", b"moon.x"), {}, 422),
    ],
)
async def test_bad_rules_are_refused_and_change_nothing(
    api: Api, body: bytes, headers: dict[str, str], status: int
) -> None:
    response = await api.call("POST", "/v1/acl/rules", body, headers=headers)
    assert (response.status, problem_of(response).status) == (status, status)
    assert (api.parts.state.epoch, api.audit.events) == (1, [])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/acl/rules"),
        ("POST", "/v1/acl/rules"),
        ("GET", "/v1/acl/rules/a"),
        ("DELETE", "/v1/acl/rules/a"),
        ("POST", "/v1/acl/test"),
        ("POST", "/v1/acl/mode"),
        ("POST", "/v1/acl/revisions"),
        ("GET", "/v1/acl/who-can"),
        ("GET", "/v1/acl/what-can"),
        ("GET", "/v1/status"),
        ("GET", "/metrics"),
    ],
)
async def test_every_verb_is_checked_before_the_request_is_read(
    api: Api, method: str, path: str
) -> None:
    response = await api.call(method, path, b"garbage", principal=Principal("client:x"))
    told = problem_of(response)
    assert told.status == 403
    assert "no rule allows it" in told.detail
    [event] = api.audit.of("authorization.denied")
    assert cast("dict[str, str]", event["details"])["decision_id"] == told.decision_id
    assert api.parts.state.epoch == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/acl/rules/", 404),
        ("GET", "/v1/acl/rules/a/b", 404),
        ("GET", "/v1/acl/rules/nobody", 404),
        ("DELETE", "/v1/acl/rules/nobody", 404),
        ("PUT", "/v1/acl/rules", 405),
        ("GET", "/v1/acl/test", 405),
        ("HEAD", "/healthz", 405),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
    ],
)
async def test_paths_and_methods(api: Api, method: str, path: str, status: int) -> None:
    assert (await api.call(method, path)).status == status


async def test_readiness_follows_the_leader(api: Api) -> None:
    api.parts.log.role = Role.FOLLOWER
    assert (await api.call("GET", "/readyz")).status == 503
    assert (await api.call("GET", "/healthz")).status == 200


async def test_pages_follow_one_another(api: Api) -> None:
    for number in range(5):
        body = RULE.replace(b"{", b'{"id":"r%d",' % number)
        await api.call("POST", "/v1/acl/rules", body, headers={"idempotency-key": f"k{number}"})
    found, after = [], ""
    while True:
        query = {"limit": "3", "after": after}
        response = await api.call("GET", "/v1/acl/rules", query=query)
        page = msgspec.json.decode(response.body, type=RulePage)
        found += [rule.id for rule in page.rules]
        after = page.next
        if not after:
            break
    assert found == ["a", "c", "r0", "r1", "r2", "r3", "r4"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "\u00b2", "99999999"])
async def test_page_size_is_bounded(api: Api, limit: str) -> None:
    assert (await api.call("GET", "/v1/acl/rules", query={"limit": limit})).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"principal":"a*","operation":"read","resource":"topic.x"}',
        b'{"principal":"a","operation":"read,write","resource":"topic.x"}',
        b'{"principal":"a","operation":"read","resource":"x"}',
    ],
)
async def test_trial_that_asks_nothing_is_refused(api: Api, body: bytes) -> None:
    assert (await api.call("POST", "/v1/acl/test", body)).status == 422


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/acl/who-can", {}),
        ("/v1/acl/who-can", {"operation": "read,write", "resource": "acl.rules"}),
        ("/v1/acl/who-can", {"operation": "read", "resource": "moon.x"}),
        ("/v1/acl/who-can", {"operation": "read", "resource": "topic.a.#"}),
        ("/v1/acl/what-can", {}),
        ("/v1/acl/what-can", {"principal": "a*"}),
    ],
)
async def test_question_about_grants_that_has_no_one_answer_is_refused(
    api: Api, path: str, query: dict[str, str]
) -> None:
    response = await api.call("GET", path, query=query)
    assert response.status == 422
    assert problem_of(response).detail


async def test_grants_are_told_with_the_epoch_and_bounded(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = await api.call("GET", "/v1/acl/what-can", query={"principal": "admin"})
    found = msgspec.json.decode(response.body, type=GrantsDocument)
    assert [(each.resource, each.rule_id) for each in found.grants] == [
        ("acl.**", "a"),
        ("cluster.**", "c"),
    ]
    assert (found.epoch, found.mode, found.more) == (1, "deny-overrides", 0)
    monkeypatch.setattr("controller.api.MAX_GRANTS", 1)
    response = await api.call("GET", "/v1/acl/what-can", query={"principal": "admin"})
    found = msgspec.json.decode(response.body, type=GrantsDocument)
    assert (len(found.grants), found.more) == (1, 1)


async def test_mode_is_set_and_recorded_with_what_it_was(api: Api) -> None:
    async def set_mode(mode: str, key: str) -> Response:
        body = msgspec.json.encode({"mode": mode})
        return await api.call("POST", "/v1/acl/mode", body, headers={"idempotency-key": key})

    assert (await set_mode("first-applicable", "1")).status == 200
    assert api.parts.state.rules.mode is Combination.FIRST_APPLICABLE
    [event] = api.audit.of("acl.mode_set")
    details = cast("dict[str, str]", event["details"])
    assert (details["before"], details["mode"]) == ("deny-overrides", "first-applicable")
    assert (await set_mode("first-applicable", "2")).status == 409
    wrong = await set_mode("majority", "3")
    assert wrong.status == 422
    assert "use one of deny-overrides" in problem_of(wrong).detail
    assert api.parts.state.epoch == 2


async def test_revision_is_made_whole_and_recorded(api: Api) -> None:
    rule = msgspec.structs.replace(msgspec.json.decode(RULE, type=RuleDraft), id="x")
    body = msgspec.json.encode(Revision(put=(rule,), delete=("c",), expected_epoch=1))
    response = await api.call("POST", "/v1/acl/revisions", body)
    assert response.status == 200
    assert api.parts.state.epoch == 2
    [event] = api.audit.of("acl.revised")
    details = cast("dict[str, str]", event["details"])
    assert (details["put"], details["deleted"]) == ("x", "c")
    late = msgspec.json.encode(Revision(delete=("x",), expected_epoch=1))
    refused = await api.call("POST", "/v1/acl/revisions", late, headers={"idempotency-key": "late"})
    assert refused.status == 409
    assert "somebody changed it" in problem_of(refused).detail


@pytest.mark.parametrize("missing", ["alter", "create", "delete"])
async def test_revision_needs_every_right_it_may_use(api: Api, missing: str) -> None:
    operations = ",".join({"alter", "create", "delete"} - {missing})
    some = RuleDraft(id="some", principal="half", resource="acl.rules", operations=operations)
    await api.parts.authority.add_rule(some, by="admin", request_id="half")
    response = await api.call("POST", "/v1/acl/revisions", b"{}", principal=Principal("half"))
    assert response.status == 403
    assert f"may not {missing}" in problem_of(response).detail


async def test_requests_are_counted_by_verb_and_status(api: Api) -> None:
    await api.call("GET", "/v1/status")
    await api.call("BREW", "/v1/status")
    text = (await api.call("GET", "/metrics")).body.decode()
    assert 'api_requests_total{status="200",verb="GET"} 1.0' in text
    assert 'api_requests_total{status="405",verb="other"} 1.0' in text


async def test_certificate_that_expired_meanwhile_is_refused(api: Api, tmp_path: Path) -> None:
    identity = TestPki(tmp_path).admin().identity
    api.now = identity.not_after
    assert (await api.call("GET", "/v1/status", identity=identity)).status == 200
    api.now += 1
    assert (await api.call("GET", "/v1/status", identity=identity)).status == 401


async def test_request_without_a_principal_is_a_bug(api: Api) -> None:
    with pytest.raises(TypeError, match="without a principal"):
        await api.api.handle(Request(method="GET", path="/healthz", segments=("healthz",)))


async def test_listener_takes_any_client_of_the_trust_domain(api: Api, tmp_path: Path) -> None:
    pki = TestPki(tmp_path)
    api.now = pki.now
    stream = cast("TlsStream", None)  # not looked at
    for issued in (pki.admin(), pki.client("x"), pki.broker("b")):
        api.api.verify(stream, issued.identity)
    for issued in (
        pki.server_only("x"),
        pki.other_trust_domain("x"),
        pki.without_uri("x"),
        pki.any_eku("x"),
    ):
        with pytest.raises(CertificateInvalid):
            api.api.verify(stream, issued.identity)
    late = dataclasses.replace(pki.client("x").identity, not_after=pki.now - 1)
    with pytest.raises(CertificateInvalid, match="expired"):
        api.api.verify(stream, late)
