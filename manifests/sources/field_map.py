"""The field map: the places of an endpoint's values in a chart's values or in an unknown resource.

`.stoker.yaml` contains the place of each value as `FILE:PATH`, for example

    platform:
      endpoints:
        coder:
          engine: vllm
          model: values/coder.yaml:model.id
          served_name: values/coder.yaml:model.name
          workload: llm/coder
"""

import re
from typing import Self

from pydantic import BaseModel, model_validator
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests import engines
from manifests.arguments import Command, Flag
from manifests.edit import Document, find, items
from manifests.objects import Located
from manifests.sources.candidate import Candidate
from manifests.sources.site import Site
from manifests.tree import ManifestError, Tree

_STEP = re.compile(r"""\.?(?:"([^"]+)"|'([^']+)'|\[(\d+)\]|([^.\["']+))""")
_PLACE = re.compile(r"[^:]+:[^:].*")


class FieldMap(BaseModel, frozen=True, defer_build=True, extra="forbid"):
    """One endpoint, by the places of its values: each is `FILE:PATH`, like `values/coder.yaml:model.id`."""

    engine: str = "vLLM"
    model: str
    served_name: str = ""
    context: str = ""
    quantization: str = ""
    replicas: str = ""
    workload: str = ""
    """The Deployment in the cluster, as `NAMESPACE/NAME`."""
    service: str = ""
    """The Service, if its name differs from the workload's."""
    application: str = ""
    """The name of the Argo CD Application, Flux Kustomization or HelmRelease that deploys the endpoint."""
    port: int = 8000
    gpus: int = 1

    @model_validator(mode="after")
    def _places(self) -> Self:
        for key in ("model", "served_name", "context", "quantization", "replicas"):
            text = getattr(self, key)
            if text and not _PLACE.fullmatch(text):
                raise ValueError(f"{key}: {text!r} is not a place: write FILE:PATH, like values/coder.yaml:model.id")
        if engines.engine_named(self.engine) is None:
            engine_names = ", ".join(engine.name for engine in engines.engines() if engine.changes)
            raise ValueError(f"engine: {self.engine!r} is not supported; supported engines: {engine_names}")
        return self

    @property
    def namespace(self) -> str:
        return self.workload.rpartition("/")[0]


def candidate(tree: Tree, name: str, fields: FieldMap) -> Candidate:
    """The endpoint of a field map; raises ManifestError if a place has no value."""
    engine = engines.engine_named(fields.engine)
    if engine is None:
        raise ManifestError(f"platform.endpoints.{name}.engine: {fields.engine} is not supported.")
    model = place(tree, name, "model", fields.model)
    flags = [_flag(engine.model[0], model)]
    for key, flag in (
        ("served_name", engine.served),
        ("context", engine.context),
        ("quantization", engine.quantization),
    ):
        if getattr(fields, key) and flag:
            flags.append(_flag(flag, place(tree, name, key, getattr(fields, key))))
    root = next(root for root in model.document.roots if isinstance(root, MappingNode))
    workload = fields.workload.rpartition("/")[2] or name
    return Candidate(
        kind="field map",
        name=name,
        workload=Located(model.document, root),
        subject=root,
        container=root,
        command=Command(engine, tuple(flags)),
        hosts=tuple(filter(None, (fields.service, workload))),
        deployment=workload,
        replicas=place(tree, name, "replicas", fields.replicas) if fields.replicas else None,
    )


def place(tree: Tree, name: str, key: str, location: str) -> Site:
    """The site of the value at `FILE:PATH`, without a leading `hf://` or argument name."""
    path, _, value_path = location.partition(":")
    text = tree.read(path)
    setting = f"platform.endpoints.{name}.{key}"
    if text is None:
        raise ManifestError(f"{setting}: there is no file {path}.")
    document = Document(path, text)
    for root in document.roots:
        site = _follow(document, root, [_step(step) for step in _STEP.finditer(value_path)])
        if site is not None:
            prefix = re.match(r"hf://|--?[\w-]+=", site.value)
            return site.part(site.value[prefix.end() :]) if prefix else site
    raise ManifestError(f"{setting}: {path} has no value at {value_path}.")


def _step(match: re.Match[str]) -> str | int:
    return int(match[3]) if match[3] else next(group for group in (match[1], match[2], match[4]) if group)


def _follow(document: Document, node: Node, steps: list[str | int]) -> Site | None:
    for index, step in enumerate(steps):
        if isinstance(node, ScalarNode):
            # The scalar contains a document, as in a ConfigMap or in `helm.values`.
            for inner in document.inner:
                for root in inner.roots:
                    if node.start_mark.index <= root.start_mark.index <= node.end_mark.index:
                        return _follow(inner, root, steps[index:])
            return None
        child = find(node, step)
        if child is None:
            return None
        node = child
    if isinstance(node, ScalarNode):
        return Site.whole(document, node)
    first = next((item for item in items(node) if isinstance(item, ScalarNode)), None)
    return Site.whole(document, first) if first is not None else None


def _flag(name: str, site: Site) -> Flag:
    return Flag(name, (site.value,), (site.node,), True, (site,), "variable")
