"""Connections that say nothing: how fast they are made, and what the broker holds for each."""

from __future__ import annotations

import resource
import ssl
from time import perf_counter_ns

from benchmarks.mqtt_session import MqttSession
from benchmarks.nats_session import NatsSession
from benchmarks.roles import Idlers, Opened
from benchmarks.stage import await_start, say_ready, say_report
from benchmarks.wire import FeatureRefused, client_context
from mqtt.packets import Version

FILTERS_A_PACKET = 100
SPARE_FILES = 256
"""File descriptors for all else."""


def files_allowed() -> int:
    """Connections a process may hold on this machine, some left for other files."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES


def hold_idle(role: Idlers) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = client_context(role.login)
    held: list[MqttSession | NatsSession] = []
    refused = ""
    say_ready()
    await_start()
    began = perf_counter_ns()
    try:
        for number in range(role.count):
            held.append(_open(role, number, context))  # noqa: PERF401 - what is held counts when one fails
    except (FeatureRefused, OSError) as error:
        refused = f"no more than {len(held)} connections of one client: {error}"
    seconds = (perf_counter_ns() - began) / 1e9
    say_report(Opened(connections=len(held), seconds=seconds, refused=refused))
    await_start()


def _open(role: Idlers, number: int, context: ssl.SSLContext) -> MqttSession | NatsSession:
    """One connection, with its subscriptions if it shall have any."""
    session: MqttSession | NatsSession
    if role.login.protocol == "nats":
        session = NatsSession(role.login, context=context)
        session.allow_sids(role.filters)
    else:
        session = MqttSession(role.login, f"bench-i{number}", Version.V5, context=context)
    for first in range(0, role.filters, FILTERS_A_PACKET):
        some = range(first, min(first + FILTERS_A_PACKET, role.filters))
        session.subscribe([f"bench/other/{number}/device-{each}/+" for each in some])
    return session
