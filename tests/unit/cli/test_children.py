"""Daemons as children: their start is awaited, their death is told with the end of their log, their end is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from cli.children import Child, last_lines, start_child
from cli.failure import CommandFailed

LISTENS = """
import pathlib, sys, time
pathlib.Path({ready!r} + ".part").write_text('{{"port": 7}}')
pathlib.Path({ready!r} + ".part").rename({ready!r})
print("listening", flush=True)
time.sleep(60)
"""

DIES = """
import sys
print("first line")
print("error: the port is taken")
sys.exit(3)
"""

STUBBORN = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({ready!r}).write_text('{{"port": 7}}')
time.sleep(60)
"""


ENDS_WITH_PARENT = """
import signal, time
from cli.children import end_with_parent
signal.signal(signal.SIGTERM, {how})
end_with_parent()
time.sleep(60)
"""

PARENT = """
import sys, trio
from pathlib import Path
from cli.children import start_child

async def main():
    folder = Path(sys.argv[1])
    child = await start_child(
        "broker",
        config=folder / "broker.toml",
        log=folder / "broker.log",
        ready_file=folder / "ready.json",
        command=(sys.executable, sys.argv[2]),
    )
    print(child.process.pid, flush=True)
    await trio.sleep_forever()

trio.run(main)
"""


class Listening(msgspec.Struct):
    """What the daemons of these tests say."""

    port: int


async def start(folder: Path, script: str) -> Child:
    """Start a small program as if it were a daemon."""
    ready = folder / "ready.json"
    program = folder / "daemon.py"
    program.write_text(script.format(ready=str(ready)))
    return await start_child(
        "broker",
        config=folder / "broker.toml",
        log=folder / "broker.log",
        ready_file=ready,
        command=(sys.executable, str(program)),
    )


def is_gone(pid: int) -> bool:
    """Whether no process has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_child_is_ready_when_it_says_where_it_listens(tmp_path: Path) -> None:
    child = await start(tmp_path, LISTENS)
    assert (await child.ready(Listening)).port == 7
    await child.stop()
    assert is_gone(child.process.pid)


async def test_child_does_not_believe_the_report_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text('{"port": 1}')
    child = await start(tmp_path, LISTENS)
    assert (await child.ready(Listening)).port == 7
    await child.stop()


async def test_child_that_is_never_ready_is_an_error_within_the_deadline(tmp_path: Path) -> None:
    child = await start(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(CommandFailed, match=r"did not listen within 0\.2 s"):
        await child.ready(Listening, deadline_s=0.2)
    await child.stop()


async def test_death_is_told_with_the_exit_code_and_the_end_of_the_log(tmp_path: Path) -> None:
    child = await start(tmp_path, DIES)
    death = await child.died()
    assert "the broker ended with exit code 3" in str(death)
    assert death.details == ("first line", "error: the port is taken")


async def test_death_by_a_signal_is_told_as_one(tmp_path: Path) -> None:
    child = await start(tmp_path, LISTENS)
    child.process.kill()
    assert "was ended by signal 9" in str(await child.died())


async def test_child_that_ignores_sigterm_is_killed_within_the_deadline(tmp_path: Path) -> None:
    child = await start(tmp_path, STUBBORN)
    await child.ready(Listening)
    await child.stop(deadline_s=0.2)
    assert child.process.returncode == -9


async def test_child_that_has_ended_is_not_signalled_again(tmp_path: Path) -> None:
    child = await start(tmp_path, DIES)
    await child.process.wait()
    await child.stop()
    assert child.process.returncode == 3


async def test_child_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="cannot start the broker"):
        await start_child(
            "broker",
            config=tmp_path / "broker.toml",
            log=tmp_path / "broker.log",
            ready_file=tmp_path / "ready.json",
            command=(str(tmp_path / "missing"),),
        )


def test_last_lines_are_bounded_however_long_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert last_lines(log, 2) == ["line 99998", "line 99999"]
    assert last_lines(tmp_path / "missing") == []


def is_over(pid: int) -> bool:
    """Whether no process of this number runs any more, collected by its new parent or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_child_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "daemon.py"
    program.write_text(ENDS_WITH_PARENT.format(how="signal.SIG_DFL"))
    parent = await trio.lowlevel.open_process(
        [sys.executable, "-c", PARENT, str(tmp_path), str(program)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.receive_some())
    assert not is_over(pid)
    parent.kill()
    await parent.wait()
    with trio.fail_after(10):
        while not is_over(pid):
            await trio.sleep(0.02)
    await parent.stdout.aclose()


def test_child_that_ignores_the_end_of_its_parent_is_killed(tmp_path: Path) -> None:
    script = "import cli.children; cli.children.STOP_DEADLINE_S = 0.1" + ENDS_WITH_PARENT.format(
        how="signal.SIG_IGN"
    )
    orphan = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, timeout=20, check=False
    )
    assert orphan.returncode == -9
