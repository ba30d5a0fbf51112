"""Hypothesis strategies: legal packets of every type, by version and sender; and streams of bytes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import (
    EMPTY,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketType,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Role,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from mqtt.properties import RULES, SUBSCRIPTION_IDENTIFIER_SITES, Kind, Rule, Site
from mqtt.reasons import allowed_from

VERSIONS = st.sampled_from(Version)
ROLES = st.sampled_from(Role)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS, max_size=8)
BLOBS = st.binary(max_size=8)
LEVELS = st.one_of(
    st.sampled_from(["", "a", "b", "$x", "é", "\ufeff"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#/"), max_size=4),
)
TOPICS = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(bool)
PACKET_IDS = st.integers(1, 65_535)
FEW_IDS = st.sampled_from([1, 1, 2, 2, 256, 256, 257, 65_535, 0])
QOS = st.integers(0, 2)


@st.composite
def filters(draw: st.DrawFn) -> str:
    levels = draw(st.lists(st.one_of(LEVELS, st.just("+")), min_size=1, max_size=4))
    if draw(st.booleans()):
        levels[-1] = "#"
    shared = draw(st.integers(0, 9)) == 0
    text = "/".join(levels)
    if shared:
        return f"$share/group/{text or 'a'}"
    return text or "a"


def values(rule: Rule) -> st.SearchStrategy[object]:
    match rule.kind:
        case Kind.SWITCH:
            return st.booleans()
        case Kind.BIT:
            return st.integers(0, 1)
        case Kind.TWO_BYTES:
            return st.integers(max(rule.least, rule.name == "topic_alias"), 65_535)
        case Kind.FOUR_BYTES:
            return st.integers(rule.least, 2**32 - 1)
        case Kind.TEXT:
            return TOPICS if rule.name == "response_topic" else TEXTS
        case Kind.BINARY:
            return BLOBS


@st.composite
def properties(draw: st.DrawFn, site: Site, *, alias: bool = False) -> Properties:
    """Properties that may stand at `site`, which names one sender."""
    found = EMPTY
    if draw(st.booleans()):
        return found
    rules = [
        rule
        for rule in RULES.values()
        if rule.sites & site and (alias or rule.name != "topic_alias")
    ]
    for rule in draw(st.lists(st.sampled_from(rules), max_size=4, unique_by=id)) if rules else ():
        found = replace(found, **{rule.name: draw(values(rule))})  # type: ignore[arg-type] # by the table
    pairs = draw(st.lists(st.tuples(TEXTS, TEXTS), max_size=2))
    found = replace(found, user_properties=tuple(pairs))
    if site & SUBSCRIPTION_IDENTIFIER_SITES:
        most = 1 if site is Site.SUBSCRIBE else 3
        identifiers = draw(st.lists(st.integers(1, 268_435_455), max_size=most))
        found = replace(found, subscription_identifiers=tuple(identifiers))
    if found.authentication_data is not None and found.authentication_method is None:
        found = replace(found, authentication_method=draw(TEXTS))
    return found


def _section(version: Version, site: Site, *, alias: bool = False) -> st.SearchStrategy[Properties]:
    return properties(site, alias=alias) if version is Version.V5 else st.just(EMPTY)


@st.composite
def connects(draw: st.DrawFn, version: Version) -> Connect:
    username = draw(st.none() | TEXTS)
    bare_password = version is Version.V5 or username is not None
    client_id = draw(TEXTS)
    in_5 = version is Version.V5
    legacy = not in_5 and bool(client_id) and draw(st.booleans())
    return Connect(
        client_id=client_id,
        clean_start=draw(st.booleans()) if in_5 or client_id else True,
        keep_alive=draw(st.integers(0, 65_535)),
        version=version,
        legacy=legacy,
        will=draw(
            st.none()
            | st.builds(
                Will,
                topic=TOPICS,
                payload=BLOBS,
                qos=QOS,
                retain=st.booleans(),
                properties=_section(version, Site.WILL),
            )
        ),
        username=username,
        password=draw(st.none() | BLOBS) if bare_password else None,
        properties=draw(_section(version, Site.CONNECT)),
    )


@st.composite
def publishes(draw: st.DrawFn, version: Version, sender: Role, *, alias: bool = False) -> Publish:
    qos = draw(QOS)
    site = Site.PUBLISH_BY_CLIENT if sender is Role.CLIENT else Site.PUBLISH_BY_SERVER
    return Publish(
        topic=draw(TOPICS),
        payload=draw(BLOBS),
        qos=qos,
        retain=draw(st.booleans()),
        dup=draw(st.booleans()) if qos else False,
        packet_id=draw(PACKET_IDS) if qos else None,
        properties=draw(_section(version, site, alias=alias)),
    )


@st.composite
def acknowledgements(draw: st.DrawFn, version: Version) -> Packet:
    kinds: list[type[Puback | Pubrec | Pubrel | Pubcomp]] = [Puback, Pubrec, Pubrel, Pubcomp]
    kind = draw(st.sampled_from(kinds))
    packet_id = draw(PACKET_IDS)
    if version is Version.V311:
        return kind(packet_id=packet_id)
    packet_type = PacketType[kind.__name__.upper()]
    reasons = sorted(allowed_from(packet_type, Role.CLIENT))
    return kind(
        packet_id=packet_id,
        reason=draw(st.sampled_from(reasons)),
        properties=draw(properties(Site[packet_type.name])),
    )


@st.composite
def subscriptions(draw: st.DrawFn, version: Version) -> Subscription:
    text = draw(filters())
    if version is Version.V311:
        return Subscription(filter=text, qos=draw(QOS))
    return Subscription(
        filter=text,
        qos=draw(QOS),
        no_local=draw(st.booleans()) and not text.startswith("$share/"),
        retain_as_published=draw(st.booleans()),
        retain_handling=draw(st.integers(0, 2)),
    )


@st.composite
def from_client(draw: st.DrawFn, version: Version, *, alias: bool = False) -> Packet:
    """Any packet a client may send after CONNECT, but DISCONNECT."""
    in_5 = version is Version.V5
    choices: list[st.SearchStrategy[Packet]] = [
        publishes(version, Role.CLIENT, alias=alias),
        acknowledgements(version),
        st.builds(
            Subscribe,
            packet_id=PACKET_IDS,
            filters=st.lists(subscriptions(version), min_size=1, max_size=3).map(tuple),
            properties=_section(version, Site.SUBSCRIBE),
        ),
        st.builds(
            Unsubscribe,
            packet_id=PACKET_IDS,
            filters=st.lists(filters(), min_size=1, max_size=3).map(tuple),
            properties=_section(version, Site.UNSUBSCRIBE),
        ),
        st.just(Pingreq()),
    ]
    if in_5:
        choices.append(_auths(Role.CLIENT))
    return draw(st.one_of(choices))


def _auths(sender: Role) -> st.SearchStrategy[Auth]:
    reasons = sorted(allowed_from(PacketType.AUTH, sender))
    return st.builds(Auth, reason=st.sampled_from(reasons), properties=properties(Site.AUTH))


@st.composite
def disconnects(draw: st.DrawFn, version: Version, sender: Role) -> Disconnect:
    if version is Version.V311:
        return Disconnect()
    by_client = sender is Role.CLIENT
    site = Site.DISCONNECT_BY_CLIENT if by_client else Site.DISCONNECT_BY_SERVER
    reasons = sorted(allowed_from(PacketType.DISCONNECT, sender))
    return Disconnect(reason=draw(st.sampled_from(reasons)), properties=draw(properties(site)))


@st.composite
def connacks(draw: st.DrawFn, version: Version) -> Connack:
    in_5 = version is Version.V5
    names = "SUCCESS NOT_AUTHORIZED BAD_USER_NAME_OR_PASSWORD SERVER_UNAVAILABLE"
    reasons = [ReasonCode[each] for each in names.split()]
    if in_5:
        reasons = sorted(allowed_from(PacketType.CONNACK, Role.SERVER))
    reason = draw(st.sampled_from(reasons))
    return Connack(
        session_present=draw(st.booleans()) and reason is ReasonCode.SUCCESS,
        reason=reason,
        properties=draw(_section(version, Site.CONNACK)),
    )


@st.composite
def from_server(draw: st.DrawFn, version: Version, *, alias: bool = False) -> Packet:
    """Any packet a server may send after CONNACK, but DISCONNECT."""
    in_5 = version is Version.V5
    granted = [ReasonCode(each) for each in (0, 1, 2, 0x80)]
    if in_5:
        granted = sorted(allowed_from(PacketType.SUBACK, Role.SERVER))
    released = sorted(allowed_from(PacketType.UNSUBACK, Role.SERVER))
    choices: list[st.SearchStrategy[Packet]] = [
        publishes(version, Role.SERVER, alias=alias),
        acknowledgements(version),
        st.builds(
            Suback,
            packet_id=PACKET_IDS,
            reasons=st.lists(st.sampled_from(granted), min_size=1, max_size=3).map(tuple),
            properties=_section(version, Site.SUBACK),
        ),
        st.builds(
            Unsuback,
            packet_id=PACKET_IDS,
            reasons=(
                st.lists(st.sampled_from(released), min_size=1, max_size=3).map(tuple)
                if in_5
                else st.just(())
            ),
            properties=_section(version, Site.UNSUBACK),
        ),
        st.just(Pingresp()),
    ]
    if in_5:
        choices.append(_auths(Role.SERVER))
    return draw(st.one_of(choices))


def packets(version: Version, sender: Role) -> st.SearchStrategy[Packet]:
    """Any packet that `sender` may send."""
    if sender is Role.CLIENT:
        return st.one_of(
            connects(version), from_client(version, alias=True), disconnects(version, sender)
        )
    choices: list[st.SearchStrategy[Packet]] = [
        connacks(version),
        from_server(version, alias=True),
    ]
    if version is Version.V5:
        choices.append(disconnects(version, sender))
    return st.one_of(choices)


@st.composite
def bursts(draw: st.DrawFn, version: Version, sender: Role) -> bytes:
    """Messages that differ in little, as they come in runs; now and then with identifier 0."""
    site = Site.PUBLISH_BY_CLIENT if sender is Role.CLIENT else Site.PUBLISH_BY_SERVER
    sections = [EMPTY]
    if version is Version.V5:
        sections = draw(
            st.sampled_from([[EMPTY], CALLS, EXPIRING, TITLED, [*CALLS, *EXPIRING, *TITLED, EMPTY]])
        )
        sections = [*sections, draw(properties(site, alias=True))]
    topics = st.sampled_from(draw(st.sampled_from([["a"], ["t/é"], ["a", "b"]])))
    payloads = draw(
        st.sampled_from([st.binary(min_size=2, max_size=2), st.just(b"p" * 130), BLOBS])
    )
    kinds = [draw(QOS), draw(QOS)]
    wires = [
        _burst_wire(
            draw,
            version,
            Publish(
                topic=draw(topics),
                payload=draw(payloads),
                qos=draw(st.sampled_from(kinds)),
                properties=draw(st.sampled_from(sections)),
            ),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]
    return _repeated(draw, wires)


CALLS = [Properties(response_topic="r/1", correlation_data=b"%04d" % each) for each in (1, 2)]
EXPIRING = [
    Properties(message_expiry_interval=each, content_type=text)
    for each, text in ((1, "c"), (2, "c"), (1, "d"))
]
TITLED = [Properties(content_type=each) for each in ("c", "d")]


def _burst_wire(draw: st.DrawFn, version: Version, message: Publish) -> bytes:
    if not message.qos:
        return encode(message, version)
    number = draw(FEW_IDS)
    wire = encode(replace(message, packet_id=number or 1), version)
    if number:
        return wire
    head = 2 if len(wire) < 130 else 3
    body = head + 2 + len(message.topic.encode())
    return wire[:body] + b"\0\0" + wire[body + 2 :]


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Acknowledgements in their shortest form, as they come in runs; now and then with identifier 0."""
    first = st.sampled_from([0x40, 0x50, 0x62, 0x70])
    least = 0 if draw(st.integers(0, 3)) == 0 else 1
    ids = st.integers(least, 3) | st.sampled_from([256, 65_535])
    pieces = st.builds(lambda byte, number: bytes((byte, 2)) + number.to_bytes(2), first, ids)
    return _repeated(draw, draw(st.lists(pieces, min_size=1, max_size=4)))


def _repeated(draw: st.DrawFn, wires: list[bytes]) -> bytes:
    return b"".join(
        wire * draw(st.sampled_from([1, 1, 2, 3, 40, 150]))
        for wire in draw(st.lists(st.sampled_from(wires), min_size=1, max_size=4))
    )


@st.composite
def streams(draw: st.DrawFn, version: Version, sender: Role) -> bytes:
    """What `sender` sends on one connection, from its greeting on; now and then damaged."""
    client = sender is Role.CLIENT
    greeting: Packet = draw(connects(version)) if client else draw(connacks(version))
    body = from_client(version, alias=True) if client else from_server(version, alias=True)
    parts = [encode(greeting, version)]
    pieces = body.map(lambda each: encode(each, version)) | bursts(version, sender) | answers()
    parts += draw(st.lists(pieces, max_size=5))
    if draw(st.integers(0, 3)) == 0 and (client or version is Version.V5):
        parts.append(encode(draw(disconnects(version, sender)), version))
        parts.append(draw(BLOBS))
    wire = bytearray(b"".join(parts))
    if draw(st.integers(0, 2)) == 0:
        wire[draw(st.integers(0, len(wire) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 5)) == 0:
        del wire[draw(st.integers(0, len(wire) - 1))]
    return bytes(wire)


@st.composite
def crowds(draw: st.DrawFn, version: Version, sender: Role) -> bytes:
    """What `sender` sends on one connection when it has much to say: runs, one byte damaged now and then."""
    client = sender is Role.CLIENT
    greeting: Packet = Connect(client_id="c", version=version) if client else Connack()
    pieces = st.lists(bursts(version, sender) | answers(), min_size=1, max_size=4)
    wire = bytearray(b"".join(draw(pieces)))
    if draw(st.integers(0, 3)) == 0:
        wire[draw(st.integers(0, len(wire) - 1))] ^= 1 << draw(st.integers(0, 7))
    return encode(greeting, version) + bytes(wire)
