"""A value with a variable of Flux (`postBuild`) is never overwritten: the variable's definition is changed, or named."""

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import check, read_endpoints
from manifests.platform import Platform
from manifests.replicas import replicas_in_git, with_replicas
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, ManifestError, Overlay
from tests.manifests.test_platforms import facts, open_platform

RELEASE = "kubernetes/apps/vllm/helmrelease.yaml"


def with_variable(old: str, new: str) -> Platform:
    tree, layout = open_platform("helm-release")
    text = (tree.read(RELEASE) or "").replace(old, new)
    assert new in text
    return Platform(Overlay(tree, ChangeSet(files={RELEASE: text})), layout)


@pytest.mark.parametrize("variable", ["${LEN:=8192}", "${LEN:-8192}", "${LEN}"])
def test_a_swap_does_not_overwrite_a_variable(variable: str) -> None:
    platform = with_variable("len=8192", f"len={variable}")
    request = SwapRequest(name="vllm", facts=facts("Qwen/Qwen3-1.7B"), context=4096)
    with pytest.raises(ManifestError) as refused:
        plan_swap(platform, request, Machine())
    assert f"{RELEASE}:24 has the variable {variable}" in str(refused.value)


def test_a_copy_whose_replicas_are_a_variable_would_start() -> None:
    platform = with_variable("replicas: 0", "replicas: ${COUNT:=1}")
    with pytest.raises(ManifestError, match=r"has the variable \$\{COUNT:=1\}"):
        plan_add(platform, AddRequest(name="scribe", facts=facts("Qwen/Qwen3-1.7B"), like="vllm"), Machine())


KS = "clusters/main/vllm.yaml"
SETTINGS = "clusters/main/settings.yaml"
CONFIG_MAP = """apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  namespace: flux-system
data:
  MODEL: Qwen/Qwen3-4B
  OTHER: x
"""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: flux-system}\nstringData: {LEN: ENC}\n"


def substituting(post: str, *changes: tuple[str, str], more: dict[str, str] | None = None) -> Platform:
    """The sample with variables: `post` is the Kustomization's `postBuild` in flow style."""
    tree, layout = open_platform("helm-release")
    text, kustomization = tree.read(RELEASE) or "", tree.read(KS) or ""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    files = {RELEASE: text, KS: f"{kustomization.rstrip()}\n  postBuild:\n{post}", **(more or {})}
    return Platform(Overlay(tree, ChangeSet(files=files)), layout)


def swapped(platform: Platform, **more: object) -> dict[str, str | None]:
    request = SwapRequest(name="vllm", facts=facts("Qwen/Qwen3-1.7B"), **more)
    return dict(plan_swap(platform, request, Machine()).changes.files)


def changed_lines(platform: Platform, changes: dict[str, str | None]) -> set[str]:
    lines = ChangeSet(files=changes).diff(platform).splitlines()
    return {line for line in lines if line[:1] in "+-" and not line.startswith(("+++", "---"))}


def test_a_variable_of_the_kustomization_is_read_and_changed_where_it_is_defined() -> None:
    platform = substituting(
        "    substitute:\n      MODEL: Qwen/Qwen3-4B # the model\n      LEN: '8192'\n      COUNT: '0'\n      NAME: vllm\n",
        ("- Qwen/Qwen3-4B", "- ${MODEL}"),
        ("len=8192", "len=${LEN}"),
        ("replicas: 0", "replicas: ${COUNT}"),
        ("name: vllm", "name: ${NAME}"),
    )
    (endpoint,) = (endpoint for endpoint in read_endpoints(platform) if endpoint.name == "vllm")
    assert (endpoint.hf_id, endpoint.context, replicas_in_git(platform, "vllm")) == ("Qwen/Qwen3-4B", 8192, 0)
    assert check(platform) == check(substituting("    substitute: {}\n"))
    changes = swapped(platform, context=4096)
    assert changed_lines(platform, changes) == {
        "-      MODEL: Qwen/Qwen3-4B # the model",
        "+      MODEL: Qwen/Qwen3-1.7B # the model",
        "-      LEN: '8192'",
        "+      LEN: '4096'",
    }
    started = dict(with_replicas(platform, "vllm", 1).files)
    assert changed_lines(platform, started) == {"-      COUNT: '0'", "+      COUNT: '1'"}


def test_a_variable_of_a_config_map_is_changed_there() -> None:
    platform = substituting(
        "    substituteFrom: [{kind: ConfigMap, name: settings}]\n",
        ("- Qwen/Qwen3-4B", "- ${MODEL}"),
        more={SETTINGS: CONFIG_MAP},
    )
    assert changed_lines(platform, swapped(platform, served_name="qwen3-4b")) == {
        "-  MODEL: Qwen/Qwen3-4B",
        "+  MODEL: Qwen/Qwen3-1.7B",
    }


def test_a_default_that_nothing_overrides_is_changed_in_the_manifest() -> None:
    platform = substituting(
        "    substitute: {OTHER: x}\n    substituteFrom: [{kind: Secret, name: keys}]\n",
        ("- Qwen/Qwen3-4B", "- ${MODEL:=Qwen/Qwen3-4B}"),
        more={"clusters/main/keys.yaml": SECRET},
    )
    assert changed_lines(platform, swapped(platform, served_name="qwen3-4b")) == {
        "-              - ${MODEL:=Qwen/Qwen3-4B}",
        "+              - ${MODEL:=Qwen/Qwen3-1.7B}",
    }


@pytest.mark.parametrize("more", [{"clusters/main/keys.yaml": SECRET}, {}], ids=["a name of it", "not in git"])
def test_a_default_that_a_secret_may_override_is_not_read(more: dict[str, str]) -> None:
    platform = substituting(
        "    substituteFrom: [{kind: Secret, name: keys}]\n", ("len=8192", "len=${LEN:=8192}"), more=more
    )
    with pytest.raises(ManifestError, match=r"has the variable \$\{LEN:=8192\}, which another place sets"):
        swapped(platform, context=4096)


def test_a_variable_that_another_workload_uses_is_not_changed() -> None:
    unrelated = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: page}\ndata: {model: '${MODEL}'}\n"
    page = "kubernetes/apps/llama-cpp/page.yaml"
    kustomization = "clusters/main/llama-cpp.yaml"
    source = "  postBuild: {substituteFrom: [{kind: ConfigMap, name: settings}]}\n"
    tree, _ = open_platform("helm-release")
    platform = substituting(
        "    substituteFrom: [{kind: ConfigMap, name: settings}]\n",
        ("- Qwen/Qwen3-4B", "- ${MODEL}"),
        more={
            SETTINGS: CONFIG_MAP,
            page: unrelated,
            kustomization: f"{(tree.read(kustomization) or '').rstrip()}\n{source}",
        },
    )
    with pytest.raises(ManifestError) as refused:
        swapped(platform)
    assert str(refused.value) == (
        f"{SETTINGS}:7 sets the variable ${{MODEL}} of vllm, which is also used at {page}:4: change it by hand."
    )


def test_a_variable_with_another_meaning_in_the_same_files_is_not_changed() -> None:
    platform = substituting(
        "    substitute: {SIZE: '8192'}\n",
        ("len=8192", "len=${SIZE}"),
        ("repository: intel/vllm", "repository: a/${SIZE}"),
    )
    with pytest.raises(
        ManifestError, match=rf"^{KS}:\d+ sets the variable \$\{{SIZE\}} of vllm, which is also used at "
    ):
        swapped(platform, context=4096)


def test_a_partial_variable_is_refused_with_its_definition() -> None:
    platform = substituting("    substitute:\n      ORG: Qwen\n", ("- Qwen/Qwen3-4B", "- ${ORG}/Qwen3-4B"))
    assert next(endpoint.hf_id for endpoint in read_endpoints(platform) if endpoint.name == "vllm") == "Qwen/Qwen3-4B"
    with pytest.raises(ManifestError, match=rf"{RELEASE}:\d+ has the variable \$\{{ORG\}}, which {KS}:\d+ sets"):
        swapped(platform)


def test_variables_in_a_file_of_two_kustomizations_are_not_changed() -> None:
    """Each Kustomization sets another value, so it is unclear which one belongs to the endpoint."""
    platform = substituting("    substitute: {MODEL: Qwen/Qwen3-4B}\n", ("- Qwen/Qwen3-4B", "- ${MODEL}"))
    second = (platform.read(KS) or "").replace("name: vllm", "name: vllm-two").replace("Qwen3-4B", "Qwen3-8B")
    with_second = platform.with_changes({"clusters/main/two.yaml": second})
    assert "vllm" in {endpoint.name for endpoint in platform.endpoints()}
    assert "vllm" not in {endpoint.name for endpoint in with_second.endpoints()}


def test_a_copy_changes_its_own_variables() -> None:
    """The Kustomization is copied with the endpoint, so the copy's model is in the copy's variables."""
    app = "kubernetes/apps/vllm/app"
    tree, layout = open_platform("helm-release")
    release = (tree.read(RELEASE) or "").replace("- Qwen/Qwen3-4B", "- ${MODEL}").replace("name: vllm", "name: ${APP}")
    ks = (tree.read(KS) or "").replace("kubernetes/apps/vllm", app).rstrip()
    platform = Platform(
        Overlay(
            tree,
            ChangeSet(
                files={
                    RELEASE: None,
                    KS: None,
                    "kubernetes/apps/vllm/kustomization.yaml": None,
                    f"{app}/kustomization.yaml": tree.read("kubernetes/apps/vllm/kustomization.yaml"),
                    f"{app}/helmrelease.yaml": release,
                    "kubernetes/apps/vllm/ks.yaml": f"{ks}\n  postBuild:\n    substitute:\n      APP: vllm\n      MODEL: Qwen/Qwen3-4B\n",
                    "kubernetes/apps/kustomization.yaml": "kind: Kustomization\nresources:\n  - ./vllm/ks.yaml\n",
                }
            ),
        ),
        layout,
    )
    change = plan_add(platform, AddRequest(name="scribe", facts=facts("Qwen/Qwen3-1.7B"), like="vllm"), Machine())
    new_files = dict(change.changes.files)
    assert "      APP: scribe\n      MODEL: Qwen/Qwen3-1.7B\n" in (new_files["kubernetes/apps/scribe/ks.yaml"] or "")
    assert "name: ${APP}" in (new_files["kubernetes/apps/scribe/app/helmrelease.yaml"] or "")
    after = platform.with_changes(new_files)
    assert {endpoint.name: endpoint.hf_id for endpoint in read_endpoints(after)}["scribe"] == "Qwen/Qwen3-1.7B"
