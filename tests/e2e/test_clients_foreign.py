"""Clients we did not write, each in a process of its own over mutual TLS: Paho C, aiomqtt, gmqtt, ohmqtt, MQTT.js.

MQTT.js comes over secure WebSocket. paho-mqtt stands on the other side. What one library cannot show is left to the
others (`Kind` says what each tells), and to the tests `test_protocol_*`.
"""

from __future__ import annotations

import hashlib
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from tests.e2e.clients import ANSWER_S, NOT_AUTHORIZED, correlation_of, eventually, unique
from tests.e2e.paho_sessions import PahoSession, response_topic_of, users_of, with_users
from tests.e2e.puppets.lines import Content
from tests.e2e.puppets.puppet import KINDS, Kind, Puppet, Troupe

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.e2e.running import Running

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(60),
    pytest.mark.needs("libpaho-mqtt-dev"),
    pytest.mark.needs("nodejs"),
    pytest.mark.needs("mqtt"),
]

TAKEN_OVER = 0x8E
NO_SUBSCRIPTION_EXISTED = 0x11
EXPIRY_S = 60
COUNT = 30
PAYLOADS = [b"%d" % number for number in range(COUNT)]
SPEAKERS = [(kind, version) for kind in KINDS for version in kind.versions]


def name_of(value: object) -> str | None:
    return value.name if isinstance(value, Kind) else None


@pytest.fixture(scope="module")
def troupe(system: Running, tmp_path_factory: pytest.TempPathFactory) -> Generator[Troupe]:
    with Troupe(system.ready, "bench", tmp_path_factory.mktemp("puppets")) as started:
        yield started


@pytest.fixture(params=KINDS, ids=name_of)
def puppet(request: pytest.FixtureRequest, troupe: Troupe) -> Generator[Puppet]:
    """Each of the clients in turn; connected by the test, disconnected after it."""
    kind = request.param
    assert isinstance(kind, Kind)
    held = troupe.puppet(kind)
    yield held
    if held.is_alive:
        held.disconnect()


@pytest.fixture
def bench(system: Running) -> Generator[PahoSession]:
    """paho, on the other side."""
    with PahoSession(system.ready, "bench") as session:
        yield session


@pytest.mark.parametrize(("kind", "version"), SPEAKERS, ids=name_of)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_client_receives_in_order_at_every_qos(
    troupe: Troupe, bench: PahoSession, kind: Kind, version: int, qos: int
) -> None:
    puppet = troupe.puppet(kind)
    topic = f"bench/{unique('receives')}"
    puppet.connect(version=version)
    assert puppet.subscribe(f"{topic}/+", qos=qos) == qos
    bench.tell_all(f"{topic}/a", PAYLOADS, qos=qos)
    assert [puppet.receive() for _ in PAYLOADS] == [
        Content(topic=f"{topic}/a", payload=payload, qos=qos) for payload in PAYLOADS
    ]
    puppet.disconnect()


@pytest.mark.parametrize(("kind", "version"), SPEAKERS, ids=name_of)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_client_publishes_in_order_at_every_qos(
    troupe: Troupe, bench: PahoSession, kind: Kind, version: int, qos: int
) -> None:
    puppet = troupe.puppet(kind)
    topic = f"bench/{unique('publishes')}"
    bench.listen(topic, qos=2)
    puppet.connect(version=version)
    for payload in PAYLOADS:
        assert puppet.publish(Content(topic=topic, payload=payload, qos=qos)).error == ""
    found = [bench.receive() for _ in PAYLOADS]
    assert [message.payload for message in found] == PAYLOADS
    assert {message.qos for message in found} == {qos}
    puppet.disconnect()


def test_client_that_takes_aliases_sees_whole_topics(puppet: Puppet, bench: PahoSession) -> None:
    topic = f"bench/{unique('aliases')}"
    sent = [f"{topic}/{number % 15}" for number in range(60)]  # more topics than aliases
    puppet.connect()
    puppet.subscribe(f"{topic}/+")
    for name in sent:
        bench.client.publish(name, name, 1)
    found = [puppet.receive() for _ in sent]
    assert [(content.topic, content.payload) for content in found] == [
        (name, name.encode()) for name in sent
    ]


def test_client_finds_what_was_retained_and_clears_it(puppet: Puppet, bench: PahoSession) -> None:
    topic = f"bench/{unique('retained')}"
    bench.tell(topic, b"first", retain=True)
    puppet.connect()
    puppet.publish(Content(topic=topic, payload=b"second", qos=1, retain=True))
    puppet.subscribe(topic)
    assert puppet.receive() == Content(topic=topic, payload=b"second", qos=1, retain=True)
    puppet.publish(Content(topic=topic, qos=1, retain=True))
    assert puppet.receive() == Content(topic=topic, qos=1)
    bench.listen(topic)
    bench.tell(topic, b"only this")
    assert bench.hear(1) == [b"only this"]


def test_client_that_is_killed_leaves_its_will(puppet: Puppet, bench: PahoSession) -> None:
    will = Content(topic=f"bench/{unique('will')}", payload=b"gone", qos=2, retain=True)
    bench.listen(will.topic, qos=2)
    puppet.connect(will=will)
    puppet.kill()
    found = bench.receive()
    assert (found.payload, found.qos, found.retain) == (b"gone", 2, False)
    bench.listen(will.topic)
    assert bench.receive().retain
    bench.tell(will.topic, b"", retain=True)


def test_client_that_says_goodbye_takes_its_will_along(puppet: Puppet, bench: PahoSession) -> None:
    will = Content(topic=f"bench/{unique('will')}", payload=b"gone", qos=1)
    bench.listen(will.topic)
    puppet.connect(will=will)
    puppet.disconnect()
    bench.tell(will.topic, b"end")
    assert bench.hear(1) == [b"end"]


@pytest.mark.parametrize("qos", [1, 2])
def test_client_that_comes_back_has_missed_nothing(
    puppet: Puppet, bench: PahoSession, qos: int
) -> None:
    topic, client_id = f"bench/{unique('absent')}", unique("absent")
    first = puppet.connect(client_id=client_id, clean_start=False, expiry_s=EXPIRY_S)
    assert puppet.subscribe(topic, qos=qos) == qos
    puppet.disconnect()
    bench.tell_all(topic, PAYLOADS, qos=qos)
    again = puppet.connect(client_id=client_id, clean_start=False, expiry_s=EXPIRY_S)
    assert [puppet.receive().payload for _ in PAYLOADS] == PAYLOADS
    bench.tell(topic, b"live", qos=qos)
    assert puppet.receive().payload == b"live"
    if puppet.kind.tells_presence:
        assert (first.present, again.present) == (0, 1)


def test_client_that_was_killed_has_missed_nothing(
    puppet: Puppet, troupe: Troupe, bench: PahoSession
) -> None:
    topic, client_id = f"bench/{unique('killed')}", unique("killed")
    puppet.connect(client_id=client_id, clean_start=False, expiry_s=EXPIRY_S)
    puppet.subscribe(topic)
    puppet.kill()
    bench.tell_all(topic, PAYLOADS, qos=1)
    with PahoSession(
        bench.ready, "bench", client_id=client_id, clean_start=False, expiry_s=EXPIRY_S
    ) as returned:  # a session belongs to the client id, whatever the library
        assert returned.present
        assert returned.hear(COUNT) == PAYLOADS
    assert troupe.puppet(puppet.kind) is not puppet


def test_client_sends_user_properties_in_order(puppet: Puppet, bench: PahoSession) -> None:
    topic = f"bench/{unique('users')}"
    pairs = (("b", "1"), ("b", "0"), ("a", "°"), ("b", "1"))
    bench.listen(topic)
    puppet.connect()
    puppet.publish(Content(topic=topic, payload=b"1", qos=1, users=pairs))
    found = users_of(bench.receive())
    if puppet.kind.orders_users:
        assert found == list(pairs)
    assert sorted(found) == sorted(pairs)


def test_client_receives_user_properties_in_order(puppet: Puppet, bench: PahoSession) -> None:
    topic = f"bench/{unique('users')}"
    pairs = [("b", "1"), ("b", "0"), ("a", "°"), ("b", "1")]
    puppet.connect()
    puppet.subscribe(topic)
    bench.tell(topic, b"1", properties=with_users(pairs))
    found = list(puppet.receive().users)
    if puppet.kind.orders_users:
        assert found == pairs
    assert sorted(found) == sorted(pairs)


def test_client_asks_and_another_one_answers(puppet: Puppet, bench: PahoSession) -> None:
    asks, answers = f"bench/{unique('asks')}", f"bench/{unique('answers')}"
    bench.listen(asks)
    puppet.connect()
    puppet.subscribe(answers)
    puppet.publish(
        Content(
            topic=asks, payload=b"2", qos=1, response_topic=answers, correlation=b"\x00\xff\x80"
        )
    )
    request = bench.receive()
    answer = with_users([("status", "ok")])
    answer.CorrelationData = correlation_of(request)
    bench.tell(response_topic_of(request), b"4", properties=answer)
    assert puppet.receive() == Content(
        topic=answers,
        payload=b"4",
        qos=1,
        correlation=b"\x00\xff\x80",
        users=(("status", "ok"),),
    )


def test_client_is_told_what_is_refused(puppet: Puppet) -> None:
    topic = f"orders/{unique('refused')}"
    puppet.connect()
    assert puppet.subscribe(topic) == NOT_AUTHORIZED
    refused = puppet.publish(Content(topic=topic, payload=b"1", qos=1))
    assert not puppet.kind.tells_refusal or refused.reason == NOT_AUTHORIZED
    assert puppet.subscribe(f"bench/{topic}") == 1  # and stays connected


def test_client_unsubscribes(puppet: Puppet, bench: PahoSession) -> None:
    topic = f"bench/{unique('unsubscribes')}"
    puppet.connect()
    for name in ("a", "b"):
        puppet.subscribe(f"{topic}/{name}")
    assert puppet.unsubscribe(f"{topic}/a") in {0, -1}
    for name in ("a", "b"):
        bench.tell(f"{topic}/{name}", name.encode())
    assert puppet.receive().payload == b"b"


@pytest.mark.parametrize("size", [200_000, (1 << 20) - 500])
def test_client_sends_and_receives_large_messages(puppet: Puppet, size: int) -> None:
    content = Content(
        topic=f"bench/{unique('large')}", payload=hashlib.shake_256(b"large").digest(size), qos=1
    )
    puppet.connect()
    puppet.subscribe(content.topic)
    puppet.publish(content)
    assert puppet.receive() == content


def test_client_is_taken_over_by_its_own_id(
    system: Running, puppet: Puppet, bench: PahoSession
) -> None:
    topic, client_id = f"bench/{unique('over')}", unique("over")
    puppet.connect(client_id=client_id, clean_start=False, expiry_s=EXPIRY_S)
    puppet.subscribe(topic)
    with PahoSession(system.ready, "bench", client_id=client_id, clean_start=False) as newer:
        ended = puppet.ended.get(timeout=ANSWER_S)
        assert not puppet.kind.tells_end or ended.reason == TAKEN_OVER
        assert newer.present
        bench.tell(topic, b"1")
        assert newer.hear(1) == [b"1"]
    assert puppet.messages.empty()


def test_clients_of_five_libraries_share_the_work(troupe: Troupe, bench: PahoSession) -> None:
    topic = f"bench/{unique('shared')}"
    group = f"$share/{unique('group')}/{topic}"
    payloads = [b"%d" % number for number in range(200)]
    members = [troupe.puppet(kind) for kind in KINDS]
    for member in members:
        member.connect()
        assert member.subscribe(group) == 1
    bench.tell_all(topic, payloads, qos=1)
    eventually(lambda: sum(member.messages.qsize() for member in members) >= len(payloads))
    shares = [
        [member.receive().payload for _ in range(member.messages.qsize())] for member in members
    ]
    assert sorted(chain(*shares)) == sorted(payloads)
    assert all(len(share) >= 10 for share in shares), [len(share) for share in shares]
    for member in members:
        member.disconnect()
