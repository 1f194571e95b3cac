"""kustomize's changes of objects: Stoker applies them, or reports one finding and a refusal that name the file."""

import pytest

from manifests.contract import Layout, check, read_endpoint
from manifests.platform import Platform
from manifests.tree import Files, ManifestError
from manifests.tune import plan_tune
from tests.manifests.faults import CHAT, KUSTOMIZATION

DIGEST = "a" * 64
PATCH = "serving/coder-chat/patch.yaml"


def changed(platform: Files, more: str, patch: str = "") -> Files:
    """The platform with more lines in the chat model's kustomization, and a patch beside it."""
    files = {path: platform.read(path) or "" for path in platform.files("")}
    files[KUSTOMIZATION] = files[KUSTOMIZATION] + more
    return Files({**files, **({PATCH: patch} if patch else {})})


def test_an_image_of_the_kustomization_is_the_engine_s(platform: Files, layout: Layout) -> None:
    """Its version decides about the arguments, and its digest about the compile caches."""
    images = f"images:\n  - name: vllm/vllm-openai\n    newTag: v0.21.0\n    digest: sha256:{DIGEST}\n"
    tree = changed(platform, images)
    assert check(Platform(tree, layout)) == ()
    assert read_endpoint(Platform(tree, layout), "coder-chat").engine_version == (0, 21)
    assert f"compile-cache/{DIGEST[:12]}" in (plan_tune(Platform(tree, layout), "coder-chat").changes.files[CHAT] or "")


def test_a_tag_of_the_kustomization_takes_the_digest_away(platform: Files, layout: Layout) -> None:
    """That is named at the tag, and no cache can be kept by it."""
    tree = changed(platform, "images:\n  - name: vllm/vllm-openai\n    newTag: v0.21.0\n")
    (finding,) = check(Platform(tree, layout))
    assert (finding.rule, finding.path) == ("image-digest", KUSTOMIZATION)
    assert (tree.read(KUSTOMIZATION) or "").splitlines()[finding.line - 1] == "    newTag: v0.21.0"
    with pytest.raises(ManifestError, match="not pinned by its digest"):
        plan_tune(Platform(tree, layout), "coder-chat")


NAMED = "kind: Deployment\nmetadata:\n  name: coder-chat\n"
JSON6902 = "- op: replace\n  path: /spec/replicas\n  value: 1\n"


@pytest.mark.parametrize(
    ("more", "patch", "where", "text"),
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
    platform: Files, layout: Layout, more: str, patch: str, where: str, text: str
) -> None:
    """A GPU model that rests above zero costs money, whichever file says it."""
    tree = changed(platform, more, patch)
    (finding,) = [each for each in check(Platform(tree, layout)) if each.rule == "replicas"]
    assert finding.path == where
    assert (tree.read(where) or "").splitlines()[finding.line - 1] == text


def test_a_patch_of_the_replicas_alone_leaves_the_rest_checked(platform: Files, layout: Layout) -> None:
    """It changes nothing else, so that the endpoint can be read, and changed."""
    tree = changed(platform, "patches:\n  - path: patch.yaml\n", f"{NAMED}spec:\n  replicas: 0\n")
    assert check(Platform(tree, layout)) == ()
    assert plan_tune(Platform(tree, layout), "coder-chat").changes.files


def test_a_patch_of_anything_else_is_named_and_nothing_is_changed(platform: Files, layout: Layout) -> None:
    """Its replicas are read all the same."""
    patch = f"{NAMED}spec:\n  replicas: 1\n  template: {{}}\n"
    tree = changed(platform, "patches:\n  - path: patch.yaml\n", patch)
    assert {each.rule for each in check(Platform(tree, layout))} == {"not-checked", "replicas"}
    with pytest.raises(ManifestError, match=rf"{KUSTOMIZATION}:\d+: patches"):
        plan_tune(Platform(tree, layout), "coder-chat")
