"""The caches that each boot compiles again, and the pull request that keeps them on the volume."""

import re

import pytest

from manifests.contract import Layout, check
from manifests.platform import Platform
from manifests.tree import ChangeSet, Files, ManifestError, Overlay, Tree
from manifests.tune import plan_tune
from tests.manifests.faults import planted

DEPLOYMENT = "serving/coder-chat/deployment.yaml"
RULES = {"cold-start", "image-pull-policy"}


def advice(tree: Tree, layout: Layout) -> list[tuple[str, int]]:
    return [(f.rule, f.line) for f in check(Platform(tree, layout), "coder-chat", advice=True) if f.rule in RULES]


def line_of(tree: Tree, text: str) -> int:
    lines = (tree.read(DEPLOYMENT) or "").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def tuned(tree: Tree, layout: Layout) -> Tree:
    return Overlay(tree, plan_tune(Platform(tree, layout), "coder-chat").changes)


@pytest.fixture
def real(platform: Files) -> Files:
    """A realistic Deployment: the image is pulled at each start, and there is a cache of Triton."""
    text = (platform.read(DEPLOYMENT) or "").replace("imagePullPolicy: IfNotPresent", "imagePullPolicy: Always")
    cache = "            - name: XDG_CACHE_HOME\n              value: /tmp/.cache\n"
    triton = "            - name: TRITON_CACHE_DIR\n              value: /tmp/.triton\n"
    assert cache in text
    files = {path: platform.read(path) or "" for path in platform.files("")}
    return Files(files | {DEPLOYMENT: text.replace(cache, cache + triton)})


def test_a_cache_that_is_lost_with_the_pod_is_reported_at_its_line(real: Files, layout: Layout) -> None:
    """Advice is given only on request, and not for other changes."""
    assert ("cold-start", line_of(real, "value: /tmp/.cache")) in advice(real, layout)
    assert ("image-pull-policy", line_of(real, "imagePullPolicy: Always")) in advice(real, layout)
    assert all(
        f.severity == "warning" for f in check(Platform(real, layout), "coder-chat", advice=True) if f.rule in RULES
    )
    assert not [f for f in check(Platform(real, layout)) if f.rule in RULES]


def test_tuning_changes_only_the_relevant_lines(real: Files, layout: Layout) -> None:
    change = plan_tune(Platform(real, layout), "coder-chat")
    before, after = real.read(DEPLOYMENT) or "", change.changes.files[DEPLOYMENT] or ""
    new = [line.strip() for line in set(after.splitlines()) - set(before.splitlines())]
    assert list(change.changes.files) == [DEPLOYMENT]
    digest = (re.search(r"vllm-openai\S*@sha256:(\w{12})", before) or [""])[1]
    assert sorted(new) == [
        "imagePullPolicy: IfNotPresent",
        f"value: /models/compile-cache/{digest}",
        f"value: /models/compile-cache/{digest}/triton",
    ]
    assert len(after.splitlines()) == len(before.splitlines())


def test_tuning_again_changes_nothing(real: Files, layout: Layout) -> None:
    after = tuned(real, layout)
    assert advice(after, layout) == []
    assert check(Platform(after, layout)) == check(Platform(real, layout))
    with pytest.raises(ManifestError, match="nothing would change"):
        plan_tune(Platform(after, layout), "coder-chat")


def test_another_image_gets_another_cache_directory(real: Files, layout: Layout) -> None:
    """After a change of the digest there is a finding, and the next `tune` updates the directory."""
    after = tuned(real, layout)
    text = after.read(DEPLOYMENT) or ""
    old = (re.search(r"@sha256:(\w{64})", text) or ["", ""])[1]
    moved = Overlay(after, deployment(text.replace(f"@sha256:{old}", f"@sha256:{'b' * 64}")))
    (finding,) = [f for f in check(Platform(moved, layout), "coder-chat", advice=True) if f.rule == "cold-start"]
    assert "named after an image other" in finding.message
    again = tuned(moved, layout).read(DEPLOYMENT) or ""
    assert "/models/compile-cache/bbbbbbbbbbbb/triton" in again
    assert old[:12] not in again


def deployment(text: str) -> ChangeSet:
    return ChangeSet(files={DEPLOYMENT: text})


def test_a_missing_cache_variable_is_added(real: Files, layout: Layout) -> None:
    text = real.read(DEPLOYMENT) or ""
    bare = re.sub(r" +- name: (XDG_CACHE_HOME|TRITON_CACHE_DIR)\n +value: \S+\n", "", text)
    tree = Overlay(real, deployment(bare))
    assert ("cold-start", line_of(tree, "name: vllm") + 1) in advice(tree, layout)
    after = tuned(tree, layout).read(DEPLOYMENT) or ""
    assert re.search(
        r"            - name: HOME\n              value: /tmp\n            - name: VLLM_CACHE_ROOT\n"
        r"              value: /models/compile-cache/\w{12}/vllm\n          securityContext",
        after,
    )


def test_an_image_without_a_digest_is_refused(platform: Files, layout: Layout) -> None:
    tree = Overlay(platform, deployment(re.sub(r"@sha256:\w+", "", platform.read(DEPLOYMENT) or "")))
    with pytest.raises(ManifestError, match="not pinned by its digest"):
        plan_tune(Platform(tree, layout), "coder-chat")


def test_a_full_volume_grows_for_the_caches(platform: Files, layout: Layout) -> None:
    tree = planted(platform, "serving/coder-chat/pvc.yaml", "storage: 20Gi", "storage: 7Gi")
    change = plan_tune(Platform(tree, layout), "coder-chat")
    assert "storage: 10Gi" in (change.changes.files["serving/coder-chat/pvc.yaml"] or "")
    assert any("grows from 7Gi to 10Gi" in warning for warning in change.warnings)


def test_an_endpoint_without_compile_caches_is_refused(platform: Files, layout: Layout) -> None:
    with pytest.raises(ManifestError, match="no compile caches to keep"):
        plan_tune(Platform(platform, layout), "embeddings")


def test_a_comment_with_a_reason_accepts_the_advice(platform: Files, layout: Layout) -> None:
    """A check without advice also accepts the comment, although it has no finding of that rule."""
    old = "              value: /tmp/.cache"
    tree = planted(platform, DEPLOYMENT, old, f"{old}  # stoker: ignore cold-start: this disk is slower than compiling")
    assert not [message for message in advice(tree, layout) if message[0] == "cold-start"]
    assert check(Platform(tree, layout)) == check(Platform(platform, layout))
