from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest
import trio

from gpu.arena import Arena, ArenaLayout
from gpu.errors import WorkerBroken
from gpu.messages import Order, ReportKind
from gpu.process import LOG_BYTES, LOG_TAIL_CHARS, WorkerProcess
from tests.kernels import make_bundle, make_plan


def spawn(folder: Path, code: str) -> WorkerProcess:
    """Start a worker that runs `code` with `link`, its socket, and `memory`, the arena's descriptor."""
    bundle = make_bundle(folder)
    layout = ArenaLayout(in_bytes=4, out_bytes=4, max_batch=64, slots=2)
    arena = Arena.create(layout, name="test")
    prelude = "import os, socket, sys, time\nlink = socket.socket(fileno=int(sys.argv[3]))\nmemory = int(sys.argv[2])\n"
    process = WorkerProcess.spawn(make_plan(bundle), arena, program=("-P", "-c", prelude + code))
    arena.close()
    return process


async def until_report(process: WorkerProcess) -> None:
    with trio.fail_after(20):
        await process.wait_report()


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("os._exit(3)", "it ended with status 3"),
        ("os.abort()", "it was ended by SIGABRT"),
        ("os.kill(os.getpid(), 36)", "it was ended by signal 36"),
    ],
)
async def test_end_of_a_worker_is_told_in_words(tmp_path: Path, code: str, how: str) -> None:
    process = spawn(tmp_path, code)
    await until_report(process)
    with pytest.raises(EOFError):
        process.receive()
    ending = await process.end()
    assert (ending.how, ending.reaped) == (how, True)


async def test_worker_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    code = "pid = os.fork()\nif pid: link.send(str(pid).encode().ljust(40))\ntime.sleep(60)"
    process = spawn(tmp_path, code)
    await until_report(process)
    child = _first_number(process)
    start = time.monotonic()
    ending = await process.end()
    assert ending.how == "it was ended by SIGKILL"
    assert time.monotonic() - start < 5
    with trio.fail_after(5):
        while _is_alive(child):
            await trio.sleep(0.01)


def _first_number(process: WorkerProcess) -> int:
    return int(process._link.recv(64))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_what_a_worker_prints_is_kept_but_bounded_and_harmless(tmp_path: Path) -> None:
    process = spawn(
        tmp_path, f"os.write(1, b'\\x1b[31m red\\n' + b'x' * {LOG_BYTES * 3}); os._exit(0)"
    )
    await until_report(process)
    printed = (await process.end()).printed
    assert len(printed) <= LOG_TAIL_CHARS
    assert "\x1b" not in printed


async def test_message_longer_than_a_report_is_a_broken_worker(tmp_path: Path) -> None:
    process = spawn(tmp_path, "link.send(b'x' * 1000); time.sleep(60)")
    await until_report(process)
    with pytest.raises(WorkerBroken):
        process.receive()
    await process.end()


async def test_order_to_a_worker_that_is_gone_is_a_broken_worker(tmp_path: Path) -> None:
    process = spawn(tmp_path, "os._exit(0)")
    await until_report(process)
    with pytest.raises(WorkerBroken, match="takes no orders"):
        process.send(Order(0, 1, 1))
    await process.end()


async def test_worker_inherits_nothing_it_was_not_given(tmp_path: Path) -> None:
    os.environ["STOCKADE_TEST_SECRET"] = "x"
    secret = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(secret, True)  # noqa: FBT003 - the standard library's signature
    code = """
fds = set(map(int, os.listdir('/proc/self/fd')))
extra = fds - {0, 1, 2, *map(int, sys.argv[1:])}
extra = {fd for fd in extra if os.path.exists(f'/proc/self/fd/{fd}')}
os.write(1, f"{sorted(os.environ)} {len(extra)} {os.getcwd()} {os.getpid() == os.getsid(0)}".encode())
os._exit(0)
"""
    try:
        process = spawn(tmp_path, code)
    finally:
        os.close(secret)
        del os.environ["STOCKADE_TEST_SECRET"]
    await until_report(process)
    ending = await process.end()
    assert ending.printed == "['LC_ALL', 'OPENBLAS_NUM_THREADS', 'PATH'] 0 / True"


async def test_real_worker_gets_ready(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    layout = ArenaLayout(in_bytes=4, out_bytes=4, max_batch=64, slots=2)
    start = partial(make_plan, bundle, parent_pid=os.getpid())
    arena = Arena.create(layout, name="test")
    process = WorkerProcess.spawn(start(), arena)
    await until_report(process)
    report = process.receive()
    assert report is not None
    assert report.kind is ReportKind.READY
    assert arena.read_text(report.text_bytes).startswith("CPU")
    assert process.receive() is None
    await process.end()
    arena.close()
    assert str(process.pid) in repr(process)
