"""The admin API over HTTPS with client certificates: rules, trials, status, metrics, health.

Rules of this file:
- Every verb but `/healthz` and `/readyz` is decided by `acl.decide` for the principal of the certificate, before
  anything of the request is read; those two still need a valid client certificate.
- Every denial and every change is one audit event.
- A write is answered when it is on disk and the brokers have it, or with the names of those that lag.
"""

from __future__ import annotations

from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog
import trio

from acl.conditions import zones_of
from acl.errors import AclError, RequestInvalid
from acl.model import (
    AccessRequest,
    Operation,
    Principal,
    Resource,
    ResourceKind,
    parse_operations,
    text_of,
)
from acl.moments import is_known_zone
from acl.survey import what_can, who_can
from certs.errors import CertificateInvalid
from certs.verify import verify_peer
from controller.access import Denied, Gate, principal_of
from controller.commands import RuleDraft, Verdict
from controller.documents import (
    AccessQuestion,
    ChangeDocument,
    DecisionDocument,
    GrantDocument,
    GrantsDocument,
    ModeQuestion,
    Revision,
    RulePage,
    StatusDocument,
)
from controller.errors import NotCommitted, OutcomeUnknown
from controller.raft_log import MAX_COMMAND_BYTES
from controller.state import MAX_REQUEST_ID_CHARACTERS
from transport.http import (
    HttpLimits,
    Request,
    RequestRefused,
    Response,
    json_response,
    problem,
    serve_http,
)
from transport.places import Places

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from acl.rules import RuleSet
    from acl.survey import Grant
    from certs.identity import PeerIdentity
    from controller.access import Permit
    from controller.audit import AuditSink
    from controller.authority import Change, PolicyAuthority
    from controller.metrics import ControllerMetrics
    from controller.state import State
    from transport.tls import TlsStream

    _Routes = dict[str, Callable[[Request, Principal], Awaitable[Response]]]

ALPN = "http/1.1"
MAX_PAGE_RULES = 1000
MAX_GRANTS = 10_000  # in one answer to who can, or what can
MAX_LISTED = 100  # rules named in one audit event
MAX_SURVEYS = 1  # of these at the same time
MAX_CONNECTIONS = 256  # of everybody: administrators, scrapers, probes
MAX_CONNECTIONS_EACH = 16  # of one principal, which may be any client of the trust domain
# A rule with the longest description is 9 KiB of JSON; a revision of many is as long as a command may be.
LIMITS = HttpLimits(max_body_bytes=MAX_COMMAND_BYTES, request_s=10.0, idle_s=30.0)

RULES = Resource(ResourceKind.ACL, ("rules",))
STATUS = Resource(ResourceKind.CLUSTER, ("status",))
METRICS = Resource(ResourceKind.CLUSTER, ("metrics",))

_VERBS = frozenset({"GET", "POST", "DELETE"})
_STATUS_OF = {
    Verdict.CONFLICT: HTTPStatus.CONFLICT,
    Verdict.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Verdict.INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
}

T = TypeVar("T")

_log = structlog.get_logger("stockade.controller.api")


class AdminApi:
    """Serves administrators; `verify` and `serve` are what a TLS listener needs."""

    def __init__(
        self,
        *,
        authority: PolicyAuthority,
        state: State,
        read_status: Callable[[], StatusDocument],
        is_ready: Callable[[], bool],
        metrics: ControllerMetrics,
        audit: AuditSink,
        trust_domain: str,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """Put the parts together.

        Args:
            authority: decides and changes.
            state: what is listed.
            read_status: returns the state of the controller.
            is_ready: whether writes can be committed now.
            metrics: counts requests, and is rendered.
            audit: takes denials and changes.
            trust_domain: of the certificates.
            clock: seconds since the epoch.
            new_id: 12 new random hexadecimal digits.
        """
        self._authority = authority
        self._state = state
        self._read_status = read_status
        self._is_ready = is_ready
        self._metrics = metrics
        self._gate = Gate(authority, audit)
        self._trust_domain = trust_domain
        self._clock = clock
        self._new_id = new_id
        self._places = Places(total=MAX_CONNECTIONS, each=MAX_CONNECTIONS_EACH)
        self._surveys = trio.CapacityLimiter(MAX_SURVEYS)

        self._routes: dict[tuple[str, ...], _Routes] = {
            ("healthz",): {"GET": self._healthz},
            ("readyz",): {"GET": self._readyz},
            ("metrics",): {"GET": self._render_metrics},
            ("v1", "status"): {"GET": self._status},
            ("v1", "acl", "rules"): {"GET": self._list_rules, "POST": self._add_rule},
            ("v1", "acl", "test"): {"POST": self._try_policy},
            ("v1", "acl", "mode"): {"POST": self._set_mode},
            ("v1", "acl", "revisions"): {"POST": self._revise},
            ("v1", "acl", "who-can"): {"GET": self._who_can},
            ("v1", "acl", "what-can"): {"GET": self._what_can},
        }

    # --- connections -------------------------------------------------------------------------------------------

    def verify(self, _stream: TlsStream, identity: PeerIdentity) -> None:
        """Refuse certificates that are not for a client of this trust domain.

        Raises:
            CertificateInvalid: says why.
        """
        verify_peer(identity, purpose="client", now=self._clock(), trust_domain=self._trust_domain)

    async def serve(self, stream: TlsStream) -> None:
        """Serve one verified connection until it ends."""
        if stream.identity is None:
            raise CertificateInvalid("a connection without a certificate", reason="no_certificate")
        principal = principal_of(stream.identity, self._trust_domain)
        with self._places.place_of(principal.name) as place:
            if not place:
                _log.warning("connection refused", reason="too many", peer=stream.peer_address)
                return
            await serve_http(stream, self.handle, limits=LIMITS, principal=principal)

    async def handle(self, request: Request) -> Response:
        """Answer one request of a connection whose principal is known."""
        principal = request.principal
        if not isinstance(principal, Principal):
            raise TypeError("a request without a principal")
        try:
            response = await self._answer(request, principal)
        except Denied as denied:
            response = problem(
                denied.status,
                denied.detail,
                rule_id=denied.decision.rule_id,
                decision_id=denied.decision.id,
            )
        except RequestRefused as refusal:
            response = problem(refusal.status, refusal.detail)
        verb = request.method if request.method in _VERBS else "other"
        self._metrics.count_request(verb, response.status)
        return response

    async def _answer(self, request: Request, principal: Principal) -> Response:
        if request.identity is not None and not self._clock() <= request.identity.not_after:
            # A connection may outlive the certificate it was opened with.
            raise RequestRefused(HTTPStatus.UNAUTHORIZED, "the client's certificate is expired")
        handlers = self._route(request.segments)
        if handlers is None:
            raise RequestRefused(HTTPStatus.NOT_FOUND, f"there is nothing at `{request.path}`")
        handler = handlers.get(request.method)
        if handler is None:
            allowed = ", ".join(sorted(handlers))
            return problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"`{request.method}` is not possible here, only {allowed}",
                headers={"allow": allowed},
            )
        return await handler(request, principal)

    def _route(self, segments: tuple[str, ...]) -> _Routes | None:
        """Return what is possible at a path, by method."""
        match segments:
            case ("v1", "acl", "rules", rule_id) if rule_id:
                return {"GET": self._show_rule, "DELETE": self._delete_rule}
            case _:
                return self._routes.get(segments)

    # --- health, status, metrics -------------------------------------------------------------------------------

    async def _healthz(self, _request: Request, _principal: Principal) -> Response:
        return Response(body=b"ok\n")

    async def _readyz(self, _request: Request, _principal: Principal) -> Response:
        if self._is_ready():
            return Response(body=b"ready\n")
        raise RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, "there is no leader now")

    async def _render_metrics(self, _request: Request, principal: Principal) -> Response:
        self._gate.verify_allowed(principal, Operation.DESCRIBE, METRICS)
        body, content_type = self._metrics.render()
        return Response(body=body, content_type=content_type)

    async def _status(self, _request: Request, principal: Principal) -> Response:
        self._gate.verify_allowed(principal, Operation.DESCRIBE, STATUS)
        return json_response(self._read_status())

    # --- rules -------------------------------------------------------------------------------------------------

    async def _list_rules(self, request: Request, principal: Principal) -> Response:
        self._gate.verify_allowed(principal, Operation.LIST, RULES)
        limit = _parse_limit(request.query.get("limit", str(MAX_PAGE_RULES)))
        epoch = self._authority.epoch
        found = self._state.page(after=request.query.get("after", ""), limit=limit + 1)
        shown = found[:limit]
        following = shown[-1].id if len(found) > limit else ""
        return json_response(RulePage(epoch=epoch, rules=shown, next=following))

    async def _show_rule(self, request: Request, principal: Principal) -> Response:
        self._gate.verify_allowed(principal, Operation.DESCRIBE, RULES)
        rule = self._state.record(request.segments[-1])
        if rule is None:
            raise RequestRefused(HTTPStatus.NOT_FOUND, f"there is no rule `{request.segments[-1]}`")
        return json_response(rule)

    async def _try_policy(self, request: Request, principal: Principal) -> Response:
        self._gate.verify_allowed(principal, Operation.DESCRIBE, RULES)
        question = _parse_body(request, AccessQuestion)
        try:
            asked = AccessRequest(
                Principal(question.principal),
                parse_operations(question.operation),
                Resource.parse(question.resource),
            )
        except AclError as error:
            raise RequestRefused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        explained = self._authority.explain(asked, question.at)
        decision = explained.decision
        return json_response(
            DecisionDocument(
                outcome=decision.outcome.value,
                rule_id=decision.rule_id,
                reason=decision.reason,
                epoch=decision.epoch,
                id=decision.id,
                valid_until=None if decision.valid_until == inf else decision.valid_until,
                losing=tuple(each for each in explained.applicable if each != decision.rule_id),
                mode=self._authority.rules.mode.value,
            )
        )

    async def _who_can(self, request: Request, principal: Principal) -> Response:
        self._gate.verify_allowed(principal, Operation.DESCRIBE, RULES)
        try:
            operation = parse_operations(request.query.get("operation", ""))
            resource = Resource.parse(request.query.get("resource", ""))
            # A whole set of operations, or of topics, has no one answer.
            AccessRequest(principal, operation, resource)
            if resource.is_filter:
                raise RequestInvalid(f"`{resource.text}` is a filter: ask about one topic")
        except AclError as error:
            raise RequestRefused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return await self._survey(lambda rules: who_can(rules, operation, resource, self._clock()))

    async def _what_can(self, request: Request, principal: Principal) -> Response:
        self._gate.verify_allowed(principal, Operation.DESCRIBE, RULES)
        try:
            asked = Principal(request.query.get("principal", ""))
        except AclError as error:
            raise RequestRefused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return await self._survey(lambda rules: what_can(rules, asked, self._clock()))

    async def _survey(self, look: Callable[[RuleSet], tuple[Grant, ...]]) -> Response:
        """Read all rules, in a thread: that takes a second for 100,000."""
        rules = self._authority.rules
        try:
            found = await trio.to_thread.run_sync(look, rules, limiter=self._surveys)
        except AclError as error:
            raise RequestRefused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        grants = tuple(
            GrantDocument(
                principal=grant.principal,
                resource=grant.resource,
                operations=text_of(grant.operations),
                rule_id=grant.rule_id,
                unless=grant.unless,
            )
            for grant in found[:MAX_GRANTS]
        )
        more = len(found) - len(grants)
        return json_response(
            GrantsDocument(epoch=rules.epoch, mode=rules.mode.value, grants=grants, more=more)
        )

    async def _set_mode(self, request: Request, principal: Principal) -> Response:
        permit = self._gate.verify_allowed(principal, Operation.ALTER, RULES)
        key = self._request_id(request)
        asked = _parse_body(request, ModeQuestion)
        before = self._authority.rules.mode.value
        change = self._authority.set_mode(asked.mode, by=principal.name, request_id=key)
        return await self._finish(
            change, key, permit, "acl.mode_set", before=before, mode=asked.mode
        )

    async def _add_rule(self, request: Request, principal: Principal) -> Response:
        permit = self._gate.verify_allowed(principal, Operation.CREATE, RULES)
        key = self._request_id(request)
        draft = _parse_body(request, RuleDraft)
        _verify_zones((draft,))
        change = self._authority.add_rule(draft, by=principal.name, request_id=key)
        return await self._finish(change, key, permit, "acl.rule_added")

    async def _delete_rule(self, request: Request, principal: Principal) -> Response:
        permit = self._gate.verify_allowed(principal, Operation.DELETE, RULES)
        key = self._request_id(request)
        rule_id = request.segments[-1]
        change = self._authority.delete_rule(rule_id, by=principal.name, request_id=key)
        return await self._finish(change, key, permit, "acl.rule_deleted")

    async def _revise(self, request: Request, principal: Principal) -> Response:
        # It may add, replace and delete: whoever may do it may do all of that.
        permit = self._gate.verify_allowed(principal, Operation.ALTER, RULES)
        self._gate.verify_allowed(principal, Operation.CREATE, RULES)
        self._gate.verify_allowed(principal, Operation.DELETE, RULES)
        key = self._request_id(request)
        revision = _parse_body(request, Revision)
        _verify_zones(revision.put)
        details = {
            "put": _listed([draft.id for draft in revision.put]),
            "deleted": _listed(revision.delete),
        }
        change = self._authority.revise(revision, by=principal.name, request_id=key)
        return await self._finish(change, key, permit, "acl.revised", **details)

    async def _finish(
        self, change: Awaitable[Change], key: str, permit: Permit, kind: str, **details: str
    ) -> Response:
        """Wait for a write, record it, and answer."""
        try:
            done = await change
        except NotCommitted as error:
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                str(error),
                headers={"retry-after": "1"},
                request_id=key,
            )
        except OutcomeUnknown as error:
            permit.record(kind, request_id=key, verdict="unknown")
            return problem(HTTPStatus.GATEWAY_TIMEOUT, str(error), request_id=key)
        result = done.result
        if result.verdict is not Verdict.APPLIED:
            status = _STATUS_OF.get(result.verdict, HTTPStatus.CONFLICT)
            return problem(status, result.detail, request_id=key)
        permit.record(
            kind,
            request_id=key,
            verdict="repeated" if result.repeated else "applied",
            changed_rule=result.rule_id,
            new_epoch=str(result.epoch),
            lagging_brokers=",".join(done.laggards),
            **details,
        )
        document = ChangeDocument(
            result=result,
            rule=self._state.record(result.rule_id),
            lagging_brokers=done.laggards,
            request_id=key,
        )
        created = permit.asked.operation is Operation.CREATE and not result.repeated
        return json_response(document, status=HTTPStatus.CREATED if created else HTTPStatus.OK)

    def _request_id(self, request: Request) -> str:
        key = request.headers.get("idempotency-key", "")
        if not key:
            return f"q-{self._new_id()}"
        if len(key) > MAX_REQUEST_ID_CHARACTERS or not (key.isascii() and key.isprintable()):
            raise RequestRefused(
                HTTPStatus.BAD_REQUEST,
                f"`Idempotency-Key` has 1 to {MAX_REQUEST_ID_CHARACTERS} printable ASCII characters",
            )
        return key


def _verify_zones(drafts: Sequence[RuleDraft]) -> None:
    """Refuse time zones nobody here knows; the log takes them, because members may know different ones."""
    for draft in drafts:
        try:
            unknown = [zone for zone in zones_of(draft.condition) if not is_known_zone(zone)]
        except AclError as error:
            raise RequestRefused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        if unknown:
            raise RequestRefused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"rule `{draft.id}`: there is no time zone `{unknown[0]}`: write one as in the tz database",
            )


def _listed(rule_ids: Sequence[str]) -> str:
    """Rules as an audit event names them; an event is a line, not a book."""
    named = ",".join(rule_ids[:MAX_LISTED])
    return (
        named if len(rule_ids) <= MAX_LISTED else f"{named} and {len(rule_ids) - MAX_LISTED} more"
    )


def _parse_limit(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PAGE_RULES)):
        limit = int(text)
        if 1 <= limit <= MAX_PAGE_RULES:
            return limit
    raise RequestRefused(HTTPStatus.BAD_REQUEST, f"`limit` is a number from 1 to {MAX_PAGE_RULES}")


def _parse_body(request: Request, type_: type[T]) -> T:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise RequestRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send `application/json`")
    try:
        return msgspec.json.decode(request.body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestRefused(
            HTTPStatus.BAD_REQUEST, f"the body is not understood: {error}"
        ) from error
