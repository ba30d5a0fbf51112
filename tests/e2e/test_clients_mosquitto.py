"""Mosquitto's own command-line clients against a whole system, over mutual TLS."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from acl.model import Resource
from tests.e2e.clients import (
    assert_zscores,
    await_audit,
    correlation_of,
    mosquitto,
    mosquitto_sub,
    publish_properties,
    run,
    unique,
    windows,
)
from tests.e2e.paho_sessions import PahoSession, response_topic_of

if TYPE_CHECKING:
    from tests.e2e.running import Running

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(90),
    pytest.mark.needs("mosquitto-clients"),
]

VERSIONS = ["5", "311"]


@pytest.mark.parametrize("listens", VERSIONS)
@pytest.mark.parametrize("speaks", VERSIONS)
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquitto_publishes_and_another_version_receives(
    system: Running, speaks: str, listens: str, qos: str
) -> None:
    topic = f"telemetry/{unique('mosquitto')}"
    with mosquitto_sub(
        system.ready,
        "viewer",
        "-q",
        qos,
        "-t",
        f"{topic}/#",
        "-C",
        "1",
        version=listens,
        form="%t %q %p",
    ) as viewer:
        sent = run(
            mosquitto(
                "mosquitto_pub",
                system.ready,
                "sensor",
                *("-q", qos, "-t", f"{topic}/cpu", "-m", "0.42"),
                version=speaks,
            )
        )
        assert sent.returncode == 0, sent.stderr
        assert viewer.lines() == [f"{topic}/cpu {qos} 0.42"]


def test_mosquitto_streams_lines_in_order(system: Running) -> None:
    topic = f"telemetry/{unique('lines')}"
    count = 500
    lines = "".join(f"{number}\n" for number in range(count))
    publish = mosquitto("mosquitto_pub", system.ready, "sensor", "-q", "1", "-t", topic, "-l")
    with mosquitto_sub(
        system.ready, "viewer", "-q", "1", "-t", topic, "-C", str(count), form="%p"
    ) as viewer:
        assert run(publish, typed=lines.encode()).returncode == 0
        assert viewer.lines() == lines.split()


@pytest.mark.parametrize("version", VERSIONS)
def test_mosquitto_finds_what_was_retained(system: Running, version: str) -> None:
    topic = f"bench/{unique('retained')}"
    publish = mosquitto(
        "mosquitto_pub", system.ready, "bench", "-q", "1", "-t", topic, version=version
    )
    assert run([*publish, "-r", "-m", "kept"]).returncode == 0
    listen = ("-q", "1", "-t", topic, "-C", "1")
    with mosquitto_sub(system.ready, "bench", *listen, version=version, form="%r %p") as found:
        assert found.lines() == ["1 kept"]
    assert run([*publish, "-r", "-n"]).returncode == 0
    with mosquitto_sub(system.ready, "bench", *listen, version=version, form="%r %p") as found:
        assert run([*publish, "-m", "live"]).returncode == 0
        assert found.lines() == ["0 live"]


@pytest.mark.parametrize("version", VERSIONS)
def test_mosquitto_that_is_killed_leaves_its_will(system: Running, version: str) -> None:
    topic = f"bench/{unique('will')}"
    will = ("--will-topic", topic, "--will-payload", "gone", "--will-qos", "2")
    listen = ("-q", "2", "-t", topic, "-C", "1")
    with mosquitto_sub(system.ready, "bench", *listen, form="%q %p") as watcher:
        with mosquitto_sub(
            system.ready, "bench", "-t", f"{topic}/other", *will, version=version
        ) as client:
            client.process.kill()
        assert watcher.lines() == ["2 gone"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", ["1", "2"])
def test_mosquitto_that_comes_back_has_missed_nothing(
    system: Running, version: str, qos: str
) -> None:
    topic, client_id = f"bench/{unique('absent')}", unique("absent")
    expiry = ("-x", "60") if version == "5" else ()
    listen = ("-c", "-i", client_id, *expiry, "-q", qos, "-t", topic)
    count = 20
    lines = "".join(f"{number}\n" for number in range(count))
    publish = mosquitto("mosquitto_pub", system.ready, "bench", "-q", qos, "-t", topic, "-l")
    first = mosquitto("mosquitto_sub", system.ready, "bench", *listen, "-E", version=version)
    assert run(first).returncode == 0  # `-E`: it leaves once it has its subscription
    assert run(publish, typed=lines.encode()).returncode == 0
    again = (
        *listen,
        "-C",
        str(count),
        "-F",
        "%p",
    )  # it may have them before it subscribes once more
    found = run(mosquitto("mosquitto_sub", system.ready, "bench", *again, version=version))
    assert found.stdout.decode() == lines


def test_mosquitto_asks_and_another_client_answers(system: Running) -> None:
    asks, answers = f"bench/{unique('asks')}", f"bench/{unique('answers')}"
    with PahoSession(system.ready, "bench") as server:
        server.listen(asks)
        asking = mosquitto(
            "mosquitto_rr",
            system.ready,
            "bench",
            *("-q", "1", "-t", asks, "-e", answers, "-m", "2", "-W", "15"),
            *("-D", "publish", "correlation-data", "c-1", "-F", "%D %p"),
        )
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(run, asking)
            request = server.receive()
            answer = publish_properties()
            answer.CorrelationData = correlation_of(request)
            server.tell(response_topic_of(request), b"4", properties=answer)
            assert asked.result().stdout == b"c-1 4\n"


def test_mosquitto_receives_every_property_unchanged(system: Running) -> None:
    topic = f"telemetry/{unique('properties')}"
    properties = [
        *("-D", "publish", "content-type", "text/plain; charset=utf-8"),
        *("-D", "publish", "payload-format-indicator", "1"),
        *("-D", "publish", "correlation-data", "c-0815"),
        *("-D", "publish", "response-topic", "results/sensor/elsewhere"),
        *("-D", "publish", "user-property", "unit", "°C"),
        *("-D", "publish", "user-property", "unit", "again"),
    ]
    form = "%p|%C|%F|%D|%R|%P"
    with mosquitto_sub(
        system.ready, "viewer", "-q", "1", "-t", topic, "-C", "1", form=form
    ) as viewer:
        sent = run(
            mosquitto(
                "mosquitto_pub",
                system.ready,
                "sensor",
                "-q",
                "1",
                "-t",
                topic,
                "-m",
                "21",
                *properties,
            )
        )
        assert sent.returncode == 0, sent.stderr
        assert viewer.lines() == [
            "21|text/plain; charset=utf-8|1|c-0815|results/sensor/elsewhere|unit:°C unit:again"
        ]


def test_mosquitto_calls_a_kernel_and_gets_what_numpy_computes(system: Running) -> None:
    window = windows(1)[0]
    command = mosquitto(
        "mosquitto_rr",
        system.ready,
        "sensor",
        *("-t", "kernel/zscore", "-e", f"results/sensor/{unique('rr')}", "-N", "-W", "15", "-m"),
    )
    called = run([os.fsencode(word) for word in command] + [window.tobytes()])
    assert called.returncode == 0, called.stderr
    assert_zscores(called.stdout, window)


def test_mosquitto_calls_a_kernel_with_a_wrong_payload_and_is_told(system: Running) -> None:
    called = run(
        mosquitto(
            "mosquitto_rr",
            system.ready,
            "sensor",
            *("-t", "kernel/zscore", "-e", f"results/sensor/{unique('rr')}", "-m", "three"),
            *("-W", "15", "-F", "%P"),
        )
    )
    assert called.returncode == 0, called.stderr
    assert b"status:error" in called.stdout
    assert b"256 bytes" in called.stdout


def test_mosquitto_is_told_why_its_publish_is_refused(system: Running) -> None:
    topic = f"telemetry/{unique('refused')}"
    refused = run(
        mosquitto("mosquitto_pub", system.ready, "viewer", "-q", "1", "-t", topic, "-m", "1")
    )
    assert b"ot authori" in refused.stderr
    denial = await_audit(
        system.folder / "audit" / "broker.jsonl",
        kind="authorization.denied",
        principal="viewer",
        action="publish",
        resource=Resource.topic(topic).text,
    )
    assert str(denial["decision_id"]).encode() in refused.stderr


@pytest.mark.parametrize(("version", "code"), [("5", 0x87), ("311", 0x80)])
def test_mosquitto_may_not_subscribe_to_what_no_rule_allows(
    system: Running, version: str, code: int
) -> None:
    topic = f"orders/{unique('denied')}/#"
    with mosquitto_sub(system.ready, "viewer", "-t", topic, "-W", "10", version=version) as viewer:
        assert viewer.lines() == []
        assert f"Subscribed (mid: 1): {code}" in viewer.output
