"""Wills: from CONNECT to the message that is published when a client vanishes (3.1.2.5, 3.1.3.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from broker.records import WillRecord
from mqtt.encode import encode
from mqtt.packets import Publish, Version
from mqtt.runs import Run

if TYPE_CHECKING:
    from mqtt.packets import Will

WILL_PACKET_ID = 1  # a QoS 1 or 2 packet has one; nobody reads it


def will_record(will: Will) -> WillRecord:
    """What of a CONNECT's will is kept until it is published, or not."""
    publish = Publish(
        topic=will.topic,
        payload=will.payload,
        qos=will.qos,
        retain=will.retain,
        packet_id=WILL_PACKET_ID if will.qos else None,
        # Not a property of a PUBLISH.
        properties=replace(will.properties, will_delay_interval=None),
    )
    return WillRecord(
        packet=encode(publish, Version.V5), delay_s=will.properties.will_delay_interval or 0
    )


def will_run(record: WillRecord) -> Run:
    """The message."""
    return Run.parse(record.packet, Version.V5)
