"""kustomize's changes of objects: Stoker applies them, or reports one finding and a refusal that name the file."""

import re

import pytest
from ruamel.yaml import YAML

from manifests.contract import Layout, check, read_endpoint, read_endpoints
from manifests.fitting import fitted_layout
from manifests.platform import Platform
from manifests.replicas import with_replicas
from manifests.tree import Files, ManifestError
from manifests.tune import plan_tune
from tests.manifests.faults import CHAT, KUSTOMIZATION
from tests.manifests.test_platforms import PLATFORMS, open_platform

DIGEST = "a" * 64
PATCH = "serving/coder-chat/patch.yaml"


def with_kustomization(platform: Files, more: str, patch: str = "") -> Files:
    """The platform with more lines in the chat model's kustomization, and a patch next to it."""
    files = {path: platform.read(path) or "" for path in platform.files("")}
    files[KUSTOMIZATION] = files[KUSTOMIZATION] + more
    return Files({**files, **({PATCH: patch} if patch else {})})


def test_an_image_in_the_kustomization_is_the_engines(platform: Files, layout: Layout) -> None:
    """The image's version determines the arguments, and its digest the compile caches."""
    images = f"images:\n  - name: vllm/vllm-openai\n    newTag: v0.21.0\n    digest: sha256:{DIGEST}\n"
    tree = with_kustomization(platform, images)
    assert check(Platform(tree, layout)) == ()
    assert read_endpoint(Platform(tree, layout), "coder-chat").engine_version == (0, 21)
    assert f"compile-cache/{DIGEST[:12]}" in (plan_tune(Platform(tree, layout), "coder-chat").changes.files[CHAT] or "")


def test_a_tag_in_the_kustomization_removes_the_digest(platform: Files, layout: Layout) -> None:
    """The finding is at the tag, and no compile cache can be kept."""
    tree = with_kustomization(platform, "images:\n  - name: vllm/vllm-openai\n    newTag: v0.21.0\n")
    (finding,) = check(Platform(tree, layout))
    assert (finding.rule, finding.path) == ("image-digest", KUSTOMIZATION)
    assert (tree.read(KUSTOMIZATION) or "").splitlines()[finding.line - 1] == "    newTag: v0.21.0"
    with pytest.raises(ManifestError, match="not pinned by its digest"):
        plan_tune(Platform(tree, layout), "coder-chat")


NAMED = "kind: Deployment\nmetadata:\n  name: coder-chat\n"
JSON6902 = "- op: replace\n  path: /spec/replicas\n  value: 1\n"


@pytest.mark.parametrize(
    ("more", "patch", "path", "text"),
    [
        ("patches:\n  - path: patch.yaml\n", f"{NAMED}spec:\n  replicas: 1\n", PATCH, "  replicas: 1"),
        ("patchesStrategicMerge:\n  - patch.yaml\n", f"{NAMED}spec:\n  replicas: 1\n", PATCH, "  replicas: 1"),
        (
            "patches:\n  - path: patch.yaml\n    target: {kind: Deployment, name: coder-chat}\n",
            JSON6902,
            PATCH,
            "  value: 1",
        ),
        (
            "patches:\n  - target: {kind: Deployment}\n    patch: |-\n      - op: replace\n        path: /spec/replicas\n"
            "        value: 1\n",
            "",
            KUSTOMIZATION,
            "        value: 1",
        ),
        (
            "patches:\n  - patch: |-\n      kind: Deployment\n      metadata:\n        name: coder-chat\n      spec:\n"
            "        replicas: 1\n",
            "",
            KUSTOMIZATION,
            "        replicas: 1",
        ),
    ],
)
def test_replicas_of_a_patch_count(
    platform: Files, layout: Layout, more: str, patch: str, path: str, text: str
) -> None:
    """A GPU model above zero replicas costs money, regardless of the file that sets them."""
    tree = with_kustomization(platform, more, patch)
    (finding,) = [finding for finding in check(Platform(tree, layout)) if finding.rule == "replicas"]
    assert finding.path == path
    assert (tree.read(path) or "").splitlines()[finding.line - 1] == text


def test_a_patch_of_replicas_does_not_prevent_the_check(platform: Files, layout: Layout) -> None:
    """The patch changes only the replicas, so the endpoint can be read and changed."""
    tree = with_kustomization(platform, "patches:\n  - path: patch.yaml\n", f"{NAMED}spec:\n  replicas: 0\n")
    assert check(Platform(tree, layout)) == ()
    assert plan_tune(Platform(tree, layout), "coder-chat").changes.files


def test_other_patches_are_reported_and_block_changes(platform: Files, layout: Layout) -> None:
    """The replicas in the patch are still read."""
    patch = f"{NAMED}spec:\n  replicas: 1\n  template: {{}}\n"
    tree = with_kustomization(platform, "patches:\n  - path: patch.yaml\n", patch)
    assert {finding.rule for finding in check(Platform(tree, layout))} == {"not-checked", "replicas"}
    with pytest.raises(ManifestError, match=rf"{KUSTOMIZATION}:\d+: patches"):
        plan_tune(Platform(tree, layout), "coder-chat")


INLINE = "    patch: |-\n      - op: replace\n        path: /spec/replicas\n        value: 0\n"
SECOND = "kind: Deployment\nmetadata:\n  name: cache\n  labels: {tier: cache}\nspec:\n  replicas: 1\n"


@pytest.mark.parametrize(
    ("more", "old", "new"),
    [
        ("replicas:\n  - name: coder-chat\n    count: 0\n", "    count: 0", "    count: 1"),
        (f"patches:\n  - target: {{kind: Deployment}}\n{INLINE}", "        value: 0", "        value: 1"),
        (f"patches:\n  - target: {{name: coder-.*}}\n{INLINE}", "        value: 0", "        value: 1"),
        (
            f"patches:\n  - target: {{labelSelector: app.kubernetes.io/name=coder-chat}}\n{INLINE}",
            "        value: 0",
            "        value: 1",
        ),
        (
            f"patches:\n  - target: {{kind: Deployment}}\n{INLINE}replicas:\n  - {{name: coder-chat, count: 0}}\n",
            "  - {name: coder-chat, count: 0}",
            "  - {name: coder-chat, count: 1}",
        ),
    ],
    ids=["the field", "a kind", "an expression", "a label", "the field after a patch"],
)
def test_starting_by_commit_changes_the_effective_replicas(
    platform: Files, layout: Layout, more: str, old: str, new: str
) -> None:
    tree = with_kustomization(platform, more)
    diff = with_replicas(Platform(tree, layout), "coder-chat", 1).diff(tree).splitlines()
    assert [line for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [f"-{old}", f"+{new}"]


def test_replicas_in_a_patch_of_several_workloads_are_not_changed(platform: Files, layout: Layout) -> None:
    """The other workload would start and stop with the model."""
    tree = with_kustomization(platform, f"patches:\n  - target: {{kind: Deployment}}\n{INLINE}", SECOND)
    with pytest.raises(
        ManifestError, match="sets the replicas of coder-chat and of Deployment cache: limit it to coder-chat"
    ):
        with_replicas(Platform(tree, layout), "coder-chat", 1)
    alone = with_kustomization(platform, f"patches:\n  - target: {{labelSelector: 'tier!=cache'}}\n{INLINE}", SECOND)
    assert set(with_replicas(Platform(alone, layout), "coder-chat", 1).files) == {KUSTOMIZATION}


def test_a_patch_for_another_label_is_ignored(platform: Files, layout: Layout) -> None:
    tree = with_kustomization(platform, f"patches:\n  - target: {{labelSelector: tier=cache}}\n{INLINE}")
    assert set(with_replicas(Platform(tree, layout), "coder-chat", 1).files) == {CHAT}


def test_replicas_that_share_an_anchor_are_not_changed(platform: Files, layout: Layout) -> None:
    """Both numbers would change."""
    files = {path: platform.read(path) or "" for path in platform.files("")}
    files[CHAT] = files[CHAT].replace("  replicas: 0", "  minReadySeconds: &none 0\n  replicas: *none")
    with pytest.raises(ManifestError, match="with an anchor that another value also uses"):
        with_replicas(Platform(Files(files), layout), "coder-chat", 1)


@pytest.mark.parametrize("name", sorted(directory.name for directory in PLATFORMS.iterdir() if directory.is_dir()))
def test_a_kustomization_needs_no_kind(name: str) -> None:
    """The generated objects, the namespace and the findings are the same without `kind`."""
    tree, layout = open_platform(name)
    files = {path: tree.read(path) or "" for path in tree.files("")}
    bare = {
        path: re.sub(r"(?m)^(kind: Kustomization|apiVersion: kustomize\.config.*)\n", "", text)
        if path.endswith("kustomization.yaml")
        else text
        for path, text in files.items()
    }
    explicit, short = Platform(tree, layout), Platform(Files(bare), layout)
    assert fitted_layout(short) == fitted_layout(explicit)
    assert read_endpoints(short) == read_endpoints(explicit)
    assert [finding.rule for finding in check(short)] == [finding.rule for finding in check(explicit)]


def test_the_generated_objects_of_a_kustomization_without_a_kind_are_read() -> None:
    tree, layout = open_platform("config-map")
    files = {path: tree.read(path) or "" for path in tree.files("")}
    (path,) = (path for path, text in files.items() if "kind: ConfigMap" in text and "Qwen" in text)
    for kind in ("kind: Kustomization\n", ""):
        generated = Platform(Files(generating(files, path, kind)), layout)
        assert {endpoint.name: endpoint.hf_id for endpoint in read_endpoints(generated)}[
            "vllm"
        ] == "Qwen/Qwen2.5-7B-Instruct-AWQ"


def generating(files: dict[str, str], path: str, kind: str) -> dict[str, str]:
    """Return the files with the ConfigMap as literals of a generator."""
    (manifest,) = YAML(typ="safe").load_all(files[path])
    literals = "".join(f"      - {key}={value}\n" for key, value in manifest["data"].items())
    generator = f"{kind}configMapGenerator:\n  - name: {manifest['metadata']['name']}\n    literals:\n{literals}"
    kustomization = f"{path.rpartition('/')[0]}/kustomization.yaml"
    return {name: text for name, text in files.items() if name != path} | {kustomization: generator}
