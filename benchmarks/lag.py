"""How late Stockade's event loop was during a load, from two readings of its metrics page."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.machine import BenchmarkError
from certs.contexts import client_context

TIMEOUT_S = 10.0
HISTOGRAM = "stockade_loop_lag_seconds_bucket"


class Paths(msgspec.Struct, frozen=True):
    """PEM files of a client."""

    ca: str
    cert: str
    key: str


Clients = dict[str, Paths]
Buckets = Mapping[float, float]
"""Measurements so far, by the upper bound of their bucket in seconds; each counts all lower ones too."""


class LagPage:
    """The metrics page of a running broker, read as an administrator."""

    def __init__(self, url: str, admin: Paths) -> None:
        self._address = urlsplit(url)
        self._context: ssl.SSLContext = client_context(
            certificate=Path(admin.cert), key=Path(admin.key), ca=Path(admin.ca), alpn=["http/1.1"]
        )

    def read(self) -> Buckets:
        """Return the loop lag's histogram as it is now."""
        connection = http.client.HTTPSConnection(
            self._address.hostname or "",
            self._address.port,
            context=self._context,
            timeout=TIMEOUT_S,
        )
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            page = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise BenchmarkError(f"cannot read the broker's metrics: {error}") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise BenchmarkError(f"cannot read the broker's metrics: {answer.status} {page[:200]}")
        return buckets_of(page)


def buckets_of(page: str) -> Buckets:
    """Pick the loop lag out of a page in Prometheus's text format."""
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == HISTOGRAM
    }


def lag_between(before: Buckets, after: Buckets) -> Buckets:
    """What was measured between two readings."""
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}


def together(lags: Sequence[Buckets]) -> Buckets:
    """Several spans as one."""
    bounds = {bound for each in lags for bound in each}
    return {bound: sum(each.get(bound, 0.0) for each in lags) for bound in bounds}


def lag_percentile(lag: Buckets, share: float) -> float | None:
    """The upper bound, in seconds, below which `share` of the measurements lie; 1 is the worst of them.

    Returns:
        A bound of a bucket, so at least the true percentile; infinity beyond the last one; None
        if there are no measurements.
    """
    total = max(lag.values(), default=0.0)
    if not total:
        return None
    return next(bound for bound in sorted(lag) if lag[bound] >= share * total)
