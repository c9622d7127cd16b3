"""Looks into the files that TLS needs: each function returns what is wrong, or None."""

from __future__ import annotations


def unreadable(path: str) -> str | None:
    """Say why the file *path* cannot be read."""
    if not path.startswith("/") or "\0" in path:
        return 'must be an absolute path, such as "/etc/ssl/backend.pem"'
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib adds nothing here.
            file.read(1)
    except OSError as error:
        return f"cannot be read ({error.strerror}): check the path and its permissions"
    return None


def no_authorities(path: str) -> str | None:
    """Say why the file *path* holds nobody to trust."""
    import ssl  # noqa: PLC0415 - Most configurations name no such file.

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        return "holds no certificates in PEM"
    return None


def no_certificate(path: str, key: str) -> str | None:
    """Say why the file *path* holds no certificate that fits the private key in the file *key*."""
    import ssl  # noqa: PLC0415 - As above.

    try:
        # Without a password OpenSSL would ask for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, key, password="")
    except (ssl.SSLError, OSError):
        return "holds no certificate in PEM that fits its key, or the key has a passphrase"
    return None
