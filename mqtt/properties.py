"""MQTT 5.0 properties (2.2.2): the values, and the table of which packet may carry which.

Rules of this file: `RULES` is the one table; reading and writing both obey it. Reading walks
the bytes once; a property that is unknown, doubled, out of range or in the wrong packet is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum, Flag, auto
from typing import TYPE_CHECKING, Never, cast

from typing_extensions import override

from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.wire import protocol_error, write_binary, write_integer, write_text, write_varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqtt.wire import Cursor


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Properties:
    """The properties of one packet, or of its will; absent ones are None or `()`.

    Intervals are in seconds, sizes in bytes. `user_properties` keep their order and duplicates (3.1.3-10).
    """

    payload_format_indicator: int | None = None
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: tuple[int, ...] = ()
    session_expiry_interval: int | None = None
    assigned_client_identifier: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: bool | None = None
    will_delay_interval: int | None = None
    request_response_information: bool | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: bool | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_subscription_available: bool | None = None
    subscription_identifier_available: bool | None = None
    shared_subscription_available: bool | None = None

    @override
    def __repr__(self) -> str:
        shown: list[str] = []
        for name in _SHOWN:
            value: object = getattr(self, name)
            if value is not None and value != ():
                shown.append(f"{name}={value!r}")
        return f"Properties({', '.join(shown)})"


_SHOWN = tuple(each.name for each in fields(Properties) if each.name != "authentication_data")
"""What a log may show: authentication data is a secret."""
EMPTY = Properties()


class Site(Flag):
    """Where properties may stand; PUBLISH and DISCONNECT differ by who sends them."""

    WILL = auto()
    CONNECT = auto()
    CONNACK = auto()
    PUBLISH_BY_CLIENT = auto()
    PUBLISH_BY_SERVER = auto()
    PUBACK = auto()
    PUBREC = auto()
    PUBREL = auto()
    PUBCOMP = auto()
    SUBSCRIBE = auto()
    SUBACK = auto()
    UNSUBSCRIBE = auto()
    UNSUBACK = auto()
    DISCONNECT_BY_CLIENT = auto()
    DISCONNECT_BY_SERVER = auto()
    AUTH = auto()
    PUBLISH = PUBLISH_BY_CLIENT | PUBLISH_BY_SERVER
    DISCONNECT = DISCONNECT_BY_CLIENT | DISCONNECT_BY_SERVER


class Kind(Enum):
    """The wire type of a property's value."""

    SWITCH = "byte 0 or 1, read as a bool"
    BIT = "byte 0 or 1, read as a number"
    TWO_BYTES = "two-byte integer"
    FOUR_BYTES = "four-byte integer"
    TEXT = "string"
    BINARY = "binary data"


@dataclass(frozen=True, slots=True)
class Rule:
    """What the standard says about one property."""

    name: str
    kind: Kind
    sites: Site
    least: int = 0
    """The smallest legal number."""


USER_PROPERTY = 0x26
MAX_USER_PROPERTIES = 1_024
"""In one packet. The standard sets no bound; 200,000 in one megabyte cost its reader a quarter of a second."""
SUBSCRIPTION_IDENTIFIER = 0x0B
TOPIC_ALIAS = 0x23
_ACKNOWLEDGEMENTS = (
    Site.PUBACK | Site.PUBREC | Site.PUBREL | Site.PUBCOMP | Site.SUBACK | Site.UNSUBACK
)
_MESSAGE = Site.PUBLISH | Site.WILL
_GREETING = Site.CONNECT | Site.CONNACK

RULES: dict[int, Rule] = {
    0x01: Rule("payload_format_indicator", Kind.BIT, _MESSAGE),
    0x02: Rule("message_expiry_interval", Kind.FOUR_BYTES, _MESSAGE),
    0x03: Rule("content_type", Kind.TEXT, _MESSAGE),
    0x08: Rule("response_topic", Kind.TEXT, _MESSAGE),
    0x09: Rule("correlation_data", Kind.BINARY, _MESSAGE),
    0x11: Rule("session_expiry_interval", Kind.FOUR_BYTES, _GREETING | Site.DISCONNECT_BY_CLIENT),
    0x12: Rule("assigned_client_identifier", Kind.TEXT, Site.CONNACK),
    0x13: Rule("server_keep_alive", Kind.TWO_BYTES, Site.CONNACK),
    0x15: Rule("authentication_method", Kind.TEXT, _GREETING | Site.AUTH),
    0x16: Rule("authentication_data", Kind.BINARY, _GREETING | Site.AUTH),
    0x17: Rule("request_problem_information", Kind.SWITCH, Site.CONNECT),
    0x18: Rule("will_delay_interval", Kind.FOUR_BYTES, Site.WILL),
    0x19: Rule("request_response_information", Kind.SWITCH, Site.CONNECT),
    0x1A: Rule("response_information", Kind.TEXT, Site.CONNACK),
    0x1C: Rule("server_reference", Kind.TEXT, Site.CONNACK | Site.DISCONNECT_BY_SERVER),
    0x1F: Rule(
        "reason_string", Kind.TEXT, Site.CONNACK | _ACKNOWLEDGEMENTS | Site.DISCONNECT | Site.AUTH
    ),
    0x21: Rule("receive_maximum", Kind.TWO_BYTES, _GREETING, least=1),
    0x22: Rule("topic_alias_maximum", Kind.TWO_BYTES, _GREETING),
    # Alias 0 has its own reason code (0x94): it is left to whoever resolves aliases.
    TOPIC_ALIAS: Rule("topic_alias", Kind.TWO_BYTES, Site.PUBLISH),
    0x24: Rule("maximum_qos", Kind.BIT, Site.CONNACK),
    0x25: Rule("retain_available", Kind.SWITCH, Site.CONNACK),
    0x27: Rule("maximum_packet_size", Kind.FOUR_BYTES, _GREETING, least=1),
    0x28: Rule("wildcard_subscription_available", Kind.SWITCH, Site.CONNACK),
    0x29: Rule("subscription_identifier_available", Kind.SWITCH, Site.CONNACK),
    0x2A: Rule("shared_subscription_available", Kind.SWITCH, Site.CONNACK),
}
SUBSCRIPTION_IDENTIFIER_SITES = Site.PUBLISH_BY_SERVER | Site.SUBSCRIBE
_WIDTHS_BYTES = {Kind.SWITCH: 1, Kind.BIT: 1, Kind.TWO_BYTES: 2, Kind.FOUR_BYTES: 4}


def _allowed_at(site: Site) -> dict[int, Rule]:
    return {code: rule for code, rule in RULES.items() if rule.sites & site}


# Flag arithmetic is slow in Python, so what each site allows is worked out once.
_ALLOWED = {site: _allowed_at(site) for site in (*Site, Site.PUBLISH, Site.DISCONNECT)}


class _Found:
    """What was met so far while reading one property section."""

    __slots__ = ("identifiers", "pairs", "values")

    def __init__(self) -> None:
        self.values: dict[str, str | bytes | int | tuple[object, ...]] = {}
        self.pairs: list[tuple[str, str]] = []
        self.identifiers: list[int] = []

    def finish(self) -> Properties:
        values = self.values
        if "authentication_data" in values and "authentication_method" not in values:
            raise protocol_error("authentication data without an authentication method")
        if self.pairs:
            values["user_properties"] = tuple(self.pairs)
        if self.identifiers:
            values["subscription_identifiers"] = tuple(self.identifiers)
        # The table gives every name a value of its field's type, which no checker can follow.
        return Properties(**cast("dict[str, Never]", values))


def read_properties(cursor: Cursor, site: Site) -> Properties:
    """Read one property section: its length and the properties.

    Args:
        cursor: stands at the property length; stands behind the section afterwards.
        site: the packet they belong to, by its sender.

    Raises:
        RemoteProtocolError: see the rules of this file.
    """
    if cursor.data.startswith(b"\0", cursor.position, cursor.end):
        cursor.position += 1
        return EMPTY
    length_bytes = cursor.varint("property length")
    stop = cursor.position + length_bytes
    if stop > cursor.end:
        raise RemoteProtocolError("properties reach past the end of their packet")
    outer, cursor.end = cursor.end, stop
    allowed, found = _ALLOWED[site], _Found()
    while cursor.position < stop:
        # The standard codes identifiers as variable byte integers; all of them are below 128.
        code = cursor.byte("property identifier")
        rule = allowed.get(code)
        if rule is None:
            _read_special(code, cursor, site, found)
        else:
            _read_ruled(rule, cursor, found)
    cursor.end = outer
    return found.finish()


def _read_ruled(rule: Rule, cursor: Cursor, found: _Found) -> None:
    name, kind = rule.name, rule.kind
    if name in found.values:
        raise protocol_error(f"property `{name}` occurs twice")
    if kind is Kind.TEXT:
        found.values[name] = cursor.text(name)
    elif kind is Kind.BINARY:
        found.values[name] = cursor.binary(name)
    else:
        number = int.from_bytes(cursor.take(_WIDTHS_BYTES[kind], name))
        complaint = number_complaint(rule, number)
        if complaint is not None:
            raise protocol_error(complaint)
        found.values[name] = number == 1 if kind is Kind.SWITCH else number


def _read_special(code: int, cursor: Cursor, site: Site, found: _Found) -> None:
    """Read what the table does not allow here: the two that may occur more than once, or an error."""
    if code == USER_PROPERTY:
        if len(found.pairs) >= MAX_USER_PROPERTIES:
            raise RemoteProtocolError(
                f"more than {MAX_USER_PROPERTIES} user properties in one packet",
                ReasonCode.QUOTA_EXCEEDED,
            )
        found.pairs.append((cursor.text("user property name"), cursor.text("user property value")))
    elif code == SUBSCRIPTION_IDENTIFIER:
        _read_subscription_identifier(cursor, site, found)
    elif code in RULES:
        raise protocol_error(f"property `{RULES[code].name}` is not allowed in this packet")
    else:
        raise RemoteProtocolError(f"property 0x{code:02x} is unknown")


def _read_subscription_identifier(cursor: Cursor, site: Site, found: _Found) -> None:
    if not SUBSCRIPTION_IDENTIFIER_SITES & site:
        raise protocol_error("property `subscription_identifier` is not allowed in this packet")
    if found.identifiers and site is Site.SUBSCRIBE:
        raise protocol_error("property `subscription_identifier` occurs twice")
    identifier = cursor.varint("subscription identifier")
    if identifier == 0:
        raise protocol_error("subscription identifier is 0")
    found.identifiers.append(identifier)


def number_complaint(rule: Rule, number: int) -> str | None:
    """Return what is wrong with a property's number, or None."""
    if rule.kind in (Kind.SWITCH, Kind.BIT) and number > 1:
        return f"property `{rule.name}` is {number}, not 0 or 1"
    if number < rule.least:
        return f"property `{rule.name}` is {number}"
    return None


def write_properties(properties: Properties, site: Site) -> bytes:
    """Return the property section: its length and the properties, in the order of the table.

    Raises:
        LocalProtocolError: a value that reading would refuse, or that `site` does not allow.
    """
    if properties is EMPTY or properties == EMPTY:
        return b"\0"
    parts: list[bytes] = []
    allowed = _ALLOWED[site]
    for code, rule in RULES.items():
        value: object = getattr(properties, rule.name)
        if value is not None:
            if code not in allowed:
                raise LocalProtocolError(f"property `{rule.name}` is not allowed in this packet")
            parts.append(bytes((code,)) + _write_value(rule, value))
    if properties.authentication_data is not None and properties.authentication_method is None:
        raise LocalProtocolError("authentication data without an authentication method")
    parts.extend(_write_subscription_identifiers(properties.subscription_identifiers, site))
    for name, text in properties.user_properties:
        pair = write_text(name, "user property name") + write_text(text, "user property value")
        parts.append(bytes((USER_PROPERTY,)) + pair)
    section = b"".join(parts)
    return write_varint(len(section)) + section


def _write_value(rule: Rule, value: object) -> bytes:
    match value:
        case str():
            return write_text(value, rule.name)
        case bytes():
            return write_binary(value, rule.name)
        case int():
            complaint = number_complaint(rule, value)
            if complaint is not None:
                raise LocalProtocolError(complaint)
            return write_integer(int(value), _WIDTHS_BYTES[rule.kind], rule.name)
        case _:
            raise LocalProtocolError(f"property `{rule.name}` has a value of the wrong type")


def _write_subscription_identifiers(identifiers: Sequence[int], site: Site) -> list[bytes]:
    if not identifiers:
        return []
    if not SUBSCRIPTION_IDENTIFIER_SITES & site:
        raise LocalProtocolError("property `subscription_identifier` is not allowed in this packet")
    if len(identifiers) > 1 and site is Site.SUBSCRIBE:
        raise LocalProtocolError("property `subscription_identifier` occurs twice")
    if min(identifiers) < 1:
        raise LocalProtocolError("subscription identifier is 0")
    return [bytes((SUBSCRIPTION_IDENTIFIER,)) + write_varint(each) for each in identifiers]
