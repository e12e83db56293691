"""The certificate and the key for HTTPS."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

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
    for flag, path in (("--ssl-cert-file", certificate), ("--ssl-key-file", key)):
        try:
            Path(path).open("rb").close()
        except OSError as error:
            raise OptionError(
                f"error: {flag} {path}: can't be read: {error.strerror}{_whose(path)}"
            ) from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_refuse)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise OptionError(
            f"error: --ssl-cert-file {certificate}, --ssl-key-file {key}: can't be used: {reason}"
        ) from None


def _whose(path: str) -> str:
    """Why a container's user can't read it: keys are often closed to all but root."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return (
        f" (mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}:{status.st_gid}), expected a file "
        f"that uid {os.geteuid()} gid {os.getegid()} may read"
    )


def _refuse() -> str:
    raise ValueError("the key is encrypted, expected one without a password")
