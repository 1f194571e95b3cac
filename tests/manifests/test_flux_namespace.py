"""The namespace of a Kustomization of Flux, as kustomize and Flux decide it."""

import pytest

from manifests.layout import Layout
from manifests.platform import Platform
from manifests.survey import survey
from manifests.tree import Files

PARENT = "clusters/main/apps.yaml"


def ks(name: str, path: str, *, namespace: str = "", target: str = "") -> str:
    return (
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n"
        f"metadata: {{name: {name}{f', namespace: {namespace}' if namespace else ''}}}\n"
        f"spec: {{path: ./{path}, sourceRef: {{kind: GitRepository, name: ops}}{f', targetNamespace: {target}' if target else ''}}}\n"
    )


def listing(*resources: str, namespace: str = "") -> str:
    return f"resources: [{', '.join(resources)}]\n" + (f"namespace: {namespace}\n" if namespace else "")


@pytest.mark.parametrize(
    ("files", "namespace"),
    [
        ({PARENT: ks("apps", "apps", namespace="ops")}, "ops"),
        ({PARENT: ks("apps", "apps")}, "flux-system"),
        ({PARENT: ks("apps", "apps", namespace="ops", target="team")}, "team"),
        ({PARENT: ks("apps", "apps", namespace="ops"), "apps/ai/kustomization.yaml": listing("vllm/ks.yaml")}, "ops"),
        (
            {
                PARENT: ks("apps", "apps", namespace="ops"),
                "apps/ai/kustomization.yaml": listing("./vllm/ks.yaml", namespace="ai"),
            },
            "ai",
        ),
        (
            {
                PARENT: ks("apps", "apps", namespace="ops"),
                "apps/kustomization.yaml": listing("ai", namespace="outer"),
                "apps/ai/kustomization.yaml": listing("./vllm/ks.yaml", namespace="ai"),
            },
            "outer",
        ),
        (
            {
                PARENT: ks("apps", "apps/ai", namespace="ops"),
                "apps/kustomization.yaml": listing("ai", namespace="above-what-is-applied"),
                "apps/ai/kustomization.yaml": listing("./vllm/ks.yaml", namespace="ai"),
            },
            "ai",
        ),
        (
            {
                PARENT: ks("apps", "apps", namespace="ops"),
                "apps/ai/kustomization.yaml": listing("other.yaml", namespace="of-another-file"),
            },
            "ops",
        ),
    ],
    ids=[
        "the parent's",
        "nobody's",
        "the parent's target",
        "no namespace given",
        "of the kustomization",
        "the outermost",
        "not above the parent",
        "not listed",
    ],
)
def test_the_namespace_comes_from_the_parent_kustomization(files: dict[str, str], namespace: str) -> None:
    platform = Platform(Files(files | {"apps/ai/vllm/ks.yaml": ks("vllm", "apps/ai/vllm/app")}), Layout())
    assert {deployment.name: deployment.namespace for deployment in survey(platform).deployments}["vllm"] == namespace


def test_a_kustomizations_namespace_overrides_its_own() -> None:
    own_files = {"apps/ai/vllm/ks.yaml": ks("vllm", "apps/ai/vllm/app", namespace="llm"), PARENT: ks("apps", "apps")}
    enclosing = own_files | {"apps/ai/kustomization.yaml": listing("vllm/ks.yaml", namespace="ai")}
    for files, namespace in ((own_files, "llm"), (enclosing, "ai")):
        deployments = survey(Platform(Files(files), Layout())).deployments
        assert {deployment.name: deployment.namespace for deployment in deployments}["vllm"] == namespace


def test_kustomizations_that_apply_each_other_are_read_once() -> None:
    """Flux's own Kustomization applies the directory that contains it."""
    files = {"a/one.yaml": ks("one", "b"), "b/two.yaml": ks("two", "a")}
    assert {deployment.namespace for deployment in survey(Platform(Files(files), Layout())).deployments} == {
        "flux-system"
    }
