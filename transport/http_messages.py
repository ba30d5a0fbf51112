"""HTTP requests and responses as data, and the parsing of what a request asks for. Pure.

*Rules of this file.* A path is split at its slashes first and decoded after, so an encoded slash cannot move a request
to another resource. What is ambiguous (dot segments, a parameter given twice, broken escapes) is refused, not repaired.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from transport.errors import TransportError

if TYPE_CHECKING:
    from certs.identity import PeerIdentity

JSON: Final = "application/json"
PROBLEM_JSON: Final = "application/problem+json"  # RFC 9457
TEXT: Final = "text/plain; charset=utf-8"
MAX_QUERY_FIELDS: Final = 64

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ORIGIN: Final = re.compile(r"^https?://[^/?#]*", re.IGNORECASE)


class RequestRefused(TransportError):  # noqa: N818 - says the state, as the house names errors
    """The client's request cannot be served; `status` is the HTTP status that says so."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, read to its end.

    Attributes:
        method: upper case, as sent.
        path: decoded; a slash that was encoded stays `%2F` here and is a slash in `segments`.
        segments: the parts of the path between its slashes, decoded.
        query: the parameters after `?`, each at most once.
        headers: names in lower case; a header sent several times is joined by `, `.
        body: all of it, at most `HttpLimits.max_body_bytes`.
        identity: the certificate of who asks, None on a stream without one.
        principal: whatever the owner of the connection says who asks.
        peer: `host:port` of who asks, for logs.
    """

    method: str
    path: str
    segments: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    identity: PeerIdentity | None = None
    principal: object = None
    peer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer; length and connection headers are added when it is sent."""

    status: int = HTTPStatus.OK
    body: bytes = b""
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a request line asks for."""

    path: str
    segments: tuple[str, ...]
    query: Mapping[str, str]


def json_response(
    value: object, *, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with `value` as JSON."""
    body = msgspec.json.encode(value) + b"\n"
    return Response(status=status, body=body, content_type=JSON, headers=headers or {})


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: object
) -> Response:
    """Answer with an error that programs and people can read (RFC 9457).

    Args:
        status: the HTTP status, 400 or above.
        detail: what is wrong and what to do next.
        headers: further headers.
        **members: further members of the problem, e.g. `decision="d-..."`.
    """
    title = HTTPStatus(status).phrase
    content = {
        "type": "about:blank",
        "title": title,
        "status": int(status),
        "detail": detail,
        **members,
    }
    return Response(
        status=status,
        body=msgspec.json.encode(content) + b"\n",
        content_type=PROBLEM_JSON,
        headers=headers or {},
    )


def read_target(raw: bytes) -> Target:
    """Parse the target of a request line.

    Raises:
        RequestRefused: it is not a plain path with parameters.
    """
    text = _ORIGIN.sub("", raw.decode("ascii", "strict")) if raw.isascii() else ""
    path, _, query = text.partition("?")
    if not path.startswith("/"):
        raise RequestRefused(
            HTTPStatus.BAD_REQUEST, "the target must be a path that begins with `/`"
        )
    if "#" in text or _BROKEN_ESCAPE.search(text):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "the target is not a valid path")
    segments = tuple(_decode(part) for part in path[1:].split("/"))
    if not {".", ".."}.isdisjoint(segments):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "the path must not contain `.` or `..`")
    plain = "/" + "/".join(segment.replace("/", "%2F") for segment in segments)
    return Target(path=plain, segments=segments, query=_read_query(query))


def _decode(part: str) -> str:
    try:
        text = unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "the path is not UTF-8") from error
    if _CONTROL.search(text):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "the path holds control characters")
    return text


def _read_query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError as error:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "the parameters cannot be read") from error
    query = dict(pairs)
    if len(query) != len(pairs):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "a parameter is given twice")
    return query
