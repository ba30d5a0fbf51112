"""Evidence: the audit log of denials and administrative changes.

Knows: audit events, their sinks, rotation and bounds.
Never: records a secret or a payload, blocks the data path, loses an event silently.
Doors: files, `structlog`.
"""

from __future__ import annotations
