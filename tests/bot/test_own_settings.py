"""`.stoker.yaml` and the settings of the installation, which take precedence."""

from pathlib import Path

import pytest

from bot.platform.proposal import answer, is_understood, open_questions, propose, settings_yaml
from bot.settings.config import Config, SettingsError
from bot.settings.of_repository import layered, overruled, parsed, same
from manifests.tree import Checkout

SANDBOX = Path(__file__).parents[2] / "sandbox"
SAMPLES = sorted(path.name for path in (SANDBOX / "platforms").iterdir() if path.is_dir())
WITHOUT_ENDPOINT = "ollama"


class Undescribed(Checkout):
    """A checkout without its `.stoker.yaml`."""

    def files(self, prefix: str) -> tuple[str, ...]:
        return tuple(path for path in super().files(prefix) if path != ".stoker.yaml")


def test_the_installation_takes_precedence_at_every_depth() -> None:
    installed = Config.model_validate({"platform": {"namespace": "llm"}, "gpu": {"price_per_hour": 2}})
    text = (
        "platform: {namespace: other, template: chat}\ngpu: {price_per_hour: 1, name: A10}\nflux: {namespace: flux}\n"
    )
    config = layered(installed, text)
    assert (config.platform.namespace, config.platform.template) == ("llm", "chat")
    assert (config.gpu.price_per_hour, config.gpu.name, config.flux.namespace) == (2, "A10", "flux")
    assert overruled(parsed(text), config) == ("platform.namespace", "gpu.price_per_hour")


def test_a_merge_changes_neither_the_roles_nor_the_branch() -> None:
    text = (
        "roles: {admins: [U0EVIL], requesters: [U0EVIL], approvers: [U0EVIL]}\napprovals: {self_approval: true}\n"
        "people: {guests: true}\nslack: {channel: C0EVIL}\nlease: {longest: 90h}\nplatform: {branch: other}\n"
    )
    installed = Config.model_validate({"roles": {"approvers": ["U0LEAD"]}})
    assert layered(installed, text) == installed


def test_approvers_of_the_repository_are_used_if_the_installation_names_none() -> None:
    """The chart writes an empty list of approvers by default."""
    installed = Config.model_validate({"roles": {"approvers": [], "admins": ["U0ADMIN"]}})
    roles = layered(installed, "roles: {approvers: [U0LEAD], admins: [U0EVIL]}").roles
    assert (roles.approvers, roles.admins) == (("U0LEAD",), ("U0ADMIN",))


@pytest.mark.parametrize("text", ["platform: [", "- a list", "plattform: {}", "gpu: {price_per_hour: -1}"])
def test_a_file_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"\.stoker\.yaml"):
        layered(Config(), text)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_is_understood_once_its_proposal_is_merged(sample: str) -> None:
    tree = Undescribed(SANDBOX / "platforms" / sample)
    assert not is_understood(tree, Config())
    proposal = propose(tree, {})
    config = layered(Config(), settings_yaml(proposal.settings))
    assert is_understood(tree, config) == (sample != WITHOUT_ENDPOINT)
    again = propose(tree, parsed(settings_yaml(proposal.settings)))
    assert dict(again.settings) == dict(proposal.settings)


def test_the_platform_of_the_defaults_needs_no_set_up() -> None:
    assert is_understood(Checkout(SANDBOX / "platform"), Config())


def test_an_existing_setting_is_not_proposed_again() -> None:
    """An installation may operate one of several namespaces on purpose."""
    tree = Undescribed(SANDBOX / "platforms" / "llama-cpp")
    assert is_understood(tree, Config.model_validate({"platform": {"namespace": "vllm"}}))


def test_the_deployer_has_to_be_known() -> None:
    """Otherwise the bot would look for Argo CD's Applications."""
    tree = Undescribed(SANDBOX / "platforms" / "helm-release")
    config = Config.model_validate({"platform": {"namespace": "ai"}})
    assert not is_understood(tree, config)
    assert is_understood(tree, layered(config, "flux: {namespace: flux-system}"))


def test_settings_that_find_no_endpoint_are_replaced() -> None:
    tree = Undescribed(SANDBOX / "platforms" / "own-chart")
    current = {"platform": {"endpoints": {}, "serving_dir": "nowhere"}, "gpu": {"name": "A10"}}
    proposal = propose(tree, current)
    assert {endpoint.name for endpoint in proposal.survey.endpoints} == {"chat", "coder"}
    assert proposal.settings["gpu"] == {"name": "A10"}


def test_only_open_questions_are_asked() -> None:
    names = [question.name for question in open_questions({"gpu": {"name": "L4"}, "roles": {"approvers": []}})]
    assert names == ["slack.channel", "roles.approvers", "gpu.price_per_hour"]
    price = open_questions({})[-1]
    assert answer(price, "1.5") == {"gpu": {"price_per_hour": 1.5}}
    with pytest.raises(SettingsError, match=r"^Input should be a valid number, unable to parse string as a number$"):
        answer(price, "much")


def test_an_explicit_default_is_a_setting() -> None:
    """Its value equals the default, but somebody has chosen it."""
    chosen = Config.model_validate({"platform": {"namespace": Config().platform.namespace}})
    assert chosen == Config()
    assert not same(chosen, Config())
    assert same(Config(), Config())
