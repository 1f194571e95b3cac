"""Tests of what `bot.unused_imports` changes in libraries; each runs in a separate process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONTEXTS = """
import ssl
from bot.unused_imports import prevent_unused_imports
prevent_unused_imports()
from aiohttp import connector
later = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
later.check_hostname, later.verify_mode = False, ssl.CERT_NONE
later.set_default_verify_paths()
contexts = connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED, later
print(*(context.cert_store_stats()["x509_ca"] for context in contexts))
"""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    certificate = tmp_path / "authority.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(tmp_path / "key.pem"),
         "-out", str(certificate), "-days", "2", "-subj", "/CN=Test authority"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate


def test_only_a_context_that_verifies_has_the_certificate_authorities(authority: Path) -> None:
    """Only aiohttp's own context without verification stays empty; other contexts are not changed."""
    environment = os.environ | {"SSL_CERT_FILE": str(authority)}
    result = subprocess.run(
        [sys.executable, "-c", CONTEXTS], env=environment, check=True, capture_output=True, text=True
    )
    assert result.stdout.split() == ["1", "0", "1"]
