"""What the operator writes: PolicyStatus, SecurityIdentity and the status of policies.

Everything is described and bounded here, because the schemas of the CRDs come from it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from yett_policy.identity import LABEL_LIMIT, LABELS_MAX

# The fields' names are those of the API.
# ruff: noqa: N815

Name = Annotated[str, Field(max_length=253)]
Count = Annotated[int, Field(ge=0)]


class Condition(BaseModel):
    """One aspect of the state."""

    type: Annotated[str, Field(max_length=316)]
    """Accepted, Programmed or Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    observedGeneration: Count
    """The metadata.generation of this object that the condition was written for; of an older one
    it says nothing any more."""
    lastTransitionTime: Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
    """When status last changed."""
    reason: Annotated[str, Field(max_length=128, pattern="^[A-Za-z]([A-Za-z0-9]*[A-Za-z0-9])?$")]
    """One word for programs, like PartiallyProgrammed."""
    message: Annotated[str, Field(max_length=32768)]
    """A sentence for people."""


class Nodes(BaseModel):
    """How many nodes run pods that the policy selects."""

    desired: Count
    """Nodes that run pods that the policy selects."""
    enforced: Count
    """Those of them that have this generation in force."""
    failed: Count
    """Those of them that could not put it in force or do not answer."""


class FailedNode(BaseModel):
    """A node that does not have the policy in force as it is."""

    node: Name
    """Name of the node."""
    reason: Annotated[str, Field(max_length=128)]
    """One word for programs, like Disconnected or MapFull."""
    message: Annotated[str, Field(max_length=1024)]
    """What the node said, or what is known of it."""


class Requests(BaseModel):
    """What rules of the policy decided, as far back as the counters of nodes go."""

    allowed: Count
    """Flows and requests that a rule of the policy let pass."""
    denied: Count
    """Flows and requests that the policy denied."""
    audited: Count
    """Flows and requests that it would have denied, were it not for audit: true."""


class RollUp(BaseModel):
    """Whether the policy is in force, as the operator sees it."""

    observedGeneration: Count
    """The metadata.generation of the policy that this speaks of."""
    enforced: Annotated[str, Field(max_length=32)]
    """Nodes that have the policy in force, of those that run pods it selects, like 3/3."""
    engine: Annotated[str, Field(max_length=32)]
    """Who judges the HTTP requests: kernel, sidecar, kernel+sidecar, or empty without HTTP rules."""
    conditions: Annotated[list[Condition], Field(max_length=8)]
    """Accepted, Programmed and Ready."""


class LastAccepted(BaseModel):
    """The newest version of the policy that was accepted."""

    generation: Count
    """Its metadata.generation."""
    object: Annotated[str, Field(max_length=1500000)]
    """Its apiVersion, kind, name and spec as JSON.  It stays in force while a later version is
    refused, also over restarts of the operator."""


class PolicyStatusStatus(BaseModel):
    """Whether the policy is in force, node by node."""

    observedGeneration: Count
    """The metadata.generation of this object (of the PolicyStatus, not of the policy) that this was
    written for; it is older than that for as long as a new version of the policy is not judged."""
    policyGeneration: Count
    """The metadata.generation of the policy that this speaks of."""
    documentDigest: Annotated[str, Field(max_length=64)]
    """SHA-256 over what the policy's pods are governed by; changes whenever anything that
    nodes must put in force for them does."""
    enforced: Annotated[str, Field(max_length=32)]
    """Nodes that have the policy in force, of those that run pods it selects, like 3/3."""
    engine: Annotated[str, Field(max_length=32)]
    """Who judges the HTTP requests: kernel, sidecar, kernel+sidecar, or empty without HTTP rules."""
    engineReason: Annotated[str, Field(max_length=1024)]
    """Why this engine."""
    pods: Count
    """How many pods the policy selects."""
    nodes: Nodes
    """How many nodes run pods that the policy selects, and what came of it there."""
    failedNodes: Annotated[list[FailedNode], Field(max_length=10)]
    """The first ten nodes that do not have the policy in force, by name."""
    requests: Requests
    """What rules of the policy decided, as far back as the counters of nodes go."""
    conditions: Annotated[list[Condition], Field(max_length=8)]
    """Accepted, Programmed and Ready."""
    lastAccepted: LastAccepted | None = None
    """The newest version of the policy that was accepted."""


class PolicyRef(BaseModel):
    """The policy that this object speaks of."""

    apiVersion: Annotated[str, Field(max_length=253)]
    """API version of the policy, like yett.dev/v1alpha1."""
    kind: Annotated[str, Field(max_length=63)]
    """Kind of the policy, like L7Policy."""
    name: Name
    """Name of the policy."""
    namespace: Name | None = None
    """Namespace of the policy, if its kind has one."""
    uid: Annotated[str, Field(max_length=64)]
    """UID of the policy."""


class PolicyStatusSpec(BaseModel):
    """Which policy this speaks of, and which version of it the status is to speak of."""

    policy: PolicyRef
    """The policy that this object speaks of."""
    policyGeneration: Count = 0
    """The newest metadata.generation of the policy that the operator has seen.  Written before it is
    judged: it makes this object's own generation grow, and what status says out of date."""


class PolicyStatus(BaseModel):
    """Where a policy is in force.  Written by the operator alone; deleted with the policy."""

    spec: PolicyStatusSpec
    """Which policy this speaks of, and which version of it the status is to speak of."""
    status: PolicyStatusStatus | None = None
    """Whether the policy is in force, node by node."""


class SecurityIdentitySpec(BaseModel):
    """The labels that a number stands for."""

    number: Annotated[int, Field(ge=256, le=4294967295)]
    """The number that nodes know these labels by; also the name of the object."""
    labels: Annotated[
        list[Annotated[str, Field(max_length=LABEL_LIMIT)]], Field(min_length=1, max_length=LABELS_MAX)
    ]
    """Labels with their source, sorted, like k8s:app=server."""


class SecurityIdentity(BaseModel):
    """A number for pods (or addresses) with equal labels.  Written by the operator alone; kept so
    that numbers stay the same over its restarts.
    """

    spec: SecurityIdentitySpec
    """The labels that a number stands for."""
