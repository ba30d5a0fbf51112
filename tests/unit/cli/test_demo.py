from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from cli.main import app


def test_demo_refuses_no_messages() -> None:
    answer = CliRunner().invoke(app, ["demo", "--messages", "0"])
    assert answer.exit_code == 2


def test_command_line_loads_numpy_for_nobody_but_the_demo() -> None:
    program = "import sys, cli.main; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0
