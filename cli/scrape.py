"""Reads the broker's metrics page as an operator would: HTTPS with the administrator's certificate."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio
from prometheus_client.parser import text_string_to_metric_families

from certs.contexts import client_context
from cli.failure import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cli.ready import Ready

TIMEOUT_S = 10.0
MAX_PAGE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFigures:
    """What the demo shows of the metrics page.

    Attributes:
        decisions: counts by (level, outcome).
        batches: kernel batches run.
        records: records in them.
        kernel_seconds: seconds kernels ran.
    """

    decisions: dict[tuple[str, str], int]
    batches: int
    records: int
    kernel_seconds: float

    def allowed(self, level: str) -> int:
        """Messages and questions allowed at a level."""
        return self.decisions.get((level, "allow"), 0)

    def denied(self, level: str) -> int:
        """Messages and questions denied at a level."""
        return self.decisions.get((level, "deny"), 0)


async def scrape(ready: Ready) -> BrokerFigures:
    """Fetch and read the page of a running system.

    Raises:
        CommandFailed: the page is not to be had.
    """
    page = await trio.to_thread.run_sync(_fetch, ready)
    return figures_of(page)


def figures_of(page: str) -> BrokerFigures:
    """Pick the figures out of a metrics page in Prometheus's text format."""
    samples = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]
    decisions = {
        (labels["level"], labels["outcome"]): int(value)
        for name, labels, value in samples
        if name == "stockade_decisions_total"
    }
    return BrokerFigures(
        decisions=decisions,
        batches=int(_sum(samples, "stockade_kernel_batches_total")),
        records=int(_sum(samples, "stockade_kernel_records_total")),
        kernel_seconds=_sum(samples, "stockade_kernel_seconds_total"),
    )


def _sum(samples: Iterable[tuple[str, dict[str, str], float]], name: str) -> float:
    return sum(value for found, _, value in samples if found == name)


def _fetch(ready: Ready) -> str:
    files = ready.clients["admin"]
    context = client_context(
        certificate=Path(files.cert), key=Path(files.key), ca=Path(files.ca), alpn=["http/1.1"]
    )
    address = urlsplit(ready.broker.metrics)
    connection = http.client.HTTPSConnection(
        address.hostname or "", address.port, context=context, timeout=TIMEOUT_S
    )
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read(MAX_PAGE_BYTES).decode()
    except (OSError, http.client.HTTPException) as error:
        message = f"cannot read the broker's metrics: {error}"
        raise CommandFailed(message) from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        message = f"cannot read the broker's metrics: {answer.status} {body[:200]}"
        raise CommandFailed(message)
    return body
