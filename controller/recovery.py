"""What a member does with its journal and snapshot when it starts: go on, or refuse and say what is missing.

PySyncObj itself drops the whole journal when it does not begin with the two entries of the snapshot, which loses
acknowledged writes after a crash at the wrong moment. So the two are made to agree before the engine sees them.
A gap is never closed by forgetting: a member that cannot prove that it has everything does not start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.errors import StorageDamaged

if TYPE_CHECKING:
    from controller.journal import Journal
    from controller.snapshot import Snapshot

_REPAIR = (
    "restore journal and snapshot from one backup, or, if other members hold the policy, "
    "move the data directory away and let this member fetch everything from them"
)


def reconcile(journal: Journal, snapshot: Snapshot | None, *, node_id: str) -> int:
    """Make the journal begin with the two entries of the snapshot, keeping everything newer.

    Returns:
        How many entries after the snapshot will be applied again.

    Raises:
        StorageDamaged: entries are missing, or the two do not belong together; nothing was changed.
    """
    if snapshot is None:
        if len(journal) and journal[0][1] > 1:
            raise StorageDamaged(
                f"the journal begins with entry {journal[0][1]}, but there is no snapshot of what was before: {_REPAIR}"
            )
        return max(0, len(journal) - 1)
    if snapshot.node_id != node_id:
        raise StorageDamaged(
            f"the snapshot belongs to member `{snapshot.node_id}`, the configuration says `{node_id}`: {_REPAIR}"
        )
    newest = snapshot.last[1]
    if not len(journal):
        raise StorageDamaged(
            f"there is a snapshot up to entry {newest}, but the journal is empty; "
            f"what was acknowledged after it would be lost: {_REPAIR}"
        )
    first, last = journal[0][1], journal[-1][1]
    if first > snapshot.before[1]:
        raise StorageDamaged(
            f"the snapshot ends with entry {newest}, but the journal begins with entry {first}: {_REPAIR}"
        )
    if last < newest:
        raise StorageDamaged(
            f"the journal ends with entry {last}, before the snapshot's entry {newest}, so it is older; "
            f"what was acknowledged after {newest} would be lost: {_REPAIR}"
        )
    start = snapshot.before[1] - first
    if journal[start] != snapshot.before or journal[start + 1] != snapshot.last:
        raise StorageDamaged(
            f"journal and snapshot disagree about entry {newest}; they are of different histories: {_REPAIR}"
        )
    journal.deleteEntriesTo(start)
    journal.sync()
    return last - newest
