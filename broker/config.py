"""The broker's configuration: one TOML file, every key typed, bounded and documented here.

*Rules of this file*: a key is a field of a struct below; its docstring line is what
`docs/configuration.md` repeats. Unknown keys are errors (`certs.settings`). Nothing here has a
default that weakens a protection, and there is no default for a secret or a certificate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from acl.model import PrincipalKind
from certs.errors import CertsError
from certs.principal import PrincipalMapper, PrincipalRule, default_rules
from certs.settings import SettingsError, load_settings
from mqtt.topics import topic_complaint

MIN_PACKET_BYTES = 1024  # below this not even a CONNECT with a SPIFFE-length client id fits
# Less than the 268,435,460 of MQTT: a packet still has a form with the properties and identifiers that a delivery adds.
MAX_PACKET_BYTES = 256_000_000
# The controller proves itself once a second; below three proofs a healthy broker would lose contact again and again.
MIN_STALE_AFTER_S = 3
MAX_DEAD_LETTER_TOPIC_BYTES = 256  # it stands before topics that may be as long as MQTT allows


class BrokerLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds that one client or all clients together cannot pass.

    Attributes:
        max_packet_bytes: largest MQTT packet accepted from a client; told to it in CONNACK.
        max_connections: clients connected at the same time; one more is refused with 0x89.
        max_connections_per_principal: of them with one principal's certificate; one more is closed.
        max_queued_bytes: bytes waiting for one slow client before its publishers are paused.
        slow_consumer_s: seconds a publisher waits for a slow subscriber before the broker drops
            QoS 0 messages for that subscriber instead.
        stuck_consumer_s: seconds without any progress after which a subscriber is disconnected.
        max_queued_messages: QoS 1 and 2 messages waiting for one client, connected or not; more are dropped and counted.
        max_queued_session_bytes: bytes of the packets that may wait there.
        max_stored_messages: messages of one kept session that wait in the store only, when its queue is full; 0: none.
        max_stored_session_bytes: bytes of their packets.
        max_stored_bytes_per_principal: of those of all sessions of one principal.
        max_message_age_s: seconds a QoS 1 or 2 message may wait for a client before it is dropped as expired, whatever
            its publisher allows; 0: no bound but the publisher's.
        max_waiting_bytes: bytes waiting for all clients together; beyond it every queue counts as full.
        max_waiting_bytes_per_principal: of them for the clients of one principal.
        receive_maximum: QoS 1 and 2 messages a client may have unacknowledged; told to it in CONNACK.
        topic_alias_maximum: topic aliases a client may use; told to it in CONNACK; 0: none.
        max_sessions: sessions, connected or not.
        max_sessions_per_principal: of them of one principal.
        max_session_expiry_s: longest time a session outlives its connection; a client asking for more gets this.
        max_retained_messages: topics with a retained message; more are refused with 0x97.
        max_retained_messages_per_principal: of them published by one principal.
        max_retained_bytes: bytes of all retained messages.
        max_retained_bytes_per_principal: of those published by one principal.
        max_delayed_messages: messages waiting to be published, wills that are due among them; more are refused with 0x97.
        max_delayed_messages_per_principal: of them published by one principal.
        max_delayed_bytes: bytes of all of them.
        max_delayed_bytes_per_principal: of those published by one principal.
        max_subscriptions: topic filters one client may hold.
        max_subscriptions_bytes: memory of all topic filters, some 400 bytes a level; more are refused with 0x97.
        max_subscriptions_bytes_per_principal: of those of one principal.
        max_keep_alive_s: longest keep alive granted; a client asking for more (or none) gets this.
        connect_deadline_s: seconds from the TLS handshake to a complete CONNECT.
        handshake_deadline_s: seconds for a whole TLS handshake.
        max_handshakes: unfinished handshakes in all.
        max_handshakes_per_address: unfinished handshakes from one address.
    """

    max_packet_bytes: int = 1_048_576
    max_connections: int = 10_000
    max_connections_per_principal: int = 1_000
    max_queued_bytes: int = 1_048_576
    slow_consumer_s: float = 2.0
    stuck_consumer_s: float = 30.0
    max_queued_messages: int = 10_000
    max_queued_session_bytes: int = 16_777_216
    max_stored_messages: int = 100_000
    max_stored_session_bytes: int = 268_435_456
    max_stored_bytes_per_principal: int = 1_073_741_824
    max_message_age_s: float = 0.0
    max_waiting_bytes: int = 536_870_912
    max_waiting_bytes_per_principal: int = 134_217_728
    receive_maximum: int = 1_024
    topic_alias_maximum: int = 16
    max_sessions: int = 100_000
    max_sessions_per_principal: int = 10_000
    max_session_expiry_s: int = 604_800
    max_retained_messages: int = 100_000
    max_retained_messages_per_principal: int = 25_000
    max_retained_bytes: int = 268_435_456
    max_retained_bytes_per_principal: int = 67_108_864
    max_delayed_messages: int = 100_000
    max_delayed_messages_per_principal: int = 25_000
    max_delayed_bytes: int = 67_108_864
    max_delayed_bytes_per_principal: int = 16_777_216
    max_subscriptions: int = 1_000
    max_subscriptions_bytes: int = 1_073_741_824
    max_subscriptions_bytes_per_principal: int = 268_435_456
    max_keep_alive_s: int = 1_200
    connect_deadline_s: float = 10.0
    handshake_deadline_s: float = 10.0
    max_handshakes: int = 256
    max_handshakes_per_address: int = 64


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[store]` table: where sessions and messages outlive the process. Without it none does.

    Attributes:
        path: the store's file; its folder must exist.
        encrypt: seal what is stored with AES-256-GCM.
        key: file with the key, mode 0600; made at the first start, when there is no store yet.
        sync: `always`: an acknowledged message is on disk; `interval`: within a second; `never`: when the system likes.
        max_bytes: size of the store; when it is full, messages that would have to be stored are refused with 0x97.
    """

    path: Path
    encrypt: bool = True
    key: Path | None = None
    sync: Literal["always", "interval", "never"] = "always"
    max_bytes: int = 8_589_934_592


class MqttConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[mqtt]` table: choices MQTT leaves to a server.

    Attributes:
        shared_strategy: how a member of a shared subscription is chosen: `round_robin`, `least_in_flight`, `sticky`
            (one member for each publisher) or `hash` (one for each topic).
        response_information: told to clients that ask where their answers may go; `{principal}` and `{client}` are
            replaced; empty: nothing is told.
        server_reference: another broker, told to clients when this one shuts down (0x9C); empty: none (0x8B).
        dead_letter_topic: messages above QoS 0 that nobody gets are published below it, with the reason; empty: they
            are only counted.
        sys_interval_s: seconds between two publications of the `$SYS` topics, at least 1; 0: none.
        accept_mqtt31: also serve MQTT 3.1 (`MQIsdp`), as if it were 3.1.1.
        busy_poll_us: microseconds to look for more before the event loop sleeps, where that has paid of late, at most
            1000; 0: never.
    """

    shared_strategy: Literal["round_robin", "least_in_flight", "sticky", "hash"] = "round_robin"
    response_information: str = "results/{principal}"
    server_reference: str = ""
    dead_letter_topic: str = ""
    sys_interval_s: float = 10.0
    accept_mqtt31: bool = False
    busy_poll_us: float = 100.0


class PrincipalRuleConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}
):
    """One `[[principal_rules]]` table: how a certificate becomes a principal.

    Attributes:
        name: shown in refusals and by `explain`.
        from_: the certificate field: `san.uri`, `san.dns`, `san.email` or `subject.cn`.
        match: literal text with `{id}`, matched against the whole field.
        principal: the principal's name, a template with `{id}`.
        kind: `service` or `user`.
    """

    name: str
    from_: Literal["san.uri", "san.dns", "san.email", "subject.cn"]
    match: str
    principal: str = "{id}"
    kind: Literal["service", "user"] = "service"


class BrokerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file.

    Attributes:
        broker_id: this broker's name; the certificate's SPIFFE URI must be `broker/<broker_id>`.
        listen_mqtts: `host:port` for MQTT over TLS.
        listen_wss: `host:port` for MQTT over secure WebSocket, path `/mqtt`.
        listen_metrics: `host:port` for Prometheus, `/healthz` and `/readyz`, over mutual TLS.
        certificate: PEM with this broker's certificate and its issuing CA.
        key: PEM of the private key, mode 0600.
        anchor: PEM of the issuing CA whose clients are accepted.
        ca: PEM the controller's certificate is verified with.
        trust_domain: the SPIFFE trust domain of every peer.
        controller_rpc: `host:port` of the controller.
        controller_server_name: name verified in the controller's certificate.
        audit_file: JSON lines, rotated; absent: only the process log.
        ready_file: written once clients can be served, removed at the end; absent: none.
        log_json: log as JSON lines instead of text.
        log_level: `debug`, `info`, `warning` or `error`.
        stale_after_s: seconds without contact to the controller after which every request is denied; at least 3.
        kernel_bundles: folders of kernel bundles to load.
        kernel_backend: `auto`, `cpu` or `cuda`.
        kernel_cache: folder for compiled kernels; absent: the user's cache folder.
        kernel_wait_s: seconds a call waits for room in a batch before it is answered `busy`.
        store: see `StoreConfig`; absent: sessions end with their connection, retained messages with the process.
        mqtt: see `MqttConfig`.
        limits: see `BrokerLimits`.
        principal_rules: ordered rules; default: SPIFFE clients and administrators.
    """

    broker_id: str
    listen_mqtts: str
    listen_wss: str
    listen_metrics: str
    certificate: Path
    key: Path
    anchor: Path
    ca: Path
    trust_domain: str
    controller_rpc: str
    controller_server_name: str = "localhost"
    audit_file: Path | None = None
    ready_file: Path | None = None
    log_json: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    stale_after_s: float = 30.0
    kernel_bundles: tuple[Path, ...] = ()
    kernel_backend: Literal["auto", "cpu", "cuda"] = "auto"
    kernel_cache: Path | None = None
    kernel_wait_s: float = 2.0
    store: StoreConfig | None = None
    mqtt: MqttConfig = msgspec.field(default_factory=MqttConfig)
    limits: BrokerLimits = msgspec.field(default_factory=BrokerLimits)
    principal_rules: tuple[PrincipalRuleConfig, ...] = ()


def load_config(path: Path) -> BrokerConfig:
    """Read and check a broker's configuration.

    Args:
        path: the TOML file.

    Returns:
        The configuration; every value is within its bound.

    Raises:
        SettingsError: the file cannot be read, is not TOML, or has a key or value that is wrong.
    """
    config = load_settings(path, BrokerConfig)
    verify_limits(config)
    principal_mapper(config)
    return config


def verify_limits(config: BrokerConfig) -> None:
    """Refuse values that would switch a bound off.

    Raises:
        SettingsError: names the key, its value and the range.
    """
    limits = config.limits
    _within("limits.max_packet_bytes", limits.max_packet_bytes, MIN_PACKET_BYTES, MAX_PACKET_BYTES)
    _within("limits.max_connections", limits.max_connections, 1, 1_000_000)
    _within(
        "limits.max_connections_per_principal", limits.max_connections_per_principal, 1, 1_000_000
    )
    _within("limits.max_queued_bytes", limits.max_queued_bytes, 4_096, 1 << 30)
    _within("limits.max_queued_messages", limits.max_queued_messages, 1, 1_000_000)
    _within("limits.max_queued_session_bytes", limits.max_queued_session_bytes, 4_096, 1 << 40)
    _within("limits.max_message_age_s", limits.max_message_age_s, 0, 0xFFFF_FFFF)
    _within(
        "limits.max_waiting_bytes_per_principal",
        limits.max_waiting_bytes_per_principal,
        1,
        1 << 40,
    )
    _within("limits.max_stored_messages", limits.max_stored_messages, 0, 10_000_000)
    _within("limits.max_stored_session_bytes", limits.max_stored_session_bytes, 0, 1 << 44)
    _within(
        "limits.max_stored_bytes_per_principal", limits.max_stored_bytes_per_principal, 0, 1 << 44
    )
    _within("limits.max_waiting_bytes", limits.max_waiting_bytes, 1 << 20, 1 << 40)
    _within("limits.topic_alias_maximum", limits.topic_alias_maximum, 0, 256)
    _within("limits.max_sessions", limits.max_sessions, 1, 10_000_000)
    _within("limits.max_sessions_per_principal", limits.max_sessions_per_principal, 1, 10_000_000)
    _within("limits.max_session_expiry_s", limits.max_session_expiry_s, 0, 0xFFFF_FFFE)
    for key in ("max_retained_messages", "max_delayed_messages"):
        for name in (key, f"{key}_per_principal"):
            _within(f"limits.{name}", getattr(limits, name), 0, 10_000_000)
    for key in ("max_retained_bytes", "max_delayed_bytes", "max_subscriptions_bytes"):
        for name in (key, f"{key}_per_principal"):
            _within(f"limits.{name}", getattr(limits, name), 0, 1 << 40)
    if config.mqtt.sys_interval_s:
        _within("mqtt.sys_interval_s", config.mqtt.sys_interval_s, 1, 3_600)
    _within("mqtt.busy_poll_us", config.mqtt.busy_poll_us, 0, 1_000)
    _verify_dead_letter_topic(config.mqtt.dead_letter_topic)
    if config.store is not None:
        _verify_store(config.store)
    _within("limits.receive_maximum", limits.receive_maximum, 1, 65_535)
    _within("limits.max_subscriptions", limits.max_subscriptions, 1, 1_000_000)
    _within("limits.max_keep_alive_s", limits.max_keep_alive_s, 1, 65_535)
    _within("limits.slow_consumer_s", limits.slow_consumer_s, 0.01, 60)
    _within("limits.stuck_consumer_s", limits.stuck_consumer_s, 0.1, 3_600)
    _within("limits.connect_deadline_s", limits.connect_deadline_s, 0.1, 120)
    _within("limits.handshake_deadline_s", limits.handshake_deadline_s, 0.1, 120)
    _within("limits.max_handshakes", limits.max_handshakes, 1, 65_536)
    _within("limits.max_handshakes_per_address", limits.max_handshakes_per_address, 1, 65_536)
    _within("stale_after_s", config.stale_after_s, MIN_STALE_AFTER_S, 3_600)
    _within("kernel_wait_s", config.kernel_wait_s, 0.01, 60)


def _verify_dead_letter_topic(topic: str) -> None:
    if not topic:
        return
    complaint = topic_complaint(topic)
    if topic.startswith(("$", "kernel/")):
        complaint = "it is not for messages of clients"
    elif len(topic.encode()) > MAX_DEAD_LETTER_TOPIC_BYTES:
        complaint = f"it is longer than {MAX_DEAD_LETTER_TOPIC_BYTES} bytes"
    if complaint is not None:
        message = f"`mqtt.dead_letter_topic` cannot be `{topic}`: {complaint}"
        raise SettingsError(message)


def _verify_store(store: StoreConfig) -> None:
    _within("store.max_bytes", store.max_bytes, 1 << 20, 1 << 46)
    if store.encrypt and store.key is None:
        message = "`store.key` is missing: name a file for the key, or set `store.encrypt = false`"
        raise SettingsError(message)


def _within(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        message = f"`{key}` is {value}: choose a value from {low} to {high}"
        raise SettingsError(message)


def principal_mapper(config: BrokerConfig) -> PrincipalMapper:
    """The principal mapping this configuration asks for.

    Raises:
        SettingsError: a rule is wrong, or two rules could give different peers one name.
    """
    try:
        if not config.principal_rules:
            return PrincipalMapper(default_rules(config.trust_domain))
        return PrincipalMapper(tuple(_rule(rule) for rule in config.principal_rules))
    except CertsError as error:
        message = f"`principal_rules`: {error}"
        raise SettingsError(message) from error


def _rule(rule: PrincipalRuleConfig) -> PrincipalRule:
    return PrincipalRule(
        name=rule.name,
        source=rule.from_,
        match=rule.match,
        principal=rule.principal,
        kind=PrincipalKind(rule.kind),
    )
