import pytest

from flowvis.addresses import MAX_TEXT, parse_address, parse_network


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.000.002.010", "192.0.2.10"),  # decimal: not 8
        ("0000000010.1.1.1", "10.1.1.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:00db8:0:0::000000f", "2001:db8::f"),
        ("::", "::"),
        ("0::00000", "::"),
        ("::ffff:198.051.100.007", "198.51.100.7"),
        ("64:ff9b::192.0.2.033", "64:ff9b::c000:221"),
    ],
)
def test_addresses_as_api_servers_took_them(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "192.0.2", "192.0.2.256", "192.0.2.1.1", "192.0.2.-1", "192.0.2.+1", "192.0.2.1 "),
        *("192.0.2.0x1", "192..2.1", "1:2", ":::", "fe80::1%eth0", "g::", "::192.0.2.256", "::1::"),
        *("\uff11.1.1.1", "0" * MAX_TEXT + "1.1.1.1", None, 7, ["192.0.2.1"], b"192.0.2.1"),
    ],
)
def test_what_is_no_address(text: object) -> None:
    with pytest.raises(ValueError, match="is no IP address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.244.1.1/24", "10.244.1.0/24"),
        ("010.244.001.000/024", "10.244.1.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::5/64", "2001:db8::/64"),
        ("::/0", "::/0"),
        ("::ffff:10.1.2.3/112", "10.1.0.0/16"),
        ("192.0.2.1/32", "192.0.2.1/32"),
    ],
)
def test_networks_as_api_servers_took_them(text: str, network: str) -> None:
    assert str(parse_network(text)) == network


@pytest.mark.parametrize(
    "text",
    [
        *("10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/24/8", "/24"),
        *("10.0.0.0/255.255.0.0", "::/129", "::ffff:10.0.0.0/95", "10.0.0.0/x", None, 8),
    ],
)
def test_what_is_no_network(text: object) -> None:
    with pytest.raises(ValueError, match="is no network"):
        parse_network(text)
