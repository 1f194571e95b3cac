"""A HelmRelease whose values are in a ConfigMap (`valuesFrom`): written out, or generated from a file."""

import textwrap

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import check, read_endpoint, read_endpoints
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, Files
from tests.manifests.test_platforms import facts

RELEASE = """\
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: vllm, namespace: ai}
spec:
  interval: 1h
  chartRef: {kind: OCIRepository, name: app-template}
  valuesFrom:
    - kind: ConfigMap
      name: vllm-values
"""
VALUES = """\
controllers:
  vllm:
    replicas: 0
    containers:
      app:
        image: {repository: vllm/vllm-openai, tag: v0.11.0}
        args: [--model=Qwen/Qwen3-4B, --served-model-name=chat, --max-model-len=8192]
        resources: {limits: {nvidia.com/gpu: 1}}
"""
GENERATOR = """\
resources: [helmrelease.yaml]
configMapGenerator:
  - name: vllm-values
    files: [values.yaml=./helm-values.yaml]
"""
WRITTEN = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: vllm-values, namespace: ai}\ndata:\n  values.yaml: |\n"
KS = (
    "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: apps, namespace: flux-system}\n"
    "spec: {path: ./apps, sourceRef: {kind: GitRepository, name: ops}}\n"
)
FORMS = {
    "generated": ({"kustomization.yaml": GENERATOR, "helm-values.yaml": VALUES}, "helm-values.yaml"),
    "written": ({"values.yaml": WRITTEN + textwrap.indent(VALUES, "    ")}, "values.yaml"),
}


def open_platform(form: str) -> Platform:
    files = {f"apps/vllm/{name}": text for name, text in FORMS[form][0].items()}
    return Platform(Files({"apps/vllm/helmrelease.yaml": RELEASE, "clusters/apps.yaml": KS, **files}), Layout())


@pytest.mark.parametrize("form", FORMS)
def test_values_in_a_config_map_are_changed_there(form: str) -> None:
    tree, place = open_platform(form), f"apps/vllm/{FORMS[form][1]}"
    endpoint = read_endpoint(tree, "vllm")
    assert (endpoint.hf_id, endpoint.context, endpoint.gpus, endpoint.namespace) == ("Qwen/Qwen3-4B", 8192, 1, "ai")
    assert check(tree) == ()
    request = SwapRequest(name="vllm", facts=facts("Qwen/Qwen3-1.7B"))
    changes = plan_swap(tree, request, Machine()).changes
    assert set(changes.files) == {place}
    old, new = (text or "" for text in (tree.read(place), changes.files[place]))
    assert new == old.replace("Qwen/Qwen3-4B", "Qwen/Qwen3-1.7B")


def test_values_of_a_secret_are_not_read() -> None:
    files = {"apps/vllm/helmrelease.yaml": RELEASE.replace("kind: ConfigMap", "kind: Secret")}
    form = FORMS["generated"][0]
    files |= {f"apps/vllm/{name}": text for name, text in form.items()}
    assert read_endpoints(Platform(Files(files), Layout())) == ()


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_gets_its_own_values(form: str) -> None:
    tree = open_platform(form)
    request = AddRequest(name="scribe", facts=facts("Qwen/Qwen3-1.7B"), like="vllm")
    new_files = plan_add(tree, request, Machine()).changes.files
    after = tree.with_changes(ChangeSet(files=new_files))
    assert {endpoint.name: endpoint.hf_id for endpoint in read_endpoints(after)} == {
        "vllm": "Qwen/Qwen3-4B",
        "scribe": "Qwen/Qwen3-1.7B",
    }
    assert "name: scribe-values" in (new_files["apps/scribe/helmrelease.yaml"] or "")
