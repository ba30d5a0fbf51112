"""The journal against a list: any order of writes, cuts, syncs and crashes."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from controller.journal import Entry, Journal


class JournalMachine(RuleBasedStateMachine):
    """What is synced survives a crash, byte for byte; what is not may be lost, from the end only."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.crashes = 0
        self.entries: list[Entry] = []
        self.durable: list[Entry] = []
        self.next_index = 1
        self.term = 0
        self.vote: str | None = None
        self._open(self.folder / "j0.db")

    def _open(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path, node_id="c1", timer=time.perf_counter)

    @rule(command=st.binary(max_size=40), count=st.integers(1, 5))
    def add(self, command: bytes, count: int) -> None:
        for _ in range(count):
            entry = (command, self.next_index, self.term)
            self.journal.add(*entry)
            self.entries.append(entry)
            self.next_index += 1

    @rule()
    def sync(self) -> None:
        self.journal.sync()
        self.durable = list(self.entries)

    @rule(vote=st.sampled_from(["c1", "c2", None]))
    def vote_in_next_term(self, vote: str | None) -> None:
        self.term += 1
        self.vote = vote
        self.journal.setCurrentTerm(self.term, vote)
        self.durable = list(self.entries)

    @precondition(lambda self: len(self.entries) > 2)
    @rule(data=st.data())
    def cut_the_beginning(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.entries) - 2))
        self.journal.deleteEntriesTo(at)
        del self.entries[:at]

    @precondition(lambda self: len(self.entries) > 1)
    @rule(data=st.data())
    def cut_the_end(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(1, len(self.entries)))
        self.journal.deleteEntriesFrom(at)
        del self.entries[at:]
        self.next_index = self.entries[-1][1] + 1

    @rule()
    def close_and_open(self) -> None:
        self.journal.close()
        self.durable = list(self.entries)
        self._open(self.path)

    @rule()
    def crash(self) -> None:
        self.crashes += 1
        copy = self.folder / f"j{self.crashes}.db"
        for suffix in ("", "-wal"):
            source = self.path.with_name(self.path.name + suffix)
            if source.exists():
                target = copy.with_name(copy.name + suffix)
                shutil.copyfile(source, target)
                target.chmod(0o600)
        self.journal.close()
        self._open(copy)
        self.entries = list(self.durable)
        self.next_index = self.entries[-1][1] + 1 if self.entries else 1

    @invariant()
    def equals_the_model(self) -> None:
        assert self.journal[:] == self.entries
        assert len(self.journal) == len(self.entries)
        assert self.journal.bytes == sum(len(entry[0]) for entry in self.entries)
        assert self.journal.getCurrentTerm() == self.term
        assert self.journal.getVotedForNodeId() == self.vote

    @override
    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
