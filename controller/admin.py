"""The admin API from the other side: a synchronous client for the command line.

Every write carries an idempotency key, so the one repetition after a broken connection cannot apply it twice.
"""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from controller.commands import RuleDraft, RuleRecord
from controller.documents import (
    AccessQuestion,
    ChangeDocument,
    DecisionDocument,
    GrantsDocument,
    ModeQuestion,
    Problem,
    Revision,
    RulePage,
    StatusDocument,
)
from controller.errors import AdminError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator


ALPN = "http/1.1"
# Seconds for one request; a write waits up to 2 s for brokers and up to 5 s for the log.
REQUEST_DEADLINE_S = 15.0
# The largest answer is a page of 1000 rules.
MAX_ANSWER_BYTES = 64 << 20
PAGE_RULES = 1000

T = TypeVar("T")


class AdminClient:
    """Talks to one controller.

    Resource handling: one connection per request; nothing stays open.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext,
        new_id: Callable[[], str],
        deadline_s: float = REQUEST_DEADLINE_S,
    ) -> None:
        """Prepare.

        Args:
            host: of the controller; its certificate must carry it.
            port: of its admin API.
            context: TLS client context with the administrator's certificate; ALPN `http/1.1`.
            new_id: 12 new random hexadecimal digits, for idempotency keys.
            deadline_s: for one request.
        """
        self._host = host
        self._port = port
        self._context = context
        self._new_id = new_id
        self._deadline_s = deadline_s

    def add_rule(self, rule: RuleDraft, *, request_id: str = "") -> ChangeDocument:
        """Add a rule; returns when it is on disk and connected brokers have it (or are named as lagging).

        Raises:
            AdminError: refused, or no answer; says why.
        """
        body = msgspec.json.encode(rule)
        return self._write("POST", "/v1/acl/rules", body, request_id=request_id)

    def delete_rule(self, rule_id: str, *, request_id: str = "") -> ChangeDocument:
        """Delete a rule; like `add_rule`."""
        path = f"/v1/acl/rules/{quote(rule_id, safe='')}"
        return self._write("DELETE", path, None, request_id=request_id)

    def list_rules(self) -> Iterator[RuleRecord]:
        """Yield all rules, ordered by id, a page at a time.

        Raises:
            AdminError: refused, or no answer.
        """
        after = ""
        while True:
            query = urlencode({"limit": PAGE_RULES, "after": after})
            page = self._exchange("GET", f"/v1/acl/rules?{query}", None, RulePage)
            yield from page.rules
            if not page.next:
                return
            after = page.next

    def rule(self, rule_id: str) -> RuleRecord:
        """Return one rule.

        Raises:
            AdminError: there is none, refused, or no answer.
        """
        return self._exchange("GET", f"/v1/acl/rules/{quote(rule_id, safe='')}", None, RuleRecord)

    def test(
        self, principal: str, operation: str, resource: str, *, at: float | None = None
    ) -> DecisionDocument:
        """Return what would be decided.

        Args:
            principal: a name.
            operation: one operation, e.g. `write`.
            resource: a resource's text, e.g. `topic.telemetry.cpu`.
            at: seconds since the epoch; None: now.
        """
        request = AccessQuestion(principal=principal, operation=operation, resource=resource, at=at)
        body = msgspec.json.encode(request)
        return self._exchange("POST", "/v1/acl/test", body, DecisionDocument)

    def who_can(self, operation: str, resource: str) -> GrantsDocument:
        """Return who may do one operation on one resource, by name or pattern.

        Args: as for `test`.
        """
        query = urlencode({"operation": operation, "resource": resource})
        return self._exchange("GET", f"/v1/acl/who-can?{query}", None, GrantsDocument)

    def what_can(self, principal: str) -> GrantsDocument:
        """Return what a principal may do, by patterns of resources."""
        query = urlencode({"principal": principal})
        return self._exchange("GET", f"/v1/acl/what-can?{query}", None, GrantsDocument)

    def set_mode(self, mode: str, *, request_id: str = "") -> ChangeDocument:
        """Choose what several rules that apply add up to; like `add_rule`."""
        body = msgspec.json.encode(ModeQuestion(mode=mode))
        return self._write("POST", "/v1/acl/mode", body, request_id=request_id)

    def revise(self, revision: Revision, *, request_id: str = "") -> ChangeDocument:
        """Change the policy in one step, all of it or nothing; like `add_rule`."""
        body = msgspec.json.encode(revision)
        return self._write("POST", "/v1/acl/revisions", body, request_id=request_id)

    def status(self) -> StatusDocument:
        """Return the state of the controller."""
        return self._exchange("GET", "/v1/status", None, StatusDocument)

    def _write(
        self, method: str, path: str, body: bytes | None, *, request_id: str
    ) -> ChangeDocument:
        key = request_id or f"q-{self._new_id()}"
        try:
            return self._exchange(method, path, body, ChangeDocument, key=key)
        except AdminError as error:
            if error.status:
                raise
        # No answer came: the write may have been applied. The same key makes the repetition harmless.
        return self._exchange(method, path, body, ChangeDocument, key=key)

    def _exchange(
        self, method: str, path: str, body: bytes | None, type_: type[T], *, key: str = ""
    ) -> T:
        status, content_type, answer = self._round_trip(method, path, body, key)
        try:
            if status >= http.client.BAD_REQUEST:
                problem = msgspec.json.decode(answer, type=Problem)
                raise AdminError(problem.detail, status=status, title=problem.title)
            return msgspec.json.decode(answer, type=type_)
        except msgspec.MsgspecError as error:
            raise AdminError(
                f"the answer ({status}, {content_type or 'no type'}) is not understood: {error}",
                status=status,
            ) from error

    def _round_trip(
        self, method: str, path: str, body: bytes | None, key: str
    ) -> tuple[int, str, bytes]:
        headers = {"Accept": "application/json", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=self._deadline_s, context=self._context
        )
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(
                f"no answer from `{self._host}:{self._port}`: {_reason_of(error)}"
            ) from error
        finally:
            connection.close()
        if len(answer) > MAX_ANSWER_BYTES:
            raise AdminError("the answer is too large", status=response.status)
        return response.status, response.getheader("Content-Type", ""), answer


def _reason_of(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; is the controller running?"
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__
