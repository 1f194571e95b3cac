"""The application of an endpoint, and its replicas in git: one number changes, and nothing else."""

import textwrap
from pathlib import Path

import pytest

from bot.clients.application import Application, application_of
from bot.clients.deployer import ObjectName
from bot.clients.flux import application_of as kustomization_of
from bot.platform.deploying import deploys, deploys_gateway, own_objects
from manifests import replicas
from manifests.contract import read_endpoint
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.tree import Checkout, Files, ManifestError

SAMPLE = Path(__file__).parents[2] / "sandbox" / "platform"
DEPLOYMENT = "serving/coder-chat/deployment.yaml"
KUSTOMIZATION = "serving/coder-chat/kustomization.yaml"


@pytest.fixture
def layout() -> Layout:
    return Layout()


@pytest.fixture
def platform() -> Files:
    """The sample platform, in memory."""
    checkout = Checkout(SAMPLE)
    return Files({path: text for path in checkout.files("") if (text := checkout.read(path)) is not None})


def replaced(tree: Files, path: str, old: str, new: str) -> Files:
    return Files(
        {name: tree.read(name) or "" for name in tree.files("")} | {path: (tree.read(path) or "").replace(old, new)}
    )


def lines_of(tree: Files, layout: Layout, number: int) -> list[str]:
    diff = replicas.with_replicas(Platform(tree, layout), "coder-chat", number).diff(tree).splitlines()
    return [line for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_one_number_changes(platform: Files, layout: Layout) -> None:
    assert lines_of(platform, layout, 1) == ["-  replicas: 0", "+  replicas: 1"]
    assert lines_of(platform, layout, 0) == []


def test_the_replicas_of_a_kustomization_take_precedence(platform: Files, layout: Layout) -> None:
    overridden = replaced(
        platform,
        KUSTOMIZATION,
        "namespace: serving",
        "namespace: serving\nreplicas:\n  - name: coder-chat\n    count: 0",
    )
    assert lines_of(overridden, layout, 1) == ["-    count: 0", "+    count: 1"]


def test_nothing_changes_if_git_does_not_set_replicas(platform: Files, layout: Layout) -> None:
    silent = replaced(platform, DEPLOYMENT, "  replicas: 0\n", "")
    assert replicas.replicas_in_git(Platform(silent, layout), "coder-chat") is None
    with pytest.raises(ManifestError, match="has no replicas for coder-chat"):
        replicas.with_replicas(Platform(silent, layout), "coder-chat", 1)


def test_a_started_endpoint_has_the_content_that_it_has_at_rest(platform: Files, layout: Layout) -> None:
    """An approval is bound to the deployed content; the commit that starts the model must not void it."""
    started = replaced(platform, DEPLOYMENT, "replicas: 0", "replicas: 1")
    assert replicas.blobs_at_zero(Platform(platform, layout), "coder-chat") == {}
    assert replicas.blobs_at_zero(Platform(started, layout), "coder-chat").keys() == {DEPLOYMENT}
    text = platform.read(DEPLOYMENT) or ""
    assert replicas.blobs_at_zero(Platform(started, layout), "coder-chat")[DEPLOYMENT] == replicas.blob(text)


def test_an_autoscaler_is_named(platform: Files, layout: Layout) -> None:
    scaled = Files(
        {name: platform.read(name) or "" for name in platform.files("")}
        | {
            "serving/coder-chat/scaler.yaml": "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata:\n  name: s\nspec:\n"
            "  scaleTargetRef:\n    name: coder-chat\n"
        }
    )
    assert replicas.scaled_by(Platform(scaled, layout), "coder-chat") == "KEDA (serving/coder-chat/scaler.yaml:7)"
    assert replicas.scaled_by(Platform(scaled, layout), "coder-fim") == ""


def test_an_autoscaler_of_a_chart_s_deployment_is_found() -> None:
    """It is found by the name of the Deployment in the cluster, not of the HelmRelease."""
    root = SAMPLE.parent / "platforms" / "helm-release"
    files = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}
    scaler = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nspec:\n  scaleTargetRef:\n    name: llama-cpp-chat\n"
    tree = Files(files | {"kubernetes/apps/llama-cpp/scaler.yaml": scaler})
    assert replicas.scaled_by(Platform(tree, Layout()), "llama-cpp-chat").startswith("KEDA (")
    assert replicas.scaled_by(Platform(tree, Layout()), "vllm") == ""


def live_application(
    name: str, path: str, url: str = "https://github.com/acme/llm-platform", **more: object
) -> Application:
    source = {"path": path, "repoURL": url} | more
    return application_of({"metadata": {"name": name}, "spec": {"source": source}})


def test_the_closest_application_deploys_an_endpoint(platform: Files, layout: Layout) -> None:
    """An ApplicationSet's Application has the endpoint's directory; an Application for many endpoints has a directory above it."""
    endpoint = read_endpoint(Platform(platform, layout), "coder-chat").model_copy(update={"application": ""})

    def deployed_by(*applications: Application) -> str:
        best = deploys(applications, endpoint, platform, "acme/llm-platform")
        return best.name if best else ""

    whole, closest, unrelated = (
        live_application("whole", "serving"),
        live_application("ai-coder-chat", "./serving/coder-chat/"),
        live_application("x", "serving/coder"),
    )
    assert deployed_by(whole, closest, unrelated) == "ai-coder-chat"
    assert deployed_by(unrelated, whole) == "whole"
    assert deployed_by(unrelated) == ""
    assert deployed_by(live_application("x", "serving/coder-chat", "https://github.com/acme/other"), whole) == "whole"
    chart = live_application("chart", "charts/llm", helm={"valueFiles": ["../../serving/coder-chat/deployment.yaml"]})
    assert deployed_by(chart, closest) == "chart"


def test_the_gateways_application_is_found_by_its_objects() -> None:
    """It is the Application whose values contain the list, or the Application that deploys the list's file."""
    lists = "model_list:\n  - model_name: a\n    litellm_params: {model: openai/a, api_base: 'http://a.llm:8000/v1'}\n"
    config_map = "kind: ConfigMap\ndata:\n  config.yaml: |\n" + textwrap.indent(lists, "    ")
    tree = Files({"infra/proxy/config.yaml": config_map})
    flux = kustomization_of({"metadata": {"name": "proxy"}, "spec": {"path": "./infra/proxy"}})
    whole = kustomization_of({"metadata": {"name": "infra"}, "spec": {"path": "./infra"}})
    unrelated = kustomization_of({"metadata": {"name": "apps"}, "spec": {"path": "./apps"}})

    def deployed_by(tree: Files, *applications: Application) -> str:
        best = deploys_gateway(applications, Platform(tree, Layout()))
        return best.name if best else ""

    assert deployed_by(tree, unrelated, whole, flux) == "proxy"
    assert deployed_by(tree, unrelated, whole) == "infra"
    assert deployed_by(tree, unrelated) == ""
    values = "kind: Application\nmetadata: {name: proxy}\nspec:\n  source:\n    helm:\n      valuesObject:\n"
    declared = Files({"apps/proxy.yaml": values + textwrap.indent(lists, "        ")})
    assert deployed_by(declared, live_application("root", "apps"), live_application("proxy", "chart")) == "proxy"
    assert deployed_by(Files({"apps/a.yaml": "kind: Service"}), live_application("root", "apps")) == ""


@pytest.mark.parametrize(
    ("policy", "ignored", "reverts"),
    [
        ({"automated": {"selfHeal": True}}, [], True),
        ({"automated": {"selfHeal": True}}, [{"kind": "Deployment", "jsonPointers": ["/spec/replicas"]}], False),
        ({"automated": {"selfHeal": True, "enabled": False}}, [], False),
        ({"automated": {"prune": True}}, [], False),
        ({}, [], False),
    ],
)
def test_self_healing_reverts_the_api(policy: object, ignored: object, reverts: bool) -> None:
    spec = {"source": {}, "syncPolicy": policy, "ignoreDifferences": ignored}
    assert application_of({"metadata": {"name": "a"}, "spec": spec}).reverts_replicas is reverts


def sample_with_application(
    name: str, application_name: str, paths: tuple[str, ...]
) -> tuple[Platform, tuple[Application, ...]]:
    """A sample platform, and an Application with these directories."""
    checkout = Checkout(SAMPLE.parent / "platforms" / name)
    tree = Files({path: text for path in checkout.files("") if (text := checkout.read(path)) is not None})
    sources = [{"repoURL": "https://github.com/example/x.git", "path": path} for path in paths]
    application = application_of({"metadata": {"name": application_name}, "spec": {"sources": sources}})
    return Platform(tree, Layout(serving_dir="serving")), (application,)


def test_only_the_objects_of_one_model_of_an_application_are_synced() -> None:
    """Its other models may have a replica in git, so a sync of the whole Application would start them."""
    platform, applications = sample_with_application("one-application", "models", ("serving",))
    text = (platform.read("serving/chat/deployment.yaml") or "").replace("name: chat", "name: summary")
    tree = Files({path: platform.read(path) or "" for path in platform.files("")} | {"serving/summary.yaml": text})
    assert own_objects(platform, applications, "models", "chat") == ()  # the other one has an unknown engine
    objects = own_objects(Platform(tree, platform.layout), applications, "models", "chat")
    assert {ObjectName("apps", "Deployment", "chat"), ObjectName("", "Service", "chat")} <= set(objects)
    assert not any(object_name.name in ("summary", "voice") for object_name in objects)
    assert own_objects(Platform(tree, platform.layout), applications, "elsewhere", "chat") == ()
