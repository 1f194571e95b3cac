"""KServe: InferenceService (v1beta1) and LLMInferenceService (v1alpha1).

An InferenceService names its model in `predictor.model.storageUri`, or in an argument of its runtime; its Service is
`NAME-predictor`. An LLMInferenceService has the model in `spec.model.uri` and the served name in `spec.model.name`; the
arguments of its template's container are added. Source: KServe's API reference
(kserve.github.io/website/docs/reference/crd-api).
"""

import re
from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests import engines
from manifests.accelerators import is_gpu
from manifests.arguments import Command, Flag, arguments_without_model, read
from manifests.edit import entries, find, items, scalar, value
from manifests.objects import Located
from manifests.sources.candidate import Candidate
from manifests.sources.configmaps import surroundings
from manifests.sources.site import Site
from manifests.sources.source import EndpointSource
from manifests.sources.workloads import server_in
from manifests.tree import Tree

_HUB = "hf://"
_MOUNTED = "/mnt/models"


def candidates(tree: Tree, kind: str, located: Located) -> Iterator[Candidate]:
    if kind == "InferenceService":
        yield from _inference_service(tree, located)
    else:
        yield from _llm_inference_service(tree, located)


def _inference_service(tree: Tree, located: Located) -> Iterator[Candidate]:
    predictor = find(located.node, "spec", "predictor")
    model, name = find(predictor, "model"), value(located.node, "metadata", "name")
    uri = scalar(model, "storageUri")
    site = _from_hub(located, uri) if uri is not None else None
    container: MappingNode | None = None
    if isinstance(model, MappingNode):
        runtime = value(model, "modelFormat", "name")
        hint = "huggingfaceserver" if runtime.lower() == "huggingface" else f"{runtime} {value(model, 'runtime')}"
        pod_context = surroundings(tree, located.document, predictor, model)
        container, configs = model, pod_context.configs
        command = read(model, located.document, pod_context.variables, pod_context.files, hint)
        if command is None and site is not None:
            command = command_of_runtime(hint, runtime)
        elif command is None and uri is not None and re.search(r"vllm|huggingface", hint, re.IGNORECASE):
            command, site = command_of_runtime(hint, runtime), Site.whole(located.document, uri)
    else:
        server = server_in(tree, located, predictor) or _unsupported_server(predictor)
        if server is None:
            return
        container, command, configs = server
    if command is None or container is None:
        return
    if site is not None:
        command = with_model(command, site)
    # With its autoscaler, KServe runs at least one replica even with `minReplicas: 0` (kserve/kserve#3514).
    scaler = value(located.node, "metadata", "annotations", "serving.kserve.io/autoscalerClass")
    replicas = scalar(predictor, "minReplicas") if scaler in ("external", "none") else None
    yield Candidate(
        kind="InferenceService",
        name=name,
        workload=located,
        subject=located.node,
        container=container,
        command=command,
        pod=predictor,
        configs=configs,
        hosts=(f"{name}-predictor", f"{name}-predictor-default", name),
        deployment=f"{name}-predictor",
        replicas=Site.whole(located.document, replicas) if replicas is not None else None,
    )


def command_of_runtime(hint: str, runtime: str) -> Command:
    """The engine of a ServingRuntime, if its name shows it."""
    if "huggingface" in hint.lower():
        return Command(engines.engine_named("KServe Hugging Face"), ())
    return Command(engines.engine_named("vLLM") if "vllm" in hint.lower() else None, (), f"KServe's {runtime}")


def _unsupported_server(predictor: Node | None) -> tuple[MappingNode, Command, tuple[Located, ...]] | None:
    """A server with another engine on a GPU; it is listed but not changed."""
    for container in items(find(predictor, "containers")):
        limits = find(container, "resources", "limits")
        if isinstance(container, MappingNode) and any(is_gpu(str(key.value)) for key, _ in entries(limits)):
            return container, Command(None, (), f"the image {value(container, 'image').partition('@')[0]}"), ()
    return None


def _llm_inference_service(tree: Tree, located: Located) -> Iterator[Candidate]:
    name = value(located.node, "metadata", "name")
    uri, template = scalar(located.node, "spec", "model", "uri"), find(located.node, "spec", "template")
    if uri is None:
        return
    server = server_in(tree, located, template)
    if server is None and find(template, "containers", 0, "command") is not None:
        server = _unsupported_server(template)
    vllm = engines.engine_named("vLLM")
    container = find(template, "containers", 0) or located.node
    command, configs = Command(vllm, ()), tuple[Located, ...]()
    if server is not None:
        container, command, configs = server
    elif vllm is not None:
        pod_context = surroundings(tree, located.document, template, container)
        command = Command(
            vllm,
            arguments_without_model(container, located.document, pod_context.variables, vllm, "VLLM_ADDITIONAL_ARGS"),
        )
        configs = pod_context.configs
    site = _from_hub(located, uri)
    flags = command.flags
    name_node = scalar(located.node, "spec", "model", "name")
    if name_node is not None and not any(flag.name == "--served-model-name" for flag in flags):
        place = Site.whole(located.document, name_node)
        flags = (*flags, Flag("--served-model-name", (place.value,), (name_node,), True, (place,), "variable"))
    command = Command(command.engine or (vllm if server is None else None), flags, command.description)
    command = with_model(command, site or Site.whole(located.document, uri))
    if not isinstance(container, MappingNode):
        return
    replicas = scalar(located.node, "spec", "replicas")
    yield Candidate(
        kind="LLMInferenceService",
        name=name,
        workload=located,
        subject=located.node,
        container=container,
        command=command,
        pod=template,
        configs=configs,
        hosts=(f"{name}-kserve-workload-svc", name),
        deployment=f"{name}-kserve",
        replicas=Site.whole(located.document, replicas) if replicas is not None else None,
    )


def _from_hub(located: Located, uri: ScalarNode) -> Site | None:
    site = Site.whole(located.document, uri)
    return site.part(site.value.removeprefix(_HUB)) if site.value.startswith(_HUB) else None


def with_model(command: Command, site: Site) -> Command:
    """The command with the model that KServe mounts, at its place in the file."""
    names = command.engine.model if command.engine is not None else ("--model",)
    is_volume = site.value.startswith("pvc://")  # the argument selects a directory of the volume
    other_flags = tuple(
        flag
        for flag in command.flags
        if flag.name not in names
        or not flag.value.startswith((_MOUNTED, "$"))
        or (is_volume and flag.value.startswith(f"{_MOUNTED}/"))
    )
    if any(flag.name in names for flag in other_flags):
        return Command(command.engine, other_flags, command.description)
    flag = Flag(names[0], (site.value,), (site.node,), True, (site,), "variable")
    return Command(command.engine, (flag, *other_flags), command.description)


SOURCE = EndpointSource("kserve", frozenset({"InferenceService", "LLMInferenceService"}), candidates)
