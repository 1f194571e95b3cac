"""`stoker init` on the sample platforms: its report, and the file that it writes."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from bot.cli.main import cli
from bot.settings.config import load_config

SAMPLES = Path(__file__).parents[2] / "sandbox" / "platforms"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLES / "model-directories", tmp_path / "checkout"))


@pytest.fixture(autouse=True)
def _no_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLACK_BOT_TOKEN", "STOKER_CONFIG", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)


def test_init_reports_its_survey_and_writes_the_settings(checkout: Path) -> None:
    done = CliRunner().invoke(cli, ["init", str(checkout), "--yes"])
    assert done.exit_code == 0
    assert "qwen-coder: Qwen/Qwen2.5-Coder-7B-Instruct-AWQ on 1 GPU, Deployment qwen-coder/qwen-coder" in done.output
    assert "Deployer: Argo CD in namespace argocd" in done.output
    assert "ApplicationSet models deploys models" in done.output
    assert "Gateway: none" in done.output
    assert "stoker doctor" in done.output
    config = load_config(checkout / ".stoker.yaml")
    assert config.platform.namespace == "qwen-coder"
    assert (config.litellm.smoke_test, config.litellm.namespace) == (False, "")
    assert config.vllm.api_key.namespace == ""


@pytest.mark.parametrize("named", [True, False], ids=["its Secret is named", "its Secret is unknown"])
def test_the_master_key_is_written_whole_or_not_at_all(checkout: Path, named: bool) -> None:
    """A namespace alone does not identify a Secret."""
    reference = "{name: LITELLM_MASTER_KEY, valueFrom: {secretKeyRef: {name: gateway-key, key: master}}}"
    (checkout / "gateway.yaml").write_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: litellm, namespace: ai}\n"
        "spec: {template: {spec: {containers: [{name: proxy, image: ghcr.io/berriai/litellm:v1, "
        f"env: [{reference if named else ''}]}}]}}}}}}\n"
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: litellm, namespace: ai}\n"
        "data:\n  config.yaml: |\n    model_list:\n      - model_name: other\n"
        "        litellm_params: {model: openai/other}\n"
    )
    assert CliRunner().invoke(cli, ["init", str(checkout), "--yes"]).exit_code == 0
    config = load_config(checkout / ".stoker.yaml").litellm
    assert config.namespace == "ai"
    expected = ("ai", "gateway-key", "master") if named else ("litellm", "litellm-secrets", "PROXY_MASTER_KEY")
    assert (config.master_key.namespace, config.master_key.name, config.master_key.field) == expected


def test_a_second_run_keeps_existing_settings(checkout: Path) -> None:
    runner, file = CliRunner(), checkout / ".stoker.yaml"
    runner.invoke(cli, ["init", str(checkout), "--yes"])
    first_text = file.read_text()
    file.write_text(first_text + "gpu:\n  name: L40S\n")
    assert runner.invoke(cli, ["init", str(checkout), "--yes"]).exit_code == 0
    assert load_config(file).gpu.name == "L40S"
    assert YAML(typ="safe").load(file.read_text())["platform"] == YAML(typ="safe").load(first_text)["platform"]


def test_init_asks_only_for_settings_that_the_repository_lacks(checkout: Path) -> None:
    answers = "C0123456789\nlead\nL40S\n1.5\n"
    done = CliRunner().invoke(cli, ["init", str(checkout)], input=answers)
    assert "“lead” is not an id" in done.output
    config = load_config(checkout / ".stoker.yaml")
    assert (config.slack.channel, config.roles.approvers) == ("C0123456789", ())
    assert (config.gpu.name, config.gpu.price_per_hour) == ("L40S", 1.5)


def test_flux_and_how_scaling_works_are_reported(tmp_path: Path) -> None:
    checkout = Path(shutil.copytree(SAMPLES / "llama-cpp", tmp_path / "checkout"))
    done = CliRunner().invoke(cli, ["init", str(checkout), "--yes", "--print"])
    assert (
        "started and stopped with a commit of its replicas, because ApplicationSet apps reverts changes through the API"
        in done.output
    )
    assert not (checkout / ".stoker.yaml").exists()
    assert (
        "Kustomization apps deploys apps"
        in CliRunner().invoke(cli, ["init", str(SAMPLES / "flat-files"), "--yes", "--print"]).output
    )


def test_workloads_that_share_the_gpu_in_git_stay_up_with_the_models(tmp_path: Path) -> None:
    """Git keeps Ollama and vLLM up at the same time, so neither blocks the other."""
    checkout = Path(shutil.copytree(SAMPLES / "config-map", tmp_path / "checkout"))
    done = CliRunner().invoke(cli, ["init", str(checkout), "--yes"])
    assert "Other workloads on the GPU: ai/ollama" in done.output
    assert load_config(checkout / ".stoker.yaml").gpu.beside == ("ai/ollama",)
    deployment = checkout / "apps/vllm/deployment.yaml"
    deployment.write_text(deployment.read_text().replace("replicas: 1", "replicas: 0"))
    (checkout / ".stoker.yaml").unlink()
    CliRunner().invoke(cli, ["init", str(checkout), "--yes"])
    assert load_config(checkout / ".stoker.yaml").gpu.beside == ()


def test_a_repository_without_endpoints_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("nothing\n")
    done = CliRunner().invoke(cli, ["init", str(tmp_path), "--yes"])
    assert done.exit_code == 1
    assert "Nothing is written" in done.output
    assert not (tmp_path / ".stoker.yaml").exists()


@pytest.mark.parametrize(("text", "expected"), [("platform: [", "is not YAML"), ("plattform: {}", "no such setting")])
def test_a_file_that_cannot_be_read_is_not_overwritten(checkout: Path, text: str, expected: str) -> None:
    (checkout / ".stoker.yaml").write_text(text)
    done = CliRunner().invoke(cli, ["init", str(checkout), "--yes"])
    assert done.exit_code == 2
    assert expected in done.output
    assert (checkout / ".stoker.yaml").read_text() == text


HOME = {
    "apps/ai/vllm/ks.yaml": """\
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: vllm, namespace: ai}
spec:
  path: ./apps/ai/vllm/app
  targetNamespace: ai
  sourceRef: {kind: GitRepository, name: flux-system, namespace: flux-system}
""",
    "apps/ai/vllm/app/helmrelease.yaml": """\
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: vllm}
spec:
  chartRef: {kind: OCIRepository, name: app-template}
  values:
    controllers:
      vllm:
        containers:
          app:
            image: {repository: vllm/vllm-openai, tag: v0.11.0}
            args: [--model=Qwen/Qwen3-4B]
            env: {VLLM_API_KEY: {valueFrom: {secretKeyRef: {name: keys, key: vllm}}}}
            resources: {limits: {nvidia.com/gpu: 1}}
      embed:
        containers:
          app:
            image: {repository: vllm/vllm-openai, tag: v0.11.0}
            args: [--model=BAAI/bge-m3, --runner=pooling]
            resources: {limits: {nvidia.com/gpu: 1}}
    service:
      app: {controller: vllm, ports: {http: {port: 8000}}}
      embed: {controller: embed, ports: {http: {port: 8000}}}
""",
    **{
        f"apps/media/{name}/{file}": text.replace("NAME", name)
        for name in ("plex", "sonarr")
        for file, text in (
            (
                "ks.yaml",
                "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: NAME, namespace: media}\n"
                "spec: {path: ./apps/media/NAME/app, targetNamespace: media, sourceRef: {kind: GitRepository, name: a}}\n",
            ),
            (
                "app/release.yaml",
                "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: NAME}\nspec:\n  values:\n"
                "    controllers:\n      NAME:\n        containers:\n          app:\n            image: {repository: plex}\n"
                "            resources: {limits: {gpu.intel.com/i915: 1}}\n",
            ),
        )
    },
}
"""Two models of one HelmRelease, and other applications with a GPU, each with a Kustomization in its own namespace."""


def test_everything_that_shares_the_gpu_is_found(tmp_path: Path) -> None:
    """The Kustomizations are in the namespaces of their objects, and their source is in Flux's namespace."""
    for path, text in HOME.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text.replace("NAME", path.split("/")[2]))
    done = CliRunner().invoke(cli, ["init", str(tmp_path), "--yes"])
    assert done.exit_code == 0, done.output
    assert "vllm: Qwen/Qwen3-4B on 1 GPU, Deployment ai/vllm\n" in done.output
    assert "Deployment ai/vllm-embed" in done.output
    config = load_config(tmp_path / ".stoker.yaml")
    assert config.flux.namespace == "flux-system"
    assert (config.gpu.slots, set(config.gpu.beside)) == (2, {"media/plex", "media/sonarr"})
    key = config.vllm.api_key
    assert (key.namespace, key.name, key.field) == ("ai", "keys", "vllm")
