"""The place of LiteLLM in the cluster: `stoker init` writes its namespace and the Secret of its master key."""

import pytest

from manifests.layout import Layout
from manifests.platform import Platform
from manifests.proxy import Proxy, proxy
from manifests.tree import Files

WORKLOAD = """apiVersion: apps/v1
kind: Deployment
metadata: {name: gateway}
spec:
  template:
    spec:
      containers:
        - name: proxy
          image: ghcr.io/berriai/litellm:v1.80.0
          env:
            - name: LITELLM_MASTER_KEY
              valueFrom: {secretKeyRef: {name: gateway-key, key: master}}
"""
RELEASE = """apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: litellm, namespace: ai}
spec:
  chart: {spec: {chart: litellm-helm, sourceRef: {kind: HelmRepository, name: litellm}}}
  values: {masterkeySecretName: litellm-masterkey, masterkeySecretKey: masterkey}
"""
GENERIC = """apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: litellm}
spec:
  targetNamespace: tools
  values:
    controllers:
      app:
        containers:
          app:
            image: {repository: ghcr.io/berriai/litellm, tag: v1}
            env:
              LITELLM_MASTER_KEY: {valueFrom: {secretKeyRef: {name: keys, key: litellm}}}
"""
APPLICATION = """apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: gateway, namespace: argocd}
spec:
  source: {repoURL: "https://git.example.com/p.git", path: apps/gateway, targetRevision: main}
  destination: {namespace: edge}
"""
KUSTOMIZATION = (
    "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: ai\nresources: [gateway.yaml]\n"
)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"apps/gateway/gateway.yaml": WORKLOAD}, Proxy("", "gateway", "gateway-key", "master")),
        (
            {"apps/gateway/gateway.yaml": WORKLOAD, "apps/gateway/kustomization.yaml": KUSTOMIZATION},
            Proxy("ai", "gateway", "gateway-key", "master"),
        ),
        (
            {"apps/gateway/gateway.yaml": WORKLOAD, "argocd/gateway.yaml": APPLICATION},
            Proxy("edge", "gateway", "gateway-key", "master"),
        ),
        ({"apps/litellm.yaml": RELEASE}, Proxy("ai", "", "litellm-masterkey", "masterkey")),
        ({"apps/litellm.yaml": GENERIC}, Proxy("tools", "", "keys", "litellm")),
        ({"apps/litellm.yaml": RELEASE, "apps/gateway/gateway.yaml": WORKLOAD}, None),
        ({"apps/other.yaml": WORKLOAD.replace("berriai/litellm", "example/web")}, None),
    ],
)
def test_the_gateway_is_found_in_the_cluster(files: dict[str, str], expected: Proxy | None) -> None:
    """It is a Deployment, LiteLLM's chart or a generic chart; of two gateways none is selected."""
    assert proxy(Platform(Files(files), Layout())) == expected


def test_the_namespace_of_a_base_is_that_of_the_overlay_that_includes_it() -> None:
    """The kustomization next to the Deployment has no namespace, and Flux deploys a directory above the overlay."""
    flux = """apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system}
spec: {path: ./cluster, sourceRef: {kind: GitRepository, name: flux-system}}
"""
    files = {
        "flux.yaml": flux,
        "cluster/kustomization.yaml": "resources: [../apps/litellm/overlays/home]\n",
        "apps/litellm/overlays/home/kustomization.yaml": "namespace: llm\nresources: [../../base]\n",
        "apps/litellm/base/kustomization.yaml": "resources: [deployment.yaml]\n",
        "apps/litellm/base/deployment.yaml": WORKLOAD,
    }
    gateway = proxy(Platform(Files(files), Layout()))
    assert gateway is not None
    assert (gateway.namespace, gateway.secret, gateway.field) == ("llm", "gateway-key", "master")
