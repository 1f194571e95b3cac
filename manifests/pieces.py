"""The pieces of one endpoint: the documents, and the nodes in them that must agree.

`contract` reads values from these nodes and compares them; `add`, `swap` and `remove` edit at their positions.
"""

from collections.abc import Iterator
from typing import Literal

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests import accelerators
from manifests.arguments import MODEL_FLAGS, Flag, read
from manifests.edit import entries, find, items, scalars, value
from manifests.engines import Engine
from manifests.frozen import frozen
from manifests.gateway import Entry
from manifests.kustomize import Opaque, Rendering
from manifests.objects import Located, mappings, objects, parent_keys
from manifests.sources import field_map
from manifests.sources.candidate import Candidate
from manifests.tree import Tree

__all__ = ["GPU", "MODEL_FLAGS", "Entry", "Located", "Pieces", "environment", "kustomization", "labels", "objects"]

GPU = "nvidia.com/gpu"


@frozen
class Pieces:
    """The pieces of one endpoint. Missing pieces are None; callers decide how to handle them."""

    name: str
    deployment: Located
    container: MappingNode
    engine: str
    runtime: Engine
    flags: tuple[Flag, ...]
    pvc: Located | None
    claims: tuple[Located, ...]
    service: Located | None
    application: Located | None
    entries: tuple[Entry, ...]
    rendering: Rendering
    files: tuple[str, ...]
    home: str
    """The directory of the endpoint's manifests, or the file that contains all of them."""
    candidate: Candidate
    namespace: str
    """The namespace in the cluster, if the manifests define it."""
    related: tuple[Located, ...] = ()
    """Objects other than the workload: the ConfigMaps that it reads, and everything else in its own files."""
    deployer: str = ""
    """The name of the deployer, if the repository contains the object that deploys the endpoint."""
    deployed_by: str = ""
    """The Flux Kustomization that deploys it, if no Application does."""
    fields: field_map.FieldMap | None = None
    gpu_resources: tuple[str, ...] = ()
    opaque: tuple[Opaque, ...] = ()
    """Changes by kustomizations whose effect is not computed."""

    @property
    def entry(self) -> Entry | None:
        """The endpoint's own entry; other entries may also route to the endpoint."""
        return next(iter(self.entries), None)

    @property
    def form(self) -> str:
        return self.candidate.kind

    @property
    def is_plain(self) -> bool:
        """True for a workload with a pod template; False if a chart or an operator creates the objects."""
        return self.candidate.pod is not None and self.form not in ("InferenceService", "LLMInferenceService")

    @property
    def pod(self) -> Node | None:
        return self.candidate.pod

    @property
    def served(self) -> Flag | None:
        return self.flag(self.runtime.served) if self.runtime.served else None

    @property
    def served_names(self) -> tuple[str, ...]:
        """The names that the engine answers to; without the argument, vLLM uses the model's id."""
        if not self.runtime.served:
            return ()
        served = self.served
        if served is not None and served.values:
            return tuple(
                name
                for flag_value in served.values
                for name in (flag_value.split(",") if self.runtime.gguf else [flag_value])
            )
        if self.is_named_by_object:
            return (value(self.deployment.node, "metadata", "name"),)
        return (self.model.value,) if not self.runtime.gguf else ()

    @property
    def is_named_by_object(self) -> bool:
        """True if the operator (KServe's runtimes, KubeAI) serves the model under the name of its object."""
        predictor = find(self.deployment.node, "spec", "predictor", "model")
        return self.served is None and (self.form == "Model" or self.container is predictor)

    @property
    def second_engine(self) -> str:
        """The name of another container of the same pod that serves a model; "" if there is none."""
        for mapping in mappings(self.candidate.subject):
            if mapping is not self.container and (find(mapping, "args") or find(mapping, "command")) is not None:
                command = read(mapping, self.deployment.document, {}, {})
                if command is not None and command.engine is not None and command.model is not None:
                    return value(mapping, "name") or parent_keys(self.candidate.subject, mapping)[-1]
        return ""

    @property
    def requires_key(self) -> bool:
        """True if the engine has a key and refuses requests without it."""
        variable, flag = self.runtime.key
        if self.candidate.key is not None or all(self.key_secret):
            return True
        return variable in environment(self.container) or (bool(flag) and self.flag(flag) is not None)

    @property
    def key_secret(self) -> tuple[str, str]:
        """The Secret and its key with the engine's API key; empty strings if the manifests do not define it."""
        if self.candidate.key is not None:
            return self.candidate.key
        variable = self.runtime.key[0]
        variable_item = next(
            (item for item in items(find(self.container, "env")) if value(item, "name") == variable), None
        )
        reference = find(variable_item or find(self.container, "env", variable), "valueFrom", "secretKeyRef")
        return value(reference, "name"), value(reference, "key")

    @property
    def workload(self) -> str:
        """The Deployment's name in the cluster."""
        if self.fields is not None or not self.is_plain:
            return self.candidate.deployment or self.candidate.name
        return self.rendering.name(value(self.deployment.node, "metadata", "name"))

    @property
    def host(self) -> str:
        """The Service's name in the cluster."""
        if self.service is None and self.candidate.hosts:
            return self.candidate.hosts[0]
        return self.rendering.name(value(self.service.node, "metadata", "name") if self.service else self.name)

    @property
    def model(self) -> Flag:
        return next(flag for name in self.runtime.model for flag in self.flags if flag.name == name)

    def flag(self, name: str) -> Flag | None:
        return next((flag for flag in self.flags if flag.name == name), None)

    @property
    def image(self) -> str:
        """The engine's image as in the pod."""
        return self.rendering.image(value(self.container, "image"))

    def argument_for(self, setting: Literal["context", "quantization", "utilization"]) -> Flag | None:
        """The engine's argument for this setting."""
        name: str = getattr(self.runtime, setting)
        return self.flag(name) if name else None

    @property
    def service_port(self) -> int:
        """The endpoint's port in the cluster; 0 if it is unknown."""
        port = value(self.service.node, "spec", "ports", 0, "port") if self.service else ""
        if port.isdecimal():
            return int(port)
        return self.fields.port if self.fields else 0 if self.is_plain else self.runtime.port

    @property
    def gpus(self) -> int:
        """The number of GPUs that the container may use; 1 if it shares the node's GPU without setting a limit."""
        if self.fields is not None:
            return self.fields.gpus
        if self.candidate.gpus is not None:
            return self.candidate.gpus
        counted = accelerators.gpus(labels(find(self.container, "resources", "limits")), self.gpu_resources)
        claimed = bool(items(find(self.container, "resources", "claims")))
        return counted or int(claimed or value(self.pod, "runtimeClassName") == "nvidia")

    @property
    def gpu(self) -> bool:
        return self.gpus > 0

    def texts(self) -> Iterator[tuple[Located, ScalarNode]]:
        """Every scalar value in the endpoint's own objects, without comments."""
        for located, node in (
            (self.deployment, self.candidate.subject),
            *((located, located.node) for located in self.related),
        ):
            yield from ((located, scalar) for scalar in scalars([node]))

    @property
    def staging(self) -> tuple[ScalarNode, ...]:
        """The parts of the initContainers' commands that may contain a model id."""
        commands = [
            find(init, key) for init in items(find(self.pod, "initContainers")) for key in ("command", "args", "env")
        ]
        return tuple(scalars(node for node in commands if node is not None))


def kustomization(tree: Tree, pieces: Pieces) -> Located | None:
    """The endpoint's own kustomization, or None."""
    kustomizations = (
        located for path in pieces.files for kind, located in objects(tree, path) if kind == "Kustomization"
    )
    return next(kustomizations, None)


def environment(container: Node | None) -> dict[str, Node]:
    """The variables of a container, by name."""
    return {value(item, "name"): item for item in items(find(container, "env"))}


def labels(node: Node | None) -> dict[str, str]:
    """A mapping of scalars as a dict."""
    return {str(key.value): str(label.value) for key, label in entries(node) if isinstance(label, ScalarNode)}
