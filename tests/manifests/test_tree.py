"""A realistic checkout with ignored files, unusual entries and unusual names."""

import subprocess
from pathlib import Path

import pytest

from manifests.contract import Layout, read_endpoint
from manifests.platform import Platform
from manifests.tree import Checkout, ManifestError

ODD = "caf\udce9.yaml"


@pytest.fixture(params=[True, False], ids=["git", "plain"])
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Checkout:
    """A directory with unusual entries, with and without a git directory."""
    for path, text in {
        "serving/chat/service.yaml": "name: chat\n",
        "serving/ch?t/service.yaml": "name: odd\n",
        ODD: "name: chat\n",
        "build/out.yaml": "name: chat\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    (tmp_path / "logo.png").write_bytes(b"\x89PNG\xff\x00name: chat")
    (tmp_path / "link.yaml").symlink_to("serving/chat/service.yaml")
    (tmp_path / "lost.yaml").symlink_to("nowhere")
    (tmp_path / "serving/linked").symlink_to("chat")
    if request.param:
        subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
        (tmp_path / ".gitignore").write_text("build/\n", encoding="utf-8")
    return Checkout(tmp_path)


def test_a_symbolic_link_is_listed_and_not_read(checkout: Checkout) -> None:
    """A link has no text, because it is not a file; no file is read through a link or through `..`."""
    assert {"link.yaml", "lost.yaml", "serving/linked", ODD} <= set(checkout.files(""))
    assert [checkout.read(path) for path in ("link.yaml", "lost.yaml", "serving/linked", "logo.png")] == [None] * 4
    assert checkout.read("serving/linked/service.yaml") is None
    assert checkout.read("serving/../serving/chat/service.yaml") is None
    assert checkout.read(ODD) == "name: chat\n"


def test_a_search_finds_literal_text(checkout: Checkout) -> None:
    """The search is git's or Stoker's own. Files that git ignores do not belong to the repository."""
    paths = set(checkout.grep("name: chat"))
    assert paths - {"build/out.yaml"} == {"serving/chat/service.yaml", ODD}
    assert ("build/out.yaml" in paths) == (not (checkout.root / ".git").exists())
    assert checkout.grep("name: nobody") == ()
    assert set(checkout.grep("name: nobody", "name: chat")) == paths


@pytest.mark.parametrize("name", ["ch?t", "c*", "chat/", "../serving/chat", ".", ":(top)serving"])
def test_a_name_is_not_a_pattern(checkout: Checkout, name: str) -> None:
    """A prefix selects one directory or none, and never the files of another one."""
    assert checkout.files("serving/ch?t") == ("serving/ch?t/service.yaml",)
    with pytest.raises(ManifestError, match=r"no endpoint|outside the contract"):
        read_endpoint(Platform(checkout, Layout()), name)
