"""Addresses have one spelling, and only public ones may be reached."""

import ipaddress

import pytest

from data.download.addresses import is_public, normalise
from data.download.fetch_errors import FetchError


def test_public_addresses_are_public():
    assert is_public("93.184.216.34", ())
    assert is_public("2606:2800:220:1::1", ())
    assert not is_public("224.0.0.1", ())
    assert not is_public("2002:7f00:1::", ())
    assert not is_public("::ffff:10.0.0.1", ())


def test_a_host_that_the_parser_itself_fails_on_is_a_bad_address():
    with pytest.raises(FetchError) as found:
        normalise("http://\u202e\ufb00HTTP:\u0663[]@")
    assert found.value.reason == "bad_url"


@pytest.mark.parametrize("host", ["2130772483", "0x7f010203", "0177.1.2.3", "127.66051"])
def test_an_address_has_one_spelling(host):
    """Pauses, robots.txt and the limit for each host go by it."""
    assert normalise(f"http://{host}/a").host == "127.1.2.3"


def test_an_address_inside_another_counts():
    allowed = [ipaddress.ip_network("127.0.0.0/24")]
    assert is_public("::ffff:93.184.216.34", ())
    assert is_public("::ffff:127.0.0.1", allowed)
    assert not is_public("::ffff:127.1.2.3", allowed)


@pytest.mark.parametrize("address", ["64:ff9b::5db8:d822", "::", "0.0.0.0", "240.0.0.1", "ff02::1"])
def test_addresses_that_no_host_of_the_internet_has(address):
    assert not is_public(address, ())
