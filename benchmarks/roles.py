"""What a process of the load generator is told to do, and what it reports: the words between `sampling` and `load`."""

from __future__ import annotations

import msgspec

from benchmarks.blocks import BLOCK_BYTES, Block, Protocol, Shape, build_block
from benchmarks.kernel_calls import Called, KernelCaller
from benchmarks.wire import Login


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """The block built for `shape`, at least `block_bytes` long, `blocks` times over."""

    shape: Shape
    blocks: int
    block_bytes: int = BLOCK_BYTES

    def block(self, protocol: Protocol = "mqtt") -> Block:
        return build_block(self.shape, protocol, size=self.block_bytes)


class Publisher(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Send the block `blocks` times. `bare`: to a `Sink`, without a login."""

    login: Login
    stream: Stream
    bare: bool = False


class Subscriber(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Receive the block `blocks` times, in order."""

    login: Login
    topic_filter: str
    stream: Stream


class Sink(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A subscriber without a broker: listens itself, to learn what the generator could do at most."""

    cert: str
    key: str
    ca: str
    stream: Stream


class Publishers(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """As many connections as the shape has topics, each publishing to its own, in turns.

    Attributes:
        turns: how often each of them sends its portion.
        portion_bytes: what it sends in one go; 0 is a single message.
        messages_per_s: of each connection; 0 is as fast as they are taken.
    """

    login: Login
    shape: Shape
    turns: int
    portion_bytes: int = 0
    messages_per_s: float = 0.0


class Subscribers(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Many connections that together receive `messages` messages of one shape.

    Attributes:
        filters: of every connection.
        messages: of all connections together.
        even: whether each must get the same share.
        group: the shared subscription (queue group) they are members of.
    """

    login: Login
    shape: Shape
    filters: list[list[str]]
    messages: int
    even: bool = True
    group: str = ""


class PingPong(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Publish to an own subscription and wait, `trips` times."""

    login: Login
    topic: str
    payload_bytes: int
    trips: int


class AckedPublisher(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Publish `messages` at QoS 1 or 2, at most `window` of them unacknowledged."""

    login: Login
    shape: Shape
    topic: str
    window: int
    messages: int


class AckedSubscriber(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Receive and acknowledge `messages` at QoS 1 or 2; `persistent`: in a session that outlives its connection."""

    login: Login
    shape: Shape
    topic: str
    window: int
    messages: int
    persistent: bool


class StreamPublisher(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Publish `messages` to a JetStream stream on file, at most `window` of them unacknowledged."""

    login: Login
    shape: Shape
    topic: str
    window: int
    messages: int


class StreamConsumer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make the stream and a durable consumer, receive and acknowledge `messages`, remove both."""

    login: Login
    shape: Shape
    topic: str
    window: int
    messages: int


class Idlers(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Open `count` connections, one after the other, subscribe `filters` filters on each that nothing matches, and hold them."""

    login: Login
    count: int
    filters: int = 0


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscriber measured: from the first bytes it got to the last message."""

    messages: int
    seconds: float
    wire_bytes: int


class Trips(msgspec.Struct, frozen=True, kw_only=True):
    """Every round trip, nanoseconds, in order."""

    nanoseconds: list[int]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """When a process began and ended, by the clock that all processes of a machine share."""

    began_ns: int
    ended_ns: int


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """How many connections were opened, and how long that took; `refused` says why no more."""

    connections: int
    seconds: float
    refused: str = ""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """In place of anything else: the broker does not offer what was to be measured."""

    why: str


Role = (
    Publisher
    | Subscriber
    | Sink
    | Publishers
    | Subscribers
    | PingPong
    | AckedPublisher
    | AckedSubscriber
    | StreamPublisher
    | StreamConsumer
    | Idlers
    | KernelCaller
)
Report = Received | Trips | Called | Span | Opened | Refusal
