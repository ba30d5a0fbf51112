"""The version line holds what a bug report needs."""

from __future__ import annotations

from importlib import metadata

from cli.version import describe


def test_version_names_stockade_python_and_openssl() -> None:
    line = describe()
    assert line.startswith(f"stockade {metadata.version('stockade')} ")
    assert "Python 3." in line
    assert "OpenSSL" in line
