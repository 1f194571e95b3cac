"""The program that a staging Job runs, with a stand-in of huggingface_hub that behaves like its releases up to 1.x."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bot.clients

PROGRAM = (Path(bot.clients.__file__).parent / "download.py").read_text()
SHA = "5" * 40

# `snapshot_download(local_files_only=True)` returns any existing folder, even a partial one, like huggingface_hub
# before version 2, which stores the listing of a repository. `refs/main` is written before the first file.
STAND_IN = """
import fnmatch, json, os, pathlib
class constants: HF_HUB_CACHE = os.environ["CACHE"]
FILES = json.loads(os.environ["FILES"])
class Sibling:
    def __init__(self, name, size): self.rfilename, self.size = name, size
class Info: pass
class Response:
    status_code, headers = 429, {"Retry-After": "77"}
class HfHubHTTPError(Exception):
    response = Response()
class HfApi:
    def model_info(self, repo, revision=None, files_metadata=False, token=None):
        if os.environ.get("TURNED_AWAY"): raise HfHubHTTPError("429 Client Error: Too Many Requests")
        about = Info()
        about.sha, about.siblings = "COMMIT", [Sibling(*each) for each in FILES.items()]
        return about
def snapshot_download(repo_id, *, revision=None, local_files_only=False, allow_patterns=None, ignore_patterns=None):
    storage = pathlib.Path(constants.HF_HUB_CACHE) / ("models--" + repo_id.replace("/", "--"))
    ref = storage / "refs" / (revision or "main")
    if local_files_only:
        if not ref.exists(): raise FileNotFoundError("not cached")
        return str(storage / "snapshots" / ref.read_text())
    about = HfApi().model_info(repo_id)
    if len(revision or "main") != 40:
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(about.sha)
    folder = storage / "snapshots" / about.sha
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [n for n in FILES if not allow_patterns or any(fnmatch.fnmatch(n, p) for p in allow_patterns)]
    for number, name in enumerate(wanted):
        if str(number) == os.environ.get("DIES_AT"): os._exit(9)
        if name != os.environ.get("SKIPS"): (folder / name).write_bytes(b"x" * FILES[name])
    return str(folder)
""".replace("COMMIT", SHA)
UTILS = """
import fnmatch
class LocalEntryNotFoundError(FileNotFoundError): pass
def filter_repo_objects(items, allow_patterns=None, ignore_patterns=None):
    return [i for i in items if not allow_patterns or any(fnmatch.fnmatch(i, p) for p in allow_patterns)]
"""
SCRIPT = """
from huggingface_hub import snapshot_download as d
m = "Qwen/X"
try:
    d(m, local_files_only=True)
except Exception:
    d(m)
"""
FILES = {"config.json": 10, "model.safetensors": 1000, "original.pth": 1000}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    package = tmp_path / "lib" / "huggingface_hub"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    (package / "utils.py").write_text(UTILS)
    return tmp_path / "cache"


def run(
    cache: Path, script: str = SCRIPT, *, program: str = PROGRAM, **environment: str
) -> tuple[int, list[dict[str, Any]], str]:
    """Return the exit code, the messages to the bot, and the error output."""
    done = subprocess.run(
        [sys.executable, "-c", program, script],
        env={"PYTHONPATH": str(cache.parent / "lib"), "CACHE": str(cache), "FILES": json.dumps(FILES), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("stoker ")]
    return done.returncode, [json.loads(line.removeprefix("stoker ")) for line in lines], done.stderr


def plain(script: str) -> str:
    """Return the script as the model's own pod runs it."""
    return f"import sys; exec({script!r})"


def test_everything_is_downloaded_and_reported(cache: Path) -> None:
    code, messages, _ = run(cache)
    assert code == 0
    assert {"bytes": 2010, "of": 2010} in messages
    assert "seconds" in messages[-1]


def test_patterns_of_the_script_apply(cache: Path) -> None:
    _, messages, _ = run(cache, SCRIPT.replace("d(m)", 'd(m, allow_patterns=["*.json", "*.safetensors"])'))
    assert {"bytes": 1010, "of": 1010} in messages


def test_an_interrupted_download_is_not_complete_for_the_models_pod(cache: Path) -> None:
    """A partial download is resumed later; until then the pod's own script does not mistake it for a complete one."""
    assert run(cache, DIES_AT="2")[0] == 9
    assert list(cache.rglob("model.safetensors"))
    code, _, error_output = run(cache, program=plain(SCRIPT.replace("    d(m)\n", "    raise\n")))
    assert code == 1
    assert "not cached" in error_output
    assert run(cache)[0] == 0
    assert run(cache, program=plain(SCRIPT.replace("    d(m)\n", "    raise\n")))[0] == 0


def test_a_partial_folder_of_an_earlier_boot_is_completed(cache: Path) -> None:
    """The script of the model's own pod would accept the partial folder."""
    assert run(cache, program=plain(SCRIPT), DIES_AT="1")[0] == 9
    assert run(cache, program=plain(SCRIPT))[0] == 0
    assert not list(cache.rglob("model.safetensors"))
    assert run(cache)[0] == 0
    assert list(cache.rglob("model.safetensors"))


def test_a_file_that_is_missing_in_the_end_is_a_failure(cache: Path) -> None:
    code, _, error_output = run(cache, SKIPS="model.safetensors")
    assert code == 1
    assert "Incomplete: 1 files are missing, the first is model.safetensors" in error_output


def test_429_has_the_time_of_the_retry(cache: Path) -> None:
    code, messages, error_output = run(cache, TURNED_AWAY="1")
    assert code == 1
    assert {"retry_after": "77"} in messages
    assert "429" in error_output


def test_unserved_models_are_removed_only_if_the_space_is_needed(cache: Path) -> None:
    old, served = cache / "models--old--model", cache / "models--served--model"
    for folder in (old, served):
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"x" * 100)
    keep = json.dumps(["served/model", "Qwen/X"])
    assert run(cache, STOKER_KEEP=keep)[0] == 0
    assert old.exists()
    full = PROGRAM.replace(
        "shutil.disk_usage(cache).free", "(0 if Path(cache, 'models--old--model').exists() else 10**9)"
    )
    (cache / "models--Qwen--X" / "snapshots" / SHA / "original.pth").unlink()
    code, messages, _ = run(cache, program=full, STOKER_KEEP=keep)
    assert code == 0
    assert {"removed": "old/model", "bytes": 100} in messages
    assert served.exists()
    assert not old.exists()


def test_a_volume_without_space_is_reported_before_the_download(cache: Path) -> None:
    full = PROGRAM.replace("shutil.disk_usage(cache).free", "7")
    code, _, error_output = run(cache, program=full)
    assert code == 1
    assert "No space left on device: 2010 bytes are still to be downloaded, and 7 are free." in error_output


def test_a_script_without_huggingface_hub_runs_as_it_is(cache: Path) -> None:
    code, _, _ = run(cache, f"import pathlib; pathlib.Path({str(cache.parent / 'done')!r}).touch()", PYTHONPATH="")
    assert code == 0
    assert (cache.parent / "done").exists()
