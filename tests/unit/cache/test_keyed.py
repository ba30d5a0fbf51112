from __future__ import annotations

import subprocess
import sys

import pytest

from cache.keyed import blake2_hasher, hash_is_keyed, process_hasher

KEY = ("sensor", 3, ("topic", "a"))


def test_blake2_hash_depends_on_its_secret_and_on_all_of_the_key() -> None:
    one, other = blake2_hasher(b"1" * 16), blake2_hasher(b"2" * 16)
    assert one(KEY) == blake2_hasher(b"1" * 16)(KEY)
    assert one(KEY) != other(KEY)
    variants = [
        KEY,
        ("sensor", 3, ("topic", "a", "")),
        ("sensor", 3, ("topica",)),
        ("sensor", 33, ("topic", "a")),
        ("senso", 3, ("topic", "a")),
        ("sensor", 3, ("topic', 'a",)),
        ("sensor", 3, ()),
    ]
    assert len({one(key) for key in variants}) == len(variants)


@pytest.mark.parametrize(
    ("seed", "fixed"),
    [(None, False), ("", False), ("random", False), ("0", True), ("1", True), ("12345", True)],
)
def test_process_hash_is_never_one_that_others_know(seed: str | None, *, fixed: bool) -> None:
    # the truth is what the interpreter does: with a fixed seed two processes hash alike
    program = (
        "from cache.keyed import hash_is_keyed, process_hasher; import os;"
        "print(hash_is_keyed(os.environ), process_hasher() is hash, hash('sensor'))"
    )
    environment = {"PATH": "/usr/bin"} | ({} if seed is None else {"PYTHONHASHSEED": seed})
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert (runs[0][2] == runs[1][2]) is fixed
    assert runs[0][:2] == [str(not fixed), str(not fixed)]


def test_hash_that_the_environment_fixed_is_not_taken_for_keyed() -> None:
    assert not hash_is_keyed({"PYTHONHASHSEED": "7"})
    assert process_hasher({"PYTHONHASHSEED": "7"}) is not hash
    assert process_hasher({"PYTHONHASHSEED": "7"})(KEY) != process_hasher({"PYTHONHASHSEED": "7"})(
        KEY
    )
