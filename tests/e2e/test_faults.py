"""Failing parts: kernels that crash or never end, a killed controller, broken configuration, a missing compiler.

One controller and one broker of their own for all of these tests; a test that kills one of them starts it again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.policy import PolicyRule
from tests.e2e.clients import (
    ANSWER_S,
    NOT_AUTHORIZED,
    assert_zscores,
    call_zscore,
    correlation_of,
    endpoint,
    eventually,
    paho,
    request_properties,
    unique,
    user_properties_of,
    windows,
)
from tests.e2e.daemons import (
    Site,
    authority_of,
    is_alive,
    make_site,
    start_daemon,
    workers_of,
    write_bundle,
)
from tests.e2e.running import stockade
from tests.processes import descendants_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from paho.mqtt.client import MQTTMessage

    from tests.e2e.clients import Floats, Paho
    from tests.e2e.daemons import Daemon

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SERVER_SHUTTING_DOWN = 0x8B

BODIES = {
    "endless": "volatile int forever = 1; while (forever) {}",
    "aborting": "__builtin_trap();",
}

RULES = (
    PolicyRule(
        id="sensor-calls-every-kernel",
        principal="sensor",
        operations="execute",
        resource="kernel.*",
        description="also those that fail",
    ),
)

LIMITS = """
[limits]
connect_deadline_s = 1.0
handshake_deadline_s = 1.0
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    folder = tmp_path_factory.mktemp("faults")
    kernels = [
        write_bundle(folder / "kernels-of-test", name, body) for name, body in BODIES.items()
    ]
    made = make_site(folder, kernels=kernels, rules=RULES)
    made.limits = LIMITS
    try:
        made.start_controller()
        made.start_broker()
        yield made
    finally:
        made.stop()
    for log in folder.glob("*.log"):
        assert "Traceback" not in log.read_text()


@pytest.fixture
def broker(site: Site) -> Daemon:
    return running_daemon(site, "broker")


def running_daemon(site: Site, name: str) -> Daemon:
    """The site's running daemon of a name."""
    return [daemon for daemon in site.started if daemon.log.stem == name][-1]


def call(sensor: Paho, name: str, payload: bytes) -> MQTTMessage:
    """Call a kernel once and wait for its answer."""
    topic = f"results/sensor/{unique(name)}"
    assert sensor.subscribe(topic).code == 0
    sensor.send(f"kernel/{name}", payload, properties=request_properties(topic, b"call"))
    answer = sensor.receive()
    assert correlation_of(answer) == b"call"
    return answer


def works(sensor: Paho, samples: Floats) -> bool:
    """Whether `zscore` answers rightly; an error is an answer too, but no right one."""
    answer = call(sensor, "zscore", samples.tobytes())
    if user_properties_of(answer).get("status") == "error":
        return False
    assert_zscores(answer.payload, samples)
    return True


# -- kernels


@pytest.mark.parametrize("name", BODIES)
def test_failing_kernel_answers_with_errors_while_others_work(site: Site, name: str) -> None:
    samples = windows(1)[0]
    with paho(site.ready(), "sensor") as sensor, paho(site.ready(), "sensor") as other:
        for _ in range(2):
            topic = f"results/sensor/{unique(name)}"
            sensor.subscribe(topic)
            sensor.send(f"kernel/{name}", bytes(16), properties=request_properties(topic, b""))
            while sensor.messages.empty():
                began = time.monotonic()
                assert works(other, samples)
                assert time.monotonic() - began < 2
            told = user_properties_of(sensor.receive())
            assert told["status"] == "error"
            assert told["error"]


def test_killed_worker_is_replaced_and_every_caller_is_answered(site: Site, broker: Daemon) -> None:
    samples = windows(1)[0]
    with paho(site.ready(), "sensor") as sensor:
        assert works(sensor, samples)
        before = workers_of(broker.process.pid)
        assert before
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        eventually(lambda: works(sensor, samples), deadline_s=10)
        assert not set(before) & set(workers_of(broker.process.pid))


def test_worker_killed_under_load_loses_no_answer(site: Site, broker: Daemon) -> None:
    samples = windows(400, seed=9)
    with paho(site.ready(), "sensor") as sensor, ThreadPoolExecutor(1) as pool:
        answers = pool.submit(call_zscore, sensor, samples)
        for worker in workers_of(broker.process.pid):
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        for answer, row in zip(answers.result(timeout=30), samples, strict=True):
            if user_properties_of(answer).get("status") != "error":
                assert_zscores(answer.payload, row)
        eventually(lambda: works(sensor, samples[0]), deadline_s=10)


def test_broker_without_a_compiler_starts_and_says_what_to_install(
    site: Site, tmp_path: Path
) -> None:
    nothing = tmp_path / "no-programs"
    nothing.mkdir()
    issued = authority_of(site.folder / "pki", tmp_path).broker("second")
    kept = dict(site.addresses)
    env = {name: value for name, value in os.environ.items() if name != "CXX"}
    try:
        second = site.start_broker(
            "second",
            env=env | {"PATH": str(nothing)},
            broker_id="second",
            certificate=str(issued.cert),
            key=str(issued.key),
            kernel_cache="no-kernels",
            audit_file="second.jsonl",
        )
        with paho(site.ready(), "sensor") as sensor:
            told = user_properties_of(call(sensor, "zscore", windows(1)[0].tobytes()))
            assert told["status"] == "error"
            assert sensor.publish(f"telemetry/{unique('works')}", b"1", qos=1).code < 0x80
        assert second.stop() == 0
        assert "g++" in second.log.read_text()
    finally:
        site.addresses = kept


def test_workers_end_with_a_killed_broker(site: Site, broker: Daemon) -> None:
    workers = workers_of(broker.process.pid)
    assert workers
    broker.kill()
    eventually(lambda: not any(map(is_alive, workers)), deadline_s=5)
    site.start_broker()
    with paho(site.ready(), "sensor") as sensor:
        eventually(lambda: works(sensor, windows(1)[0]), deadline_s=10)


# -- deadlines


def test_client_that_never_speaks_is_ended(site: Site) -> None:
    files = site.ready().clients["sensor"]
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.cert, files.key)
    host, port = endpoint(site.addresses["mqtts"])
    began = time.monotonic()
    with (
        socket.create_connection((host, port), timeout=ANSWER_S) as mute,
        socket.create_connection((host, port), timeout=ANSWER_S) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
        paho(site.ready(), "sensor") as other,
    ):
        assert other.publish(f"telemetry/{unique('works')}", b"1", qos=1).code < 0x80
        assert secured.recv(1) == b""  # no CONNECT
        with suppress(ConnectionError):
            assert mute.recv(1) == b""  # no ClientHello
        assert time.monotonic() - began < 8
        assert other.ended.empty()


# -- the controller


def test_killed_controller_is_missed_in_time_and_welcomed_back(site: Site) -> None:
    known, later = f"telemetry/{unique('known')}", f"telemetry/{unique('later')}"
    files = site.ready().clients["admin"]
    target = (
        *("--api", site.ready().controller.api),
        *("--ca", files.ca, "--cert", files.cert, "--key", files.key),
    )
    rule = ("--principal", "viewer", "--operations", "write", "--resource", "topic.telemetry.kept")
    added = stockade("acl", "add", *target, "--id", "kept", *rule)
    assert added.returncode == 0, added.stderr
    with paho(site.ready(), "viewer") as viewer, paho(site.ready(), "sensor") as sensor:
        viewer.subscribe("telemetry/#", qos=1)
        assert sensor.publish(known, b"0", qos=1).code == 0
        assert viewer.receive().payload == b"0"

        running_daemon(site, "controller").kill()
        killed = time.monotonic()
        assert sensor.publish(known, b"1", qos=1).code == 0  # decided before, known here
        assert viewer.receive().payload == b"1"
        assert sensor.publish(later, b"?", qos=1).code == NOT_AUTHORIZED  # nobody to ask

        eventually(lambda: sensor.publish(known, b"-", qos=1).code == NOT_AUTHORIZED)
        assert time.monotonic() - killed < site.stale_after_s + 3
        while not viewer.messages.empty():
            viewer.receive()
        with pytest.raises(AssertionError):  # the broker is unavailable, it says
            paho(site.ready(), "viewer").__enter__()

        site.start_controller()
        eventually(lambda: sensor.publish(later, b"2", qos=1).code == 0)
        assert viewer.receive().payload == b"2"
        assert viewer.publish("telemetry/kept", b"3", qos=1).code == 0
        assert viewer.ended.empty()
        assert sensor.ended.empty()
    listed = stockade("acl", "list", *target, "--json")
    assert '"kept"' in listed.stdout


def test_broker_without_a_controller_is_not_ready_and_denies(site: Site, tmp_path: Path) -> None:
    issued = authority_of(site.folder / "pki", tmp_path).broker("lonely")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    config = site.write_broker(
        "lonely",
        broker_id="lonely",
        certificate=str(issued.cert),
        key=str(issued.key),
        listen_mqtts=f"127.0.0.1:{port}",
        controller_rpc="127.0.0.1:1",
        audit_file="lonely.jsonl",
        kernel_bundles=(),
    )
    lonely = start_daemon("broker", config)
    try:
        eventually(lambda: "broker is listening" in lonely.log.read_text())
        with pytest.raises(AssertionError) as caught:
            paho(site.ready(), "sensor", address=f"127.0.0.1:{port}").__enter__()
        assert "code=136" in str(caught.value)  # 0x88, server unavailable
        assert not lonely.ready_file.exists()
    finally:
        assert lonely.stop() == 0


# -- starting


def refused_start(command: str, config: Path) -> str:
    """The one line that a daemon which cannot start leaves behind."""
    done = stockade(command, "--config", str(config))
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert "internal error" not in lines[0]
    return lines[0]


def test_port_in_use_is_one_clear_line(site: Site) -> None:
    taken = site.addresses["mqtts"]
    told = refused_start("broker", site.write_broker("taken", listen_wss=taken))
    assert taken in told
    assert "port" in told


def test_port_in_use_is_one_clear_line_of_the_controller(site: Site) -> None:
    told = refused_start("controller", site.write_controller("taken-controller"))
    assert site.addresses["rpc"] in told
    assert "port" in told


def test_unknown_key_names_the_nearest(site: Site) -> None:
    told = refused_start("broker", site.write_broker("typo", listen_mqts="127.0.0.1:0"))
    assert "listen_mqts" in told
    assert "`listen_mqtts`" in told
    check = stockade("config", "check", str(site.folder / "typo.toml"))
    assert check.returncode != 0
    assert "`listen_mqtts`" in check.stdout + check.stderr
    limit = site.write_broker("typo-limit")
    limit.write_text(limit.read_text() + "max_paket_bytes = 2048\n")
    assert "max_packet_bytes" in refused_start("broker", limit)


def test_broken_file_says_where(site: Site) -> None:
    config = site.folder / "broken.toml"
    config.write_text('broker_id = "broker"\nlisten_mqtts = \n')
    told = refused_start("broker", config)
    assert "broken.toml" in told
    assert "line 2" in told
    assert "missing.toml" in refused_start("broker", site.folder / "missing.toml")


def test_missing_certificate_is_named(site: Site) -> None:
    told = refused_start("broker", site.write_broker("no-cert", certificate="nowhere.pem"))
    assert "nowhere.pem" in told


def test_key_that_others_can_read_is_refused(site: Site) -> None:
    exposed = site.folder / "exposed.key"
    shutil.copy(site.pki.broker.key, exposed)
    exposed.chmod(0o644)
    told = refused_start("broker", site.write_broker("exposed", key=str(exposed)))
    assert "exposed.key" in told
    assert "chmod 600" in told


def test_missing_bundle_is_named(site: Site) -> None:
    told = refused_start("broker", site.write_broker("bundle", kernel_bundles=("no-bundle",)))
    assert "no-bundle" in told


# -- the end


def test_sigterm_ends_a_busy_broker_in_order(site: Site, broker: Daemon) -> None:
    below = descendants_of(broker.process.pid)
    samples = windows(100)
    with paho(site.ready(), "sensor") as sensor:
        topic = f"results/sensor/{unique('busy')}"
        sensor.subscribe(topic)
        for row in samples:
            properties = request_properties(topic, b"")
            sensor.send("kernel/zscore", row.tobytes(), properties=properties)
        sensor.receive()
        began = time.monotonic()
        assert broker.stop() == 0
        assert time.monotonic() - began < 8
        assert sensor.ended.get(timeout=ANSWER_S) == SERVER_SHUTTING_DOWN
    assert not any(map(is_alive, below))
    assert not broker.ready_file.exists()
    site.start_broker()
