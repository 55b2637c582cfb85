"""The fields of KubeRay's custom resources that `cluster/kuberay/` uses, typed and closed.

Written from the public API reference of ray.io/v1 (KubeRay 1.6). No registry packages the CRDs themselves, so this is our
own reading of them: a field that is missing here is refused even where KubeRay knows it. Pod templates, policies and
accounts are checked against Kubernetes' own schemas, and the result as a whole by the code of Ray's autoscaler.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import kubernetes_validate
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from typing_extensions import Self

KUBERNETES = "1.33.0"
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Closed):
    name: Name | None = None
    generateName: str | None = None  # noqa: N815 - the field's name in the resource
    namespace: Name


class AuthOptions(Closed):
    mode: Literal["disabled", "token"]


class AutoscalerOptions(Closed):
    version: Literal["v1", "v2"]
    upscalingMode: Literal["Default", "Aggressive", "Conservative"]  # noqa: N815
    idleTimeoutSeconds: int = Field(ge=0)  # noqa: N815
    resources: dict[str, dict[str, str]]
    securityContext: dict[str, Any]  # noqa: N815


class Group(Closed):
    rayStartParams: dict[str, str]  # noqa: N815
    resources: dict[str, str]
    template: dict[str, Any]


class HeadGroup(Group):
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"]  # noqa: N815
    enableIngress: bool  # noqa: N815


class WorkerGroup(Group):
    groupName: Name  # noqa: N815
    replicas: int = Field(ge=0)
    minReplicas: int = Field(ge=0)  # noqa: N815
    maxReplicas: int = Field(ge=1)  # noqa: N815
    labels: dict[str, str]


class RayClusterSpec(Closed):
    rayVersion: str  # noqa: N815
    authOptions: AuthOptions  # noqa: N815
    enableInTreeAutoscaling: bool  # noqa: N815
    autoscalerOptions: AutoscalerOptions  # noqa: N815
    headGroupSpec: HeadGroup  # noqa: N815
    workerGroupSpecs: list[WorkerGroup]  # noqa: N815


class SubmitterConfig(Closed):
    backoffLimit: int = Field(ge=0)  # noqa: N815


class RayJobSpec(Closed):
    clusterSelector: dict[str, str]  # noqa: N815
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]  # noqa: N815
    entrypoint: str = Field(min_length=1)
    submitterConfig: SubmitterConfig  # noqa: N815
    submitterPodTemplate: dict[str, Any]  # noqa: N815


class RayCluster(Closed):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec

    @model_validator(mode="after")
    def minimum_below_maximum(self) -> Self:
        for group in self.spec.workerGroupSpecs:
            if not group.minReplicas <= group.replicas <= group.maxReplicas:
                raise ValueError(f"{group.groupName}: minReplicas <= replicas <= maxReplicas")
        return self


class RayJob(Closed):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class RayServiceSpec(Closed):
    serveConfigV2: str = Field(min_length=1)  # noqa: N815
    rayClusterConfig: RayClusterSpec  # noqa: N815


class RayService(Closed):
    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayService"]
    metadata: Metadata
    spec: RayServiceSpec


CUSTOM = {"RayCluster": RayCluster, "RayJob": RayJob, "RayService": RayService}


def pod_templates(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (group name, pod template) of a custom resource."""
    spec = manifest["spec"]
    spec = spec.get("rayClusterConfig", spec)
    if "headGroupSpec" in spec:
        yield "head", spec["headGroupSpec"]["template"]
        yield from ((group["groupName"], group["template"]) for group in spec["workerGroupSpecs"])
    else:
        yield "submitter", spec["submitterPodTemplate"]


def validate(manifest: dict[str, Any]) -> None:
    """Raise pydantic's or kubernetes_validate's ValidationError, or ValueError, for the first mistake."""
    model = CUSTOM.get(manifest["kind"])
    if model is None:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    model.model_validate(manifest)
    for name, template in pod_templates(manifest):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name} | template.get("metadata", {}),
            "spec": template["spec"],
        }
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        _check_volumes(name, template["spec"])


def _check_volumes(name: str, spec: dict[str, Any]) -> None:
    defined = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        used = {mount["name"] for mount in container.get("volumeMounts", [])}
        if used != defined:
            raise ValueError(f"{name}: volumes {sorted(used ^ defined)} are only mounted or only defined")
