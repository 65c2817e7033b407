"""Types of fields that several sources share; each refuses with one sentence."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from yett_policy.prefix import parse_prefix

CILIUM = "cilium"
"""Validation context of kinds that must stay within what Cilium knows."""

_MAPPED = parse_prefix("::ffff:0:0/96")
_SERVICE_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
_LABEL_KEY = re.compile(
    r"(?:[a-z0-9-]+:)?(?:[a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?",
)
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?")
NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
"""Of objects."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Model(BaseModel):
    """A part of a policy: unknown fields are refused, values are never coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    refuses: ClassVar[Mapping[str, str]] = {}
    """Fields that are known and not supported, and what to say of each; null means absent."""

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: object) -> object:
        if not isinstance(data, dict) or not any(field in data for field in cls.refuses):
            return data
        for field, why in cls.refuses.items():
            if data.get(field) is not None:
                raise refusal(why, field)
        return {field: value for field, value in data.items() if field not in cls.refuses}

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.check()
        return self

    def check(self) -> None:
        """Raise `refusal` for what no single field can show."""


def refusal(message: str, field: str = "") -> PydanticCustomError:
    """An error whose text reaches the user as it is; `field` is below the place that raises."""
    return PydanticCustomError("refused", "{message}", {"message": message, "field": field})


class L7Only(BeforeValidator):
    """Marks a field that CiliumNetworkPolicy does not have."""


def l7_only(instead: str) -> L7Only:
    """Refuses the field in CiliumNetworkPolicy and says what to do instead."""

    def check(value: object, info: ValidationInfo) -> object:
        if value is not None and info.context == CILIUM:
            raise refusal(f"not a field of CiliumNetworkPolicy; {instead}")
        return value

    return L7Only(check)


def text(check: Callable[[str], str | None]) -> AfterValidator:
    """A string for which `check` returns no complaint."""

    def validate(value: str) -> str:
        complaint = check(value)
        if complaint is not None:
            raise refusal(complaint)
        return value

    return AfterValidator(validate)


def _cidr(value: str) -> str | None:
    address, slash, _ = value.partition("/")
    try:
        prefix = parse_prefix(value)
        ipaddress.ip_address(address)
    except ValueError:
        return f"{value!r} is not a CIDR block; write an address and a prefix length, like 10.0.0.0/8"
    if not slash:
        return f"{value!r} has no prefix length; write {value}/{32 if prefix.version == 4 else 128}"
    if not value.rpartition("/")[2].isdecimal():
        return f"{value!r} has a netmask; write a prefix length, like 10.0.0.0/8"
    if _MAPPED.covers(prefix):
        return f"{value!r} is an IPv4 block in IPv6 clothes; write it as IPv4"
    return None


def _port(value: str) -> str | None:
    if value.isascii() and value.isdecimal():
        if value != str(int(value)) or int(value) > 65535:
            return f"{value!r} is not a port; write a decimal number from 0 to 65535 without leading zeros"
        return None
    if _SERVICE_NAME.fullmatch(value.lower()) is None:
        return (
            f"{value!r} is neither a port number nor a port name "
            "(at most 15 letters, digits and single hyphens, at least one letter)"
        )
    return None


def _label_key(value: str) -> str | None:
    source, colon, _ = value.partition(":")
    if colon and source not in {"any", "k8s", "reserved"}:
        return f"label source {source!r} is not supported; use k8s:, reserved: or no source"
    if _LABEL_KEY.fullmatch(value) is None:
        return f"{value!r} is not a label key"
    return None


def _label_value(value: str) -> str | None:
    if _LABEL_VALUE.fullmatch(value) is None or len(value) > 63:
        return f"{value!r} is not a label value (at most 63 letters, digits, '-', '_' and '.')"
    return None


def is_header_name(value: str) -> bool:
    """Whether a request can have a header of that name."""
    return _HEADER_NAME.fullmatch(value) is not None


def _header_name(value: str) -> str | None:
    if not is_header_name(value):
        return f"{value!r} is not a header name"
    return None


def _latin1(value: str) -> str | None:
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return "has characters beyond Latin-1, which no HTTP/1 request can hold as one byte each"
    if any(byte < " " or byte == "\x7f" for byte in value):
        return "has control characters, which no HTTP request may hold"
    return None


Cidr = Annotated[str, text(_cidr)]
Port = Annotated[str, text(_port)]
LabelKey = Annotated[str, text(_label_key)]
LabelValue = Annotated[str, text(_label_value)]
HeaderName = Annotated[str, text(_header_name)]
Latin1 = Annotated[str, text(_latin1)]


class Expression(Model):
    """One of a selector's matchExpressions."""

    key: LabelKey
    """Label key, like app or k8s:app."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """In and NotIn compare with values; Exists and DoesNotExist take none."""
    values: list[LabelValue] | None = None
    """For In and NotIn, at least one."""

    def check(self) -> None:
        """Values go with In and NotIn, and only with them."""
        if self.operator in {"In", "NotIn"} and not self.values:
            raise refusal(f"operator {self.operator} needs at least one value", "values")
        if self.operator in {"Exists", "DoesNotExist"} and self.values:
            raise refusal(f"operator {self.operator} takes no values; remove them", "values")


class Labels(Model):
    """A Kubernetes label selector; empty: everything."""

    matchLabels: dict[LabelKey, LabelValue] | None = None  # noqa: N815
    """Labels that must have these values, like app: server."""
    matchExpressions: list[Expression] | None = None  # noqa: N815
    """Further conditions on labels; all of them must hold."""


class Metadata(BaseModel):
    """What counts of an object's metadata."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: str = Field(max_length=253, pattern=NAME_PATTERN)
    namespace: str | None = Field(default=None, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    creationTimestamp: object = None  # noqa: N815 - the API's name; a date or null in files, and then of no use

    @property
    def created(self) -> str:
        """When the API server stored it first; times sort as text.  Empty: never."""
        return self.creationTimestamp if isinstance(self.creationTimestamp, str) else ""
