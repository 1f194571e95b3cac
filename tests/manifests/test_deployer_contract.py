"""Every deployer fulfils the same contract; a new deployer needs one example here: an object that deploys a directory.

`tests/clients/test_deployer_contract.py` is the same test for the bot's clients.
"""

from collections.abc import Callable

import pytest

from manifests.contract import check
from manifests.deployers import Deployer, deployers
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.rules import RULES, components_of
from manifests.tree import Files

Example = Callable[[str, str], str]


def application(name: str, path: str) -> str:
    return (
        f"apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {{name: {name}, namespace: argocd}}\n"
        f"spec:\n  project: default\n  source: {{repoURL: https://git.example.com/acme/ops, targetRevision: main, path: {path}}}\n"
        "  destination: {server: https://kubernetes.default.svc, namespace: llm}\n"
    )


def kustomization(name: str, path: str) -> str:
    return (
        f"apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: {name}, namespace: flux-system}}\n"
        f"spec:\n  interval: 10m\n  prune: true\n  path: ./{path}\n  targetNamespace: llm\n"
        "  sourceRef: {kind: GitRepository, name: ops}\n"
    )


EXAMPLES: dict[str, Example] = {"Argo CD": application, "Flux": kustomization}
"""For each deployer, a function that returns an object with a given name, which deploys a given directory to the namespace `llm`."""

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: chat}
spec:
  replicas: 0
  selector: {matchLabels: {app: chat}}
  template:
    metadata: {labels: {app: chat}}
    spec:
      containers:
        - name: engine
          image: vllm/vllm-openai:v0.11.0@sha256:0000000000000000000000000000000000000000000000000000000000000000
          args: [--model=someone/Chat-3B, --served-model-name=chat]
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: chat}
spec:
  selector: {app: chat}
  ports: [{port: 8000}]
"""
BASE = {"models/chat/deployment.yaml": DEPLOYMENT, "models/chat/service.yaml": SERVICE}
ALL = [pytest.param(deployer, id=deployer.name) for deployer in deployers()]


def open_platform(deployer: Deployer, **objects: str) -> Platform:
    """Return a repository in which the deployer has these objects: a directory for each name."""
    assert deployer.name in EXAMPLES, f"add an object of {deployer.name} to EXAMPLES"
    example = EXAMPLES[deployer.name]
    files = {f"ops/{name}.yaml": example(name, path) for name, path in objects.items()}
    return Platform(Files(BASE | files), Layout(serving_dir="models"))


@pytest.mark.parametrize("deployer", ALL)
@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ({"chat": "models/chat"}, "chat"),
        ({"all": "models"}, "all"),
        ({"all": "models", "other": "models/other", "chat": "models/chat"}, "chat"),
        ({"other": "models/other"}, None),
        ({}, None),
    ],
)
def test_it_finds_the_object_that_deploys_an_endpoint(
    deployer: Deployer, objects: dict[str, str], expected: str | None
) -> None:
    """It is the object with the longest directory above the files of the endpoint, if there is one."""
    platform = open_platform(deployer, **objects)
    managed = deployer.deployment(platform, "chat", "models/chat", None)
    assert (managed.name if managed else None) == expected
    pieces = platform.require("chat")
    assert pieces.deployer == (deployer.name if expected else "")
    if managed is not None:
        assert (managed.deployer, managed.namespace, pieces.namespace) == (deployer.name, "llm", "llm")
        assert managed.located.document.path == f"ops/{expected}.yaml"


@pytest.mark.parametrize("deployer", ALL)
def test_an_overlay_that_includes_the_endpoint_deploys_it(deployer: Deployer) -> None:
    """The overlay is in another directory, and its name prefix is applied."""
    files = {
        "overlays/dev/kustomization.yaml": "resources: [../../models/chat]\nnamePrefix: dev-\n",
        "models/chat/kustomization.yaml": "resources: [deployment.yaml]\n",
    }
    platform = open_platform(deployer, dev="overlays/dev").with_changes(files)
    assert platform.require("chat").workload == "dev-chat"
    managed = deployer.deployment(platform, "chat", "models/chat", None)
    assert managed is not None
    assert managed.name == "dev"


@pytest.mark.parametrize("deployer", ALL)
def test_only_its_own_rules_are_checked(deployer: Deployer) -> None:
    """A working repository has no findings, and an unrelated Application causes none."""
    platform = open_platform(deployer, chat="models/chat")
    assert check(platform) == ()
    unrelated = {"ops/wiki.yaml": application("wiki", "apps/wiki"), "apps/wiki/a.yaml": "kind: ConfigMap\n"}
    mixed = platform.with_changes(unrelated)
    rules = {finding.rule for finding in check(mixed)}
    assert not any(RULES[rule].component == "argocd" for rule in rules) or deployer.name == "Argo CD"
    assert ("argocd" in components_of(mixed, mixed.require("chat"))) == (deployer.name == "Argo CD")


def test_rules_of_argo_cd_do_not_apply_to_endpoints_of_flux() -> None:
    """Argo CD deploys two endpoints and Flux deploys one, which needs no Application of its name."""
    files = {f"models/{name}/deployment.yaml": DEPLOYMENT.replace("chat", name) for name in ("code", "embed")}
    files |= {f"ops/{name}.yaml": application(name, f"models/{name}") for name in ("code", "embed")}
    with_both = Platform(Files(BASE | files), Layout(serving_dir="models"))
    assert "application-missing" in {finding.rule for finding in check(with_both)}
    with_flux = with_both.with_changes({"ops/chat.yaml": kustomization("chat", "models/chat")})
    assert not [finding for finding in check(with_flux) if RULES[finding.rule].component == "argocd"]
