"""MQTT 5 enhanced authentication: the client proves that it still holds its certificate's key (4.12).

The one method is `STOCKADE-PROOF`. The broker answers CONNECT, or a later AUTH 0x19, with AUTH 0x18 and a nonce; the
client answers AUTH 0x18 with its signature (`certs.proof`). TLS proved the same when the connection began: the method
is for connections that live for days, and for clients that must not trust what ends TLS in front of them.

*Rules of this file*: a nonce is used once; a client that proves nothing is not let in, or is disconnected (4.12.0-4);
the method of a connection never changes (4.12.1-1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from certs.errors import CertificateInvalid
from certs.proof import NONCE_BYTES, verify_possession
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Auth, Properties

if TYPE_CHECKING:
    from collections.abc import Callable

METHOD: Final = "STOCKADE-PROOF"


class ProofExchange:
    """The exchanges of one connection.

    Args:
        certificate: the client's, in DER; None: there is none to prove anything with.
        verifier: the broker's identifier, part of what is signed.
        random_bytes: gives that many unpredictable bytes.
    """

    def __init__(
        self, certificate: bytes | None, *, verifier: str, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._certificate = certificate
        self._verifier = verifier
        self._random_bytes = random_bytes
        self._nonce: bytes | None = None

    @property
    def open(self) -> bool:
        """Whether an answer is awaited."""
        return self._nonce is not None

    def challenge(self) -> Auth:
        """Begin: return what the client must answer."""
        self._nonce = self._random_bytes(NONCE_BYTES)
        properties = Properties(
            authentication_method=METHOD,
            authentication_data=self._nonce,
            user_properties=(("verifier", self._verifier),),
        )
        return Auth(reason=ReasonCode.CONTINUE_AUTHENTICATION, properties=properties)

    def verify(self, answer: Auth) -> None:
        """Check the client's answer; the nonce is used up.

        Raises:
            RemoteProtocolError: another method or no answer was due (0x82), or nothing is proved (0x87).
        """
        nonce, self._nonce = self._nonce, None
        properties = answer.properties
        if properties.authentication_method != METHOD:
            raise RemoteProtocolError(
                "the authentication method cannot change", ReasonCode.PROTOCOL_ERROR
            )
        if nonce is None or answer.reason is not ReasonCode.CONTINUE_AUTHENTICATION:
            raise RemoteProtocolError("AUTH out of turn", ReasonCode.PROTOCOL_ERROR)
        if self._certificate is None:
            raise RemoteProtocolError("there is no client certificate", ReasonCode.NOT_AUTHORIZED)
        try:
            verify_possession(
                self._certificate,
                verifier=self._verifier,
                nonce=nonce,
                signature=properties.authentication_data or b"",
            )
        except CertificateInvalid as error:
            raise RemoteProtocolError(str(error), ReasonCode.NOT_AUTHORIZED) from error

    @staticmethod
    def verified() -> Auth:
        """What a client is told whose re-authentication succeeded."""
        return Auth(reason=ReasonCode.SUCCESS, properties=Properties(authentication_method=METHOD))
