"""The authority: replicated policy behind Raft, its servers for brokers and operators, its clients.

Knows: the replicated state and its commands, the durable journal, the broker link, the admin API.
Never: unpickles what a peer or a file holds, acknowledges what is not on disk, serves without mTLS.
Doors: `pysyncobj` (in `controller.raft`), `sqlite3` (in `controller.journal`).
"""

from __future__ import annotations
