"""What can go wrong with a connection, named by whose fault it is.

*Rules of this file.* `TransportBroken` and `TransportClosed` are also Trio's own broken and closed errors, so code
written for any Trio stream (trio-websocket is one) handles ours. A message is lower case, says what happened in the
words of the field and, where that is known, what to do next.
"""

from __future__ import annotations

from typing import cast

import trio


class TransportError(Exception):
    """Base of everything this room raises."""


class TransportBroken(TransportError, trio.BrokenResourceError):  # noqa: N818 - says the state, as the house names errors
    """The peer or the network ended the connection in a way that cannot go on."""


class TransportClosed(TransportError, trio.ClosedResourceError):  # noqa: N818 - says the state, as the house names errors
    """Our own side closed the stream before this use of it."""


class TransportBusy(TransportError, trio.BusyResourceError):  # noqa: N818 - says the state, as the house names errors
    """Our own caller sent although bytes of an earlier send still wait for `flush`."""


class RemoteAlert(TransportBroken):
    """The peer ended TLS with an alert; `alert` is its name in RFC 8446 words, e.g. `certificate expired`."""

    def __init__(self, message: str, *, alert: str) -> None:
        super().__init__(message)
        self.alert = alert


class HandshakeFailed(TransportBroken):
    """No TLS session came about.

    Attributes:
        result: one short word, fit for a metric label (`expired`, `no_certificate`, `timeout`, ...).
        reason: the whole story in one line, for the log.
    """

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


class ServerUnreachable(TransportError):  # noqa: N818 - says the state, as the house names errors
    """No TCP connection to the server: wrong address, nothing listening, or no answer in time."""


class ServerUntrusted(HandshakeFailed):
    """The server's certificate is not one that our context accepts for this server name."""


class AddressInUse(TransportError):  # noqa: N818 - says the state, as the house names errors
    """Another process listens on the address we were told to listen on."""


class AddressUnusable(TransportError):  # noqa: N818 - says the state, as the house names errors
    """This host cannot listen on the address: no such name or interface, or no permission."""


class FrameRefused(TransportError):  # noqa: N818 - says the state, as the house names errors
    """A frame is longer than agreed, or its body is not what the two sides agreed on."""


def first_leaf(error: BaseException) -> BaseException:
    """Return `error`, or the first error inside when it is a group (of groups)."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
