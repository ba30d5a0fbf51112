"""Who may do what: principals, resources, rules, and the one decider.

Knows: the pattern grammar, `AclRule`, `RuleSet`, `Decision` and how rules are weighed.
Never: does I/O, reads a clock, caches, or answers with a bare bool.
Doors: none; standard library only.
"""

from __future__ import annotations
