"""The sandbox with unknown repositories: kustomize, Flux's variables, charts, KServe."""

from typing import Any

import pytest

from sandbox.argocd import ArgoCD
from sandbox.clock import Clock
from sandbox.flux import Flux
from sandbox.known_charts import known_chart
from sandbox.kserve import KServe
from sandbox.limits import unsimulated
from sandbox.objects import Object, ObjectStore
from sandbox.rendering import generated, kustomize, placed
from sandbox.substitution import substituted

KUSTOMIZE = "kind: Kustomization\n"
DEPLOYMENT = (
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: chat}\nspec:\n  template:\n    spec:\n"
    "      containers:\n        - {name: engine, image: a, args: [x], env: [{name: A, value: '1'}]}\n        - {name: proxy, image: b}\n"
)


class Git:
    """A remote with one commit."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    async def main_commit(self) -> str:
        return "a" * 40

    async def files_at(self, commit: str, prefix: str) -> dict[str, str]:
        return {path: text for path, text in self.files.items() if path.startswith(prefix)}


def test_flux_ignores_directories_below_one_with_a_kustomization() -> None:
    """`apps/kustomization.yaml` does not exist, so Flux generates one; files that `ai` omits are not applied."""
    files = {
        "apps/ai/kustomization.yaml": f"{KUSTOMIZE}namespace: ai\nresources: [chat.yaml]\n",
        "apps/ai/chat.yaml": DEPLOYMENT,
        "apps/ai/below/left-out.yaml": DEPLOYMENT.replace("chat", "out"),
        "apps/plain.yaml": DEPLOYMENT.replace("chat", "plain"),
    }
    objects = [(item["metadata"].get("namespace"), item["metadata"]["name"]) for item in generated("apps", files)]
    assert sorted(objects, key=str) == [("ai", "chat"), (None, "plain")]
    assert placed(files)["apps/ai/chat.yaml"] == "ai"


def test_a_patch_of_a_container_changes_only_that_container() -> None:
    """A strategic merge patch changes the container with the same name; the name of a target is a pattern."""
    patch = (
        "kind: Deployment\nmetadata: {name: _}\nspec: {template: {spec: {containers: [{name: engine, args: [y]}]}}}\n"
    )
    files = {
        "base/kustomization.yaml": f"{KUSTOMIZE}resources: [chat.yaml]\n",
        "base/chat.yaml": DEPLOYMENT,
        "shared/kustomization.yaml": "kind: Component\npatches:\n  - path: p.yaml\n    target: {kind: Deployment, name: ch.*}\n",
        "shared/p.yaml": patch,
        "over/kustomization.yaml": f"{KUSTOMIZE}resources: [../base]\ncomponents: [../shared]\n",
    }
    (deployment,) = kustomize("over", files)
    engine, proxy = deployment["spec"]["template"]["spec"]["containers"]
    assert (engine["args"], engine["image"], proxy["image"]) == (["y"], "a", "b")
    assert deployment["metadata"]["name"] == "chat"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}-x", "1-x"),
        ("${A}", 1),
        ("${B:-two}", "two"),
        ("${B:=${A}}", 1),
        ("$${A}", "${A}"),
        ("$A $(A)", "$A $(A)"),
        ("${B}", ""),
    ],
)
def test_variables_of_flux(text: str, expected: object) -> None:
    result = substituted({"spec": {"postBuild": {"substitute": {"A": 1}}}}, [{"kind": "X", "v": text}], {})
    assert result == [{"kind": "X", "v": expected}]


def test_variables_from_a_config_map_and_from_a_secret() -> None:
    """A Secret is encrypted, so variables from it are not replaced."""
    files = {"vars.yaml": "kind: ConfigMap\nmetadata: {name: settings}\ndata: {A: one}\n"}
    sources = [{"kind": "ConfigMap", "name": "settings"}, {"kind": "Secret", "name": "keys"}]
    post = {"spec": {"postBuild": {"substituteFrom": sources}}}
    assert substituted(post, [{"kind": "X", "v": "${A} ${DOMAIN}"}], files) == [{"kind": "X", "v": "one ${DOMAIN}"}]


def test_the_names_of_the_generic_chart() -> None:
    """A controller with the release's name has only that name; another one has the release's name and its own."""
    container = {"containers": {"app": {"image": {"repository": "a"}}}}
    values = {"controllers": {"vllm": container, "embed": container}, "service": {"app": {"controller": "embed"}}}
    names = [(item["kind"], item["metadata"]["name"]) for item in known_chart("vllm", values) or ()]
    assert names == [("Deployment", "vllm"), ("Deployment", "vllm-embed"), ("Service", "vllm")]
    assert known_chart("x", {"grafana": {"enabled": True}}) is None


ISVC: Object = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "chat", "namespace": "llm"},
    "spec": {
        "predictor": {"minReplicas": 0, "model": {"modelFormat": {"name": "huggingface"}, "args": ["--model_id=a/b"]}}
    },
}


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore()


def replicas(store: ObjectStore, name: str = "chat-predictor") -> int:
    return int((store.get("Deployment", name, "llm") or {})["spec"]["replicas"])


def scale(store: ObjectStore, count: int, name: str = "chat-predictor") -> None:
    store.update("Deployment", name, "llm", lambda live: live["spec"].update(replicas=count))


def test_kserve_runs_at_least_one_replica_until_somebody_scales_it_to_zero(store: ObjectStore) -> None:
    """kserve/kserve#3514: `minReplicas: 0` is one replica. KServe's autoscaler does nothing at zero."""
    store.create(ISVC)
    kserve = KServe(store)
    kserve.control()
    assert replicas(store) == 1
    scale(store, 0)
    kserve.control()
    assert replicas(store) == 0
    store.update(
        "InferenceService",
        "chat",
        "llm",
        lambda live: live["metadata"].update(annotations={"serving.kserve.io/stop": "true"}),
    )
    kserve.control()
    assert store.get("Deployment", "chat-predictor", "llm") is None


@pytest.mark.parametrize("kind", ["InferenceService", "LLMInferenceService"])
def test_kserve_restores_replicas_that_are_set_in_git(store: ObjectStore, kind: str) -> None:
    """These are the replicas of an LLMInferenceService, which loses its annotations, and of services without an autoscaler."""
    meta: Any = {"name": "chat", "namespace": "llm", "annotations": {"serving.kserve.io/autoscalerClass": "none"}}
    model = {"replicas": 0, "model": {"uri": "hf://a/b"}}
    store.create(ISVC | {"kind": kind, "metadata": meta} | ({"spec": model} if kind[0] == "L" else {}))
    kserve, name = KServe(store), "chat-kserve" if kind[0] == "L" else "chat-predictor"
    kserve.control()
    assert replicas(store, name) == 0
    scale(store, 1, name)
    kserve.control()
    assert replicas(store, name) == 0


async def test_one_object_that_cannot_be_rendered_stops_no_other() -> None:
    """The sandbox starts with any content of a repository."""
    flux = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: {0}}}\nspec: {{path: ./{0}}}\n"
    argo = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {{name: {0}}}\nspec: {{source: {{path: {0}}}, destination: {{}}}}\n"
    files = {
        **{
            f"{name}.yaml": form.format(name)
            for name, form in (("good", flux), ("bad", flux), ("fine", argo), ("worse", argo))
        },
        **{f"{name}/chat.yaml": DEPLOYMENT.replace("chat", name) for name in ("good", "fine")},
        **{f"{name}/kustomization.yaml": "resources: [missing.yaml]\n" for name in ("bad", "worse")},
    }
    store, clock = ObjectStore(), Clock(1000)
    await Flux(store, Git(files), clock, set()).start()
    await ArgoCD(store, Git(files), clock, set(), "none").start()
    assert {deployment["metadata"]["name"] for deployment in store.find("Deployment")} == {"good", "fine"}
    bad = store.get("Kustomization", "bad", "flux-system") or {}
    assert "no such file or directory" in bad["status"]["conditions"][0]["message"]
    worse = store.get("Application", "worse", "argocd") or {}
    assert worse["status"]["operationState"]["phase"] == "Failed"


def test_one_sentence_lists_the_parts_that_are_not_simulated() -> None:
    release = "kind: HelmRelease\nmetadata: {name: x}\nspec: {chart: {spec: {chart: kubeai}}}\n"
    files = {
        "a.yaml": release,
        "b.yaml": "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s}\n",
        "c.txt": "kind: no",
    }
    sentence = unsimulated(files)
    assert (
        sentence
        == "The sandbox does not simulate the chart kubeai, StatefulSet s: the objects that they would create do not exist here."
    )
    assert unsimulated({"d.yaml": DEPLOYMENT}) == ""


def test_a_model_that_keda_starts_on_demand_is_down_without_demand(store: ObjectStore) -> None:
    scaling = {"minReplicas": 1, "maxReplicas": 1, "keda": {"idleReplicaCount": 0}}
    spec = {"model": {"uri": "hf://a/b"}, "scaling": scaling}
    store.create(ISVC | {"kind": "LLMInferenceService", "spec": spec})
    KServe(store).control()
    assert replicas(store, "chat-kserve") == 0
