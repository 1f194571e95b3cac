"""Log lines: their fields, JSON in the cluster, and never a secret."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from bot.observability import logs
from bot.settings.environment import ToolSettings

TOKEN = "plain-looking-secret"


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    """Restore the logging for other tests."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Lines:
    """The bot's log as written in the cluster."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        logs.configure("json", [SecretStr(TOKEN)])

    def last(self) -> dict[str, object]:
        fields: dict[str, object] = json.loads(self._capsys.readouterr().err.splitlines()[-1])
        return fields


def test_every_line_names_its_operation_actor_and_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line has op, actor and model from its block, or empty values."""
    lines = Lines(capsys)
    log = structlog.get_logger("bot.test")
    with logs.about(op="abc", actor="U0DEV", model="coder-chat"):
        log.info("scaled")
    inside = lines.last()
    assert (inside["op"], inside["actor"], inside["model"]) == ("abc", "U0DEV", "coder-chat")
    log.info("ready")
    outside = lines.last()
    assert (outside["op"], outside["actor"], outside["model"]) == ("", "", "")


def test_lines_of_the_libraries_are_of_the_same_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning of aiohttp is JSON with the same keys, so that one query finds all lines."""
    lines = Lines(capsys)
    logging.getLogger("aiohttp.server").warning("Error handling %s", "request")
    line = lines.last()
    assert (line["event"], line["level"], line["logger"]) == ("Error handling request", "warning", "aiohttp.server")
    assert {"op", "actor", "model", "timestamp"} <= line.keys()


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        "xoxb-1234-abcd",
        "xapp-1-A0-secret",
        "ghp_0123456789abcdef",
        "ghs_0123456789abcdef",
        "github_pat_11AAAA_bbbb",
        "hf_abcdefghijkl",
        "sk-abcdef123456",
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl",
        "https://hooks.slack.com/commands/T0/1/xyz",
        "user:hunter22",
        ":hunter22",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_no_secret_gets_into_a_line(capsys: pytest.CaptureFixture[str], secret: str) -> None:
    """A secret in the text, in a value, deep in a structure or in an exception is removed before the line is written."""
    Lines(capsys)
    log = structlog.get_logger("bot.test")
    credential = f"redis://{secret}@host:6379" if ":hunter" in secret else secret
    try:
        raise RuntimeError(f"401 for {credential}")
    except RuntimeError:
        log.exception(f"refused {credential}", url=credential, deep={"headers": [credential]})  # noqa: G004
    output = capsys.readouterr().err
    assert secret not in output
    assert json.dumps(secret)[1:-1] not in output
    assert logs.CUT in output


def test_a_secret_that_was_rotated_or_read_from_the_cluster_is_removed_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Secrets that are read later are removed, and the earlier secrets are still removed."""
    lines = Lines(capsys)
    mounted = tmp_path / "GITHUB_WEBHOOK_SECRET"
    mounted.write_text("the-first-one")
    settings = ToolSettings(stoker_secrets_dir=tmp_path)
    settings.current("github_webhook_secret")
    mounted.write_text("the-second-one\n")
    settings.current("github_webhook_secret")
    structlog.get_logger("bot.test").info("refused the-first-one", said=["the-second-one"])
    line = lines.last()
    assert (line["event"], line["said"]) == ("refused ***", ["***"])


def test_a_bearer_header_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    """Any text after Bearer or Basic counts as a secret."""
    lines = Lines(capsys)
    structlog.get_logger("bot.test").info("asked", headers={"Authorization": "Bearer abc.def.ghi"})
    assert lines.last()["headers"] == {"Authorization": "Bearer ***"}
    structlog.get_logger("bot.test").info(
        "asked", headers="authorization: bearer abc.def.ghi"
    )  # as in the log of Kubernetes' client
    assert lines.last()["headers"] == "authorization: bearer ***"


def test_numbers_and_booleans_keep_their_types(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines are also read by programs."""
    lines = Lines(capsys)
    structlog.get_logger("bot.test").info("ready", port=8080, socket=True, nothing=None)
    line = lines.last()
    assert (line["port"], line["socket"], line["nothing"]) == (8080, True, None)
