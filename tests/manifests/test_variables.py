"""A value with a variable of Flux (`postBuild.substitute`) is never written over: the variable's place has to change."""

import pytest

from manifests.add import AddRequest, plan_add
from manifests.platform import Platform
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, ManifestError, Overlay
from tests.manifests.test_platforms import facts, opened

RELEASE = "kubernetes/apps/vllm/helmrelease.yaml"


def with_variable(old: str, new: str) -> Platform:
    tree, layout = opened("helm-release")
    text = (tree.read(RELEASE) or "").replace(old, new)
    assert new in text
    return Platform(Overlay(tree, ChangeSet(files={RELEASE: text})), layout)


@pytest.mark.parametrize("variable", ["${LEN:=8192}", "${LEN:-8192}", "${LEN}"])
def test_a_swap_does_not_write_over_a_variable(variable: str) -> None:
    platform = with_variable("len=8192", f"len={variable}")
    request = SwapRequest(name="vllm", facts=facts("Qwen/Qwen3-1.7B"), context=4096)
    with pytest.raises(ManifestError) as refused:
        plan_swap(platform, request, Machine())
    assert f"{RELEASE}:24 has the variable {variable}" in str(refused.value)


def test_a_copy_whose_replicas_are_a_variable_would_start() -> None:
    platform = with_variable("replicas: 0", "replicas: ${COUNT:=1}")
    with pytest.raises(ManifestError, match=r"has the variable \$\{COUNT:=1\}"):
        plan_add(platform, AddRequest(name="scribe", facts=facts("Qwen/Qwen3-1.7B"), like="vllm"), Machine())
