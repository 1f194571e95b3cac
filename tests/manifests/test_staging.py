"""The staging script: it downloads the files that the engine loads, and the volume is sized for them."""

import ast
from typing import Any

import pytest

from manifests import staging
from manifests.edit import Document, scalars
from manifests.sizing import ModelFacts

GB = 10**9
SMALL = ("*.json", "*.txt")
FACTS = ModelFacts(
    hf_id="org/model",
    weight_bytes=15 * GB,
    staged_bytes=15 * GB,
    repo_bytes=46 * GB,
    allow_patterns=(*SMALL, "model-*-of-00004.safetensors"),
)
SINGLE = FACTS.model_copy(update={"repo_bytes": FACTS.staged_bytes + 1})

REAL = """\
from huggingface_hub import snapshot_download as d
m = "org/model"
try:
    d(m, local_files_only=True)
except Exception:
    d(m)
"""


def deployment(script: str) -> Document:
    block = "".join(f"              {line}\n" if line else "\n" for line in script.splitlines())
    return Document(
        "serving/x/deployment.yaml",
        "kind: Deployment\nspec:\n  template:\n    spec:\n      initContainers:\n        - name: prestage-weights\n"
        f"          command:\n            - python3\n            - -c\n            - |\n{block}"
        "          env:\n            - name: HF_HOME   # the cache\n              value: /models\n",
    )


def script_of(document: Document) -> str:
    node = next(scalar for scalar in scalars(document.roots) if scalar.style == "|")
    ast.parse(node.value)
    return str(node.value)


def patterned(script: str, facts: ModelFacts = FACTS) -> str:
    return script_of(staging.with_patterns(deployment(script), facts))


def test_every_download_gets_the_patterns() -> None:
    """This includes the check of the local files, because newer releases compare the folder with the selected files."""
    assert patterned(REAL) == REAL.replace(
        'm = "org/model"\n', 'm = "org/model"\npatterns = ["*.json", "*.txt", "model-*-of-00004.safetensors"]\n'
    ).replace("d(m, local", "d(m, allow_patterns=patterns, local").replace("d(m)\n", "d(m, allow_patterns=patterns)\n")


def test_only_the_scripts_lines_change() -> None:
    before, after = deployment(REAL).text, staging.with_patterns(deployment(REAL), FACTS).text
    changed = set(after.splitlines()) - set(before.splitlines())
    assert len(changed) == 3
    assert len(after.splitlines()) == len(before.splitlines()) + 1


def test_a_repository_without_other_files_needs_no_patterns() -> None:
    assert patterned(REAL, SINGLE) == REAL


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('from huggingface_hub import snapshot_download\nsnapshot_download("org/model")\n', 'snapshot_download("org/model", allow_patterns=["*.json"'),
        ('import huggingface_hub\nhuggingface_hub.snapshot_download("org/model", max_workers=4)\n', '"org/model", allow_patterns=["*.json"'),
        ('import huggingface_hub as hub\nname = "org/model"  # größer\nhub.snapshot_download(\n    name,\n)\n', "    name, allow_patterns=patterns,\n"),
    ],
)  # fmt: skip
def test_scripts_in_common_forms_are_edited(script: str, expected: str) -> None:
    assert expected in patterned(script)


def test_custom_patterns_that_match_are_kept() -> None:
    script = REAL.replace("d(m", 'd(m, allow_patterns=["*.safetensors", "*.json"]')
    assert patterned(script) == script


def test_patterns_that_do_not_match_the_new_weights_are_replaced() -> None:
    """The swap is from one file to four, or from pickles to safetensors."""
    script = REAL.replace('model"\n', 'model"\nwanted = ["*.json", "model.safetensors"]\n').replace(
        "d(m", "d(m, allow_patterns=wanted"
    )
    assert patterned(script) == script.replace(
        '["*.json", "model.safetensors"]', '["*.json", "*.txt", "model-*-of-00004.safetensors"]'
    )
    assert patterned(patterned(script)) == patterned(script)


@pytest.mark.parametrize(
    "script",
    [
        "from huggingface_hub import snapshot_download as d\nfor m in MODELS:\n    d(m)  # org/model\n",
        'from huggingface_hub import snapshot_download as d\nd("org/model", ignore_patterns=["*.bin"])\n',
        'from huggingface_hub import snapshot_download as d\nd("org/model", **options)\n',
        "this is not Python, though it says org/model and download\n",
    ],
)
def test_an_unsupported_script_is_not_changed(script: str) -> None:
    document = deployment(script)
    assert staging.with_patterns(document, FACTS).text == document.text


class _Pieces:
    """An endpoint with only a staging script."""

    def __init__(self, script: str) -> None:
        self.staging = tuple(scalar for scalar in scalars(deployment(script).roots) if "download" in scalar.value)


@pytest.mark.parametrize(
    ("script", "size"),
    [
        (REAL, 15 * GB),  # gets patterns
        (REAL.replace("d(m", 'd(m, allow_patterns=["*.safetensors", "*.json"]'), 46 * GB),  # may select more
        (REAL.replace("d(m)", "d(m, ignore_patterns=[])"), 46 * GB),  # is not changed
        (REAL.replace("d(m", 'd(m, allow_patterns=["*.json", "*.txt", "model-*-of-00004.safetensors"]'), 15 * GB),
    ],
)
def test_the_volume_is_sized_for_the_downloaded_files(script: str, size: int) -> None:
    pieces: Any = _Pieces(script)
    assert staging.downloaded_bytes(pieces, FACTS) == size


def test_old_weights_without_patterns_count_as_the_whole_repository() -> None:
    pieces: Any = _Pieces(REAL)
    assert staging.remaining_bytes(pieces, 15 * GB, 46 * GB) == 46 * GB
    pieces = _Pieces(patterned(REAL))
    assert staging.remaining_bytes(pieces, 15 * GB, 46 * GB) == 15 * GB


def test_an_unsupported_script_causes_a_warning() -> None:
    pieces: Any = _Pieces(REAL.replace("d(m)", "d(m, ignore_patterns=[])"))
    (warning,) = staging.warnings(pieces, FACTS)
    assert "46.0 GB" in warning
    assert '"model-*-of-00004.safetensors"' in warning
    understood: Any = _Pieces(REAL)
    assert staging.warnings(understood, FACTS) == ()
