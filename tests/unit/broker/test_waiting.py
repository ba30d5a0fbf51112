from __future__ import annotations

from dataclasses import replace

import trio
import trio.testing

from broker.durability import Volatile
from mqtt.packets import (
    Puback,
    Publish,
)
from tests.brokers import Peer, TestBroker, allow, running_broker
from tests.unit.broker.test_messaging import (
    KEPT,
    SENSOR,
    VIEWER,
    connected,
    got,
    hear,
    publish,
    subscribe,
)

SILENCE_S = 30.0  # longer than any question lasts


async def away_with(broker: TestBroker, *payloads: bytes) -> Peer:
    """A viewer subscribes and leaves, messages come for it; return who published them."""
    sensor = await broker.client("sensor")
    viewer = await connected(broker, "viewer")
    await subscribe(viewer, "t/#")
    await viewer.leave()
    await trio.testing.wait_all_tasks_blocked()
    for payload in payloads:
        await publish(sensor, payload)
    return sensor


def ask_anew(broker: TestBroker) -> None:
    """Change the policy in a way that concerns nobody, and yet after it no answer is known here."""
    rules = broker.authority.rules
    broker.change_rules(rules.with_rule(allow("nobody", "read", f"topic.n{rules.epoch}")))


async def silence(broker: TestBroker) -> None:
    """The controller answers nothing from now on, but it is known that the viewer may connect."""
    ask_anew(broker)
    await broker.client("viewer", client_id="other")
    broker.authority.silent = True


def waiting(broker: TestBroker) -> int:
    """Messages not acknowledged by the viewer."""
    (session,) = [s for s in broker.registry.all_sessions() if s.client_id == "c"]
    return len(session.delivery.outgoing)


# -- revoked ---------------------------------------------------------------------------------


async def test_grant_revoked_while_the_window_is_full_stops_what_waits() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        await away_with(broker, b"1", b"2")
        viewer = await connected(
            broker, "viewer", present=True, properties=replace(KEPT, receive_maximum=1)
        )
        first = await got(viewer)
        rules = broker.authority.rules.without_rule("viewer-reads")
        broker.change_rules(rules, reset=False)
        await viewer.send(Puback(packet_id=first.packet_id or 0))
        assert await viewer.nothing()
        assert waiting(broker) == 0
        actions = [record.event.action for record in broker.audit.recent]
        assert actions == ["deliver"], "the denial is told"


async def test_grant_that_is_still_there_after_a_change_lets_what_waits_go_by_one_question() -> (
    None
):
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        await away_with(broker, b"1", b"2", b"3")
        ask_anew(broker)
        await broker.client("viewer", client_id="other")
        asked = broker.authority.asked
        viewer = await connected(broker, "viewer", present=True)
        assert [(await got(viewer)).payload for _ in range(3)] == [b"1", b"2", b"3"]
        assert broker.authority.asked == asked + 1


async def test_grant_revoked_while_the_question_is_under_way_counts(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        await away_with(broker, b"1")
        ask_anew(broker)
        viewer = await connected(broker, "viewer", present=True)
        broker.change_rules(broker.authority.rules.without_rule("viewer-reads"))
        await trio.sleep(SILENCE_S)
        assert await viewer.nothing()
        assert waiting(broker) == 0


# -- nobody answers --------------------------------------------------------------------------


async def test_message_waits_while_the_controller_is_silent_and_comes_when_it_answers(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        await away_with(broker, b"1", b"2")
        await silence(broker)
        viewer = await connected(broker, "viewer", present=True)
        await trio.sleep(SILENCE_S)
        assert await viewer.nothing()
        assert waiting(broker) == 2, "what was acknowledged is not lost"
        broker.authority.silent = False
        await trio.sleep(SILENCE_S)
        assert [(await got(viewer)).payload for _ in range(2)] == [b"1", b"2"]


async def test_silence_of_the_controller_writes_no_denial_of_what_waits(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        await away_with(broker, b"1")
        await silence(broker)
        await connected(broker, "viewer", present=True)
        await trio.sleep(SILENCE_S)
        assert [record.event.action for record in broker.audit.recent] == []


async def test_client_that_leaves_during_the_silence_gets_its_messages_when_it_is_back(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        await away_with(broker, b"1")
        await silence(broker)
        viewer = await connected(broker, "viewer", present=True)
        await trio.sleep(1)
        await viewer.leave()
        await trio.sleep(SILENCE_S)
        asked = broker.authority.asked
        broker.authority.silent = False
        await trio.sleep(SILENCE_S)
        assert broker.authority.asked == asked, "nobody asks for who is away"
        viewer = await connected(broker, "viewer", present=True)
        assert (await got(viewer)).payload == b"1"


async def test_message_waits_while_everything_is_denied_for_want_of_contact(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        await away_with(broker, b"1", b"2")
        viewer = await connected(
            broker, "viewer", present=True, properties=replace(KEPT, receive_maximum=1)
        )
        first = await got(viewer)
        broker.guard.on_contact(False, "a test")  # noqa: FBT003  the callback's one fact
        broker.authorizer.withdraw("a test")
        broker.router.forget_routes()
        await viewer.send(Puback(packet_id=first.packet_id or 0))
        assert await viewer.nothing()
        assert waiting(broker) == 1
        broker.guard.on_contact(True, "")  # noqa: FBT003
        assert (await got(viewer)).payload == b"2"


async def test_denial_that_came_with_contact_drops_what_waited_for_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        await away_with(broker, b"1", b"2")
        viewer = await connected(
            broker, "viewer", present=True, properties=replace(KEPT, receive_maximum=1)
        )
        first = await got(viewer)
        broker.guard.on_contact(False, "a test")  # noqa: FBT003
        broker.authorizer.withdraw("a test")
        broker.router.forget_routes()
        await viewer.send(Puback(packet_id=first.packet_id or 0))
        await trio.testing.wait_all_tasks_blocked()
        broker.guard.on_contact(True, "")  # noqa: FBT003
        broker.change_rules(broker.authority.rules.without_rule("viewer-reads"))
        assert await viewer.nothing()
        assert waiting(broker) == 0


async def test_qos_1_message_for_a_kept_session_is_not_lost_while_the_controller_is_silent(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        await publish(sensor, b"known")
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        broker.authority.silent = True
        await sensor.send(Publish(topic="t/1", payload=b"x", qos=1, packet_id=1))
        answer = await sensor.next()
        broker.authority.silent = False
        assert isinstance(answer, Puback)
        if not answer.reason.failed:  # it was taken over, so it must come
            assert await hear(viewer, b"x") < 10
