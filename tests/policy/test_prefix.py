"""A prefix in one number is the prefix."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yett_policy.prefix import packed_host, packed_prefix, packed_text, read_prefix, unpacked

NETWORKS = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
        lambda each: ipaddress.IPv4Network(each, strict=False)
    ),
    st.tuples(st.integers(0, 2**128 - 1) | st.integers(0, 2**32), st.integers(0, 128)).map(
        lambda each: ipaddress.IPv6Network(each, strict=False)
    ),
)


@given(NETWORKS)
def test_it_comes_back_as_it_was(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    packed = packed_prefix(str(network))
    assert unpacked(packed) == read_prefix(str(network))
    assert packed_text(packed) == str(network)
    assert packed_host(packed) == str(network.network_address)


@given(NETWORKS, NETWORKS)
def test_two_prefixes_have_two_numbers(
    one: ipaddress.IPv4Network | ipaddress.IPv6Network, other: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> None:
    assert (packed_prefix(str(one)) == packed_prefix(str(other))) is (one == other)


@pytest.mark.parametrize("text", ["", "pod", "10.0.0.256", "10.0.0.0/33", "fe80::/129", "010.0.0.1"])
def test_what_is_no_prefix_has_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|not permitted"):
        packed_prefix(text)
