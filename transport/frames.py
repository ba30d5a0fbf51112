"""Messages on a byte stream: four bytes of length, then one msgpack value of an agreed type.

*Rules of this file.* The length is checked before the first byte of the body is buffered, and the body is decoded into
the type the caller named, so nothing of another shape gets past here. Heartbeats and deadlines are the caller's.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec
import trio

from transport.errors import FrameRefused, TransportBroken

LENGTH_BYTES: Final = 4
READ_BYTES: Final = 65536
# Received in a row before other tasks get their turn; a read may hold thousands.
MAX_FRAMES_PER_TURN: Final = 64

T = TypeVar("T")


class FrameStream(Generic[T]):
    """Frames over one stream, which the caller owns and closes.

    One task may receive while any number of others send.
    """

    __slots__ = (
        "_buffer",
        "_cut",
        "_decoder",
        "_encoder",
        "_frames",
        "_lock",
        "_max_frame_bytes",
        "_stream",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        max_frame_bytes: int,
        decoder: msgspec.msgpack.Decoder[T],
    ) -> None:
        """Speak frames over `stream`.

        Args:
            stream: the byte stream.
            max_frame_bytes: the longest body to accept or to send.
            decoder: makes the agreed type out of a body.
        """
        self._stream = stream
        self._max_frame_bytes = max_frame_bytes
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()
        self._buffer = bytearray()  # at most one frame and one read
        self._lock = trio.Lock()
        self._cut = False
        self._frames = 0

    async def receive(self) -> T | None:
        """Wait for the next message; None when the peer ended the stream between two frames.

        *Cancellation.* Nothing is lost: call again. There is a checkpoint where the stream has one and every
        `MAX_FRAMES_PER_TURN` frames.

        Raises:
            FrameRefused: the frame is too long, or not of the agreed type. The stream is of no use afterwards.
            TransportBroken: the stream broke, or ended inside a frame.
        """
        self._frames += 1
        if self._frames > MAX_FRAMES_PER_TURN:
            self._frames = 0
            await trio.lowlevel.checkpoint()
        if not await self._fill(LENGTH_BYTES):
            return None
        length = int.from_bytes(self._buffer[:LENGTH_BYTES])
        if length > self._max_frame_bytes:
            raise FrameRefused(
                f"the peer announces a frame of {length} bytes, at most {self._max_frame_bytes} are agreed"
            )
        await self._fill(LENGTH_BYTES + length)
        body = bytes(memoryview(self._buffer)[LENGTH_BYTES : LENGTH_BYTES + length])
        del self._buffer[: LENGTH_BYTES + length]
        return self._decode(body)

    async def send(self, message: object) -> None:
        """Send one message, whole, after those of other tasks that came first.

        *Cancellation.* A frame may be cut in half, and then every later send raises: close the stream.

        Raises:
            FrameRefused: our own message is longer than agreed; nothing was sent.
            TransportBroken: the stream broke, or an earlier send was cut.
        """
        body = self._encoder.encode(message)
        if len(body) > self._max_frame_bytes:
            raise FrameRefused(
                f"our own frame has {len(body)} bytes, at most {self._max_frame_bytes} are agreed"
            )
        async with self._lock:
            if self._cut:
                raise TransportBroken("an earlier frame was cut in half")
            self._cut = True
            await self._stream.send_all(len(body).to_bytes(LENGTH_BYTES) + body)
            self._cut = False

    async def _fill(self, count: int) -> bool:
        """Read until `count` bytes are here; False when the stream ended before the first of them."""
        while len(self._buffer) < count:
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                if self._buffer:
                    raise TransportBroken("the peer ended the stream inside a frame")
                return False
            self._buffer += data
        return True

    def _decode(self, body: bytes) -> T:
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise FrameRefused(f"the peer's frame is not what was agreed: {error}") from error
