"""A NATS connection: CONNECT, SUB, and requests to JetStream's API, all before the timed region.

Only what a generator needs of the protocol, see https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence

import msgspec

from benchmarks.blocks import FIRST_SID, nats_subject
from benchmarks.wire import SOCKET_BYTES, FeatureRefused, Login, dial

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"lang":"stockade-bench","version":"1"}\r\n'
PING, PONG = b"PING\r\n", b"PONG\r\n"
MAX_SIDS = 10  # one digit each, so that all messages of a connection are equally long
INBOX = "_INBOX.bench"


class NatsSession:
    """A connected client.

    Attributes:
        pipe: the connection.
    """

    def __init__(self, login: Login, *, context: ssl.SSLContext | None = None) -> None:
        """Connect and wait until the server has taken the certificate for a user."""
        self.pipe = dial(login, context)
        self._sid = FIRST_SID
        self._max_sids = MAX_SIDS
        self._ask(CONNECT)

    def allow_sids(self, count: int) -> None:
        """Allow more subscriptions than have one digit: on a connection that gets no messages."""
        self._max_sids = max(MAX_SIDS, count)

    def subscribe(self, filters: Sequence[str], *, group: str = "") -> None:
        """Subscribe, and wait until the server has done so.

        Args:
            filters: in MQTT's words.
            group: a queue group: one of its members gets a message.
        """
        lines: list[str] = []
        for each in filters:
            if self._sid - FIRST_SID >= self._max_sids:
                raise ValueError(f"more than {self._max_sids} subscriptions")
            words = ["SUB", nats_subject(each), *([group] if group else []), str(self._sid)]
            lines.append(" ".join(words) + "\r\n")
            self._sid += 1
        self._ask("".join(lines).encode())

    def _ask(self, data: bytes) -> None:
        """Send, and wait for the PONG behind it; a server that minds says so before."""
        self.pipe.send(data + PING)
        said = self._read_until(PONG)
        if b"-ERR" in said:
            raise ConnectionError(f"the NATS server said {said.decode(errors='replace').strip()}")

    def _read_until(self, end: bytes) -> bytes:
        buffer = memoryview(bytearray(SOCKET_BYTES))
        said = b""
        while end not in said:
            count = self.pipe.receive_into(buffer)
            if not count:
                raise ConnectionError(f"the NATS server closed the connection: {said!r}")
            said += bytes(buffer[:count])
        return said

    def request(self, subject: str, body: Mapping[str, object]) -> None:
        """Ask JetStream's API for something, on a connection that does nothing else.

        Raises:
            FeatureRefused: it said no.
        """
        payload = msgspec.json.encode(body)
        inbox = f"{INBOX}.api.{self._sid}"
        sub = f"SUB {inbox} api{self._sid}\r\nUNSUB api{self._sid} 1\r\n"
        self._sid += 1
        self.pipe.send(
            f"{sub}PUB {subject} {inbox} {len(payload)}\r\n".encode() + payload + b"\r\n"
        )
        answer = self._read_until(b"}\r\n")
        if b'"error":' in answer:
            raise FeatureRefused(f"JetStream: {answer.decode(errors='replace')[-200:].strip()}")
