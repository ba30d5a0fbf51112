"""Confinement has no way back, so each test gives up its rights in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

FILTERED = sys.platform == "linux" and platform.machine() in {"x86_64", "aarch64"}


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code after `import os, sys` and the module's functions."""
    program = "import os, sys\nfrom gpu.sandbox import bind_to_parent, drop\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", program + textwrap.dedent(code)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_confined_process_can_compute_and_talk_but_nothing_else() -> None:
    done = run(
        """
        import errno, socket
        ours, theirs = socket.socketpair()
        print(drop(memory_bytes=64 << 20, filter_calls=True), flush=True)
        ours.send(b"x"); assert theirs.recv(1) == b"x"
        held = [bytearray(1 << 20) for _ in range(20)]
        attempts = {
            "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
            "create": lambda: os.open("/tmp/never", os.O_CREAT | os.O_WRONLY),
            "fork": os.fork,
            "exec": lambda: os.execv("/bin/true", ["true"]),
            "socket": socket.socket,
            "signal": lambda: os.kill(os.getppid(), 0),
            "unlink": lambda: os.unlink("/tmp/never"),
        }
        for name, attempt in attempts.items():
            try:
                attempt()
                print(name, "WORKED", flush=True)
            except PermissionError as error:
                assert error.errno == errno.EPERM
        os.write(1, b"end\\n")
        os._exit(0)
        """
    )
    assert done.returncode == 0, done.stderr
    if FILTERED:
        assert done.stdout.splitlines() == ["limits, seccomp", "end"]


def test_confined_process_may_still_abort() -> None:
    done = run("drop(memory_bytes=None, filter_calls=True)\nos.abort()")
    assert done.returncode == -6


def test_memory_beyond_the_limit_is_refused() -> None:
    done = run(
        """
        print(drop(memory_bytes=32 << 20, filter_calls=False), flush=True)
        bytearray(32 << 20)
        try:
            bytearray(1 << 30)
        except MemoryError:
            print("refused", flush=True)
        """
    )
    assert done.stdout.splitlines() == ["limits", "refused"], done.stderr


def test_process_does_not_outlive_its_parent() -> None:
    done = run(
        """
        import time
        pid = os.fork()
        if pid:
            os._exit(0)  # the child is somebody else's now
        while os.getppid() == int(os.environ.get("NEVER", "0")):
            pass
        time.sleep(0.2)
        try:
            bind_to_parent(1 << 22)
            print("bound", flush=True)
        except ProcessLookupError:
            print("the broker is gone", flush=True)
        """
    )
    assert done.stdout == "the broker is gone\n", done.stderr


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_child_dies_with_its_parent(end: str) -> None:
    done = run(
        f"""
        import subprocess, time
        code = (
            "import os, sys, time; from gpu.sandbox import bind_to_parent;"
            "bind_to_parent(os.getppid()); os.write(1, b'bound\\\\n'); time.sleep(20); os.write(1, b'alive')"
        )
        child = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"bound\\n"
        print(child.pid, flush=True)
        {end}
        """
    )
    status = Path(f"/proc/{int(done.stdout)}/stat")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    pytest.fail("the child lives on")
