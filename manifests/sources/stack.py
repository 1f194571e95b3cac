"""vLLM's own chart, vllm-stack: `servingEngineSpec.modelSpec`, a list of models, each with its own engine.

Its values may be below another key, if another chart contains it. Source: `helm/values.yaml` and
`helm/templates/deployment-vllm-multi.yaml` of vllm-project/production-stack.
"""

from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, ScalarNode

from manifests import engines
from manifests.arguments import Command, Flag, flags_of_list
from manifests.edit import Document, find, items, scalar, value
from manifests.objects import Located, mappings
from manifests.sources import charts
from manifests.sources.candidate import Candidate
from manifests.sources.site import Site

_VALUES = {
    "maxModelLen": "--max-model-len",
    "gpuMemoryUtilization": "--gpu-memory-utilization",
    "tensorParallelSize": "--tensor-parallel-size",
}


def models(kind: str, release: str, document: Document, values: MappingNode, located: Located) -> Iterator[Candidate]:
    """The models in the values of a release."""
    vllm = engines.engine_named("vLLM")
    for chart in mappings(values):
        for spec in items(find(chart, "servingEngineSpec", "modelSpec")):
            model = scalar(spec, "modelURL")
            if not isinstance(spec, MappingNode) or model is None or vllm is None:
                continue
            name, replicas = value(spec, "name"), scalar(spec, "replicaCount")
            key = find(spec, "vllmAPIKey") or find(chart, "servingEngineSpec", "vllmApiKey")
            count = value(spec, "requestGPU")
            yield Candidate(
                kind=kind,
                name=name,
                workload=Located(document, spec),
                subject=spec,
                container=spec,
                command=Command(vllm, (_flag_of_value(document, vllm.model[0], model), *_flags(document, spec, vllm))),
                hosts=(
                    f"{release}-{name}-engine-service",
                    f"{release}-engine-service",
                    f"{release}-router-service",
                    release,
                ),
                replicas=Site.whole(document, replicas) if replicas is not None else None,
                deployment=f"{release}-{name}-deployment-vllm",
                files=(document.path,),
                application=located if kind == "Application" else None,
                namespace=charts.namespace(kind, located),
                gpus=int(count) if count.isdecimal() else 0,
                key=(value(key, "secretName"), value(key, "secretKey")) if key is not None else None,
            )


def _flags(document: Document, spec: MappingNode, vllm: engines.Engine) -> Iterator[Flag]:
    for key, flag in _VALUES.items():
        if (node := scalar(spec, "vllmConfig", key)) is not None:
            yield _flag_of_value(document, flag, node)
    extra_arguments = items(find(spec, "vllmConfig", "extraArgs"))
    yield from flags_of_list([item for item in extra_arguments if isinstance(item, ScalarNode)], document, vllm)


def _flag_of_value(document: Document, flag: str, node: ScalarNode) -> Flag:
    site = Site.whole(document, node)
    return Flag(flag, (site.value,), (node,), True, (site,), "variable")
