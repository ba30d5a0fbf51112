"""The MQTT 5.0 and 3.1.1 protocol as pure data, and 3.1 where it is allowed.

Knows: the wire format, topic names and filters, runs of messages and of acknowledgements, QoS 1 and 2, reason codes.
Never: does I/O, reads a clock, or decides who may do what.
Doors: none; the standard library, and typing-extensions for `override`.
"""

from __future__ import annotations
