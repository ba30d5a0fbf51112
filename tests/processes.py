"""Which processes descend from which, read from /proc: works on every Linux, whichever thread started them."""

from __future__ import annotations

from pathlib import Path


def descendants_of(pid: int) -> list[int]:
    """The numbers of a process's children, their children and so on."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents.setdefault(int(fields[1]), []).append(int(status.parent.name))

    def below(parent: int) -> list[int]:
        return [found for child in parents.get(parent, ()) for found in (child, *below(child))]

    return below(pid)


def children_of(pid: int) -> list[int]:
    """The numbers of a process's children, without theirs."""
    everyone = descendants_of(pid)
    grandchildren = {found for child in everyone for found in descendants_of(child)}
    return sorted(set(everyone) - grandchildren)
