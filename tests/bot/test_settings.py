"""Every setting is documented; a wrong one stops the start with one line that names it."""

from datetime import timedelta
from pathlib import Path

import pytest

from bot.cli.settings import reference
from bot.settings.config import SettingsError, load_config
from bot.settings.environment import load_settings

NEEDED = {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_APP_TOKEN": "xapp-1", "GITHUB_REPOSITORY": "acme/llm-platform"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "stoker.yaml"
    path.write_text("slack: {channel: C1}\n")
    for name, value in {**NEEDED, "STOKER_CONFIG": str(path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLACK_SIGNING_SECRET", raising=False)
    return path


def test_the_documentation_is_up_to_date() -> None:
    """docs/configuration.md is what `make docs` writes."""
    assert (ROOT / "docs/configuration.md").read_text() == reference()


def test_durations_are_written_as_people_do(config: Path) -> None:
    """`5m` and `1h30m` in the file are durations."""
    config.write_text("slack: {channel: C1}\nidle: {remind_after: 5m, down_after: 1h30m}\n")
    assert load_settings().config.idle.down_after == timedelta(minutes=90)


def test_the_price_depends_on_the_machine(config: Path) -> None:
    """The price is that of the node's machine type if it is known, and otherwise the usual price."""
    config.write_text(f"{config.read_text()}\ngpu: {{machine: big, price_per_hour: 1, prices: {{big: 2, huge: 3}}}}\n")
    gpu = load_config(config).gpu
    assert [gpu.price(machine) for machine in ("", "big", "huge", "other")] == [2, 2, 3, 1]


def test_the_remote_is_derived_from_the_repository(config: Path) -> None:
    """GIT_REMOTE_URL is needed only if git is not on GitHub."""
    assert load_settings().remote == "https://github.com/acme/llm-platform.git"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slack: {chanel: C1}", "slack.chanel: there is no such setting; did you mean slack.channel?"),
        ("idle: {remind_afer: 5m}", "idle.remind_afer: there is no such setting; did you mean idle.remind_after?"),
        ("litellm: {master_key: {namespace: ai}}", "litellm.master_key: a Secret needs namespace, name and field"),
        ("gpu: {price: 1}", "gpu.price: there is no such setting; did you mean gpu.prices?"),
        ("remind_after: 5m", "remind_after: there is no such setting; did you mean idle.remind_after?"),
        ("gpus: {slots: 1}", "gpus: there is no such setting; did you mean gpu?"),
        ("links: {logs: 'http://logs.example.com/{model}'}", "links.logs: this does not have the required form"),
        ("links: {logs: 'https://me:secret@logs.example.com/'}", "links.logs: this does not have the required form"),
        ("links: {logs: 'https://{model}.example.com/'}", "links.logs: this does not have the required form"),
        ("links: {logs: 'https://logs.example.com/{pod}'}", "no placeholder but {model}, {namespace} and {from}"),
        ("links: {dashboard: 'https://a.example.com/>'}", "links.dashboard: this does not have the required form"),
        ("links: {dashboard: 'https://a.example.com/|x'}", "links.dashboard: this does not have the required form"),
        ("links: {dashboard: 'https://a.example.com?{'}", "links.dashboard: this does not have the required form"),
        (
            "slack: {channel: C1, zzz: 1}",
            "slack.zzz: there is no such setting; docs/configuration.md lists all settings",
        ),
        ("idle: {remind_after: -3h}", "idle.remind_after: “-3h” is not a duration"),
        ("idle: {remind_after: 2h}", "idle: down_after must be longer than remind_after"),
        ("gpu: {slots: 0}", "gpu.slots: Input should be greater than or equal to 1"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_line_in_the_file_is_named(config: Path, text: str, message: str) -> None:
    """The error names the file, the key and the problem."""
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_config(config)
    assert message in caught.value.message
    assert str(config) in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SLACK_BOT_TOKEN", "", "SLACK_BOT_TOKEN is not set"),
        ("SLACK_APP_TOKEN", "", "SLACK_APP_TOKEN (Socket Mode) or SLACK_SIGNING_SECRET (HTTP) must be set"),
        (
            "GITHUB_REPOSITORY",
            "acme",
            "GITHUB_REPOSITORY: this does not have the required form; write, for example, acme/",
        ),
        (
            "LITELLM_URL",
            "litellm:4000",
            "LITELLM_URL: this does not have the required form; write, for example, https://",
        ),
        ("PROMETHEUS_URL", "http://", "PROMETHEUS_URL: this does not have the required form"),
        ("STOKER_PORT", "http", "STOKER_PORT: Input should be a valid integer"),
        (
            "REDIS_URL",
            "redis.stoker.svc:6379",
            "REDIS_URL: this does not have the required form; write, for example, redis",
        ),
        ("STOKER_CONFIG", "/nowhere.yaml", "STOKER_CONFIG: cannot read /nowhere.yaml"),
    ],
)
def test_a_wrong_variable_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """The error is one line with the variable's name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert message in caught.value.message


def test_a_wrong_address_is_not_repeated(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value may contain a password, and the line is logged."""
    monkeypatch.setenv("REDIS_URL", "reddis://:hunter22@redis:6379")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hunter22" not in caught.value.message


def test_a_file_that_is_not_text_is_named(config: Path) -> None:
    """A file in another encoding is refused with a clear error."""
    config.write_bytes("slack: {channel: Gerät}".encode("utf-16"))
    with pytest.raises(SettingsError, match="is not text in UTF-8"):
        load_config(config)


def test_the_channel_is_required(config: Path) -> None:
    """Without a channel there is nowhere to show an operation."""
    config.write_text("{}")
    with pytest.raises(SettingsError, match=r"slack.channel is missing"):
        load_settings()


def test_a_token_is_never_shown(config: Path) -> None:
    """Settings print without their secrets."""
    assert "xoxb-1" not in repr(load_settings())


@pytest.fixture
def secrets(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mounted Secret with GITHUB_TOKEN in it."""
    directory = tmp_path / "secrets"
    directory.mkdir()
    (directory / "GITHUB_TOKEN").write_text("ghp-first\n")
    monkeypatch.setenv("STOKER_SECRETS_DIR", str(directory))
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    return directory


def test_secrets_come_from_mounted_files(secrets: Path) -> None:
    """A Secret mounted as a directory needs no environment; a trailing line break in a file does not belong to the
    token.
    """
    token = load_settings().github_token
    assert token is not None
    assert token.get_secret_value() == "ghp-first"


def test_a_rotated_secret_is_read_without_a_restart(secrets: Path) -> None:
    """The next request uses the content that kubelet writes into the mounted file."""
    settings = load_settings()
    (secrets / "GITHUB_TOKEN").write_text("ghp-second")
    current = settings.current("github_token")
    assert current is not None
    assert current.get_secret_value() == "ghp-second"


def test_a_secret_from_the_environment_stays_as_it_was(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mounted files only the environment of the start is used."""
    monkeypatch.setenv("GITHUB_TOKEN", "ghp-env")
    current = load_settings().current("github_token")
    assert current is not None
    assert current.get_secret_value() == "ghp-env"


def test_a_missing_directory_of_secrets_is_named(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Secret that is not mounted stops the start."""
    monkeypatch.setenv("STOKER_SECRETS_DIR", str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match="STOKER_SECRETS_DIR: there is no directory"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "SLACK_BOT_TOKEN",
            "xapp-1",
            "SLACK_BOT_TOKEN contains an app-level token of Slack, which belongs in SLACK_APP_TOKEN",
        ),
        ("SLACK_BOT_TOKEN", "xoxp-1", "SLACK_BOT_TOKEN contains a user token of Slack"),
        (
            "SLACK_APP_TOKEN",
            "xoxb-1",
            "SLACK_APP_TOKEN contains a bot token of Slack, which belongs in SLACK_BOT_TOKEN",
        ),
        ("SLACK_SIGNING_SECRET", "xoxb-1", "SLACK_SIGNING_SECRET contains a bot token"),
        ("GITHUB_TOKEN", "hf_1", "GITHUB_TOKEN contains a token of Hugging Face, which belongs in HF_TOKEN"),
        ("HF_TOKEN", "github_pat_1", "HF_TOKEN contains a token of GitHub, which belongs in GITHUB_TOKEN"),
    ],
)
def test_a_token_in_the_wrong_place_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """The error names the kind of the token and the right variable, never the value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message) as refusal:
        load_settings()
    assert value not in str(refusal.value)


def test_a_token_of_unknown_form_is_accepted(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GitHub Enterprise server or a mirror may have other tokens."""
    monkeypatch.setenv("GITHUB_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("HF_TOKEN", "mirror-1")
    assert load_settings().github_token
