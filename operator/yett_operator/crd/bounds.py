"""How big the parts of a policy may be, and what the API server itself checks of them.

The bounds keep the cost of the rules below what the API server allows, and a policy below
what etcd stores.  The rules say what the models in yett_policy.source say, in the same words;
what CEL cannot see (whether a regular expression is in the subset) is left to the webhook.
"""

from __future__ import annotations

from yett_operator.crd.schema import Schema

REGEX = {"maxLength": 4096}
CIDR = {"maxLength": 43}
KEY = {"maxLength": 325}
"""A source, a prefix of 253 characters, a name of 63."""

BOUNDS: dict[tuple[str, str], Schema] = {
    ("Spec", "ingress"): {"maxItems": 64},
    ("Spec", "egress"): {"maxItems": 64},
    ("Spec", "ingressDeny"): {"maxItems": 64},
    ("Spec", "egressDeny"): {"maxItems": 64},
    ("Spec", "labels"): {"maxItems": 64},
    ("Spec", "labels[]"): {"x-kubernetes-preserve-unknown-fields": True},
    ("Spec", "description"): {"maxLength": 4096},
    ("Labels", "matchLabels"): {"maxProperties": 64},
    ("Labels", "matchLabels[]"): {"maxLength": 63},
    ("Labels", "matchExpressions"): {"maxItems": 64},
    ("Expression", "key"): KEY,
    ("Expression", "values"): {"maxItems": 256},
    ("Expression", "values[]"): {"maxLength": 63},
    ("Ingress", "fromEndpoints"): {"maxItems": 64},
    ("Ingress", "fromEntities"): {"maxItems": 16},
    ("Ingress", "fromCIDR"): {"maxItems": 256},
    ("Ingress", "fromCIDR[]"): CIDR,
    ("Ingress", "fromCIDRSet"): {"maxItems": 256},
    ("Egress", "toEndpoints"): {"maxItems": 64},
    ("Egress", "toEntities"): {"maxItems": 16},
    ("Egress", "toCIDR"): {"maxItems": 256},
    ("Egress", "toCIDR[]"): CIDR,
    ("Egress", "toCIDRSet"): {"maxItems": 256},
    ("Item", "toPorts"): {"maxItems": 16},
    ("Item", "icmps"): {"maxItems": 40},
    ("CidrRule", "cidr"): CIDR,
    ("CidrRule", "except_"): {"maxItems": 256},
    ("CidrRule", "except_[]"): CIDR,
    ("PortProtocol", "port"): {"maxLength": 15},
    ("L7Rules", "http"): {"maxItems": 256},
    ("Http", "method"): {"maxLength": 256},
    ("Http", "path"): REGEX,
    ("Http", "pathPrefix"): {**REGEX, "pattern": "^/"},
    ("Http", "pathExact"): {**REGEX, "pattern": "^/"},
    ("Http", "host"): REGEX,
    ("Http", "headers"): {"maxItems": 64},
    ("Http", "headers[]"): REGEX,
    ("Http", "headerMatches"): {"maxItems": 64},
    ("Http", "upgrades"): {"maxItems": 4},
    ("Http", "allowAmbiguous"): {"maxItems": 16},
    ("HeaderMatch", "name"): {"maxLength": 256},
    ("HeaderMatch", "value"): REGEX,
}
for _side, _kinds in (("Ingress", ("Ingress", "IngressDeny")), ("Egress", ("Egress", "EgressDeny"))):
    for _kind in _kinds:
        BOUNDS |= {
            (_kind, field): bound for (model, field), bound in BOUNDS.items() if model in {_side, "Item"}
        }
BOUNDS |= {("DenyPortRule", field): bound for (model, field), bound in BOUNDS.items() if model == "PortRule"}


def rule(expression: str, message: str, reason: str = "FieldValueInvalid") -> Schema:
    """One of x-kubernetes-validations."""
    return {"rule": expression, "message": message, "reason": reason}


def _full(field: str) -> str:
    return f"(has(self.{field}) && size(self.{field}) > 0)"


def _item(side: str) -> list[Schema]:
    kinds = [f"{side}{kind}" for kind in ("Endpoints", "Entities", "CIDR", "CIDRSet")]
    count = " + ".join(f"({_full(kind)} ? 1 : 0)" for kind in kinds)
    return [
        rule(
            f"{count} <= 1",
            f"only one of {', '.join(kinds[:-1])} and {kinds[-1]} may be given in one item; make each an item of its own",
        ),
        rule(
            f"!({_full('toPorts')} && {_full('icmps')})",
            "toPorts and icmps cannot go together in one item; make each an item of its own",
        ),
    ]


_RULE_FIELDS = ("ingress", "egress", "ingressDeny", "egressDeny")
_PORT_RULE = [
    rule(
        "!(has(self.rules) && has(self.rules.http) && size(self.rules.http) > 0) || "
        "(has(self.ports) && size(self.ports) > 0)",
        "ports is required beside HTTP rules; write the ports that HTTP is spoken on",
        "FieldValueRequired",
    ),
    rule(
        "!(has(self.rules) && has(self.rules.http) && size(self.rules.http) > 0) || !has(self.ports) || "
        "self.ports.all(p, has(p.protocol) && p.protocol == 'TCP')",
        "every port must be TCP beside HTTP rules; write protocol: TCP",
    ),
]
RULES: dict[str, list[Schema]] = {
    "Spec": [
        rule(
            " || ".join(map(_full, _RULE_FIELDS)),
            "needs at least one item in ingress, egress, ingressDeny or egressDeny; "
            "to deny everything that comes in write ingress: [{}]",
            "FieldValueRequired",
        ),
    ],
    "Ingress": _item("from"),
    "IngressDeny": _item("from"),
    "Egress": _item("to"),
    "EgressDeny": _item("to"),
    "PortRule": _PORT_RULE,
    "DenyPortRule": _PORT_RULE,
    "PortProtocol": [
        rule(
            "!has(self.endPort) || self.endPort == 0 || !self.port.matches('^[0-9]+$') || "
            "int(self.port) <= self.endPort",
            "endPort is below port; swap them",
        ),
        rule(
            "!has(self.endPort) || self.endPort == 0 || self.port.matches('^[0-9]+$')",
            "endPort cannot go with a named port; remove it, or write a port number",
        ),
    ],
    "Http": [
        rule(
            "!has(self.path) || (!has(self.pathPrefix) && !has(self.pathExact))",
            "path excludes pathPrefix and pathExact; keep one of them",
        ),
        rule(
            "!has(self.pathPrefix) || !has(self.pathExact)",
            "pathPrefix excludes pathExact; keep one of them",
        ),
    ],
    "Expression": [
        rule(
            "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
            "operators In and NotIn need at least one value",
            "FieldValueRequired",
        ),
        rule(
            "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",
            "operators Exists and DoesNotExist take no values; remove them",
        ),
    ],
}
"""Header matches are nested too deep for rules of their own: the webhook checks them."""
