"""The client's side: errors that say what to do, and a server that is known."""

from __future__ import annotations

import socket
import ssl

import pytest
import trio

from tests.pki import TestPki
from tests.unit.transport.serving import HOST, serving
from transport.connect import connect_tls
from transport.errors import HandshakeFailed, RemoteAlert, ServerUnreachable, ServerUntrusted


async def test_server_is_known_after_connecting(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with serving(server_context) as served:
        stream = await connect_tls(
            "localhost", served.port, context=client_context, server_name="localhost"
        )
        assert stream.identity is not None
        assert stream.peer_address == f"localhost:{served.port}"
        await stream.aclose()


@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        ("expired", "certificate expired"),
        ("foreign", "unknown ca"),
        ("sibling", "unknown ca"),
        ("self_signed", "unknown ca"),
        ("server_only", "unsupported certificate"),
        ("not_yet_valid", "bad certificate"),
    ],
)
async def test_refused_certificate_is_told_at_the_first_read(
    kind: str, alert: str, pki: TestPki, server_context: ssl.SSLContext
) -> None:
    leaf = getattr(pki, kind)(f"c-{kind}")
    async with serving(server_context) as served:
        stream = await connect_tls(HOST, served.port, context=pki.client_context(leaf))
        with pytest.raises(RemoteAlert, match=f"the server refused our certificate: {alert}"):
            await stream.receive_some()
        await stream.aclose()


async def test_server_that_is_not_the_one_we_meant_is_untrusted(
    pki: TestPki, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with serving(server_context) as served:
        with pytest.raises(ServerUntrusted, match=r"broker\.example") as refused:
            await connect_tls(
                HOST, served.port, context=client_context, server_name="broker.example"
            )
        assert refused.value.result == "wrong_name"
        foreign = TestPki(pki.directory, name="elsewhere")
        with pytest.raises(ServerUntrusted, match="unable to get local issuer") as refused:
            await connect_tls(
                HOST, served.port, context=foreign.client_context(foreign.client("x"))
            )
        assert refused.value.result == "unknown_ca"
        assert (
            "the client refused our certificate: unknown ca"
            in (await served.event("peer_alert", number=2)).reason
        )


async def test_server_without_our_protocol_is_refused(
    pki: TestPki, server_context: ssl.SSLContext
) -> None:
    leaf = pki.client("other-protocol")
    async with serving(server_context) as served:
        with pytest.raises(HandshakeFailed, match="no application protocol"):
            await connect_tls(
                HOST, served.port, context=pki.client_context(leaf, alpn=("stockade-ctl/1",))
            )
        with pytest.raises(HandshakeFailed, match="does not speak `stockade-ctl/1`"):
            await connect_tls(
                HOST, served.port, context=pki.client_context(leaf), alpn=("stockade-ctl/1",)
            )


async def test_unreachable_server_is_told_with_what_to_do(client_context: ssl.SSLContext) -> None:
    with socket.create_server((HOST, 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(
        ServerUnreachable, match=f"`{HOST}:{port}`: nothing listens there; is the server running"
    ):
        await connect_tls(HOST, port, context=client_context)
    with pytest.raises(ServerUnreachable, match="the name is unknown"):
        await connect_tls("no-such-host.invalid", 1, context=client_context)
    with pytest.raises(ServerUnreachable, match="1 to 65535"):
        await connect_tls(HOST, 70000, context=client_context)


async def test_silent_server_is_given_up(client_context: ssl.SSLContext) -> None:
    with socket.create_server((HOST, 0)) as sock:
        with trio.fail_after(5), pytest.raises(HandshakeFailed, match=r"within 0\.2 s") as failed:
            await connect_tls(HOST, sock.getsockname()[1], context=client_context, deadline_s=0.2)
        assert failed.value.result == "timeout"


async def test_server_that_does_not_speak_tls_is_told(client_context: ssl.SSLContext) -> None:
    with socket.create_server((HOST, 0)) as sock:

        def answer() -> None:
            peer, _ = sock.accept()
            with peer:
                peer.recv(10)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer)
            with pytest.raises(HandshakeFailed) as failed:
                await connect_tls(HOST, sock.getsockname()[1], context=client_context)
            assert failed.value.result == "not_tls"


async def test_context_that_trusts_everyone_is_our_own_mistake() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ValueError, match="must demand"):
        await connect_tls(HOST, 1, context=context)
