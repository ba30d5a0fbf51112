"""Programs we did not write against our listener: what `openssl s_client` and `curl` get, good and bad."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from tests.needs import require_tool
from tests.pki import Issued, TestPki
from tests.unit.transport.serving import HOST, Served, serving
from transport.http import HttpLimits, Request, Response, json_response, serve_http
from transport.tls import TlsStream

LIMITS = HttpLimits(max_body_bytes=100_000)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestPki:
    return TestPki(tmp_path_factory.mktemp("tools"))


async def answer(request: Request) -> Response:
    assert request.identity is not None
    facts = {"path": request.path, "method": request.method, "bytes": len(request.body)}
    return json_response({**facts, "who": request.identity.uris[0]})


async def converse(stream: TlsStream) -> None:
    """HTTP for curl (`http/1.1`), an echo for whoever agreed on `mqtt` or on nothing."""
    if stream.alpn == "http/1.1":
        await serve_http(stream, answer, limits=LIMITS)
        return
    await stream.send_all(f"hello {stream.alpn}\n".encode())
    while data := await stream.receive_some():
        await stream.send_all(data)


@asynccontextmanager
async def listening(pki: TestPki) -> AsyncIterator[Served]:
    context = pki.server_context(pki.broker(), alpn=("mqtt", "http/1.1"))
    async with serving(context, handler=converse, alpn=("mqtt", "http/1.1")) as served:
        yield served


async def run(*command: str, given: bytes = b"") -> tuple[int, str]:
    """Run a tool for at most 20 s; its exit code, and both its outputs."""
    with trio.fail_after(20):
        done = await trio.run_process(
            command, stdin=given, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    return done.returncode, done.stdout.decode(errors="replace")


async def s_client(pki: TestPki, served: Served, leaf: Issued | None, *options: str) -> str:
    openssl = require_tool("openssl", package="openssl")
    command = [openssl, "s_client", "-connect", f"{HOST}:{served.port}", "-CAfile", str(pki.ca)]
    command += ["-verify_return_error", "-servername", "localhost", *options]
    if leaf is not None:
        command += ["-cert", str(leaf.cert), "-key", str(leaf.key), "-cert_chain", str(leaf.cert)]
    # s_client ends with its input; the answer must be here by then, so the input comes slowly.
    script = ["/bin/sh", "-c", '(sleep 0.7; echo "over") | "$@"', "sh", *command]
    return (await run(*script))[1]


@pytest.mark.needs("openssl")
async def test_openssl_with_a_good_certificate_is_served(pki: TestPki) -> None:
    async with listening(pki) as served:
        said = await s_client(pki, served, pki.client("sensor"), "-alpn", "other,mqtt")
        assert "hello mqtt" in said
        assert "Verify return code: 0 (ok)" in said
        assert "TLSv1.3" in said
        assert "ALPN protocol: mqtt" in said
        assert "New Session Ticket" not in said
        assert served.results == ["ok"]


@pytest.mark.needs("openssl")
async def test_openssl_without_alpn_is_served(pki: TestPki) -> None:
    async with listening(pki) as served:
        assert "hello None" in await s_client(pki, served, pki.client("plain"))


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(
    ("kind", "alert", "result"),
    [
        ("expired", "alert certificate expired", "expired"),
        ("not_yet_valid", "alert bad certificate", "not_yet_valid"),
        ("foreign", "alert unknown ca", "unknown_ca"),
        ("sibling", "alert unknown ca", "unknown_ca"),
        ("self_signed", "alert unknown ca", "unknown_ca"),
        ("server_only", "alert unsupported certificate", "wrong_purpose"),
        ("none", "alert certificate required", "no_certificate"),
    ],
)
async def test_openssl_is_told_by_an_alert_why_it_is_refused(
    kind: str, alert: str, result: str, pki: TestPki
) -> None:
    leaf: Issued | None = None if kind == "none" else getattr(pki, kind)(f"o-{kind}")
    async with listening(pki) as served:
        said = await s_client(pki, served, leaf, "-alpn", "mqtt")
        assert alert in said
        assert "hello" not in said
        assert served.results == [result]


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("kind", ["without_eku", "any_eku", "two_uris", "other_trust_domain"])
async def test_openssl_is_shut_out_when_we_refuse_ourselves(kind: str, pki: TestPki) -> None:
    leaf = getattr(pki, kind)(f"o-{kind}")
    async with listening(pki) as served:
        said = await s_client(pki, served, leaf, "-alpn", "mqtt")
        assert "hello" not in said
        assert served.results == ["refused"]


@pytest.mark.needs("openssl")
async def test_openssl_with_other_protocols_only_gets_the_alert(pki: TestPki) -> None:
    async with listening(pki) as served:
        said = await s_client(pki, served, pki.client("sensor"), "-alpn", "h2,spdy/3")
        assert "alert no application protocol" in said
        event = await served.event("alpn")
        assert event.reason == "the client offers `h2`, `spdy/3` and no protocol of ours"


@pytest.mark.needs("openssl")
async def test_openssl_with_an_old_version_gets_the_alert(pki: TestPki) -> None:
    async with listening(pki) as served:
        said = await s_client(pki, served, pki.client("sensor"), "-tls1_2")
        assert "alert protocol version" in said
        assert served.results == ["version"]


@pytest.mark.needs("openssl")
async def test_openssl_key_update_is_followed(pki: TestPki) -> None:
    openssl = require_tool("openssl", package="openssl")
    leaf = pki.client("updater")
    async with listening(pki) as served:
        command = [openssl, "s_client", "-connect", f"{HOST}:{served.port}", "-CAfile", str(pki.ca)]
        command += ["-cert", str(leaf.cert), "-key", str(leaf.key)]
        steps = "(sleep 0.4; echo one; sleep 0.2; echo K; sleep 0.2; echo two; sleep 0.4)"
        script = ["/bin/sh", "-c", f'{steps} | "$@"', "sh", *command]
        _, said = await run(*script)
        assert "KEYUPDATE" in said
        assert "\none\n" in said
        assert "\ntwo\n" in said
        assert served.results == ["ok"]


async def curl(
    pki: TestPki, served: Served, path: str, leaf: Issued | None, *options: str
) -> tuple[int, str]:
    tool = require_tool("curl", package="curl")
    command = [
        tool,
        "--silent",
        "--show-error",
        "--http1.1",
        "--max-time",
        "15",
        "--cacert",
        str(pki.ca),
    ]
    if leaf is not None:
        command += ["--cert", str(leaf.cert), "--key", str(leaf.key)]
    return await run(*command, *options, f"https://localhost:{served.port}{path}")


@pytest.mark.needs("curl")
async def test_curl_gets_answers_on_one_connection(pki: TestPki) -> None:
    async with listening(pki) as served:
        url = f"https://localhost:{served.port}/second"
        code, said = await curl(pki, served, "/first", pki.client("curl"), url)
        assert code == 0
        answers = [msgspec.json.decode(line) for line in said.splitlines()]
        assert [one["path"] for one in answers] == ["/second", "/first"]
        assert {one["who"] for one in answers} == {"spiffe://stockade.local/client/curl"}
        assert served.results == ["ok"]


@pytest.mark.needs("curl")
async def test_curl_uploads_by_length_and_in_chunks_and_not_too_much(
    pki: TestPki, tmp_path: Path
) -> None:
    leaf = pki.client("uploader")
    data = tmp_path / "data"
    async with listening(pki) as served:
        for size in (3, 90_000):
            data.write_bytes(bytes(size))
            for extra in ((), ("-H", "Transfer-Encoding: chunked")):
                code, said = await curl(
                    pki, served, "/up", leaf, "--data-binary", f"@{data}", *extra
                )
                assert code == 0
                assert f'"bytes":{size}' in said
        data.write_bytes(bytes(1_000_000))
        for extra in ((), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect:")):
            code, said = await curl(pki, served, "/up", leaf, "--data-binary", f"@{data}", *extra)
            assert "at most 100000 bytes of body are read" in said
        code, said = await curl(pki, served, "/x", leaf, "--head")
        assert code == 0
        assert "200" in said.splitlines()[0]


@pytest.mark.needs("curl")
@pytest.mark.parametrize(
    ("kind", "alert"), [("none", "certificate required"), ("expired", "certificate expired")]
)
async def test_curl_is_told_by_an_alert_why_it_is_refused(
    kind: str, alert: str, pki: TestPki
) -> None:
    leaf: Issued | None = None if kind == "none" else pki.expired("c-expired")
    async with listening(pki) as served:
        code, said = await curl(pki, served, "/", leaf)
        assert code != 0
        assert alert in said


@pytest.mark.needs("curl")
async def test_curl_without_tls_gets_nothing(pki: TestPki) -> None:
    tool = require_tool("curl", package="curl")
    async with listening(pki) as served:
        code, said = await run(tool, "--silent", "--max-time", "5", f"http://{HOST}:{served.port}/")
        assert code != 0
        assert not said
        await served.event("not_tls")
