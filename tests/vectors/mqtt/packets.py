"""Packets of every type, written down byte by byte from the standard, not by our encoder."""

from __future__ import annotations

from dataclasses import dataclass

from mqtt.errors import ReasonCode
from mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
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

V5, V311 = Version.V5, Version.V311
CLIENT, SERVER = Role.CLIENT, Role.SERVER
R = ReasonCode


@dataclass(frozen=True, slots=True)
class Legal:
    """Bytes that `sender` may send, and what they mean."""

    name: str
    hex: str
    version: Version
    sender: Role
    packet: Packet

    @property
    def wire(self) -> bytes:
        return bytes.fromhex(self.hex)


@dataclass(frozen=True, slots=True)
class Illegal:
    """Bytes to be refused with `reason`."""

    name: str
    hex: str
    version: Version
    sender: Role
    reason: ReasonCode

    @property
    def wire(self) -> bytes:
        return bytes.fromhex(self.hex)


def reader_of(vector: Legal | Illegal) -> Role:
    return SERVER if vector.sender is CLIENT else CLIENT


MQTT5, MQTT311 = "0004 4d515454 05", "0004 4d515454 04"

LEGAL = [
    Legal("connect", f"10 0e {MQTT5} 02 003c 00 0001 61", V5, CLIENT,
          Connect(client_id="a", keep_alive=60)),
    Legal("connect without id", f"10 0d {MQTT5} 00 0000 00 0000", V5, CLIENT,
          Connect(clean_start=False)),
    Legal("connect 3.1.1", f"10 0d {MQTT311} 02 003c 0001 61", V311, CLIENT,
          Connect(client_id="a", keep_alive=60, version=V311)),
    Legal("connect with all", f"10 2d {MQTT5} ee 000a 05 11 00000e10 0001 61"
          " 05 18 00000002 0003 772f74 0002 6869 0004 75736572 0003 70c377", V5, CLIENT,
          Connect(client_id="a", keep_alive=10, username="user", password=b"p\xc3w",
                  properties=Properties(session_expiry_interval=3600),
                  will=Will(topic="w/t", payload=b"hi", qos=1, retain=True,
                            properties=Properties(will_delay_interval=2)))),
    Legal("connect 3.1.1 with all", f"10 1f {MQTT311} ee 000a 0001 61 0001 77 0002 6869"
          " 0004 75736572 0003 70c377", V311, CLIENT,
          Connect(client_id="a", keep_alive=10, username="user", password=b"p\xc3w", version=V311,
                  will=Will(topic="w", payload=b"hi", qos=1, retain=True))),
    Legal("connect with a password alone", f"10 11 {MQTT5} 42 0000 00 0001 61 0001 70", V5, CLIENT,
          Connect(client_id="a", password=b"p")),
    Legal("connack", "20 03 00 00 00", V5, SERVER, Connack()),
    Legal("connack with properties", "20 0b 01 00 08 13 001e 21 0014 24 01", V5, SERVER,
          Connack(session_present=True, properties=Properties(
              receive_maximum=20, maximum_qos=1, server_keep_alive=30))),
    Legal("connack refused", "20 03 00 87 00", V5, SERVER, Connack(reason=R.NOT_AUTHORIZED)),
    Legal("connack 3.1.1", "20 02 01 00", V311, SERVER, Connack(session_present=True)),
    Legal("connack 3.1.1 refused", "20 02 00 05", V311, SERVER, Connack(reason=R.NOT_AUTHORIZED)),
    Legal("publish", "30 08 0003 612f62 00 6869", V5, CLIENT, Publish(topic="a/b", payload=b"hi")),
    Legal("publish nothing", "30 04 0001 61 00", V5, CLIENT, Publish(topic="a")),
    Legal("publish 3.1.1", "30 07 0003 612f62 6869", V311, CLIENT,
          Publish(topic="a/b", payload=b"hi")),
    Legal("publish retained", "31 04 0001 61 00", V5, CLIENT, Publish(topic="a", retain=True)),
    Legal("publish qos 1", "32 07 0001 61 000a 00 78", V5, CLIENT,
          Publish(topic="a", payload=b"x", qos=1, packet_id=10)),
    Legal("publish qos 1 again 3.1.1", "3a 06 0001 61 ffff 78", V311, CLIENT,
          Publish(topic="a", payload=b"x", qos=1, dup=True, packet_id=65_535)),
    Legal("publish qos 2", "34 06 0001 61 0001 00", V5, SERVER,
          Publish(topic="a", qos=2, packet_id=1)),
    Legal("publish with properties",
          "30 1d 0001 61 17 01 01 02 0000003c 08 0001 72 09 0002 0001 26 0001 6b 0001 76 7878", V5, CLIENT,
          Publish(topic="a", payload=b"xx", properties=Properties(
              payload_format_indicator=1, message_expiry_interval=60, response_topic="r",
              correlation_data=b"\0\1", user_properties=(("k", "v"),)))),
    Legal("publish with an alias", "30 07 0000 03 23 0001 78", V5, CLIENT,
          Publish(topic="", payload=b"x", properties=Properties(topic_alias=1))),
    Legal("publish to subscriptions", "30 09 0001 61 05 0b 01 0b 80 01", V5, SERVER,
          Publish(topic="a", properties=Properties(subscription_identifiers=(1, 128)))),
    Legal("publish keeps U+FEFF", "30 06 0003 efbbbf 00", V5, CLIENT, Publish(topic="\ufeff")),
    Legal("puback", "40 02 0001", V5, CLIENT, Puback(packet_id=1)),
    Legal("puback with a reason", "40 03 0001 10", V5, SERVER,
          Puback(packet_id=1, reason=R.NO_MATCHING_SUBSCRIBERS)),
    Legal("puback with a reason string", "40 09 0001 87 05 1f 0002 6e6f", V5, SERVER,
          Puback(packet_id=1, reason=R.NOT_AUTHORIZED, properties=Properties(reason_string="no"))),
    Legal("puback 3.1.1", "40 02 0001", V311, CLIENT, Puback(packet_id=1)),
    Legal("pubrec", "50 02 0001", V5, CLIENT, Pubrec(packet_id=1)),
    Legal("pubrel", "62 03 0001 92", V5, CLIENT,
          Pubrel(packet_id=1, reason=R.PACKET_IDENTIFIER_NOT_FOUND)),
    Legal("pubcomp", "70 02 0001", V5, SERVER, Pubcomp(packet_id=1)),
    Legal("pubrec 3.1.1", "50 02 0001", V311, CLIENT, Pubrec(packet_id=1)),
    Legal("pubrel 3.1.1", "62 02 0001", V311, CLIENT, Pubrel(packet_id=1)),
    Legal("pubcomp 3.1.1", "70 02 0001", V311, SERVER, Pubcomp(packet_id=1)),
    Legal("subscribe", "82 0b 0001 02 0b 07 0003 612f23 2d", V5, CLIENT,
          Subscribe(packet_id=1, properties=Properties(subscription_identifiers=(7,)),
                    filters=(Subscription(filter="a/#", qos=1, no_local=True,
                                          retain_as_published=True, retain_handling=2),))),
    Legal("subscribe shared", "82 10 0001 00 000a 2473686172652f672f61 01", V5, CLIENT,
          Subscribe(packet_id=1, filters=(Subscription(filter="$share/g/a", qos=1),))),
    Legal("subscribe to two 3.1.1", "82 0a 0001 0001 2b 02 0001 23 00", V311, CLIENT,
          Subscribe(packet_id=1, filters=(Subscription(filter="+", qos=2), Subscription(filter="#")))),
    Legal("suback", "90 05 0001 00 01 87", V5, SERVER,
          Suback(packet_id=1, reasons=(R.GRANTED_QOS_1, R.NOT_AUTHORIZED))),
    Legal("suback 3.1.1", "90 04 0001 02 80", V311, SERVER,
          Suback(packet_id=1, reasons=(R.GRANTED_QOS_2, R.UNSPECIFIED_ERROR))),
    Legal("unsubscribe", "a2 09 0001 00 0001 61 0001 62", V5, CLIENT,
          Unsubscribe(packet_id=1, filters=("a", "b"))),
    Legal("unsubscribe 3.1.1", "a2 05 0001 0001 61", V311, CLIENT,
          Unsubscribe(packet_id=1, filters=("a",))),
    Legal("unsuback", "b0 05 0001 00 00 11", V5, SERVER,
          Unsuback(packet_id=1, reasons=(R.SUCCESS, R.NO_SUBSCRIPTION_EXISTED))),
    Legal("unsuback 3.1.1", "b0 02 0001", V311, SERVER, Unsuback(packet_id=1)),
    Legal("pingreq", "c0 00", V5, CLIENT, Pingreq()),
    Legal("pingresp", "d0 00", V5, SERVER, Pingresp()),
    Legal("pingreq 3.1.1", "c0 00", V311, CLIENT, Pingreq()),
    Legal("pingresp 3.1.1", "d0 00", V311, SERVER, Pingresp()),
    Legal("disconnect", "e0 00", V5, CLIENT, Disconnect()),
    Legal("disconnect 3.1.1", "e0 00", V311, CLIENT, Disconnect()),
    Legal("disconnect with will", "e0 01 04", V5, CLIENT,
          Disconnect(reason=R.DISCONNECT_WITH_WILL_MESSAGE)),
    Legal("disconnect moved", "e0 06 9d 04 1c 0001 78", V5, SERVER,
          Disconnect(reason=R.SERVER_MOVED, properties=Properties(server_reference="x"))),
    Legal("disconnect expires", "e0 07 00 05 11 00000001", V5, CLIENT,
          Disconnect(properties=Properties(session_expiry_interval=1))),
    Legal("auth", "f0 0a 18 08 15 0001 6d 16 0001 64", V5, CLIENT,
          Auth(reason=R.CONTINUE_AUTHENTICATION, properties=Properties(
              authentication_method="m", authentication_data=b"d"))),
    Legal("auth done", "f0 00", V5, SERVER, Auth()),
]  # fmt: skip

BAD, PROTO = R.MALFORMED_PACKET, R.PROTOCOL_ERROR
NAME, FILTER = R.TOPIC_NAME_INVALID, R.TOPIC_FILTER_INVALID

ILLEGAL = [
    Illegal("type 0", "00 00", V5, CLIENT, BAD),
    Illegal("2.1.3-1 puback flags", "41 02 0001", V5, CLIENT, BAD),
    Illegal("2.1.3-1 subscribe flags", "80 07 0001 00 0001 61 00", V5, CLIENT, BAD),
    Illegal("3.6.1-1 pubrel flags", "60 02 0001", V5, CLIENT, BAD),
    Illegal("3.10.1-1 unsubscribe flags", "a0 06 0001 00 0001 61", V5, CLIENT, BAD),
    Illegal("3.14.1-1 disconnect flags", "e1 00", V5, CLIENT, BAD),
    Illegal("3.15.1-1 auth flags", "f1 00", V5, SERVER, BAD),
    Illegal("pingreq with a body", "c0 01 00", V5, CLIENT, BAD),
    Illegal("connack from a client", "20 03 00 00 00", V5, CLIENT, PROTO),
    Illegal("suback from a client", "90 04 0001 00 00", V5, CLIENT, PROTO),
    Illegal("unsuback from a client", "b0 04 0001 00 00", V5, CLIENT, PROTO),
    Illegal("pingresp from a client", "d0 00", V5, CLIENT, PROTO),
    Illegal("connect from a server", f"10 0e {MQTT5} 02 003c 00 0001 61", V5, SERVER, PROTO),
    Illegal("subscribe from a server", "82 07 0001 00 0001 61 00", V5, SERVER, PROTO),
    Illegal("1.5.5-1 remaining length not the fewest", "c0 80 00", V5, CLIENT, BAD),
    Illegal("1.5.5-1 remaining length of five bytes", "c0 80808080 01", V5, CLIENT, BAD),
    Illegal("1.5.5-1 property length not the fewest", "30 06 0001 61 8000 78", V5, CLIENT, BAD),
    Illegal("1.5.5-1 property length of five bytes", "30 08 0001 61 8080808001", V5, CLIENT, BAD),
    # CONNECT
    Illegal("3.1.2-1 protocol name", "10 0e 0004 4d515458 05 02 003c 00 0001 61", V5, CLIENT, BAD),
    Illegal("3.1.2-3 reserved flag", f"10 0e {MQTT5} 03 003c 00 0001 61", V5, CLIENT, BAD),
    Illegal("3.1.2-11 will qos without will", f"10 0e {MQTT5} 0a 003c 00 0001 61", V5, CLIENT, BAD),
    Illegal("3.1.2-12 will qos 3", f"10 15 {MQTT5} 1e 003c 00 0001 61 00 0001 77 0001 78",
            V5, CLIENT, BAD),
    Illegal("3.1.2-13 will retain without will", f"10 0e {MQTT5} 22 003c 00 0001 61",
            V5, CLIENT, BAD),
    Illegal("3.1.2-22 password alone in 3.1.1", f"10 10 {MQTT311} 42 003c 0001 61 0001 70",
            V311, CLIENT, BAD),
    Illegal("3.1.3-8 empty id, session kept, 3.1.1", f"10 0c {MQTT311} 00 003c 0000",
            V311, CLIENT, R.CLIENT_IDENTIFIER_NOT_VALID),
    Illegal("3.1.3-4 client id not UTF-8", f"10 0e {MQTT5} 02 003c 00 0001 ff", V5, CLIENT, BAD),
    Illegal("3.1.3-11 will topic not UTF-8", f"10 15 {MQTT5} 06 003c 00 0001 61 00 0001 ff 0001 78",
            V5, CLIENT, BAD),
    Illegal("will topic with a wildcard", f"10 15 {MQTT5} 06 003c 00 0001 61 00 0001 23 0001 78",
            V5, CLIENT, NAME),
    Illegal("connect with something behind", f"10 0f {MQTT5} 02 003c 00 0001 61 00",
            V5, CLIENT, BAD),
    Illegal("user name flagged, missing", f"10 0e {MQTT5} 82 003c 00 0001 61", V5, CLIENT, BAD),
    Illegal("receive maximum 0", f"10 11 {MQTT5} 02 003c 03 21 0000 0001 61", V5, CLIENT, PROTO),
    Illegal("maximum packet size 0", f"10 13 {MQTT5} 02 003c 05 27 00000000 0001 61",
            V5, CLIENT, PROTO),
    Illegal("request problem information 2", f"10 10 {MQTT5} 02 003c 02 17 02 0001 61",
            V5, CLIENT, PROTO),
    Illegal("authentication data without method", f"10 12 {MQTT5} 02 003c 04 16 0001 64 0001 61",
            V5, CLIENT, PROTO),
    Illegal("receive maximum twice", f"10 14 {MQTT5} 02 003c 06 21 0001 21 0001 0001 61",
            V5, CLIENT, PROTO),
    Illegal("topic alias in connect", f"10 11 {MQTT5} 02 003c 03 23 0001 0001 61",
            V5, CLIENT, PROTO),
    Illegal("unknown property", f"10 10 {MQTT5} 02 003c 02 7f 00 0001 61", V5, CLIENT, BAD),
    # CONNACK
    Illegal("3.2.2-1 connack flags", "20 03 02 00 00", V5, SERVER, BAD),
    Illegal("3.2.2-6 refused with a session", "20 03 01 87 00", V5, SERVER, PROTO),
    Illegal("3.2.2-8 reason of another packet", "20 03 00 10 00", V5, SERVER, PROTO),
    Illegal("unknown reason", "20 03 00 7f 00", V5, SERVER, BAD),
    Illegal("reserved return code 3.1.1", "20 02 00 06", V311, SERVER, PROTO),
    # PUBLISH
    Illegal("3.3.1-2 dup with qos 0", "38 04 0001 61 00", V5, CLIENT, BAD),
    Illegal("3.3.1-4 qos 3", "36 06 0001 61 0001 00", V5, CLIENT, BAD),
    Illegal("2.2.1-3 packet id 0", "32 06 0001 61 0000 00", V5, CLIENT, PROTO),
    Illegal("1.5.4-1 surrogate in the topic", "30 06 0003 eda080 00", V5, CLIENT, BAD),
    Illegal("1.5.4-1 overlong form", "30 05 0002 c081 00", V5, CLIENT, BAD),
    Illegal("1.5.4-2 U+0000 in the topic", "30 04 0001 00 00", V5, CLIENT, BAD),
    Illegal("3.3.2-2 plus in the topic", "30 06 0003 612f2b 00", V5, CLIENT, NAME),
    Illegal("3.3.2-2 hash in the topic", "30 05 0003 612f23", V311, CLIENT, NAME),
    Illegal("4.7.3-1 empty topic 3.1.1", "30 02 0000", V311, CLIENT, NAME),
    Illegal("empty topic without alias", "30 03 0000 00", V5, CLIENT, PROTO),
    Illegal("3.3.2-8 alias 0", "30 07 0001 61 03 23 0000", V5, CLIENT, R.TOPIC_ALIAS_INVALID),
    Illegal("property length missing", "30 03 0001 61", V5, CLIENT, BAD),
    Illegal("properties past the end", "30 06 0001 61 05 01 01", V5, CLIENT, BAD),
    Illegal("topic past the end", "30 03 0005 61", V5, CLIENT, BAD),
    Illegal("subscription identifier of a client", "30 06 0001 61 02 0b 01", V5, CLIENT, PROTO),
    Illegal("subscription identifier 0", "30 06 0001 61 02 0b 00", V5, SERVER, PROTO),
    Illegal("payload format 2", "30 06 0001 61 02 01 02", V5, CLIENT, PROTO),
    Illegal("payload format twice", "30 08 0001 61 04 01 01 01 01", V5, CLIENT, PROTO),
    Illegal("correlation data twice", "30 0a 0001 61 06 09 0000 09 0000", V5, CLIENT, PROTO),
    Illegal("3.3.2-13 response topic not UTF-8", "30 08 0001 61 04 08 0001 ff", V5, CLIENT, BAD),
    Illegal("3.3.2-14 response topic with a wildcard", "30 08 0001 61 04 08 0001 23",
            V5, CLIENT, NAME),
    Illegal("3.3.2-19 content type not UTF-8", "30 08 0001 61 04 03 0001 ff", V5, CLIENT, BAD),
    Illegal("1.5.7-1 U+0000 in a user property", "30 0b 0001 61 07 26 0001 6b 0001 00",
            V5, CLIENT, BAD),
    Illegal("session expiry in a publish", "30 09 0001 61 05 11 00000001", V5, CLIENT, PROTO),
    # acknowledgements
    Illegal("puback id 0", "40 02 0000", V5, CLIENT, PROTO),
    Illegal("3.4.2-1 reason of another packet", "40 03 0001 01", V5, CLIENT, PROTO),
    Illegal("3.6.2-1 reason of another packet", "62 03 0001 87", V5, CLIENT, PROTO),
    Illegal("puback with a reason in 3.1.1", "40 03 0001 00", V311, CLIENT, BAD),
    Illegal("puback with something behind", "40 05 0001 00 00 00", V5, CLIENT, BAD),
    Illegal("puback with content type", "40 08 0001 00 04 03 0001 61", V5, CLIENT, PROTO),
    # SUBSCRIBE, UNSUBSCRIBE
    Illegal("3.8.3-2 no filter", "82 03 0001 00", V5, CLIENT, PROTO),
    Illegal("3.10.3-2 no filter", "a2 03 0001 00", V5, CLIENT, PROTO),
    Illegal("3.8.3-1 filter not UTF-8", "82 07 0001 00 0001 ff 00", V5, CLIENT, BAD),
    Illegal("3.8.3-4 no local on shared", "82 10 0001 00 000a 2473686172652f672f61 04",
            V5, CLIENT, PROTO),
    Illegal("3.8.3-5 reserved options", "82 07 0001 00 0001 61 40", V5, CLIENT, BAD),
    Illegal("options of 5.0 in 3.1.1", "82 06 0001 0001 61 04", V311, CLIENT, BAD),
    Illegal("qos 3 asked", "82 07 0001 00 0001 61 03", V5, CLIENT, BAD),
    Illegal("retain handling 3", "82 07 0001 00 0001 61 30", V5, CLIENT, PROTO),
    Illegal("subscription identifier twice", "82 0b 0001 04 0b 01 0b 01 0001 61 00",
            V5, CLIENT, PROTO),
    Illegal("4.7.1-1 hash not last", "82 09 0001 00 0003 232f61 00", V5, CLIENT, FILTER),
    Illegal("4.7.1-1 hash not alone", "82 08 0001 00 0002 6123 00", V5, CLIENT, FILTER),
    Illegal("4.7.1-2 plus not alone", "a2 07 0001 00 0002 612b", V5, CLIENT, FILTER),
    Illegal("4.7.3-1 empty filter", "82 06 0001 00 0000 00", V5, CLIENT, FILTER),
    Illegal("4.8.2-1 shared without a filter", "82 0e 0001 00 0008 2473686172652f67 00",
            V5, CLIENT, FILTER),
    Illegal("4.8.2-1 share name empty", "82 0f 0001 00 0009 2473686172652f2f61 00",
            V5, CLIENT, FILTER),
    Illegal("4.8.2-2 share name with a wildcard", "82 10 0001 00 000a 2473686172652f2b2f61 00",
            V5, CLIENT, FILTER),
    Illegal("suback without a reason", "90 03 0001 00", V5, SERVER, PROTO),
    Illegal("3.9.3-2 reason of another packet", "90 04 0001 00 10", V5, SERVER, PROTO),
    Illegal("reason of 5.0 in a 3.1.1 suback", "90 03 0001 87", V311, SERVER, PROTO),
    Illegal("unsuback with a reason in 3.1.1", "b0 03 0001 00", V311, SERVER, BAD),
    # DISCONNECT, AUTH
    Illegal("3.14.2-1 reason of a server", "e0 01 8e", V5, CLIENT, PROTO),
    Illegal("3.14.2-2 expiry from a server", "e0 07 00 05 11 00000001", V5, SERVER, PROTO),
    Illegal("disconnect with a reason in 3.1.1", "e0 01 00", V311, CLIENT, BAD),
    Illegal("disconnect of a 3.1.1 server", "e0 00", V311, SERVER, PROTO),
    Illegal("auth in 3.1.1", "f0 00", V311, CLIENT, PROTO),
    Illegal("3.15.2-1 success from a client", "f0 00", V5, CLIENT, PROTO),
    Illegal("3.15.2-1 reason of another packet", "f0 01 87", V5, SERVER, PROTO),
]  # fmt: skip
