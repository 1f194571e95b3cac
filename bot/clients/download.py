"""The program of a staging Job: runs the script of the manifest in the engine's image. It only needs `huggingface_hub`.

It changes the script's behaviour in three ways:

- Local files are never accepted without a check. Up to huggingface_hub 1.x, `snapshot_download(local_files_only=True)`
  returns the folder of an interrupted download as if it were complete, so every file is compared with the Hub.
- The branch's name is recorded in the cache last. Until then, a pod that searches the cache finds no model instead of an
  incomplete one.
- The program prints its progress, and the retry time of a 429, as lines of JSON that begin with `stoker `.

It imports no module of Stoker, because the file is passed to the interpreter as text.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVERY = float(os.environ.get("STOKER_EVERY", "5"))
"""Seconds between two reports of the progress."""


def tell(**values: object) -> None:
    """Print one report for the bot: `stoker ` and the values as JSON."""
    print("stoker " + json.dumps(values), flush=True)  # noqa: T201  # the bot reads standard output


def size_of(folder: Path) -> int:
    """The size of the files below a folder in bytes, including partial downloads. Links are not followed."""
    total = 0
    for directory, _, names in os.walk(folder):
        for path in (Path(directory) / name for name in names):
            try:
                total += 0 if path.is_symlink() else path.stat().st_size
            except FileNotFoundError:  # a partial file was just renamed
                continue
    return total


def report(folder: Path, total: int, over: threading.Event) -> None:
    """Print the progress of a download regularly until `over` is set."""
    while not over.wait(EVERY):
        tell(bytes=min(size_of(folder), total), of=total)


def make_room(cache: Path, folder: Path, total: int) -> None:
    """Delete from the cache the models that no endpoint serves, until there is enough space for `total` bytes. Exit if
    the space is still too small.
    """
    needed = total - size_of(folder)
    to_keep = {f"models--{model.replace('/', '--')}" for model in json.loads(os.environ.get("STOKER_KEEP", "[]"))}
    removable = sorted(cache.glob("models--*"), key=os.path.getmtime) if to_keep else []
    for old in removable:
        if shutil.disk_usage(cache).free >= needed:
            return
        if old.name not in to_keep and old != folder:
            tell(removed=old.name.removeprefix("models--").replace("--", "/"), bytes=size_of(old))
            shutil.rmtree(old)
    free = shutil.disk_usage(cache).free
    if free < needed:
        sys.exit(f"No space left on device: {needed} bytes are still to be downloaded, and {free} are free.")


def whole_snapshots(hub: Any) -> Any:
    """Return the function that replaces `snapshot_download` for the script."""
    from huggingface_hub.utils import LocalEntryNotFoundError, filter_repo_objects

    download = hub.snapshot_download

    def whole(repo_id: str, *, revision: str | None = None, local_files_only: bool = False, **options: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("The staging Job compares every file with the Hub.")
        if options.get("local_dir") or options.get("repo_type") not in (None, "model"):
            return str(download(repo_id, revision=revision, **options))
        info = hub.HfApi().model_info(repo_id, revision=revision, files_metadata=True, token=options.get("token"))
        sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings}
        patterns = {key: options.get(key) for key in ("allow_patterns", "ignore_patterns")}
        selected = sorted(filter_repo_objects(list(sizes), **patterns))
        total = sum(sizes[name] for name in selected)
        cache = Path(options.get("cache_dir") or hub.constants.HF_HUB_CACHE)
        cache.mkdir(parents=True, exist_ok=True)
        folder = cache / f"models--{repo_id.replace('/', '--')}"
        make_room(cache, folder, total)
        tell(bytes=min(size_of(folder), total), of=total)
        over = threading.Event()
        threading.Thread(target=report, args=(folder, total, over), daemon=True).start()
        try:
            snapshot = Path(download(repo_id, revision=info.sha, **options))
        finally:
            over.set()
        if missing := [name for name in selected if not (snapshot / name).exists()]:
            sys.exit(f"Incomplete: {len(missing)} files are missing, the first is {missing[0]}.")
        tell(bytes=total, of=total)
        return str(download(repo_id, revision=revision, **options))

    return whole


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and the chain of its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def tell_when_to_retry(error: BaseException) -> None:
    """Print the Retry-After header if a 429 response caused the error."""
    for chained in causes(error):
        answer = getattr(chained, "response", None)
        if getattr(answer, "status_code", None) == 429:
            tell(retry_after=(getattr(answer, "headers", None) or {}).get("Retry-After", ""))
            return


def main(script: str) -> None:
    """Run the script with the changes of this module."""
    began = time.monotonic()
    sys.argv = ["-c"]
    try:
        import huggingface_hub as hub

        hub.snapshot_download = whole_snapshots(hub)
    except ImportError:
        pass  # a script that downloads in another way runs unchanged
    try:
        exec(compile(script, "<prestage-weights>", "exec"), {"__name__": "__main__"})  # noqa: S102
    except BaseException as error:
        tell_when_to_retry(error)
        raise
    tell(seconds=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main(sys.argv[1])
