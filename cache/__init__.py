"""The levels between a connection and the authority: L1, L2, the negative filter L3, batched misses.

Knows: bounded tables of decisions, policy epochs, the keyed Bloom filter of what is granted somewhere.
Never: decides by itself, answers with a decision of an older epoch, grows without a bound.
Doors: `pybloom_live` (in `cache.negative`).
"""

from __future__ import annotations
