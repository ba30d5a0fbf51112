from __future__ import annotations

from dataclasses import fields

import pytest

from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.packets import Role
from mqtt.properties import (
    EMPTY,
    MAX_USER_PROPERTIES,
    RULES,
    Properties,
    Site,
    read_properties,
    write_properties,
)
from mqtt.reader import PacketReader
from mqtt.runs import Run
from mqtt.wire import Cursor, write_varint


def test_table_and_fields_name_the_same_properties() -> None:
    special = {"subscription_identifiers", "user_properties"}
    named = [rule.name for rule in RULES.values()]
    assert sorted([*named, *special]) == sorted(each.name for each in fields(Properties))


def test_absent_properties_are_one_zero_byte_and_one_object() -> None:
    assert write_properties(EMPTY, Site.CONNECT) == b"\0"
    assert write_properties(Properties(), Site.CONNECT) == b"\0"
    assert read_properties(Cursor(b"\0"), Site.CONNECT) is EMPTY


def test_user_properties_keep_order_and_duplicates() -> None:
    pairs = (("b", "1"), ("a", "2"), ("b", "1"))
    wire = write_properties(Properties(user_properties=pairs), Site.PUBLISH)
    assert read_properties(Cursor(wire), Site.PUBLISH_BY_CLIENT).user_properties == pairs


@pytest.mark.parametrize("site", Site)
def test_each_site_allows_just_what_its_table_says(site: Site) -> None:
    for code, rule in RULES.items():
        value = b"\0\0\0\1" if code in (0x02, 0x11, 0x18, 0x27) else b"\0\1"
        if rule.kind.value.startswith("byte"):
            value = b"\1"
        elif rule.kind.value in ("string", "binary data"):
            value = b"\0\1a"
        section = bytes((code,)) + value
        if code == 0x16:
            section += b"\x15\0\1m"
        wire = write_varint(len(section)) + section
        if rule.sites & site:
            found: object = getattr(read_properties(Cursor(wire), site), rule.name)
            assert found is not None
        else:
            with pytest.raises(RemoteProtocolError, match=r"not allowed|method"):
                read_properties(Cursor(wire), site)


def test_properties_are_never_written_where_they_may_not_stand() -> None:
    with pytest.raises(LocalProtocolError, match="`will_delay_interval` is not allowed"):
        write_properties(Properties(will_delay_interval=1), Site.CONNECT)
    with pytest.raises(LocalProtocolError, match="subscription_identifier"):
        write_properties(Properties(subscription_identifiers=(1,)), Site.PUBACK)
    with pytest.raises(LocalProtocolError, match="twice"):
        write_properties(Properties(subscription_identifiers=(1, 2)), Site.SUBSCRIBE)
    with pytest.raises(LocalProtocolError, match="is 0"):
        write_properties(Properties(subscription_identifiers=(0,)), Site.SUBSCRIBE)
    with pytest.raises(LocalProtocolError, match="method"):
        write_properties(Properties(authentication_data=b"x"), Site.AUTH)
    with pytest.raises(LocalProtocolError, match="not 0 or 1"):
        write_properties(Properties(maximum_qos=2), Site.CONNACK)
    with pytest.raises(LocalProtocolError, match="`receive_maximum` is 0"):
        write_properties(Properties(receive_maximum=0), Site.CONNECT)
    with pytest.raises(LocalProtocolError, match="does not fit"):
        write_properties(Properties(server_keep_alive=65_536), Site.CONNACK)


def test_section_ends_where_it_says() -> None:
    cursor = Cursor(b"\x02\x01\x01rest")
    assert read_properties(cursor, Site.WILL).payload_format_indicator == 1
    assert cursor.rest() == b"rest"
    with pytest.raises(RemoteProtocolError, match="past the end"):
        read_properties(Cursor(b"\x03\x03\0\4abcd"), Site.WILL)


def test_repr_shows_what_is_there_and_no_secret() -> None:
    shown = repr(Properties(reason_string="no", authentication_data=b"secret"))
    assert shown == "Properties(reason_string='no')"
    assert repr(EMPTY) == "Properties()"


def test_packet_with_more_user_properties_than_a_turn_may_take_is_refused() -> None:
    pair = b"\x26\0\1k\0\1v"
    for count, refused in ((MAX_USER_PROPERTIES, False), (MAX_USER_PROPERTIES + 1, True)):
        section = pair * count
        body = b"\0\1t" + write_varint(len(section)) + section
        data = b"\x30" + write_varint(len(body)) + body
        reader = PacketReader(role=Role.CLIENT, max_packet_bytes=1 << 20)
        reader.feed(b"\x20\x03\0\0\0" + data)
        reader.next_event()
        if not refused:
            assert isinstance(reader.next_event(), Run)
            continue
        with pytest.raises(RemoteProtocolError) as error:
            reader.next_event()
        assert error.value.reason is ReasonCode.QUOTA_EXCEEDED
