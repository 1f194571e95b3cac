"""A patch blocks a change only if it may change what the endpoint's engine runs."""

import textwrap

import pytest

from manifests import replicas
from manifests.contract import check
from manifests.platform import Platform
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, ManifestError, Overlay, Tree
from tests.manifests.test_platforms import facts, open_platform

OVERLAY, FLUX = "overlays/lab/kustomization.yaml", "clusters/main/apps.yaml"
SIDECAR = (
    "spec: {template: {spec: {containers: [{name: metrics, image: exporter}], volumes: [{name: logs, emptyDir: {}}]}}}"
)
ENGINE = "spec: {template: {spec: {containers: [{name: vllm, image: vllm/vllm-openai:v0.12.0}]}}}"
NAMED = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: vllm}\n"


def patched(
    body: str, *, platform: str = "overlays", target: str = "", key: str = "patches", path: str = OVERLAY
) -> Tree:
    """Return a sample with one more patch."""
    tree, _ = open_platform(platform)
    patch_entry = f"  - patch: |\n{textwrap.indent(body, '      ')}\n" + (f"    target: {target}\n" if target else "")
    text = f"{tree.read(path)}{key}:\n{patch_entry}"
    return Overlay(tree, ChangeSet(files={path: text}))


def swapped(tree: Tree, name: str = "vllm", platform: str = "overlays") -> str:
    _, layout = open_platform(platform)
    return plan_swap(
        Platform(tree, layout), SwapRequest(name=name, facts=facts("Qwen/Qwen3-8B-AWQ")), Machine()
    ).changes.diff(tree)


@pytest.mark.parametrize(
    ("body", "target"),
    [
        # Another object, by its own name, by a target, and by a pattern.
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: litellm}\n" + ENGINE, ""),
        ("- {op: add, path: /spec/template/spec/containers/0/env, value: []}", "{kind: Deployment, name: lite.*}"),
        ("- {op: replace, path: /spec/interval, value: 5m}", "{kind: HelmRelease}"),
        ("kind: Service\nmetadata: {name: vllm}\nspec: {type: LoadBalancer}", ""),
        # Parts of the workload that are irrelevant for its engine.
        (NAMED + "spec: {template: {spec: {nodeSelector: {gpu: l4}, tolerations: [{operator: Exists}]}}}", ""),
        ("kind: Deployment\nmetadata: {name: vllm, annotations: {reloader.stakater.com/auto: 'true'}}", ""),
        (NAMED + SIDECAR, ""),
        ("- {op: add, path: /spec/template/spec/containers/-, value: {name: metrics}}", "{kind: Deployment}"),
        ("- {op: add, path: /metadata/annotations/reloader.stakater.com~1auto, value: 'true'}", "{kind: Deployment, name: vllm}"),
    ],
)  # fmt: skip
def test_an_unrelated_patch_does_not_block_changes(body: str, target: str) -> None:
    tree, (_, layout) = patched(body, target=target), open_platform("overlays")
    assert "+    model: Qwen/Qwen3-8B-AWQ" in swapped(tree)
    assert [finding.rule for finding in check(Platform(tree, layout))] == []


@pytest.mark.parametrize(
    ("body", "target"),
    [
        (NAMED + ENGINE, ""),
        (ENGINE, "{kind: Deployment}"),
        (ENGINE, "{labelSelector: app=vllm}"),
        (ENGINE, "{kind: Deploy.*, name: v.*}"),
        (NAMED + "$patch: delete", ""),
        (NAMED + "spec: {template: {spec: {volumes: [{name: config, configMap: {name: other}}]}}}", ""),
        ("- {op: replace, path: /spec/template/spec/containers/0/args, value: []}", "{kind: Deployment}"),
        ("- {op: add, path: /spec/template/spec/containers/0, value: {name: first}}", "{kind: Deployment}"),
        ("- {op: replace, path: /spec/template, value: {}}", "{name: vllm}"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: vllm-config}\ndata: {config.yaml: 'model: other/model'}", ""),
        ("not: [valid", "{kind: Service}"),
    ],
)  # fmt: skip
def test_a_patch_of_the_engine_is_reported_and_blocks_changes(body: str, target: str) -> None:
    with pytest.raises(ManifestError, match=rf"{OVERLAY}:\d+: patches"):
        swapped(patched(body, target=target))


def test_patches_of_a_kustomization_of_flux_count_as_well() -> None:
    """These are the `spec.patches` of the Kustomization that deploys the endpoint."""
    tree, _ = open_platform("overlays")
    for body, refused in ((NAMED + ENGINE, True), (NAMED + SIDECAR, False)):
        patch_entry = f"  patches:\n    - patch: |\n{textwrap.indent(body, '        ')}\n"
        changed = Overlay(tree, ChangeSet(files={FLUX: f"{tree.read(FLUX)}{patch_entry}"}))
        if refused:
            with pytest.raises(ManifestError, match=rf"{FLUX}:\d+: spec.patches"):
                swapped(changed)
        else:
            assert swapped(changed)


@pytest.mark.parametrize(("body", "refused"), [("spec: {interval: 5m, upgrade: {force: true}}", False),
                                               ("spec: {values: {controllers: {}}}", True)])  # fmt: skip
def test_a_patch_of_a_releases_values_blocks_changes(body: str, refused: bool) -> None:
    """Many repositories patch the upgrade policy of all HelmReleases."""
    path = "kubernetes/apps/vllm/kustomization.yaml"
    tree = patched(body, platform="helm-release", target="{kind: HelmRelease}", path=path)
    if refused:
        with pytest.raises(ManifestError, match=rf"{path}:\d+: patches"):
            swapped(tree, platform="helm-release")
    else:
        assert swapped(tree, platform="helm-release")


@pytest.mark.parametrize(("more", "refused"), [("", False), ("namePrefix: lab-\n", True)])
def test_a_component_that_only_adds_objects_does_not_block_changes(more: str, refused: bool) -> None:
    tree, _ = open_platform("overlays")
    component = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [alerts.yaml]\n"
    files = {
        OVERLAY: f"{tree.read(OVERLAY)}components:\n  - ../../components/alerts\n",
        "components/alerts/kustomization.yaml": component + more,
    }
    changed = Overlay(tree, ChangeSet(files=dict(files)))
    if refused:
        with pytest.raises(ManifestError, match=rf"{OVERLAY}:\d+: components"):
            swapped(changed)
    else:
        assert swapped(changed)


def test_replicas_in_a_patch_take_precedence() -> None:
    """The number in the manifest has no effect below a patch."""
    tree, (_, layout) = patched(NAMED + "spec:\n  replicas: 0"), open_platform("overlays")
    diff = replicas.with_replicas(Platform(tree, layout), "vllm", 1).diff(tree)
    assert [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "-        replicas: 0",
        "+        replicas: 1",
    ]
