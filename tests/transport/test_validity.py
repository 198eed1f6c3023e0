"""The end of a certificate, compared with what the library reads."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from flowvis.transport.certificates import issue_ca, issue_client
from flowvis.transport.validity import end_s

NOW = datetime(2026, 3, 1, 12, 30, 59, tzinfo=UTC)


@pytest.mark.parametrize("days", [1, 3650, 365 * 30, 365 * 60])
def test_it_is_the_one_that_the_library_reads(days: int) -> None:
    ca = issue_ca(now=NOW)
    pem = issue_client(ca, "n", now=NOW, validity=timedelta(days=days)).certificate_pem()
    expected = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    assert end_s(pem + ca.certificate_pem()) == end_s(b"a comment\n" + pem) == expected


def test_nothing_else_has_an_end() -> None:
    pem = issue_ca(now=NOW).certificate_pem()
    lines = pem.splitlines(keepends=True)
    cut = b"".join([lines[0], lines[1], lines[-1]])
    for one in (b"", b"\xff", pem[:300], cut, lines[0] + lines[-1], lines[0] + b"*" + lines[-1]):
        assert end_s(one) is None
