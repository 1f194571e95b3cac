"""Planted faults in the objects' form: fields, types, values and arguments that Kubernetes or the engine refuses."""

import json
from pathlib import Path

import pytest

from manifests.contract import Layout, check
from manifests.platform import Platform
from manifests.tree import Files
from tests.manifests.faults import (
    APPLICATION,
    CHAT,
    FIM,
    KUSTOMIZATION,
    PVC,
    SERVICE,
    VECTORS,
    named_at_its_line,
    planted,
)
from tests.manifests.kubernetes_fields import text

_HOME = "            - name: HOME\n              value: {}tmp\n          securityContext"

FAULTS = [
    # Versions, kinds, fields, types and words.
    ("schema", CHAT, "apiVersion: apps/v1", "apiVersion: extensions/v1beta1"),
    ("schema", SERVICE, "apiVersion: v1", "apiVersion: apps/v1"),
    ("schema", SERVICE, "kind: Service", "kind: Services"),
    ("schema", CHAT, "kind: Deployment", "kind: Deploymnet"),
    ("schema", KUSTOMIZATION, "kind: Kustomization", "kind: Kustomisation"),
    ("schema", KUSTOMIZATION, "namespace: serving", "namspace: serving"),
    ("schema", APPLICATION, "apiVersion: argoproj.io/v1alpha1", "apiVersion: argoproj.io/v1"),
    ("schema", APPLICATION, "    targetRevision: main", "    targetRevison: main"),
    ("schema", CHAT, "      initContainers:", "      initContaners:"),
    ("schema", CHAT, "          volumeMounts:", "          volumeMount:"),
    ("schema", FIM, "      tolerations:", "      toleration:"),
    ("schema", CHAT, "  replicas: 0", '  replicas: "0"'),
    ("schema", SERVICE, "port: 8000", 'port: "8000"'),
    ("schema", CHAT, 'HF_HUB_OFFLINE\n              value: "1"', "HF_HUB_OFFLINE\n              value: 1"),
    ("schema", FIM, 'HF_HUB_OFFLINE\n              value: "1"', "HF_HUB_OFFLINE\n              value: yes"),
    ("schema", CHAT, "            readOnlyRootFilesystem: true", '            readOnlyRootFilesystem: "true"'),
    ("schema", APPLICATION, '    argocd.argoproj.io/sync-wave: "4"', "    argocd.argoproj.io/sync-wave: 4"),
    ("schema", CHAT, "type: Recreate", "type: recreate"),
    ("schema", PVC, "- ReadWriteOnce", "- ReadWriteOnes"),
    ("schema", VECTORS, "imagePullPolicy: IfNotPresent", "imagePullPolicy: IfNotPresnt"),
    ("schema", CHAT, "      automountServiceAccountToken: false", "      restartPolicy: Never"),
    ("schema", CHAT, 'drop: ["ALL"]', "drop: ALL"),
    # The engine's arguments.
    ("argument", CHAT, "--gpu-memory-utilization=0.9", "--gpu-memory-utilisation=0.9"),
    ("argument", CHAT, "- --max-model-len=16384", "- -max-model-len=16384"),
    ("argument", CHAT, "- --max-model-len=16384", "- --max-model-len 16384"),
    ("argument", FIM, "            - --max-model-len=8192 ", "            - --host=127.0.0.1\n            - --max-model-len=8192 "),
    ("argument", VECTORS, "- --port=8080", "- --prot=8080"),
    ("staged-model", CHAT, "            - --max-model-len=", "            - --revision=8f4c1a5d\n            - --max-model-len="),
    # The pod.
    ("variable", CHAT, "VLLM_API_KEY", "VLLM_APIKEY"),
    ("variable", FIM, "- name: HOME\n              value: /tmp\n          securityContext", "- name: HOME\n              value: /tmp\n            - name: HF_HOME\n              value: /tmp\n          securityContext"),
    ("read-only-root", CHAT, _HOME.format("/"), _HOME.format("/root/")),
    ("read-only-root", FIM, "        fsGroup: 65532\n", ""),
    ("volume-mount", CHAT, "            - name: model-cache\n", "            - name: model-cache\n              readOnly: true\n"),
    ("volume-mount", CHAT, "        - name: tmp\n          emptyDir", "        - name: temp\n          emptyDir"),
    ("target-port", CHAT, "- name: http\n", "- name: web\n"),
    ("target-port", SERVICE, "      port: 8000\n", "      port: 8000\n      protocol: UDP\n"),
    ("service-selector", SERVICE, "spec:\n", "spec:\n  type: ExternalName\n"),
    ("strategy", CHAT, "  replicas: 0\n", "  replicas: 0\n  paused: true\n"),
    ("gpu-limit", CHAT, "nvidia.com/gpu: 1", "nvidia.com/gpus: 1"),
    ("gpu-limit", CHAT, "nvidia.com/gpu: 1", 'nvidia.com/gpu: "one"'),
    ("resources", VECTORS, "              memory: 3Gi", "              memory: 100Mi"),
    ("toleration", CHAT, "effect: NoSchedule", "effect: NoExecute"),
    ("toleration", FIM, "operator: Exists", "operator: Equal"),
    ("probe", CHAT, "            httpGet:\n", "            httpGet:\n              scheme: HTTPS\n"),
    ("claim", PVC, "- ReadWriteOnce", "- ReadOnlyMany"),
    ("claim", PVC, "spec:\n", 'spec:\n  storageClassName: ""\n'),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "old", "new"), FAULTS)
def test_a_fault_that_kubernetes_or_the_engine_refuses_is_reported_at_its_line(
    platform: Files, layout: Layout, rule: str, path: str, old: str, new: str
) -> None:
    """The finding has the rule, the file and the line of the planted fault."""
    named_at_its_line(platform, layout, rule, path, old, new)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (CHAT, "      automountServiceAccountToken: false", "      aFieldOfLaterYears: true"),
        (CHAT, "- --max-model-len=16384", "- --an-argument-of-later-years=1"),
        (CHAT, "- --max-model-len=16384", "- --max_model_len=16384"),
        (CHAT, "- --max-model-len=16384", "- --no-enable-prefix-caching"),
        (CHAT, "operator: Exists\n          effect: NoSchedule", "operator: Exists"),
        (CHAT, "operator: Exists", "operator: Equal\n          value: present"),
        (SERVICE, "spec:\n", "---\napiVersion: serving.knative.dev/v1\nkind: Service\nspec:\n  replica: 2\n---\nspec:\n"),
        (CHAT, "            - name: HOME\n", "            - name: MY_OWN_VARIABLE\n              value: x\n            - name: HOME\n"),
    ],
)  # fmt: skip
def test_new_fields_and_other_notations_have_no_findings(
    platform: Files, layout: Layout, path: str, old: str, new: str
) -> None:
    """A field that is not in the table may belong to a newer version."""
    rules = {"schema", "argument", "variable", "toleration"}
    assert not [
        finding for finding in check(Platform(planted(platform, path, old, new), layout)) if finding.rule in rules
    ]


def test_a_misplaced_field_is_reported_with_its_place(platform: Files, layout: Layout) -> None:
    """Two missing spaces move a field into another object."""
    wrong = planted(platform, CHAT, "          resources:\n", "          nodeSelector: {a: b}\n          resources:\n")
    (finding,) = [finding for finding in check(Platform(wrong, layout)) if finding.rule == "schema"]
    assert (finding.message, finding.fix) == (
        "a container has no field nodeSelector",
        "move it into the pod's spec",
    )


def test_the_table_of_fields_equals_that_of_the_kubernetes_client() -> None:
    table = Path("manifests/rules/kubernetes.json").read_text()
    assert table == text()
    assert len(json.loads(table)) > 100
