"""A device's password: 256 random bits, shown once, kept as Mosquitto's password file keeps it.

The format is `$7$iterations$salt$hash` (PBKDF2 with SHA-512). A slow hash protects passwords that people choose. Nobody
guesses 256 random bits, so one iteration is enough, and it matters: Mosquitto checks every connected device again each
time it reads its files, and answers nobody meanwhile (docs/adr/0015 has the figures).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets

_BYTES = 32
_SALT = 12  # what mosquitto_passwd uses, and what Mosquitto 2.0 reads
_MOST_ITERATIONS = 1_000_000
RANDOM_ITERATIONS = 1
CHOSEN_ITERATIONS = 10_000  # for a password that a person may have chosen


def invent() -> str:
    """A new password: 43 characters that need no quoting anywhere."""
    return secrets.token_urlsafe(_BYTES)


def hashed(password: str, *, iterations: int = RANDOM_ITERATIONS) -> str:
    """The password as Mosquitto's password file keeps it, with a new salt."""
    salt = os.urandom(_SALT)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def fits(password: str, kept: str) -> bool:
    """Whether `kept` was made from `password`, in a time that does not tell where they differ. False for what is no
    `$7$` hash."""
    try:
        empty, version, iterations, salt, digest = kept.split("$")
        rounds, wanted = int(iterations), base64.b64decode(digest, validate=True)
        if empty or version != "7" or not 1 <= rounds <= _MOST_ITERATIONS:
            return False
        given = hashlib.pbkdf2_hmac("sha512", password.encode(), base64.b64decode(salt, validate=True), rounds)
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(given, wanted)
