"""One lab for the tests of a module, and nothing of it afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from support.sidecarlab import Lab


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Lab]:
    made = Lab(f"s{secrets.token_hex(4)}")
    try:
        made.up()
        yield made
    finally:
        made.close()
