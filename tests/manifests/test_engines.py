"""Engines in all forms: arguments in every notation, several names, no name, no key, other engines."""

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import Layout, check, read_endpoint, read_endpoints
from manifests.platform import Platform
from manifests.remove import plan_remove
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import Files, ManifestError, Overlay, Tree
from tests.manifests.models import CODER_3B, CODER_3B_AWQ

CHAT = "serving/coder-chat/deployment.yaml"
VALUES = "platform/litellm/values.yaml"
NAME = "            - --served-model-name=qwen2.5-coder-7b-instruct\n"
MODEL = "            - --model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ\n"
KEY = """\
            - name: VLLM_API_KEY
              valueFrom:
                secretKeyRef:
                  name: vllm-api-key # one key for the whole namespace
                  key: api-key
"""


def contents(tree: Tree) -> dict[str, str]:
    return {path: text for path in tree.files("") if (text := tree.read(path)) is not None}


def replaced(tree: Tree, old: str, new: str, path: str = CHAT) -> Files:
    files = contents(tree)
    assert old in files[path], old
    return Files(files | {path: files[path].replace(old, new, 1)})


def swapped(tree: Tree, layout: Layout, machine: Machine) -> Tree:
    """Return the tree after a swap to an unquantized model, which removes --quantization, and a swap back, which adds it."""
    swapped = Overlay(
        tree, plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B), machine).changes
    )
    assert check(Platform(swapped, layout)) == ()
    back = SwapRequest(name="coder-chat", facts=CODER_3B_AWQ)
    return Overlay(swapped, plan_swap(Platform(swapped, layout), back, machine).changes)


@pytest.mark.parametrize(
    "names",
    [
        "            - --served-model-name\n            - qwen2.5-coder-7b-instruct\n            - coder\n",
        "            - --served-model-name\n            - coder\n            - qwen2.5-coder-7b-instruct\n",
        "            - --served-model-name=qwen2.5-coder-7b-instruct\n            - coder\n",
        "            - --served_model_name\n            - qwen2.5-coder-7b-instruct   # ours\n            - coder   # theirs\n",
    ],
)
def test_several_names_are_read_and_kept_together(
    platform: Files, layout: Layout, machine: Machine, names: str
) -> None:
    """Nothing is inserted between the names; a name that is derived from the model changes with it."""
    tree = replaced(platform, NAME, names)
    assert check(Platform(tree, layout)) == ()
    endpoint = read_endpoint(Platform(tree, layout), "coder-chat")
    assert set(endpoint.served_names) == {"qwen2.5-coder-7b-instruct", "coder"}
    after = swapped(tree, layout, machine)
    assert check(Platform(after, layout)) == ()
    assert read_endpoint(Platform(after, layout), "coder-chat").served_names == tuple(
        "qwen2.5-coder-3b-instruct" if served_name != "coder" else served_name for served_name in endpoint.served_names
    )
    text = after.read(CHAT) or ""
    assert names.replace("7b", "3b") in text
    assert text.index("coder\n" if "# theirs" not in names else "coder ") < text.index("--quantization")


def test_a_gateway_may_request_the_second_served_name(platform: Files, layout: Layout, machine: Machine) -> None:
    tree = replaced(platform, NAME, "            - --served-model-name\n            - a\n            - coder\n")
    tree = replaced(tree, "model: openai/qwen2.5-coder-7b-instruct ", "model: openai/coder ", VALUES)
    assert check(Platform(tree, layout)) == ()
    after = swapped(tree, layout, machine)
    assert read_endpoint(Platform(after, layout), "coder-chat").served_names == ("a", "coder")


def test_without_a_served_name_the_models_id_is_the_name(platform: Files, layout: Layout, machine: Machine) -> None:
    tree = replaced(platform, NAME, "")
    tree = replaced(
        tree, "model: openai/qwen2.5-coder-7b-instruct ", "model: openai/Qwen/Qwen2.5-Coder-7B-Instruct-AWQ ", VALUES
    )
    assert check(Platform(tree, layout)) == ()
    after = swapped(tree, layout, machine)
    assert check(Platform(after, layout)) == ()
    assert read_endpoint(Platform(after, layout), "coder-chat").served_name == "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
    assert "--served-model-name" not in (after.read(CHAT) or "")
    assert "model: openai/Qwen/Qwen2.5-Coder-3B-Instruct-AWQ " in (after.read(VALUES) or "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            f"          args:\n{MODEL}",
            '          command: ["vllm", "serve", "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"]\n          args:\n',
        ),
        (f"          args:\n{MODEL}", "          args:\n            - Qwen/Qwen2.5-Coder-7B-Instruct-AWQ\n"),
        (
            f"          args:\n{MODEL}",
            f"          command: [python3, -m, vllm.entrypoints.openai.api_server]\n          args:\n{MODEL}",
        ),
        (
            f"          args:\n{MODEL}",
            "          command:\n            - vllm\n            - serve\n            - Qwen/Qwen2.5-Coder-7B-Instruct-AWQ\n",
        ),
    ],
)
def test_the_model_may_be_positional(platform: Files, layout: Layout, machine: Machine, old: str, new: str) -> None:
    """The model follows `vllm serve`, is the first argument of vLLM's own image, or is part of `command`."""
    tree = replaced(platform, old, new)
    assert check(Platform(tree, layout)) == ()
    after = swapped(tree, layout, machine)
    assert check(Platform(after, layout)) == ()
    assert read_endpoint(Platform(after, layout), "coder-chat").hf_id == "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
    assert new.replace("7B", "3B") in (after.read(CHAT) or "")


@pytest.mark.parametrize(
    ("image", "arguments", "engine"),
    [
        ("ollama/ollama:0.12", "[serve]", "Ollama"),
        ("registry.example.com/serve:1", "['--model=/models/coder-q4.gguf']", "a server of GGUF files"),
        ("nvcr.io/nvidia/tensorrt-llm/release:1.0", "[trtllm-serve, Qwen/Qwen3-8B]", "TensorRT-LLM"),
        ("ghcr.io/huggingface/text-generation-inference:3", "[--model-id=Qwen/Qwen3-8B]", "Text Generation Inference"),
        ("registry.example.com/serve:1", '[sh, -c, "exec serve.sh --model Qwen/Qwen3-8B"]', "a shell command"),
    ],
)
def test_another_engine_is_reported_and_not_changed(
    platform: Files, layout: Layout, machine: Machine, image: str, arguments: str, engine: str
) -> None:
    """vLLM's flags have no meaning in another engine."""
    key = "command" if "sh, -c" in arguments else "args"
    deployment = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: other\nspec:\n  template:\n    spec:\n      containers:\n"
        f"        - name: server\n          image: {image}\n          {key}: {arguments}\n"
    )
    tree = Files(contents(platform) | {"serving/other/deployment.yaml": deployment})
    assert check(Platform(tree, layout)) == ()
    assert "other" not in [endpoint.name for endpoint in read_endpoints(Platform(tree, layout))]
    (unknown,) = Platform(tree, layout).unknown()
    assert (unknown.home, engine in unknown.reason) == ("serving/other", True)
    message = f"serving/other is outside the contract: its engine is {engine}"
    with pytest.raises(ManifestError, match=message):
        plan_swap(Platform(tree, layout), SwapRequest(name="other", facts=CODER_3B), machine)
    with pytest.raises(ManifestError, match=message):
        plan_remove(Platform(tree, layout), "other")


def test_an_engine_without_a_key_is_read_from_the_manifest(platform: Files, layout: Layout) -> None:
    assert read_endpoint(Platform(platform, layout), "coder-chat").has_key
    tree = replaced(platform, KEY, "")
    assert not read_endpoint(Platform(tree, layout), "coder-chat").has_key


EXTRA = (
    ("qdrant.yaml", "kind: Deployment\nmetadata:\n  name: qdrant\n"),
    ("dashboard.json", "{}\n"),
    ("sub/a.yaml", "a: 1\n"),
)


@pytest.mark.parametrize(("name", "text"), EXTRA)
def test_files_that_an_endpoint_does_not_own_are_never_deleted(
    platform: Files, layout: Layout, machine: Machine, name: str, text: str
) -> None:
    """A directory may contain a whole stack, which is not copied."""
    tree = Files(contents(platform) | {f"serving/coder-chat/{name}": text})
    with pytest.raises(ManifestError, match=f"nothing is deleted: serving/coder-chat/{name}"):
        plan_remove(Platform(tree, layout), "coder-chat")
    with pytest.raises(ManifestError, match="cannot be copied"):
        plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ, like="coder-chat"), machine)


def test_an_object_with_the_endpoints_name_is_copied_and_removed_with_it(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """The object is copied, renamed, and removed again."""
    monitor = "kind: ServiceMonitor\nmetadata:\n  name: coder-chat\nspec:\n  selector: {}\n"
    tree = Files(contents(platform) | {"serving/coder-chat/monitor.yaml": monitor})
    added = Overlay(
        tree, plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine).changes
    )
    assert "name: mini" in (added.read("serving/mini/monitor.yaml") or "")
    assert contents(Overlay(added, plan_remove(Platform(added, layout), "mini").changes)) == contents(tree)


KUSTOMIZATION = "serving/{}/kustomization.yaml"


def prefixed(platform: Files) -> Files:
    """A fork whose kustomizations rename the objects, and whose other files use the new names."""
    files = contents(platform)
    for name in ("coder-chat", "coder-fim", "embeddings"):
        path, app = (
            KUSTOMIZATION.format(name),
            f"clusters/ai-dev/catalog/{'embeddings' if name == 'embeddings' else 'coding-assistant'}/{name}.yaml",
        )
        files[path] = files[path].replace(
            "namespace: serving\n", "namespace: serving\nnamePrefix: llm-\nnameSuffix: -v1\n"
        )
        files[VALUES] = files[VALUES].replace(f"http://{name}.serving", f"http://llm-{name}-v1.serving")
        files[app] = files[app].replace(
            f"name: {name}\n      namespace: serving", f"name: llm-{name}-v1\n      namespace: serving"
        )
    return Files(files)


def test_kustomizes_prefix_and_suffix_are_applied(platform: Files, layout: Layout, machine: Machine) -> None:
    """LiteLLM needs the Service's name in the cluster, and the Application ignores the Deployment by its name."""
    tree = prefixed(platform)
    assert check(Platform(tree, layout)) == ()
    change = plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    after = Overlay(tree, change.changes)
    assert check(Platform(after, layout)) == ()
    assert "api_base: http://llm-mini-v1.serving.svc.cluster.local:8000/v1" in (after.read(VALUES) or "")
    assert "      name: llm-mini-v1\n" in (after.read("clusters/ai-dev/catalog/coding-assistant/mini.yaml") or "")
    assert contents(Overlay(after, plan_remove(Platform(after, layout), "mini").changes)) == contents(tree)
    wrong = replaced(tree, "http://llm-coder-chat-v1.serving", "http://coder-chat.serving", VALUES)
    assert {finding.rule for finding in check(Platform(wrong, layout))} == {"api-base-host"}


def test_patches_are_one_finding_and_a_refusal(platform: Files, layout: Layout, machine: Machine) -> None:
    """These patches may change any field."""
    path = KUSTOMIZATION.format("coder-chat")
    tree = Files(contents(platform) | {path: f"{platform.read(path)}patches:\n  - path: more.yaml\n"})
    (finding,) = check(Platform(tree, layout))
    assert (finding.rule, finding.path) == ("not-checked", path)
    assert (tree.read(path) or "").splitlines()[finding.line - 1] == "patches:"
    with pytest.raises(ManifestError, match=rf"{path}:\d+: patches"):
        plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)


def test_images_and_replicas_of_kustomize_count(platform: Files, layout: Layout) -> None:
    """The kustomization may contain a digest, and replicas that take precedence over those of the Deployment."""
    path, digest = (
        KUSTOMIZATION.format("coder-chat"),
        "4f0c1a5d9be27c3380d6f14e2a97b05c86d13fe7420b9a58c7e1d3f6402b8c95",
    )
    text = (platform.read(CHAT) or "").replace(f"@sha256:{digest}", "")
    images = f"images:\n  - name: vllm/vllm-openai\n    digest: sha256:{digest}\n"
    tree = Files(contents(platform) | {CHAT: text, path: f"{platform.read(path)}{images}"})
    assert check(Platform(tree, layout)) == ()
    replicas = "replicas:\n  - name: coder-chat\n    count: 1\n"
    scaled = Files(contents(platform) | {path: f"{platform.read(path)}{replicas}"})
    (finding,) = check(Platform(scaled, layout))
    assert (finding.rule, finding.path) == ("replicas", path)
    assert (scaled.read(path) or "").splitlines()[finding.line - 1] == "    count: 1"
