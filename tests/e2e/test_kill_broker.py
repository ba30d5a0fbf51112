"""kill -9 of the broker, again and again, under real clients: what was acknowledged arrives, QoS 2 exactly once."""

from __future__ import annotations

import contextlib
import os
import random
import ssl
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from typing_extensions import override

from tests.e2e.clients import eventually
from tests.e2e.daemons import Daemon, Site, make_site

if TYPE_CHECKING:
    from pathlib import Path

    from paho.mqtt.client import ConnectFlags, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

    from certs.development import Credentials

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

KILLS = int(os.environ.get("STOCKADE_KILLS", "6"))
"""How often the broker is killed; 50 takes three minutes."""
FAILURE, NOT_FOUND = 0x80, 0x92  # the latter answers a PUBREL that is sent again
WINDOW = 20  # messages of one publisher under way
TOPIC = "telemetry/kill"
STORE = '\n[store]\npath = "messages.db"\nkey = "messages.key"\n'


class Survivor:
    """A paho client that keeps its session, and comes back however often the broker goes.

    It comes back only when the broker is `up`: paho 2.1 forgets at its second attempt to reconnect that it had sent
    PUBREL, and publishes the message again as a new one.
    """

    up = threading.Event()

    def __init__(self, site: Site, principal: str, client_id: str) -> None:
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTv5,
            reconnect_on_failure=False,
        )
        files: Credentials = site.pki.clients[principal]
        context = ssl.create_default_context(cafile=str(site.pki.ca))
        context.load_cert_chain(str(files.certificate), str(files.key))
        self.client.tls_set_context(context)
        self.client.max_inflight_messages_set(WINDOW)
        self.client.on_connect = self._connected
        self.client.on_publish = self._published
        self.client.on_message = self._received
        self.sessions_present: list[bool] = []
        self.came_back = threading.Event()
        host, _, port = site.addresses["mqtts"].rpartition(":")
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own
        properties.SessionExpiryInterval = 3600
        self.client.connect(
            "localhost" if host == "127.0.0.1" else host,
            int(port),
            clean_start=False,
            properties=properties,
        )
        self._serving = True
        self._loop = threading.Thread(target=self._serve, daemon=True)
        self._loop.start()
        assert self.came_back.wait(20)

    def _serve(self) -> None:
        # One thread for everything: an SSL object is no place for two.
        while self._serving:
            if self.client.loop(timeout=0.01) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                if self.up.wait(0.2):
                    with contextlib.suppress(OSError):
                        self.client.reconnect()
            elif self.client.is_connected():
                self.act()

    def act(self) -> None:
        """What the client does of its own accord, now and then."""

    def _connected(
        self,
        _client: Client,
        _data: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            return  # a PUBLISH of its other thread got in before CONNECT: it tries again
        self.sessions_present.append(flags.session_present)
        self.came_back.set()

    def close(self) -> None:
        self._serving = False
        self._loop.join(10)
        self.client.disconnect()

    def _published(
        self,
        _client: Client,
        _data: object,
        mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        pass

    def _received(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        pass


class Publisher(Survivor):
    """Publishes numbered messages at one QoS for as long as it is told to; remembers which were acknowledged."""

    def __init__(self, site: Site, qos: int) -> None:
        self._qos = qos
        self._next = 0
        self._under_way: deque[tuple[int, int]] = deque()  # number, packet identifier
        self._answered: set[int] = set()
        self.acknowledged: set[int] = set()
        self.refused: list[int] = []
        self._going = True
        super().__init__(site, "sensor", f"publisher-{qos}")

    @override
    def act(self) -> None:
        self._look()
        while self._going and len(self._under_way) < WINDOW:
            info = self.client.publish(TOPIC, b"%d:%d" % (self._qos, self._next), qos=self._qos)
            self._under_way.append((self._next, info.mid))
            self._next += 1

    def _look(self) -> None:
        while self._under_way and self._under_way[0][1] in self._answered:
            number, mid = self._under_way.popleft()
            self._answered.discard(mid)
            self.acknowledged.add(number)

    @override
    def _published(
        self,
        _client: Client,
        _data: object,
        mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.value >= FAILURE and reason.value != NOT_FOUND:
            self.refused.append(mid)
        self._answered.add(mid)

    def finish(self) -> None:
        """Send no more, and wait until everything sent is acknowledged."""
        self._going = False
        eventually(lambda: not self._under_way, deadline_s=60)


class Subscriber(Survivor):
    """Receives at QoS 2 and remembers how often each message came."""

    def __init__(self, site: Site) -> None:
        self.seen: Counter[bytes] = Counter()
        self.how: dict[bytes, list[tuple[int, bool, int]]] = {}
        self.subscribed = threading.Event()
        super().__init__(site, "viewer", "survivor")
        assert self.subscribed.wait(20)

    @override
    def act(self) -> None:
        if not self.subscribed.is_set() and self.client.on_subscribe is None:
            self.client.on_subscribe = lambda *_: self.subscribed.set()
            self.client.subscribe(TOPIC, qos=2)

    @override
    def _received(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.seen[bytes(message.payload)] += 1
        self.how.setdefault(bytes(message.payload), []).append(
            (message.mid, message.dup, len(self.sessions_present))
        )


def _kill_and_restart(site: Site, broker: Daemon, moment: random.Random) -> Daemon:
    time.sleep(moment.uniform(0.2, 1.2))
    Survivor.up.clear()
    broker.kill()
    started = site.start_broker(listen_mqtts=site.addresses["mqtts"], kernel_bundles=())
    Survivor.up.set()
    return started


def test_nothing_acknowledged_is_lost_and_qos_2_is_never_doubled(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    site.limits = STORE
    site.start_controller()
    clients: list[Survivor] = []
    try:
        broker = site.start_broker(kernel_bundles=())
        subscriber = Subscriber(site)
        publishers = [Publisher(site, 1), Publisher(site, 2)]
        clients += [subscriber, *publishers]
        moment = random.Random(20261127)
        for _ in range(KILLS):
            broker = _kill_and_restart(site, broker, moment)
        time.sleep(1)
        for publisher in publishers:
            publisher.finish()
        wanted = {
            b"%d:%d" % (qos, number)
            for qos, publisher in zip((1, 2), publishers, strict=True)
            for number in publisher.acknowledged
        }
        eventually(lambda: wanted <= set(subscriber.seen), deadline_s=60)
    finally:
        for client in clients:
            client.close()
        site.stop()
    assert wanted <= set(subscriber.seen), "an acknowledged message is missing"
    doubled = {m: how for m, how in subscriber.how.items() if m.startswith(b"2:") and len(how) > 1}
    assert not doubled, "(packet identifier, DUP, connection) of each"
    assert len(wanted) > KILLS * 10, "there was traffic"
    assert not any(publisher.refused for publisher in publishers)
    assert all(subscriber.sessions_present[1:]), "the session was there after every kill"
