"""What is said between a test and a puppet, a program that is a client of somebody else's library: a line each way.

*Theory of operation*. A line is a form (`name=value&...`, percent-encoded), which every language can read. The test
writes an `Order` to the puppet's standard input; the puppet writes one `Report` with the same `kind` when it is done,
and one of kind `message` or `ended` whenever something happens to it. Bytes are hexadecimal; a user property is a
field `user` of its own, `name=value`, so that order and duplicates can be seen. What a library does not tell is absent.
The puppets in JavaScript and C know the same fields by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlencode

DEFAULT_VERSION: Final = 5

Users = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A message, as it is sent or as it came."""

    topic: str = ""
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    users: Users = ()
    response_topic: str = ""
    correlation: bytes = b""

    def fields(self) -> list[tuple[str, str]]:
        """The fields of a line."""
        return [
            ("topic", self.topic),
            ("payload", self.payload.hex()),
            ("qos", str(self.qos)),
            ("retain", str(int(self.retain))),
            *(("user", f"{name}={value}") for name, value in self.users),
            ("response_topic", self.response_topic),
            ("correlation", self.correlation.hex()),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a puppet shall do.

    Attributes:
        kind: `connect`, `subscribe`, `unsubscribe`, `publish` or `disconnect`.
        client_id: of a connect.
        clean_start: of a connect.
        expiry_s: of a connect, its Session Expiry Interval.
        version: of a connect: 5, or 4 for 3.1.1.
        has_will: whether a connect has the content as its will.
        content: what to publish, the will, or topic and QoS of a subscription.
    """

    kind: str
    client_id: str = ""
    clean_start: bool = True
    expiry_s: int = 0
    version: int = DEFAULT_VERSION
    has_will: bool = False
    content: Content = Content()

    def line(self) -> str:
        """The line, without its end."""
        return urlencode(
            [
                ("do", self.kind),
                ("id", self.client_id),
                ("clean", str(int(self.clean_start))),
                ("expiry", str(self.expiry_s)),
                ("version", str(self.version)),
                ("will", str(int(self.has_will))),
                *self.content.fields(),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a puppet says.

    Attributes:
        kind: the order's, or `message` or `ended`.
        reason: a reason code, or -1 when the library does not tell it.
        present: of a connect, the Session Present flag, or -1.
        error: why the order failed, in the library's words.
        content: of a message.
    """

    kind: str
    reason: int = -1
    present: int = -1
    error: str = ""
    content: Content = Content()

    def line(self) -> str:
        """The line, without its end."""
        told = [("is", self.kind), ("reason", str(self.reason)), ("present", str(self.present))]
        return urlencode([*told, ("error", self.error), *self.content.fields()])


def parse_order(line: str) -> Order:
    """An order from its line."""
    fields = parse_qs(line.strip(), keep_blank_values=True, strict_parsing=True)
    return Order(
        kind=fields["do"][0],
        client_id=fields["id"][0],
        clean_start=fields["clean"][0] == "1",
        expiry_s=int(fields["expiry"][0]),
        version=int(fields["version"][0]),
        has_will=fields["will"][0] == "1",
        content=_content(fields),
    )


def parse_report(line: str) -> Report:
    """A report from its line; fields that are absent have their defaults."""
    fields = parse_qs(line.strip(), keep_blank_values=True, strict_parsing=True)
    return Report(
        kind=fields["is"][0],
        reason=int(fields.get("reason", ["-1"])[0]),
        present=int(fields.get("present", ["-1"])[0]),
        error=fields.get("error", [""])[0],
        content=_content(fields),
    )


def _content(fields: dict[str, list[str]]) -> Content:
    def one(name: str) -> str:
        return fields.get(name, [""])[0]

    users = [user.partition("=") for user in fields.get("user", [])]
    return Content(
        topic=one("topic"),
        payload=bytes.fromhex(one("payload")),
        qos=int(one("qos") or 0),
        retain=one("retain") == "1",
        users=tuple((name, value) for name, _, value in users),
        response_topic=one("response_topic"),
        correlation=bytes.fromhex(one("correlation")),
    )
