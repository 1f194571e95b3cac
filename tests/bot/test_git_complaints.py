"""When git fails, people read one sentence, which quotes git only if a rule of the branch refused the push."""

import pytest

from bot.git.complaints import PushRefused, outage, refusal

UNREACHED = "fatal: unable to access 'http://git.example.com/acme/platform.git/': "


@pytest.mark.parametrize(
    ("complaint", "meaning"),
    [
        (UNREACHED + "The requested URL returned error: 503", "status 503"),
        (UNREACHED + "Could not resolve host: git.example.com", "its host name is unknown"),
        ("ssh: Could not resolve hostname git: Name or service not known fatal: Could not read from remote repository", "its host name is unknown"),
        (UNREACHED + "Failed to connect to git.example.com port 443 after 2 ms: Couldn't connect to server", "no connection to it is possible"),
        (UNREACHED + "SSL certificate problem: unable to get local issuer certificate", "its certificate is not trusted"),
        (UNREACHED + "Operation too slow. Less than 100 bytes/sec transferred the last 60 seconds", "it took too long"),
        ("Timeout: the command \"git fetch\" did not complete in 600 secs.", "it took too long"),
        ("error: RPC failed; curl 18 transfer closed fatal: early EOF", "the connection was interrupted"),
        ("fatal: the remote end hung up unexpectedly", "the connection was interrupted"),
        ("fatal: something new", ""),
    ],
)  # fmt: skip
def test_an_outage_is_explained(complaint: str, meaning: str) -> None:
    """An outage is not a refusal: Stoker tries again."""
    assert outage(complaint) == meaning
    assert refusal(complaint) is None


@pytest.mark.parametrize(
    ("complaint", "names"),
    [
        ("fatal: Authentication failed for 'https://git.example.com/'", "GITHUB_TOKEN"),
        ("fatal: could not read Username for 'https://git.example.com': terminal prompts disabled", "GITHUB_TOKEN"),
        (UNREACHED + "The requested URL returned error: 403", "GITHUB_TOKEN"),
        ("remote: Repository not found. fatal: repository 'https://x/' not found", "GITHUB_REPOSITORY"),
        (UNREACHED + "The requested URL returned error: 404", "GITHUB_REPOSITORY"),
        ("fatal: '/srv/x' does not appear to be a git repository", "GIT_REMOTE_URL"),
        ("fatal: transport 'ext' not allowed", "GIT_REMOTE_URL"),
    ],
)
def test_a_refusal_names_the_setting(complaint: str, names: str) -> None:
    """The message does not contain the address, which may include a password."""
    error = str(refusal(complaint))
    assert names in error
    assert "fatal" not in error
    assert "example.com" not in error


def test_a_rule_of_the_branch_is_quoted() -> None:
    """The message shows what an admin must change, without git's surrounding text."""
    error = refusal(
        "remote: error: GH006: Protected branch update failed for refs/heads/main. remote: error: Changes must be made "
        "through a pull request. To https://git.example.com/acme/platform.git ! [remote rejected] abc -> main (protected "
        "branch hook declined) error: failed to push some refs to 'https://git.example.com/acme/platform.git'"
    )
    assert isinstance(error, PushRefused)
    assert str(error) == (
        "The git remote refused the push: GH006: Protected branch update failed for refs/heads/main; Changes must be made "
        "through a pull request (protected branch hook declined). Change the branch's rules so that "
        "Stoker's account may push."
    )


@pytest.mark.parametrize("reason", ["stale info", "fetch first", "non-fast-forward"])
def test_a_push_that_comes_too_late_is_explained(reason: str) -> None:
    """The branch has another person's commit."""
    error = refusal(f"To https://git.example.com/a.git ! [rejected] abc -> stoker/x ({reason}) error: failed to push")
    assert isinstance(error, PushRefused)
    assert str(error).startswith("The git remote refused the push: somebody else has pushed to the branch.")
