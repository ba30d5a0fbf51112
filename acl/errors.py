"""What can be wrong with a name, a pattern, a rule or a request, and whose fault it is."""

from __future__ import annotations


class AclError(Exception):
    """Base of the room: the text handed in is not what the grammar allows, and says why."""


class NameInvalid(AclError):  # noqa: N818 - says what is wrong, as in every room
    """A principal or a resource has a name that this system refuses to carry."""


class PatternInvalid(AclError):  # noqa: N818 - says what is wrong, as in every room
    """A pattern does not follow docs/grammar.md; the message says which part and what to write."""


class RuleInvalid(AclError):  # noqa: N818 - says what is wrong, as in every room
    """A rule, or the set it should join, is not well formed."""


class RequestInvalid(AclError):  # noqa: N818 - says what is wrong, as in every room
    """An access request does not ask exactly one thing; a mistake of the caller, not of a peer."""


class ConditionInvalid(AclError):  # noqa: N818 - says what is wrong, as in every room
    """A condition does not follow docs/grammar.md; the message says where and what to write."""
