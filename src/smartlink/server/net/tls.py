"""The server's certificate: loaded at start, reloaded on demand."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import structlog

from smartlink.server.settings.config import ServerSettings

__all__ = ["BadCertificate", "Certificate", "ends_at"]

HANDSHAKE_STEPS = 4
_OTHER_NAME = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH; other errors are for clients to judge."""
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: the certificate may have ended."""

log = structlog.get_logger(__name__)


class BadCertificate(ValueError):
    """The certificate is unusable; the message names the file and the reason."""


class Certificate:
    """A certificate chain and its key, in files. Raises BadCertificate."""

    def __init__(self, chain: Path, key: Path, hostname: str | None = None) -> None:
        self._chain = chain
        self._key = key
        self._hostname = hostname
        self._check()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(chain, key)
        self.ends_at = ends_at(chain, key)
        """When the certificate in use ends, in seconds since 1970."""

    @classmethod
    def of(cls, settings: ServerSettings) -> Certificate | None:
        """The certificate configured in `settings`, or None."""
        chain, key = settings.reverb_server_tls_cert, settings.reverb_server_tls_key
        return None if chain is None or key is None else cls(Path(chain), Path(key), settings.reverb_server_hostname)

    def reload(self) -> None:
        """Reload the files for new handshakes. If they are unusable, log it and keep the current certificate."""
        try:
            self._check()
        except BadCertificate as error:
            log.error("certificate not reloaded, keeping the current one", reason=str(error))
        else:
            self.context.load_cert_chain(self._chain, self._key)
            self.ends_at = ends_at(self._chain, self._key)
            log.info("certificate reloaded", chain=str(self._chain))

    def _check(self) -> None:
        """Load the files into a fresh context first."""
        trial = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            trial.load_cert_chain(self._chain, self._key)
        except ssl.SSLError as error:
            reason = "the key does not match the certificate" if "MISMATCH" in str(error) else "not valid PEM"
            raise BadCertificate(f"REVERB_SERVER_TLS_CERT={self._chain}: {reason}") from None
        except OSError as error:
            raise BadCertificate(f"REVERB_SERVER_TLS_CERT={self._chain}, its key: {error.strerror}") from None
        if self._hostname is not None and not _covers(self._chain, self._key, self._hostname):
            raise BadCertificate(
                f"REVERB_SERVER_TLS_CERT={self._chain} is not for {self._hostname} (REVERB_SERVER_HOSTNAME)"
            )


def ends_at(chain: Path, key: Path) -> float:
    """When a certificate ends, in seconds since 1970. Raises ssl.SSLError and OSError for unusable files."""
    client = _trusting(chain)
    client.check_hostname = False
    client.verify_flags |= _NO_CHECK_TIME
    told, code = _handshake(chain, key, client, None)
    if "notAfter" not in told:
        raise ssl.SSLError(code, "the certificate cannot be read")
    return float(ssl.cert_time_to_seconds(str(told["notAfter"])))


def _covers(chain: Path, key: Path, hostname: str) -> bool:
    """Whether a client that trusts the certificate accepts it for `hostname`."""
    _, code = _handshake(chain, key, _trusting(chain), hostname)
    return code not in _OTHER_NAME


def _trusting(chain: Path) -> ssl.SSLContext:
    client = ssl.create_default_context(cafile=str(chain))
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return client


def _handshake(
    chain: Path, key: Path, client: ssl.SSLContext, hostname: str | None
) -> tuple[Mapping[str, object], int]:
    """Run a handshake in memory. Returns the certificate that the client sees, and why it does not accept it, or 0."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain, key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs, ours = client.wrap_bio(down, up, server_hostname=hostname), server.wrap_bio(up, down, server_side=True)
    for _ in range(HANDSHAKE_STEPS):
        for end in (theirs, ours):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return {}, error.verify_code
            except ssl.SSLError:
                return {}, 0  # for clients to judge
    return theirs.getpeercert() or {}, 0
