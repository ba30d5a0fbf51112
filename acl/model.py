"""Who asks, what for, and what about: the words every other room speaks.

Rules of this file:
- A value that exists is valid: every check is at construction, none is repeated inside.
- Names are compared as they are, code point by code point; nothing is folded or normalised.
- A topic resource with a segment `+` or `#` is an MQTT *filter*. Topic names cannot hold these
  characters (MQTT 4.7.1), so the two never meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Final

from acl import segments as text_form
from acl.errors import NameInvalid, RequestInvalid

MAX_PRINCIPAL_BYTES: Final = 255  # as long as a DNS name or a file name: every store keeps it
MAX_RESOURCE_SEGMENTS: Final = (
    128  # the depth of the broker's filter tree; deeper is refused there too
)
MAX_RESOURCE_BYTES: Final = 65_535  # MQTT 1.5.4: the longest UTF-8 string, hence the longest topic

_PRINCIPAL_REFUSED: Final = frozenset(
    "*+#/\\{}"
)  # wildcards of patterns and of MQTT, template, escape


class Operation(IntFlag):
    """What a principal wants to do; also a set of such. The bits are stored: never renumber."""

    CONNECT = 1 << 0
    READ = 1 << 1
    WRITE = 1 << 2
    CREATE = 1 << 3
    DELETE = 1 << 4
    ALTER = 1 << 5
    DESCRIBE = 1 << 6
    LIST = 1 << 7
    EXECUTE = 1 << 8
    ADMIN = 1 << 9
    ALL = (1 << 10) - 1


_SINGLE_BITS: Final = frozenset(int(operation) for operation in Operation)


def parse_operations(text: str) -> Operation:
    """Return the set named by `text`: names joined by commas, in any order; `all` means every bit.

    Raises:
        RequestInvalid: empty, or a name that is no operation.
    """
    found = 0
    for word in text.split(","):
        name = word.strip()
        if name == "all":
            found |= int(Operation.ALL)
        elif name != name.lower() or name.upper() not in Operation.__members__:
            known = ", ".join(operation.name.lower() for operation in Operation if operation.name)
            raise RequestInvalid(f"`{name}` is no operation: use one of {known}, or all")
        else:
            found |= int(Operation[name.upper()])
    return Operation(found)


def text_of(operations: Operation) -> str:
    """Return the names of a set, in the order of the bits, joined by commas.

    Never `all`: a stored text must not grow when an operation is added to the language.
    """
    return ",".join(item.name.lower() for item in operations if item.name)


class ResourceKind(StrEnum):
    """What sort of thing is protected; the first segment of a resource's text."""

    TOPIC = "topic"
    CONSUMER_GROUP = "group"
    KERNEL = "kernel"
    CLUSTER = "cluster"
    BROKER = "broker"
    TENANT = "tenant"
    SECRET = "secret"  # noqa: S105 - a kind of resource, not a password
    CERTIFICATE = "certificate"
    ACL = "acl"
    AUDIT = "audit"


_KIND_TEXTS: Final = {kind: kind.value for kind in ResourceKind}  # `.value` costs a Python call


class Effect(StrEnum):
    """What a rule does to the requests it matches."""

    ALLOW = "allow"
    DENY = "deny"


class PrincipalKind(StrEnum):
    """Whether a person or a program stands behind a certificate."""

    USER = "user"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Principal:
    r"""Who asks; made from a verified certificate only.

    Attributes:
        name: one token of 1 to 255 bytes in UTF-8 without blanks, control characters or `* + # / \ { }`.
        kind: person or program.

    Raises:
        NameInvalid: the name is not such a token.
    """

    name: str
    kind: PrincipalKind = PrincipalKind.SERVICE

    def __post_init__(self) -> None:
        verify_principal_name(self.name)


def verify_principal_name(name: str) -> str:
    """Return `name` if a principal may carry it.

    Raises:
        NameInvalid: it may not; the message says why.
    """
    if not name or name.isspace():
        raise NameInvalid("a principal needs a name")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise NameInvalid("a principal's name holds half a surrogate pair") from None
    if length > MAX_PRINCIPAL_BYTES:
        raise NameInvalid(f"a principal's name has {length} bytes, at most {MAX_PRINCIPAL_BYTES}")
    for character in name:
        if character in _PRINCIPAL_REFUSED:
            raise NameInvalid(
                f"principal `{name}` holds `{character}`, which patterns give a meaning"
            )
        if not character.isprintable() or character.isspace():
            raise NameInvalid(
                f"a principal's name holds U+{ord(character):04X}: use printable characters"
            )
    return name


@dataclass(frozen=True, slots=True)
class Resource:
    """What is asked about: a kind and at least one segment.

    Attributes:
        kind: what sort of thing.
        segments: its name, cut where patterns cut; empty segments are kept.

    Raises:
        NameInvalid: no segment, too many, too long, or text that UTF-8 or MQTT cannot carry.
    """

    kind: ResourceKind
    segments: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.segments)
        if not 0 < count <= MAX_RESOURCE_SEGMENTS:
            raise NameInvalid(f"a resource has 1 to {MAX_RESOURCE_SEGMENTS} segments, not {count}")
        whole = "/".join(self.segments)
        try:
            length = len(whole.encode())
        except UnicodeEncodeError:
            raise NameInvalid("a resource's name holds half a surrogate pair") from None
        if length > MAX_RESOURCE_BYTES:
            raise NameInvalid(f"a resource's name has {length} bytes, at most {MAX_RESOURCE_BYTES}")
        if "\0" in whole:
            raise NameInvalid("a resource's name holds U+0000, which MQTT 1.5.4 forbids")

    @property
    def path(self) -> tuple[str, ...]:
        """The kind's text and the segments: what patterns are matched against."""
        return (_KIND_TEXTS[self.kind], *self.segments)

    @property
    def text(self) -> str:
        r"""The one text form, e.g. `topic.telemetry.cpu`, `topic.a.b\.c` for the MQTT topic `a/b.c`."""
        return text_form.join(self.path)

    @property
    def is_filter(self) -> bool:
        """Whether this stands for all topics of an MQTT filter rather than for one thing."""
        segments = self.segments
        return ("#" in segments or "+" in segments) and self.kind is ResourceKind.TOPIC

    @classmethod
    def parse(cls, text: str) -> Resource:
        """Return the resource that `text` names.

        Raises:
            NameInvalid: no known kind, no segment, or an unescaped special character.
        """
        kind, *rest = text_form.split(text)
        try:
            return cls(ResourceKind(kind), tuple(rest))
        except ValueError:
            known = ", ".join(kind.value for kind in ResourceKind)
            raise NameInvalid(
                f"`{kind}` is no kind of resource: begin with one of {known}"
            ) from None

    @classmethod
    def topic(cls, name: str) -> Resource:
        """Return the resource of an MQTT topic name, or of a topic filter (see `is_filter`)."""
        return cls(ResourceKind.TOPIC, tuple(name.split("/")))

    @classmethod
    def kernel(cls, name: str) -> Resource:
        """Return the resource of a GPU kernel.

        Raises:
            NameInvalid: the name is empty.
        """
        if not name:
            raise NameInvalid("a kernel needs a name")
        return cls(ResourceKind.KERNEL, (name,))


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """One question: may this principal do this one operation on this resource?

    Raises:
        RequestInvalid: `operation` is a set of several, or empty.
    """

    principal: Principal
    operation: Operation
    resource: Resource

    def __post_init__(self) -> None:
        if self.operation not in _SINGLE_BITS:
            raise RequestInvalid(
                f"a request asks for one operation, not `{text_of(self.operation)}`"
            )
