"""The MQTT 5.0 and 3.1.1 protocol as pure data.

Knows: the wire format, topic names and filters, runs of PUBLISH packets, reason codes.
Never: does I/O, reads a clock, or decides who may do what.
Doors: none; the standard library, and typing-extensions for `override`.
"""

from __future__ import annotations
