"""What can go wrong for a client, named by whose doing it is."""

from __future__ import annotations

import re

from mqtt.errors import ReasonCode

_DECISION_ID = re.compile(r"\bd-[0-9a-f]{12}\b")


class ClientError(Exception):
    """Base of everything this room raises."""


class LocalMisuse(ClientError):  # noqa: N818 - named by whose doing it is (style 11)
    """Our own caller asked for something that cannot work; nothing was sent."""


class ConnectFailed(ClientError):  # noqa: N818 - named by whose doing it is (style 11)
    """No MQTT connection came about: wrong address, nothing listening, TLS failed, no CONNACK in time."""


class CertificateRefused(ConnectFailed):
    """The broker ended TLS with an alert about our certificate."""


class ServerUntrusted(ConnectFailed):
    """The broker's certificate is not one we accept for the server name we asked for."""


class ConnectRefused(ConnectFailed):
    """The broker answered CONNECT with a failure.

    Attributes:
        reason: the code in CONNACK.
        reason_string: the broker's explanation; empty if it gave none.
    """

    def __init__(self, reason: ReasonCode, reason_string: str) -> None:
        super().__init__(f"the broker refused the connection: {in_words(reason, reason_string)}")
        self.reason = reason
        self.reason_string = reason_string


class ConnectionLost(ClientError):  # noqa: N818 - named by whose doing it is (style 11)
    """The connection ended, or was ended by us, before this operation was through.

    Attributes:
        reason: the code of the broker's DISCONNECT; None if there was none.
    """

    def __init__(self, message: str, *, reason: ReasonCode | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class PublishRefused(ClientError):  # noqa: N818 - named by whose doing it is (style 11)
    """The broker did not take a QoS 1 message.

    Attributes:
        topic: where it should have gone.
        reason: the code in PUBACK.
        reason_string: the broker's explanation; empty if it gave none.
        decision_id: the authorization decision named in the explanation, as the audit log has it; or None.
    """

    def __init__(self, topic: str, reason: ReasonCode, reason_string: str) -> None:
        super().__init__(f"publish to `{topic}` refused: {in_words(reason, reason_string)}")
        self.topic = topic
        self.reason = reason
        self.reason_string = reason_string
        found = _DECISION_ID.search(reason_string)
        self.decision_id = None if found is None else found.group()


class SubscribeRefused(ClientError):  # noqa: N818 - named by whose doing it is (style 11)
    """The broker did not grant a subscription that we cannot do without (the one for answers).

    Attributes:
        topic_filter: what was asked for.
        reason: the code in SUBACK.
        reason_string: the broker's explanation; empty if it gave none.
    """

    def __init__(self, topic_filter: str, reason: ReasonCode, reason_string: str) -> None:
        super().__init__(
            f"subscription to `{topic_filter}` refused: {in_words(reason, reason_string)}"
        )
        self.topic_filter = topic_filter
        self.reason = reason
        self.reason_string = reason_string


class NoAnswer(ClientError):  # noqa: N818 - named by whose doing it is (style 11)
    """The broker, or whoever serves the request, did not answer in time."""


class KernelFailed(ClientError):  # noqa: N818 - named by whose doing it is (style 11)
    """The kernel's side answered with an error, or with something that is not a result.

    Attributes:
        kernel: its name.
        error: what the answer says.
    """

    def __init__(self, kernel: str, error: str) -> None:
        super().__init__(f"kernel `{kernel}` failed: {error}")
        self.kernel = kernel
        self.error = error


def in_words(reason: ReasonCode, reason_string: str) -> str:
    """Return e.g. `not authorized (0x87): no rule allows it`."""
    words = f"{reason.name.lower().replace('_', ' ')} (0x{reason:02x})"
    return f"{words}: {reason_string}" if reason_string else words
