from __future__ import annotations

import pytest
import trio

from client.errors import ConnectionLost
from client.messages import Messages
from mqtt.packets import Publish


async def test_messages_come_in_order_and_then_the_loss() -> None:
    send, receive = trio.open_memory_channel[Publish](10)
    messages = Messages(receive, lambda: ConnectionLost("gone"))
    for name in "ab":
        send.send_nowait(Publish(topic=name))
    send.close()
    assert [(await messages.receive()).topic for _ in range(2)] == ["a", "b"]
    with pytest.raises(ConnectionLost, match="gone"):
        await anext(messages)
    with pytest.raises(ConnectionLost, match="gone"):
        messages.receive_nowait()


async def test_messages_end_quietly_when_we_closed() -> None:
    send, receive = trio.open_memory_channel[Publish](10)
    messages = Messages(receive, lambda: None)
    with pytest.raises(trio.WouldBlock):
        messages.receive_nowait()
    send.send_nowait(Publish(topic="a"))
    send.close()
    assert [message.topic async for message in messages] == ["a"]
    with pytest.raises(trio.EndOfChannel):
        messages.receive_nowait()


async def test_closed_messages_tell_the_sender() -> None:
    send, receive = trio.open_memory_channel[Publish](10)
    await Messages(receive, lambda: None).aclose()
    with pytest.raises(trio.BrokenResourceError):
        send.send_nowait(Publish(topic="a"))
