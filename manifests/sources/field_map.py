"""The field map: the fields of a chart's values, or of an unknown resource, that describe an endpoint.

`.stoker.yaml` gives the place of each value as `FILE:PATH`, for example

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
    """Its Service, if that has another name."""
    application: str = ""
    """The name of the Argo CD Application, Flux Kustomization or HelmRelease that deploys the endpoint."""
    port: int = 8000
    gpus: int = 1

    @model_validator(mode="after")
    def _places(self) -> Self:
        for key in ("model", "served_name", "context", "quantization", "replicas"):
            given = getattr(self, key)
            if given and not _PLACE.fullmatch(given):
                raise ValueError(f"{key}: {given!r} is not a place: write FILE:PATH, like values/coder.yaml:model.id")
        if engines.named(self.engine) is None:
            known = ", ".join(engine.name for engine in engines.engines() if engine.changes)
            raise ValueError(f"engine: {self.engine!r} is not known; there are {known}")
        return self

    @property
    def namespace(self) -> str:
        return self.workload.rpartition("/")[0]


def candidate(tree: Tree, name: str, fields: FieldMap) -> Candidate:
    """The endpoint as the map describes it; raises ManifestError with a field that does not exist."""
    engine = engines.named(fields.engine)
    if engine is None:
        raise ManifestError(f"platform.endpoints.{name}.engine: {fields.engine} is not known.")
    model = place(tree, name, "model", fields.model)
    flags = [_flag(engine.model[0], model)]
    for key, flag in (
        ("served_name", engine.served),
        ("context", engine.context),
        ("quantization", engine.quantization),
    ):
        if getattr(fields, key) and flag:
            flags.append(_flag(flag, place(tree, name, key, getattr(fields, key))))
    root = next(each for each in model.document.roots if isinstance(each, MappingNode))
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


def place(tree: Tree, name: str, key: str, where: str) -> Site:
    """The value at `FILE:PATH`, without `hf://` or the argument's name before it."""
    path, _, at = where.partition(":")
    text = tree.read(path)
    setting = f"platform.endpoints.{name}.{key}"
    if text is None:
        raise ManifestError(f"{setting}: there is no file {path}.")
    document = Document(path, text)
    for root in document.roots:
        found = _follow(document, root, [_step(each) for each in _STEP.finditer(at)])
        if found is not None:
            prefix = re.match(r"hf://|--?[\w-]+=", found.value)
            return found.part(found.value[prefix.end() :]) if prefix else found
    raise ManifestError(f"{setting}: {path} has no value at {at}.")


def _step(match: re.Match[str]) -> str | int:
    return int(match[3]) if match[3] else next(each for each in (match[1], match[2], match[4]) if each)


def _follow(document: Document, node: Node, steps: list[str | int]) -> Site | None:
    for index, step in enumerate(steps):
        if isinstance(node, ScalarNode):
            # The text of a ConfigMap or of `helm.values`: a document inside of the file.
            for inner in document.inner:
                for root in inner.roots:
                    if node.start_mark.index <= root.start_mark.index <= node.end_mark.index:
                        return _follow(inner, root, steps[index:])
            return None
        below = find(node, step)
        if below is None:
            return None
        node = below
    if isinstance(node, ScalarNode):
        return Site.whole(document, node)
    first = next((item for item in items(node) if isinstance(item, ScalarNode)), None)
    return Site.whole(document, first) if first is not None else None


def _flag(name: str, site: Site) -> Flag:
    return Flag(name, (site.value,), (site.node,), True, (site,), "variable")
