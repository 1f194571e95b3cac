"""Findings that a file accepts in a comment, and comments that accept nothing."""

import pytest

from manifests.contract import Layout, check
from manifests.platform import Platform
from manifests.tree import Files

CHAT = "serving/coder-chat/deployment.yaml"
CATALOG = "docs/public/reference/model-catalog.md"


def planted(platform: Files, path: str, old: str, new: str) -> Files:
    files = {path: platform.read(path) or "" for path in platform.files("")}
    assert old in files[path]
    return Files(files | {path: files[path].replace(old, new, 1)})


def findings(tree: Files, layout: Layout) -> list[tuple[str, str]]:
    return [(finding.rule, finding.severity) for finding in check(Platform(tree, layout))]


@pytest.mark.parametrize(
    "text",
    [
        "  replicas: 1 # stoker: ignore replicas: a demo that is always on",
        "  # stoker: ignore replicas: a demo that is always on\n  replicas: 1",
        "  # stoker: ignore replicas: a demo that is always on\n  # until the fair is over\n  replicas: 1",
        "  # stoker: ignore strategy, replicas: a demo that is always on\n  replicas: 1",
    ],
)
def test_a_comment_with_a_reason_accepts_a_finding(platform: Files, layout: Layout, text: str) -> None:
    assert findings(planted(platform, CHAT, "  replicas: 0", "  replicas: 1"), layout) == [("replicas", "error")]
    assert findings(planted(platform, CHAT, "  replicas: 0", text), layout) == []


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("  replicas: 1 # stoker: ignore replicas", {"replicas", "suppression"}),
        ("  replicas: 1 # stoker: ignore replicas:", {"replicas", "suppression"}),
        ("  replicas: 1 # stoker: ignore: it is a demo", {"replicas", "suppression"}),
        ("  replicas: 1 # stoker: ignore replica: it is a demo", {"replicas", "suppression"}),
        ("  replicas: 1 # stoker: ignore strategy: it is a demo", {"replicas", "suppression"}),
        ("  replicas: 0 # stoker: ignore replicas: it is a demo", {"suppression"}),
    ],
)
def test_a_comment_without_a_reason_rule_or_finding_causes_a_warning(
    platform: Files, layout: Layout, text: str, rules: set[str]
) -> None:
    tree = planted(platform, CHAT, "  replicas: 0", text)
    assert {rule for rule, _ in findings(tree, layout)} == rules
    assert ("suppression", "warning") in findings(tree, layout)


def test_an_unused_comment_is_reported_only_if_everything_is_checked(platform: Files, layout: Layout) -> None:
    tree = planted(platform, CHAT, "  replicas: 0", "  replicas: 0 # stoker: ignore replicas: it is a demo")
    assert [finding.rule for finding in check(Platform(tree, layout), "coder-fim")] == []
    assert [finding.rule for finding in check(Platform(tree, layout))] == ["suppression"]


def test_a_comment_in_markdown_accepts_findings(platform: Files, layout: Layout) -> None:
    tree = planted(platform, CATALOG, "| 16384 |", "| 32768 | <!-- stoker: ignore catalog-context: next week -->")
    assert findings(tree, layout) == []
