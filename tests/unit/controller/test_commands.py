"""Commands: plain data that reads back, and old entries that stay readable."""

from __future__ import annotations

import msgspec
import pytest

from controller.commands import (
    AddRule,
    Bootstrap,
    Command,
    DeleteRule,
    RuleDraft,
    decode_command,
    encode_command,
)

DRAFT = RuleDraft(principal="sensor", resource="topic.telemetry.**", operations="write")


@pytest.mark.parametrize(
    "command",
    [
        Bootstrap(request_id="q-1", at=1.5, by="bootstrap", rules=(DRAFT,)),
        AddRule(request_id="q-2", at=2.0, by="admin", rule=DRAFT, new_id="r-1"),
        DeleteRule(request_id="q-3", at=3.0, by="admin", rule_id="r-1"),
    ],
)
def test_command_reads_back(command: Command) -> None:
    assert decode_command(encode_command(command)) == command


def test_command_written_by_the_first_version_stays_readable() -> None:
    # INVARIANT: these bytes are in journals; if this fails, a field was renamed or changed
    stored = bytes.fromhex(
        "86a474797065a86164645f72756c65aa726571756573745f6964a3712d31a26174cb3ff8000000000000a26279"
        "a561646d696ea472756c6584a9707269"
        "6e636970616ca173a87265736f75726365a9746f7069632e612e62"
        "aa6f7065726174696f6e73a472656164a6656666656374a464656e79a66e65775f6964a3722d39"
    )
    assert decode_command(stored) == AddRule(
        request_id="q-1",
        at=1.5,
        by="admin",
        rule=RuleDraft(principal="s", resource="topic.a.b", operations="read", effect="deny"),
        new_id="r-9",
    )


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x81\xa4type\xa4evil", b"\xff" * 40])
def test_command_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_command(data)
