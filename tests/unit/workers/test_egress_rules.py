import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.egress import (
    BLOCKED,
    BlockedError,
    OutboundRequest,
    OutboundResponse,
    is_public,
    parse_url,
    without_credentials,
)
from orchestrator.egress.messages import redirected, sendable
from workers.failures import PermanentError, outcome_of_exception

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:82a::200e",
    "2001:4860:4860::8888",
]
NOT_PUBLIC = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"],
    "metadata": ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"],
    "metadata v6": ["fd00:ec2::254", "fe80::a9fe:a9fe", "fe80::1%eth0"],
    "shared": ["100.64.0.0", "100.127.255.255"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "documentation": ["192.0.2.1", "198.51.100.7", "203.0.113.9", "2001:db8::1", "3fff::1"],
    "benchmark": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.88.99.1", "100::1", "5f00::1", "fec0::1"],
    "unique local": ["fc00::1", "fd12:3456:789a::1"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:a9fe:a9fe", "::127.0.0.1"],
    "translated": ["64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::1", "2001:0:7f00:1::1"],
    "no address": ["", "localhost", "127.1", "0x7f.0.0.1", "2130706433", "1.2.3.4.5", "::g", "127.0.0.1 "],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str):
    assert is_public(address)


@pytest.mark.parametrize("address", [address for group in NOT_PUBLIC.values() for address in group])
def test_other_addresses_are_not_public(address: str):
    assert not is_public(address)


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_special(address: Any):
    if is_public(str(address)):
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_private, address.is_loopback))


@given(st.ip_addresses(v=4))
def test_an_embedded_ipv4_address_is_never_reached_through_ipv6(address: ipaddress.IPv4Address):
    number = int(address)
    for prefix, shift in (("::ffff:0:0", 0), ("::", 0), ("64:ff9b::", 0), ("2002::", 80)):
        assert not is_public(str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | number << shift)))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com", "gopher://x", "unix:///run/x.sock", "a:b"])
def test_other_schemes_are_blocked(url: str):
    with pytest.raises(BlockedError, match=BLOCKED):
        parse_url(url)


@pytest.mark.parametrize("url", ["", "example.com", "/path", "http://", "http:///x", "https://:443", "http://a:b:c/"])
def test_incomplete_urls_are_wrong_input(url: str):
    with pytest.raises(PermanentError, match="invalid url") as caught:
        parse_url(url)
    assert not outcome_of_exception(caught.value).retryable


@pytest.mark.parametrize("url", ["http://a\r\nHost: b/", "http://a/\x00", "http://[::1", "http://" + "a" * 70_000])
def test_urls_with_forbidden_characters_never_reach_the_wire(url: str):
    with pytest.raises(PermanentError):
        parse_url(url)


def test_headers_that_frame_or_break_the_message_are_dropped():
    assert sendable(
        {
            "Host": "internal",
            "hOST": "internal",
            "Content-Length": "5",
            "Transfer-Encoding": "chunked",
            "Connection": "upgrade",
            "Accept-Encoding": "br",
            "X-Bad\r\nHost": "internal",
            "X-Bad-Value": "a\r\nHost: internal",
            "X-Null": "\x00",
            "": "empty",
            "X Space": "1",
            "Grüße": "1",
            "X-Good": " tab\tis fine ",
            "Authorization": "Bearer x",
        }
    ) == {"X-Good": "tab\tis fine", "Authorization": "Bearer x"}


@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [
        (301, "POST", "GET"),
        (301, "PUT", "PUT"),
        (302, "POST", "GET"),
        (302, "HEAD", "HEAD"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "DELETE", "DELETE"),
    ],
)
def test_redirects_change_the_method_as_browsers_do(status: int, method: str, becomes: str):
    headers = {"Content-Type": "text/plain", "Authorization": "secret", "Cookie": "secret", "X": "1"}
    request = OutboundRequest(method=method, url="https://a.test", headers=headers, body=b"x")
    followed = redirected(request, status, is_same_origin=True)
    assert followed.method == becomes
    keeps_body = becomes == method
    assert (followed.body is not None) == keeps_body
    assert ("Content-Type" in followed.headers) == keeps_body
    assert "Authorization" in followed.headers
    assert redirected(request, status, is_same_origin=False).headers.keys() <= {"Content-Type", "X"}


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=iso-8859-1", b"\xe9", "é"),
        ('text/plain; charset="UTF-8"', "é".encode(), "é"),
        ("text/plain; charset=nonsense", "é".encode(), "é"),
        ("text/plain; charset=hex", b"zz", "zz"),
        ("", b"a\xffb\x00", "a\ufffdb\ufffd"),
        ("text/plain; charset=utf-16", b"\x00\xd8", "\ufffd"),
        ("text/plain; charset=punycode", b"abc-", "abc-"),
    ],
)
def test_body_text_can_always_be_stored(content_type: str, body: bytes, text: str):
    response = OutboundResponse(status=200, headers={"content-type": content_type}, body=body, url="http://a")
    assert response.text == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h/a@b?c=d@e", "https://h/a@b?c=d@e"),
        ("http://u@h", "http://h"),
        ("HTTP://u:p@x@h:8/", "HTTP://h:8/"),
        ("http://h/?next=http://u:p@x", "http://h/?next=http://u:p@x"),
    ],
)
def test_credentials_stay_out_of_messages(url: str, shown: str):
    assert without_credentials(url) == shown
