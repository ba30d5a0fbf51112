"""Ready-made command lines for a running development system: they work when pasted."""

from __future__ import annotations

from shlex import join
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cli.ready import ClientFiles, Ready

WINDOW = (
    "python3 -c 'import math, struct, sys;"
    ' sys.stdout.buffer.write(struct.pack("<64f", *map(math.sin, range(1, 65))))\''
)
"""One record for the kernel `zscore`: 64 float32 samples, none of whose bytes is zero.

A zero byte cannot be an argument, and mosquitto_rr 2.0.11 (Debian 12) takes its message from an argument only: what it
is given by `-f` or `-s` it sends as an empty message.
"""


def mosquitto(tool: str, ready: Ready, client: str, *arguments: str) -> str:
    """A line for one of mosquitto's clients.

    Args:
        tool: `mosquitto_pub`, `mosquitto_sub` or `mosquitto_rr`.
        ready: the running system.
        client: whose certificate is shown.
        arguments: what follows.
    """
    host, _, port = ready.broker.mqtts.rpartition(":")
    files = ready.clients[client]
    connection = (
        "-h",
        host,
        "-p",
        port,
        "-V",
        "5",
        "--cafile",
        files.ca,
        "--cert",
        files.cert,
        "--key",
        files.key,
    )
    return join((tool, *connection, *arguments))


def curl(files: ClientFiles, url: str) -> str:
    """A line for curl.

    Args:
        files: whose certificate is shown.
        url: what to ask for.
    """
    return join(
        ("curl", "--silent", "--cacert", files.ca, "--cert", files.cert, "--key", files.key, url)
    )


def client_lines(ready: Ready, *, folder: Path, program: str = "stockade") -> str:
    """What `stockade up` prints: where everything listens and lines to paste.

    Args:
        ready: the running system.
        folder: its folder.
        program: how the reader's shell finds this command line.
    """
    admin = ready.clients["admin"]
    sections = (
        (
            "the viewer listens (leave it running in a terminal of its own)",
            mosquitto("mosquitto_sub", ready, "viewer", "-v", "-t", "telemetry/#"),
        ),
        (
            "the sensor publishes",
            mosquitto(
                "mosquitto_pub", ready, "sensor", "-q", "1", "-t", "telemetry/cpu", "-m", "0.42"
            ),
        ),
        (
            "the sensor calls a kernel: 64 float32 samples in, their z-scores out",
            mosquitto(
                "mosquitto_rr", ready, "sensor", "-t", "kernel/zscore", "-e", "results/sensor/shell"
            )
            + f' -N -m "$({WINDOW})" | od -A n -t f4',
        ),
        (
            "the viewer may not publish: refused with a reason code",
            mosquitto(
                "mosquitto_pub", ready, "viewer", "-q", "1", "-t", "telemetry/cpu", "-m", "1"
            ),
        ),
        ("the broker's metrics", curl(admin, f"{ready.broker.metrics}/metrics")),
        ("the rules, from the controller", curl(admin, f"{ready.controller.api}/v1/acl/rules")),
        ("the rules, as a table", join((program, "acl", "list", "--dir", str(folder)))),
    )
    head = (
        f"mqtt    {ready.broker.mqtts} (TLS 1.3, client certificate required)\n"
        f"ws      {ready.broker.wss}\n"
        f"metrics {ready.broker.metrics}/metrics\n"
        f"api     {ready.controller.api}\n"
        f"files   {folder}\n"
    )
    body = "\n".join(f"# {title}\n{line}\n" for title, line in sections)
    return f"{head}\n{body}\nready; Ctrl-C or SIGTERM ends it"
