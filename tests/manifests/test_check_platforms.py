"""Planted faults in the sample platforms of other forms: each is named at its line."""

import pytest

from manifests.contract import check
from manifests.platform import Platform
from manifests.tree import Files, Tree
from tests.manifests.faults import named_at_its_line
from tests.manifests.test_platforms import open_platform

FAULTS = [
    ("app-files", "duplicate-key", "apps/coder.yaml", "  replicas: 1\n", "  replicas: 1\n  replicas: 2\n"),
    ("app-files", "container-port", "apps/coder.yaml", "containerPort: 8000", "containerPort: 8001"),
    ("app-files", "secret-in-git", "apps/coder.yaml", "value: qwen2.5-coder", "value: hf_kQzTgPdVbNxWmLrJ # qwen2.5-coder"),
    ("config-map", "alias-without-endpoint", "apps/litellm/litellm.yaml", "http://vllm:8000", "http://vllmm:8000"),
    ("app-files", "argument", "apps/coder.yaml", "--max-model-len 16384", "--max-model-len 16384tokens"),
    ("flat-files", "schema", "apps/mistral.yaml", "kind: Deployment", "kind: Deploymnet"),
    ("kserve-flux", "kustomization", "models/kustomization.yaml", "- qwen.yaml", "- qwenn.yaml"),
]  # fmt: skip


def contents(tree: Tree) -> Files:
    return Files({path: text for path in tree.files("") if (text := tree.read(path)) is not None})


@pytest.mark.parametrize(("name", "rule", "path", "old", "new"), FAULTS)
def test_a_fault_in_another_platform_is_reported_at_its_line(
    name: str, rule: str, path: str, old: str, new: str
) -> None:
    tree, layout = open_platform(name)
    assert check(Platform(tree, layout)) == ()
    named_at_its_line(contents(tree), layout, rule, path, old, new)


def test_a_quantity_in_the_values_of_a_release_is_checked() -> None:
    """A chart passes it on to the pod."""
    tree, layout = open_platform("helm-release")
    path = next(path for path in tree.files("") if "memory: " in (tree.read(path) or ""))
    named_at_its_line(contents(tree), layout, "resources", path, "Gi", "GB")
