"""The process around the controller: exit codes, one-line errors, audit wiring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog
from typing_extensions import override

from controller import daemon
from controller.audit import LogTrail
from controller.member import Member

CONFIG = """
node_id = "c1"
data_dir = "data"
rpc_listen = "127.0.0.1:0"
api_listen = "127.0.0.1:0"
certificate = "absent.pem"
key = "absent.key"
anchor = "absent-issuing.pem"
"""


class Trail(LogTrail):
    """An audit that remembers that it was closed."""

    closed = False

    @override
    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _restore_logging() -> object:
    yield
    structlog.reset_defaults()


def write(folder: Path, extra: str = "") -> Path:
    path = folder / "controller.toml"
    path.write_text(CONFIG + extra)
    return path


def test_new_ids_are_twelve_random_digits() -> None:
    assert len({daemon.new_id() for _ in range(100)}) == 100
    assert all(len(daemon.new_id()) == 12 for _ in range(10))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("", "absent"),
        ("nod_id = 1\n", "did you mean `node_id`?"),
        ('audit_file = "a"\n', "no audit log"),
    ],
)
def test_main_prints_one_line_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: str, message: str
) -> None:
    assert daemon.main(write(tmp_path, extra)) == daemon.EXIT_FAILED
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_main_closes_the_audit_it_opened_and_sets_up_logging(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trail, opened, logging = Trail(), list[Path](), list[bool]()

    def open_audit(path: Path) -> Trail:
        opened.append(path)
        return trail

    path = write(tmp_path, 'audit_file = "audit.jsonl"\n')
    assert daemon.main(path, open_audit=open_audit, configure_logging=logging.append) == 1
    assert opened == [tmp_path / "audit.jsonl"]
    assert trail.closed
    assert logging == [False]


@pytest.mark.parametrize("json", [True, False])
def test_log_lines_cannot_be_forged(capsys: pytest.CaptureFixture[str], json: bool) -> None:  # noqa: FBT001 - a parameter of the test
    daemon._configure_logging(json)
    structlog.get_logger("x").info("event", reason="one\nerror: two\x1b[2J")
    [line] = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line


def test_bug_is_not_disguised_as_an_operator_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: Mapping[str, object]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Member, "__init__", explode)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        daemon.main(write(tmp_path))
