"""The PKI: profiles, authorities, issue, verification, and the principal in a certificate.

Knows: certificate profiles, the development PKI, peer identity, principal mapping rules, TLS contexts.
Never: trusts an extension a requester sent, maps an ambiguous name, opens a socket.
Doors: `cryptography` (X.509, signatures) and `ssl` contexts.
"""

from __future__ import annotations
