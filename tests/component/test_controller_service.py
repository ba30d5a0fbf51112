"""A whole controller in one Trio loop: a broker's link and an administrator over real mutual TLS."""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio

from acl.model import AccessRequest, Operation, Principal, Resource
from controller import wire
from controller.admin import ALPN as ADMIN_ALPN, AdminClient
from controller.commands import RuleDraft
from controller.config import ControllerConfig
from controller.daemon import Addresses, run_controller
from controller.errors import (
    AdminError,
    BootstrapMissing,
    ControllerUnavailable,
    DataDirectoryInUse,
)
from controller.link import ControllerLink, LinkTiming, PolicyUpdate
from controller.wire import Applied, FromController, Hello
from tests.pki import Issued, TestPki
from tests.unit.controller.parts import Recorder
from transport.connect import connect_tls
from transport.errors import TransportBroken, TransportError
from transport.frames import FrameStream
from transport.tls import TlsStream

T = TypeVar("T")

FIRST_RULES = (
    RuleDraft(id="admin-acl", principal="admin", resource="acl.**", operations="all"),
    RuleDraft(id="admin-cluster", principal="admin", resource="cluster.**", operations="all"),
)
TELEMETRY = RuleDraft(principal="sensor", resource="topic.telemetry.**", operations="write")
WRITE = AccessRequest(Principal("sensor"), Operation.WRITE, Resource.topic("telemetry/cpu"))
IMPATIENT = LinkTiming(stale_after_s=1.5, backoff_min_s=0.02, backoff_max_s=0.1, answer_s=2.0)


class Site:
    """A controller's place: certificates, settings, and what it recorded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pki = TestPki(path)
        self.audit = Recorder()
        self.controller = self.pki.controller()

    def config(self, **changes: object) -> ControllerConfig:
        config = ControllerConfig(
            node_id="c1",
            data_dir=self.path / "data",
            rpc_listen="127.0.0.1:0",
            api_listen="127.0.0.1:0",
            certificate=self.controller.cert,
            key=self.controller.key,
            anchor=self.pki.anchor,
            bootstrap_policy=FIRST_RULES,
            ready_file=self.path / "ready.json",
        )
        return msgspec.structs.replace(config, **changes)

    @asynccontextmanager
    async def running(self, **changes: object) -> AsyncGenerator[Addresses, None]:
        async with trio.open_nursery() as nursery:
            yield await nursery.start(
                partial(
                    run_controller,
                    self.config(**changes),
                    audit=self.audit,
                    clock=time.time,  # noqa: TID251 - a composition root of its own
                    timer=time.perf_counter,
                    new_id=partial(secrets.token_hex, 6),
                )
            )
            nursery.cancel_scope.cancel()

    def admin(self, addresses: Addresses, issued: Issued | None = None) -> AdminClient:
        host, port = addresses.api.rsplit(":", 1)
        context = self.pki.client_context(issued or self.pki.admin(), alpn=[ADMIN_ALPN])
        return AdminClient(
            host, int(port), context=context, new_id=partial(secrets.token_hex, 6), deadline_s=8
        )

    def rpc_context(self, issued: Issued) -> ssl.SSLContext:
        return self.pki.client_context(issued, alpn=[wire.ALPN])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def in_thread(call: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(call)


class Broker:
    """A broker reduced to its link."""

    def __init__(self, site: Site, addresses: Addresses, name: str = "b1") -> None:
        self.updates: list[PolicyUpdate] = []
        self.contacts: list[tuple[bool, str]] = []
        host, port = addresses.rpc.rsplit(":", 1)
        issued = site.pki.broker(name)
        self.link = ControllerLink(
            host,
            int(port),
            context=lambda: site.rpc_context(issued),
            server_name="localhost",
            broker_id=name,
            trust_domain=site.pki.trust_domain,
            on_policy=self.updates.append,
            on_contact=lambda here, reason: self.contacts.append((here, reason)),
            clock=lambda: 0.0,
            jitter=lambda: 0.5,
            timing=IMPATIENT,
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[ControllerLink, None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.link.run)
            with trio.fail_after(5):
                await self.link.wait_contact()
            yield self.link
            nursery.cancel_scope.cancel()


async def test_rules_added_by_an_administrator_reach_broker_decisions(site: Site) -> None:
    async with site.running() as addresses:
        admin, broker = site.admin(addresses), Broker(site, addresses)
        async with broker.running() as link:
            assert broker.updates == [
                PolicyUpdate(
                    epoch=1,
                    reset=True,
                    grants=(("admin", "acl.**"), ("admin", "cluster.**")),
                )
            ]
            answers = await link.ask([WRITE])
            assert (answers.epoch, answers.decisions[0].allowed) == (1, False)

            change = await in_thread(lambda: admin.add_rule(TELEMETRY))
            assert change.lagging_brokers == ()
            assert (change.result.epoch, link.epoch) == (2, 2)
            assert broker.updates[-1] == PolicyUpdate(
                epoch=2, reset=False, grants=(("sensor", "topic.telemetry.**"),)
            )
            answers = await link.ask([WRITE, WRITE])
            assert [d.allowed for d in answers.decisions] == [True, True]
            assert answers.decisions[0].rule_id == change.result.rule_id
            assert answers.decisions[0].id.startswith("d-")
            assert answers.decisions[0].epoch == answers.epoch == 2

            await in_thread(lambda: admin.delete_rule(change.result.rule_id))
            assert broker.updates[-1] == PolicyUpdate(epoch=3, reset=False, grants=())
            answers = await link.ask([WRITE])
            assert (answers.epoch, answers.decisions[0].allowed) == (3, False)
        assert broker.contacts == [(False, "not connected yet"), (True, "")]
    kinds = [event["kind"] for event in site.audit.events]
    assert kinds == ["acl.bootstrapped", "acl.rule_added", "acl.rule_deleted"]
    assert site.audit.events[1]["principal"] == "admin"


async def test_administrator_sees_rules_status_and_trials(site: Site) -> None:
    async with site.running() as addresses:
        admin = site.admin(addresses)
        async with Broker(site, addresses).running():
            await in_thread(lambda: admin.add_rule(msgspec.structs.replace(TELEMETRY, id="a/b")))
            rules = await in_thread(lambda: list(admin.list_rules()))
            assert [rule.id for rule in rules] == ["a/b", "admin-acl", "admin-cluster"]
            assert rules[0].created_by == "admin"
            status = await in_thread(admin.status)
            assert (status.epoch, status.rules, status.log.role) == (2, 3, "leader")
            assert [(b.broker_id, b.epoch, b.connected) for b in status.brokers] == [
                ("b1", 2, True)
            ]
            decision = await in_thread(lambda: admin.test("sensor", "write", "topic.telemetry.cpu"))
            assert (decision.outcome, decision.rule_id) == ("allow", "a/b")
            await in_thread(lambda: admin.delete_rule("a/b"))
            decision = await in_thread(lambda: admin.test("sensor", "write", "topic.telemetry.cpu"))
            assert (decision.outcome, decision.epoch) == ("deny", 3)


async def test_everything_is_there_after_a_restart(site: Site) -> None:
    async with site.running() as addresses:
        assert (site.path / "ready.json").exists()
        admin = site.admin(addresses)
        await in_thread(lambda: admin.add_rule(TELEMETRY, request_id="mine"))
        before = await in_thread(admin.status)
    assert not (site.path / "ready.json").exists()
    async with site.running(bootstrap_policy=()) as addresses:
        admin = site.admin(addresses)
        after = await in_thread(admin.status)
        assert (after.epoch, after.chain, after.rules) == (before.epoch, before.chain, 3)
        again = await in_thread(lambda: admin.add_rule(TELEMETRY, request_id="mine"))
        assert again.result.repeated
    assert len(site.audit.of("acl.bootstrapped")) == 1


async def test_controller_without_any_policy_refuses_to_start(site: Site) -> None:
    with pytest.RaisesGroup(BootstrapMissing, flatten_subgroups=True):
        async with site.running(bootstrap_policy=()):
            raise AssertionError


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: a.add_rule(TELEMETRY), "may not create `acl.rules`"),
        (lambda a: a.delete_rule("admin-acl"), "may not delete `acl.rules`"),
        (lambda a: list(a.list_rules()), "may not list `acl.rules`"),
        (lambda a: a.test("x", "read", "topic.x"), "may not describe `acl.rules`"),
        (lambda a: a.status(), "may not describe `cluster.status`"),
    ],
)
async def test_client_without_a_rule_gets_a_403_that_says_why(
    site: Site, call: Callable[[AdminClient], object], message: str
) -> None:
    async with site.running() as addresses:
        # a device called like the administrator is not the administrator
        client = site.admin(addresses, site.pki.client("admin"))
        with pytest.raises(AdminError, match="no rule allows it") as caught:
            await in_thread(lambda: call(client))
        assert caught.value.status == 403
        assert f"`client:admin` {message}" in caught.value.detail
    [event] = site.audit.of("authorization.denied")
    assert (event["principal"], event["outcome"]) == ("client:admin", "deny")


@pytest.mark.parametrize(
    ("draft", "status", "message"),
    [
        (
            RuleDraft(principal="a", resource="topic.x", operations="fly"),
            422,
            "`fly` is no operation",
        ),
        (RuleDraft(principal="a", resource="moon.x", operations="read"), 422, "moon"),
        (
            RuleDraft(id="admin-acl", principal="a", resource="topic.x", operations="read"),
            409,
            "exists",
        ),
        (
            RuleDraft(principal="a", resource="topic." + "x" * 300_000, operations="read"),
            413,
            "body",
        ),
    ],
)
async def test_refused_rule_says_what_is_wrong_and_changes_nothing(
    site: Site, draft: RuleDraft, status: int, message: str
) -> None:
    async with site.running() as addresses:
        admin = site.admin(addresses)
        with pytest.raises(AdminError, match=message) as caught:
            await in_thread(lambda: admin.add_rule(draft))
        assert caught.value.status == status
        assert (await in_thread(admin.status)).epoch == 1


async def test_deleting_an_unknown_rule_is_not_found(site: Site) -> None:
    async with site.running() as addresses:
        admin = site.admin(addresses)
        with pytest.raises(AdminError, match="there is no rule `nobody`") as caught:
            await in_thread(lambda: admin.delete_rule("nobody"))
        assert caught.value.status == 404


async def test_silent_broker_is_named_as_lagging(site: Site) -> None:
    async with site.running() as addresses:
        admin = site.admin(addresses)
        async with raw_broker(site, addresses) as (frames, _):
            await frames.send(Hello(protocol=1, broker_id="raw", trusts_for_s=3.0))
            began = trio.current_time()
            change = await in_thread(lambda: admin.add_rule(TELEMETRY))
            assert change.lagging_brokers == ("raw",)
            assert trio.current_time() - began >= 2.0
            await frames.send(Applied(epoch=2, number=1))
            change = await in_thread(lambda: admin.delete_rule(change.result.rule_id))
            assert change.lagging_brokers == ("raw",)


@asynccontextmanager
async def raw_broker(
    site: Site, addresses: Addresses, name: str = "raw"
) -> AsyncGenerator[tuple[FrameStream[FromController], TlsStream], None]:
    """A TLS connection of a broker's certificate on which the test speaks as it likes."""
    host, port = addresses.rpc.rsplit(":", 1)
    stream = await connect_tls(
        host,
        int(port),
        context=site.rpc_context(site.pki.broker(name)),
        server_name="localhost",
        alpn=[wire.ALPN],
    )
    decoder: msgspec.msgpack.Decoder[FromController] = msgspec.msgpack.Decoder(FromController)
    try:
        yield FrameStream(stream, max_frame_bytes=wire.MAX_FRAME_BYTES, decoder=decoder), stream
    finally:
        stream.abort()


async def ending_of(frames: FrameStream[FromController]) -> str:
    """Read until the controller ends the connection; returns its goodbye."""
    reason = ""
    with trio.fail_after(8):
        try:
            while (message := await frames.receive()) is not None:
                if isinstance(message, wire.Goodbye):
                    reason = message.reason
        except TransportBroken:
            pass
    return reason


HELLO = Hello(protocol=1, broker_id="raw", trusts_for_s=3.0)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([msgspec.structs.replace(HELLO, broker_id="b1")], "calls itself `b1`"),
        ([msgspec.structs.replace(HELLO, protocol=9)], "speaks protocol 9"),
        ([Applied(epoch=1, number=1)], "no hello"),
        (["garbage"], "not what was agreed"),
        ([HELLO, HELLO], "second hello"),
        ([HELLO, Applied(epoch=99, number=1)], "epoch 99 does not exist"),
        ([HELLO, ["ask", 1, [["x"]]]], "not what was agreed"),
    ],
)
async def test_broker_that_breaks_the_protocol_is_told_and_dropped(
    site: Site, sent: list[object], reason: str
) -> None:
    async with site.running() as addresses:
        good = Broker(site, addresses)
        async with good.running() as link, raw_broker(site, addresses) as (frames, _):
            for message in sent:
                await frames.send(message)
            assert reason in await ending_of(frames)
            assert (await link.ask([WRITE])).epoch == 1


@pytest.mark.parametrize(
    "junk", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1", b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_garbage_and_oversize_frames_drop_only_their_sender(site: Site, junk: bytes) -> None:
    async with site.running() as addresses:
        good = Broker(site, addresses)
        async with good.running() as link, raw_broker(site, addresses) as (frames, stream):
            await frames.send(HELLO)
            await stream.send_all(junk)
            assert await ending_of(frames) != ""
            assert (await link.ask([WRITE])).epoch == 1
            assert len(good.contacts) == 2


@pytest.mark.parametrize("who", ["client", "admin", "controller", "foreign", "expired", "none"])
async def test_only_brokers_get_into_the_rpc(site: Site, who: str) -> None:
    pki = site.pki
    contexts: dict[str, Callable[[], ssl.SSLContext]] = {
        "client": lambda: site.rpc_context(pki.client("sensor")),
        "admin": lambda: site.rpc_context(pki.admin()),
        "controller": lambda: site.rpc_context(site.controller),
        "foreign": lambda: site.rpc_context(pki.foreign("raw")),
        "expired": lambda: site.rpc_context(pki.expired("raw")),
        "none": lambda: pki.context_without_certificate(alpn=[wire.ALPN]),
    }
    async with site.running() as addresses:
        assert await answer_to(addresses.rpc, contexts[who]()) == b""
        async with Broker(site, addresses).running() as link:
            assert (await link.ask([WRITE])).epoch == 1
        with trio.fail_after(5):
            while not (refused := site.audit.of("authentication.refused")):
                await trio.sleep(0.01)
    assert [event["resource"] for event in refused] == ["cluster.rpc"]


async def answer_to(address: str, context: ssl.SSLContext) -> bytes:
    """Connect, say something, and return what comes back before the end."""
    host, port = address.rsplit(":", 1)
    stream = None
    try:
        with trio.fail_after(5):
            stream = await connect_tls(
                host, int(port), context=context, server_name="localhost", alpn=[wire.ALPN]
            )
            await stream.send_all(b"\x00\x00\x00\x01\xc0")
            return await stream.receive_some()
    except TransportError:
        return b""
    finally:
        if stream is not None:
            stream.abort()


async def test_api_without_a_certificate_gives_nothing(site: Site) -> None:
    async with site.running() as addresses:
        host, port = addresses.api.rsplit(":", 1)
        client = AdminClient(
            host,
            int(port),
            context=site.pki.context_without_certificate(alpn=[ADMIN_ALPN]),
            new_id=partial(secrets.token_hex, 6),
            deadline_s=5,
        )
        with pytest.raises(AdminError, match="no answer"):
            await in_thread(client.status)


async def test_link_tells_that_the_controller_refuses_it(site: Site) -> None:
    async with site.running() as addresses:
        broker = Broker(site, addresses)
        broker.link._broker_id = "somebody-else"
        async with trio.open_nursery() as nursery:
            await nursery.start(broker.link.run)
            with trio.fail_after(5):
                while "calls itself" not in broker.link._contact.problem:
                    await trio.sleep(0.01)
            with pytest.raises(ControllerUnavailable, match="calls itself `somebody-else`"):
                await broker.link.ask([WRITE])
            nursery.cancel_scope.cancel()
        assert not broker.link.contact


async def test_link_refuses_a_server_that_is_no_controller(site: Site) -> None:
    site.controller = site.pki.broker("pretender")
    async with site.running() as addresses:
        broker = Broker(site, addresses)
        async with trio.open_nursery() as nursery:
            await nursery.start(broker.link.run)
            with trio.fail_after(5):
                while "role" not in broker.link._contact.problem:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert broker.updates == []


async def test_link_survives_a_quick_restart_of_the_controller_unnoticed(site: Site) -> None:
    async with trio.open_nursery() as nursery:
        async with site.running() as addresses:
            broker = Broker(site, addresses)
            await nursery.start(broker.link.run)
            await broker.link.wait_contact()
        async with site.running(rpc_listen=addresses.rpc):
            with trio.fail_after(5):
                while len(broker.updates) < 2:
                    await trio.sleep(0.01)
            assert broker.updates[1].reset
            assert (await broker.link.ask([WRITE])).epoch == 1
        nursery.cancel_scope.cancel()
    assert broker.contacts == [(False, "not connected yet"), (True, "")]


async def test_link_loses_contact_when_the_controller_is_gone_and_finds_it_again(
    site: Site,
) -> None:
    async with trio.open_nursery() as nursery:
        async with site.running() as addresses:
            broker = Broker(site, addresses)
            await nursery.start(broker.link.run)
            await broker.link.wait_contact()
        with trio.fail_after(5):
            while broker.link.contact:
                await trio.sleep(0.01)
        assert "no sign of the controller for 1.5 s" in broker.contacts[-1][1]
        with pytest.raises(ControllerUnavailable, match="no connection"):
            await broker.link.ask([WRITE])
        async with site.running(rpc_listen=addresses.rpc):
            with trio.fail_after(5):
                await broker.link.wait_contact()
            assert (await broker.link.ask([WRITE])).epoch == 1
        nursery.cancel_scope.cancel()
    assert [here for here, _ in broker.contacts] == [False, True, False, True]


async def test_link_does_not_follow_a_controller_back_in_time(site: Site) -> None:
    async with trio.open_nursery() as nursery:
        async with site.running() as addresses:
            broker, admin = Broker(site, addresses), site.admin(addresses)
            await nursery.start(broker.link.run)
            await broker.link.wait_contact()
            await in_thread(lambda: admin.add_rule(TELEMETRY))
            assert broker.link.epoch == 2
        fresh = {"rpc_listen": addresses.rpc, "data_dir": site.path / "restored"}
        async with site.running(**fresh):
            with trio.fail_after(8):
                while broker.link.contact or "older than" not in broker.link._contact.problem:
                    await trio.sleep(0.01)
            with pytest.raises(ControllerUnavailable, match="restart the broker"):
                await broker.link.ask([WRITE])
        nursery.cancel_scope.cancel()
    assert [update.epoch for update in broker.updates] == [1, 2]


async def test_contact_stays_while_heartbeats_come(site: Site) -> None:
    async with site.running() as addresses:
        broker = Broker(site, addresses)
        async with broker.running():
            await trio.sleep(2.5)
        assert [here for here, _ in broker.contacts] == [False, True]


async def test_many_questions_are_answered_in_order_by_one_epoch(site: Site) -> None:
    requests = [
        AccessRequest(Principal("admin"), Operation.LIST, Resource.parse(f"acl.x{n}"))
        if n % 3
        else WRITE
        for n in range(10_000)
    ]
    async with site.running() as addresses, Broker(site, addresses).running() as link:
        answers = await link.ask(requests)
        assert [d.allowed for d in answers.decisions] == [n % 3 != 0 for n in range(10_000)]
        assert {d.epoch for d in answers.decisions} == {1}
        assert (await link.ask([])).decisions == ()


async def test_newer_connection_of_a_broker_replaces_the_older(site: Site) -> None:
    async with site.running() as addresses, raw_broker(site, addresses) as (older, _):
        await older.send(HELLO)
        assert isinstance(await older.receive(), wire.Welcome)
        async with raw_broker(site, addresses) as (newer, _):
            await newer.send(HELLO)
            assert isinstance(await newer.receive(), wire.Welcome)
            assert await ending_of(older) == "the same broker connected again"


async def test_metrics_health_and_methods(site: Site) -> None:
    async with site.running() as addresses:
        admin = site.admin(addresses)
        async with Broker(site, addresses).running() as link:
            await link.ask([WRITE])

            def get(path: str, method: str = "GET") -> tuple[int, str]:
                status, _, body = admin._round_trip(method, path, None, "")
                return status, body.decode()

            assert await in_thread(lambda: get("/healthz")) == (200, "ok\n")
            assert await in_thread(lambda: get("/readyz")) == (200, "ready\n")
            status, text = await in_thread(lambda: get("/metrics"))
            assert status == 200
            assert 'stockade_controller_broker_epoch{broker="b1"} 1.0' in text
            assert 'stockade_controller_questions_total{outcome="deny"} 1.0' in text
            assert (await in_thread(lambda: get("/nothing")))[0] == 404
            assert (await in_thread(lambda: get("/v1/acl/rules", "PUT")))[0] == 405
            assert (await in_thread(lambda: get("/v1/acl/rules?limit=0")))[0] == 400
            status, text = await in_thread(lambda: get("/v1/acl/rules?limit=1"))
            assert '"next":"admin-acl"' in text
            status, text = await in_thread(lambda: get("/v1/acl/rules/admin-acl"))
            assert '"created_by":"bootstrap"' in text
            assert (await in_thread(lambda: get("/v1/acl/rules/nobody")))[0] == 404


async def test_second_controller_on_the_same_directory_is_refused(site: Site) -> None:
    async with site.running():
        with pytest.RaisesGroup(DataDirectoryInUse, flatten_subgroups=True):
            async with site.running(ready_file=None):
                raise AssertionError
