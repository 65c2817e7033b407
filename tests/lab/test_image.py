"""Stand-ins for images."""

from __future__ import annotations

from pathlib import Path

import pytest

from yett_lab import image
from yett_lab.errors import InputError
from yett_lab.objects import Container, ContainerPort


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("nginx", "nginx"),
        ("nginx:1.27", "nginx"),
        ("docker.io/library/nginx:1.27@sha256:00", "nginx"),
        ("mendhak/http-https-echo:31", "mendhak/http-https-echo"),
        ("registry.example:5000/shop/api:v1", "shop/api"),
        ("localhost/x", "x"),
    ],
)
def test_registry_tag_and_digest_do_not_matter(given: str, name: str) -> None:
    assert image.normalise(given) == name


def argv(container: Container, images: dict[str, str] | None = None) -> tuple[str, ...]:
    return image.argv(container, images or {}, Path("/nonexistent"))


def test_the_echo_listens_on_the_ports_that_the_container_names() -> None:
    echo = "mendhak/http-https-echo"
    assert argv(Container("c", echo))[-2:] == ("80", "8080")
    assert argv(Container("c", echo, ports=(ContainerPort(9000),)))[-1] == "9000"
    assert argv(Container("c", echo, env=(("HTTP_PORT", "81"),)))[-1] == "81"


def test_a_command_replaces_the_stand_in() -> None:
    assert argv(Container("c", "appropriate/curl", command=("sleep", "3600"))) == ("sleep", "3600")


def test_arguments_go_to_the_entry_point() -> None:
    assert argv(Container("c", "curlimages/curl", args=("-s", "http://x"))) == ("curl", "-s", "http://x")
    assert argv(Container("c", "shop/api", args=("-v",)), {"shop/api": "python3 -m 'a b'"}) == (
        *("python3", "-m", "a b"),
        "-v",
    )


@pytest.mark.parametrize("text", ["nginx", "=sleep 1", "a=", "a='"])
def test_a_bad_image_option_says_how_to_write_it(text: str) -> None:
    with pytest.raises(InputError, match=r"^--image"):
        image.parse_option(text)
