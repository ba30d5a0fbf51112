"""How a command fails: one line that says what is wrong and what to do, never a traceback.

An error of one of our rooms is meant for the operator: its message is the line. Anything else that gets this far is a
bug of ours and is called one; `STOCKADE_TRACEBACK=1` shows a developer where it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOMS: Final = frozenset(
    {
        "mqtt",
        "acl",
        "vault",
        "certs",
        "transport",
        "cache",
        "controller",
        "gpu",
        "governance",
        "client",
        "broker",
        "cli",
    }
)

TRACEBACK_VARIABLE: Final = "STOCKADE_TRACEBACK"

MAX_GROUP_DEPTH = 16
"""How deep nested exception groups are searched for the first cause; nurseries nest a handful deep."""


class CommandFailed(Exception):  # noqa: N818 - says what happened, as in every room
    """A command could not do what it was asked; the message says what to do.

    Attributes:
        details: lines to show below the message, e.g. the end of a log.
    """

    def __init__(self, message: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


def first_cause(error: BaseException) -> BaseException:
    """The first real exception inside nested exception groups; `error` itself when it is no group."""
    cause = error
    for _ in range(MAX_GROUP_DEPTH):
        if not isinstance(cause, BaseExceptionGroup):
            break
        members = cast("tuple[BaseException, ...]", cause.exceptions)
        cause = members[0]
    return cause


def is_meant_for_operators(error: BaseException) -> bool:
    """Whether an exception was raised by one of our rooms on purpose (a bug never is)."""
    kind = type(error)
    return kind.__module__.partition(".")[0] in ROOMS and not kind.__name__.endswith(
        "InternalError"
    )


def describe(error: BaseException) -> str:
    """What the operator is told.

    Args:
        error: what the command ended with; exception groups are searched for their first cause.

    Returns:
        `error: ...`, lower case, one line; below it the details, if the error has some.
    """
    cause = first_cause(error)
    details = cause.details if isinstance(cause, CommandFailed) else ()
    return "\n".join([_headline(cause), *(f"  {line}" for line in details)])


def _headline(cause: BaseException) -> str:
    text = " ".join(str(cause).split())
    if is_meant_for_operators(cause):
        return f"error: {text or type(cause).__name__}"
    if isinstance(cause, OSError) and cause.strerror:
        where = f" `{cause.filename}`" if cause.filename else ""
        return f"error: {cause.strerror.lower()}{where}"
    return (
        f"error: internal error ({type(cause).__name__}: {text}); this is a bug:"
        f" run again with {TRACEBACK_VARIABLE}=1 and report what it shows"
    )
