"""Every setting is documented; a wrong one stops the start with one line that names it."""

from datetime import timedelta
from pathlib import Path

import pytest

from bot.cli.settings import reference
from bot.settings import SettingsError, load_config, load_settings

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


def test_the_documentation_is_whole() -> None:
    """docs/configuration.md is what `make docs` writes."""
    assert (ROOT / "docs/configuration.md").read_text() == reference()


def test_durations_are_written_as_people_do(config: Path) -> None:
    """`15m` in the file is a quarter of an hour."""
    config.write_text("slack: {channel: C1}\nidle: {remind_after: 5m, down_after: 1h30m}\n")
    assert load_settings().config.idle.down_after == timedelta(minutes=90)


def test_a_price_is_that_of_the_machine(config: Path) -> None:
    """Of the node's own where it is known, else of the usual one."""
    config.write_text(f"{config.read_text()}\ngpu: {{machine: big, price_per_hour: 1, prices: {{big: 2, huge: 3}}}}\n")
    gpu = load_config(config).gpu
    assert [gpu.price(machine) for machine in ("", "big", "huge", "other")] == [2, 2, 3, 1]


def test_the_remote_follows_from_the_repository(config: Path) -> None:
    """GIT_REMOTE_URL is needed only where git is not at GitHub."""
    assert load_settings().remote == "https://github.com/acme/llm-platform.git"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slack: {chanel: C1}", "slack.chanel: Extra inputs are not permitted"),
        ("idle: {remind_after: -3h}", "idle.remind_after: “-3h” is not a duration"),
        ("idle: {remind_after: 2h}", "idle: down_after must be longer than remind_after"),
        ("gpu: {slots: 0}", "gpu.slots: Input should be greater than or equal to 1"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_line_in_the_file_is_named(config: Path, text: str, message: str) -> None:
    """File and key, and what is wrong with it."""
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
            "GITHUB_REPOSITORY: this is not of the form that it must have; write for example acme/",
        ),
        (
            "LITELLM_URL",
            "litellm:4000",
            "LITELLM_URL: this is not of the form that it must have; write for example https://",
        ),
        ("PROMETHEUS_URL", "http://", "PROMETHEUS_URL: this is not of the form"),
        ("STOKER_PORT", "http", "STOKER_PORT: Input should be a valid integer"),
        (
            "REDIS_URL",
            "redis.stoker.svc:6379",
            "REDIS_URL: this is not of the form that it must have; write for example redis",
        ),
        ("STOKER_CONFIG", "/nowhere.yaml", "STOKER_CONFIG: cannot read /nowhere.yaml"),
    ],
)
def test_a_wrong_variable_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """One line, with the variable's name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert message in caught.value.message


def test_a_wrong_address_is_not_repeated(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold a password, and the line goes to the log."""
    monkeypatch.setenv("REDIS_URL", "reddis://:hunter22@redis:6379")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hunter22" not in caught.value.message


def test_a_file_that_is_no_text_is_named(config: Path) -> None:
    """Saved by an editor in another encoding."""
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
    """A Secret mounted as a directory needs no environment; the line break that files end in is no part of a token."""
    found = load_settings().github_token
    assert found is not None
    assert found.get_secret_value() == "ghp-first"


def test_a_rotated_secret_is_read_without_a_restart(secrets: Path) -> None:
    """What kubelet writes into the mounted file is what the next request uses."""
    settings = load_settings()
    (secrets / "GITHUB_TOKEN").write_text("ghp-second")
    current = settings.current("github_token")
    assert current is not None
    assert current.get_secret_value() == "ghp-second"


def test_a_secret_from_the_environment_stays_as_it_was(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mounted files the environment of the start is all there is."""
    monkeypatch.setenv("GITHUB_TOKEN", "ghp-env")
    current = load_settings().current("github_token")
    assert current is not None
    assert current.get_secret_value() == "ghp-env"


def test_a_missing_directory_of_secrets_is_named(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Secret that is not mounted stops the start."""
    monkeypatch.setenv("STOKER_SECRETS_DIR", str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match="STOKER_SECRETS_DIR: there is no directory"):
        load_settings()
