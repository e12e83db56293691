"""The certificate and the key for HTTPS."""

from __future__ import annotations

import ssl

from corral.config import ServerConfig
from corral.errors import OptionError


def check(config: ServerConfig) -> None:
    """Raises OptionError if TLS is asked for and the files are of no use."""
    key, certificate = config.ssl_key_file, config.ssl_cert_file
    if key is None and certificate is None:
        return
    if key is None or certificate is None:
        given, missing = ("--ssl-cert-file", "--ssl-key-file")[:: 1 if key is None else -1]
        raise OptionError(f"error: {given} needs {missing} too")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_refuse)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise OptionError(
            f"error: --ssl-cert-file {certificate}, --ssl-key-file {key}: can't be used: {reason}"
        ) from None


def _refuse() -> str:
    raise ValueError("the key is encrypted, expected one without a password")
