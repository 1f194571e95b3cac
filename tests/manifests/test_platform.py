"""A platform reads and parses each file once, and never changes."""

from collections import Counter

from manifests.contract import check, read_endpoints
from manifests.layout import Layout
from manifests.objects import objects
from manifests.platform import Platform
from manifests.tree import Files, Tree


class Counting:
    """A tree that counts repeated calls."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.asked: Counter[tuple[str, ...]] = Counter()

    def read(self, path: str) -> str | None:
        self.asked["read", path] += 1
        return self._tree.read(path)

    def files(self, prefix: str) -> tuple[str, ...]:
        self.asked["files", prefix] += 1
        return self._tree.files(prefix)

    def grep(self, *texts: str) -> tuple[str, ...]:
        self.asked["grep", *texts] += 1
        return self._tree.grep(*texts)


def test_a_repository_answers_each_query_once(platform: Files, layout: Layout) -> None:
    """Listing and checking call `git grep` dozens of times, and one call takes a second in a large checkout."""
    tree = Counting(platform)
    repository = Platform(tree, layout)
    assert len(read_endpoints(repository)) == 3
    assert check(repository, advice=True) is not None
    assert set(tree.asked.values()) == {1}


def test_each_document_is_parsed_once(platform: Files, layout: Layout) -> None:
    """The same nodes are returned each time, so a node can be recognised by its identity."""
    repository = Platform(platform, layout)
    path = "serving/coder-chat/deployment.yaml"
    assert objects(repository, path) is objects(repository, path)
    assert repository.require("coder-chat") is repository.require("coder-chat")
    assert repository.require("coder-chat").deployment.node is objects(repository, path)[0][1].node


def test_changes_create_another_platform(platform: Files, layout: Layout) -> None:
    """The first platform keeps its endpoints, whether it has read them before or after the change."""
    before = Platform(platform, layout)
    path = "serving/coder-chat/deployment.yaml"
    was = before.require("coder-chat").model.value
    after = before.with_changes({path: (before.read(path) or "").replace(was, "acme/other")})
    assert (before.require("coder-chat").model.value, after.require("coder-chat").model.value) == (was, "acme/other")
    without_chat = after.without(after.files("serving/coder-chat"))
    assert [platform.locate("coder-chat") is None for platform in (before, after, without_chat)] == [False, False, True]


def test_another_layout_finds_endpoints_at_other_places(platform: Files, layout: Layout) -> None:
    """Results for one layout are not used for another one."""
    repository = Platform(platform, layout)
    assert repository.endpoints()
    elsewhere = repository.with_layout(layout.model_copy(update={"serving_dir": "nowhere"}))
    assert Layout(serving_dir="nowhere").serving_dir == elsewhere.layout.serving_dir
    assert {endpoint.home for endpoint in elsewhere.endpoints()}.isdisjoint({"nowhere"})
    assert repository.require("coder-chat").home == "serving/coder-chat"
