"""What can go wrong in this room, named by whose fault it is.

Rules of this file: an error of the operator or of the disk says what to do next. `NotCommitted` and
`OutcomeUnknown` are kept apart everywhere: only the first may be repeated with a new request id.
"""

from __future__ import annotations


class ControllerError(Exception):
    """Base of every error the controller raises on purpose."""


class DataDirectoryUnusable(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """The data directory has the wrong owner, mode or kind, or cannot be created."""


class DataDirectoryInUse(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """Another process holds the lock of the data directory."""


class StorageDamaged(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """Journal or snapshot do not hold what was written to them, or do not belong together."""


class JournalBroken(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """Writing the journal failed. Nothing may be acknowledged any more; the process must end and start again."""


class ConsensusFailed(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """The Raft engine failed in a way that only a restart can repair."""


class NotCommitted(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """The command was surely not applied; it may be sent again."""


class OutcomeUnknown(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """The command may or may not have been applied; repeat it only with the same request id."""


class BootstrapMissing(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """The state is empty and no bootstrap policy is configured, so nobody could ever administrate it."""


class RemoteProtocolError(ControllerError):
    """The peer of an RPC link broke the protocol."""


class OutboxFull(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """The peer does not read what we send."""


class ControllerUnavailable(ControllerError):  # noqa: N818 - named by whose fault it is (style 11)
    """A broker cannot get an answer from the controller now: no contact, too slow, or too many questions."""


class AdminError(ControllerError):
    """The admin API refused or failed a request.

    Attributes:
        status: HTTP status, or 0 when there was no answer.
        title: the short name of the problem.
        detail: what the server said.
    """

    def __init__(self, detail: str, *, status: int = 0, title: str = "") -> None:
        super().__init__(f"{title}: {detail}" if title else detail)
        self.status = status
        self.title = title
        self.detail = detail
