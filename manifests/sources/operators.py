"""Models of operators: KubeAI's `Model`, the Ollama operator's `Model`, and LLMKube's `InferenceService`.

KubeAI names the model in `spec.url` and its engine in `spec.engine`, adds `spec.args` to the engine's arguments, and
serves the model under the object's name; `resourceProfile: NAME:COUNT` is a profile of its chart. Stoker changes models
with KubeAI's vLLM and only lists the others. Sources: kubeai.org/reference/kubernetes-api, ollama-operator.ayaka.io,
llmkube.com.
"""

import re
from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, ScalarNode

from manifests import engines
from manifests.arguments import Command, Flag, flags_of_list
from manifests.edit import find, items, scalar, value
from manifests.objects import Located
from manifests.sources.candidate import Candidate
from manifests.sources.site import Site
from manifests.sources.source import EndpointSource
from manifests.tree import Tree

KUBEAI = "kubeai.org/"
_OLLAMA, _LLMKUBE = "ollama.ayaka.io/", "inference.llmkube.dev/"
_HUB = "hf://"
_ENGINES = {"OLlama": "Ollama", "Infinity": "Infinity"}


def candidates(tree: Tree, kind: str, located: Located) -> Iterator[Candidate]:
    api, spec = value(located.node, "apiVersion"), find(located.node, "spec")
    if not isinstance(spec, MappingNode):
        return
    if api.startswith(KUBEAI):
        command = _kubeai_command(located, spec)
    elif api.startswith(_OLLAMA):
        command = Command(engines.engine_named("Ollama"), ())
    elif api.startswith(_LLMKUBE) and kind == "InferenceService":
        command = Command(None, (), f"LLMKube's {value(spec, 'runtime') or 'llama.cpp'}")
    else:
        return
    name, profile = value(located.node, "metadata", "name"), value(spec, "resourceProfile")
    replicas = scalar(spec, "minReplicas" if api.startswith(KUBEAI) else "replicas")
    yield Candidate(
        kind=kind,
        name=name,
        workload=located,
        subject=located.node,
        container=spec,
        command=command,
        hosts=(f"ollama-model-{name}",) if api.startswith(_OLLAMA) else (name,),
        replicas=Site.whole(located.document, replicas) if replicas is not None else None,
        deployment=f"ollama-model-{name}" if api.startswith(_OLLAMA) else "",
        gpus=_gpus(profile) if api.startswith(KUBEAI) else None,
    )


def _kubeai_command(located: Located, spec: MappingNode) -> Command:
    engine_name, url = value(spec, "engine"), scalar(spec, "url")
    vllm = engines.engine_named("vLLM")
    if engine_name.upper() != "VLLM" or vllm is None:
        return Command(engines.engine_named(_ENGINES.get(engine_name, engine_name)), (), f"KubeAI's {engine_name}")
    flags = flags_of_list(
        [item for item in items(find(spec, "args")) if isinstance(item, ScalarNode)], located.document, vllm
    )
    if url is None or not url.value.startswith(_HUB):
        return Command(vllm, flags)
    url_site = Site.whole(located.document, url)
    site = url_site.part(re.split(r"[?@]", url_site.value.removeprefix(_HUB))[0], len(_HUB))
    return Command(vllm, (Flag(vllm.model[0], (site.value,), (url,), True, (site,), "variable"), *flags))


def _gpus(profile: str) -> int:
    """The GPUs of a profile, by its name: `nvidia-gpu-l4:2` has two, `cpu:4` has none."""
    name, _, count = profile.partition(":")
    return int(count or 1) if not re.match(r"cpu\b", name) and (count or "1").isdecimal() else 0


SOURCE = EndpointSource("operators", frozenset({"Model", "InferenceService"}), candidates)
