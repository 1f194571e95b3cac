"""Downloads of weights, from the sandbox's Hub to a volume.

A download behaves like `huggingface_hub`: existing files are not downloaded again, and `allow_patterns` selects files
by name. The Hub returns the size of each file over HTTP. The content is not transferred: the download counts 62 MB per
second of the platform's clock (5.6 GB of a 7B AWQ in 90 s, as measured on a real platform).
"""

import asyncio
import fnmatch
import json
import re
from collections.abc import Callable, Set
from dataclasses import dataclass

import httpx

from sandbox.clock import Clock
from sandbox.volumes import Claim, Volumes

RATE = 62e6
"""Bytes per second of the platform's clock."""
_REPORT_EVERY = 0.5
"""Seconds of real time between two progress lines."""
_TRACEBACK = "Traceback (most recent call last):"
_ERRORS = {
    401: "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. Repository Not Found for url: {url}.",
    403: "huggingface_hub.errors.GatedRepoError: 403 Client Error. Cannot access gated repo for url {url}.",
    404: "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. Repository Not Found for url: {url}.",
    429: "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: {url}",
}


@dataclass(frozen=True)
class Script:
    """The download that a staging container performs."""

    model: str
    patterns: tuple[str, ...]
    reports_progress: bool
    """True if the container's program prints its progress for Stoker."""
    kept: tuple[str, ...]
    offline: bool

    @classmethod
    def of(cls, command: list[str], environment: dict[str, str]) -> "Script":
        text = " ".join(command[2:] if len(command) == 3 else command[-1:])
        model = re.search(r"""["']([\w.-]+/[\w.-]+)["']""", text)
        pattern_list = re.search(r"allow_patterns\s*=\s*\[([^\]]*)\]", text)
        return cls(
            model=model[1] if model else "unknown/model",
            patterns=tuple(re.findall(r"""["']([^"']+)["']""", pattern_list[1])) if pattern_list else (),
            reports_progress=len(command) == 4,
            kept=tuple(json.loads(environment.get("STOKER_KEEP", "[]"))),
            offline=environment.get("HF_HUB_OFFLINE") in ("1", "true", "True"),
        )


class Refused(Exception):
    """The download fails; the message is the last line of its log."""


class Downloads:
    """Downloads from the Hub at `hub` to `volumes`; without a Hub every model has one file of 5.6 GB."""

    def __init__(self, volumes: Volumes, clock: Clock, faults: Set[str], hub: str) -> None:
        self._volumes, self._clock, self._faults, self._hub = volumes, clock, faults, hub

    async def run(self, script: Script, claim: Claim, log: Callable[..., None]) -> bool:
        """Run the script; returns whether it succeeded, so that the volume has all files. `log` receives its output."""
        try:
            await self._fetch(script, claim, log)
        except Refused as refused:
            log(_TRACEBACK, str(refused))
            return False
        return True

    async def _fetch(self, script: Script, claim: Claim, log: Callable[..., None]) -> None:
        if script.offline:
            raise Refused("huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach the Hub: offline mode is enabled.")
        files = await self._files(script.model)
        selected = {
            n: s for n, s in files.items() if not script.patterns or any(fnmatch.fnmatch(n, p) for p in script.patterns)
        }
        total, downloaded = float(sum(selected.values())), self._volumes.downloaded[claim]
        if script.reports_progress:
            self._make_room(script, claim, total, log)
        since_last_line = 0.0
        have, since = downloaded.get(script.model, 0.0), self._clock.now()
        while have < total:
            await asyncio.sleep(min(_REPORT_EVERY, 0.1))
            self._refuse_if_broken(script.model)
            now = self._clock.now()
            grown, since = min((now - since) * RATE, total - have), now
            if grown > self._volumes.free(claim):
                raise Refused("OSError: [Errno 28] No space left on device")
            have += grown
            downloaded[script.model] = have
            since_last_line += 0.1
            if script.reports_progress and since_last_line >= _REPORT_EVERY:
                since_last_line = 0.0
                log("stoker " + json.dumps({"bytes": int(have), "of": int(total)}))
        self._volumes.complete[claim].add(script.model)
        if script.reports_progress:
            log("stoker " + json.dumps({"bytes": int(total), "of": int(total)}))
        log(f"Fetching {len(selected)} files: 100%|##########| {len(selected)}/{len(selected)}")

    def _make_room(self, script: Script, claim: Claim, total: float, log: Callable[..., None]) -> None:
        downloaded = self._volumes.downloaded[claim]
        needed = total - downloaded.get(script.model, 0.0)
        for model in [model for model in downloaded if script.kept and model not in (*script.kept, script.model)]:
            if self._volumes.free(claim) < needed:
                log("stoker " + json.dumps({"removed": model, "bytes": int(downloaded[model])}))
                self._volumes.forget(claim, model)
        if (free := self._volumes.free(claim)) < needed:
            raise Refused(
                f"No space left on device: {needed:.0f} bytes are still to be downloaded, and {free:.0f} are free."
            )

    async def _files(self, model: str) -> dict[str, int]:
        self._refuse_if_broken(model)
        if not self._hub:
            return {"model.safetensors": 5_571_000_000}
        url = f"{self._hub}/api/models/{model}"
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            answer = await http.get(url, params={"blobs": "true"})
        if not answer.is_success:
            raise Refused(
                _ERRORS.get(answer.status_code, f"{answer.status_code} Error for url: {{url}}").format(url=url)
            )
        repository = answer.json()
        if repository.get("gated"):
            raise Refused(_ERRORS[403].format(url=url))
        return {sibling["rfilename"]: int(sibling.get("size") or 0) for sibling in repository["siblings"]}

    def _refuse_if_broken(self, model: str) -> None:
        url = f"https://huggingface.co/api/models/{model}/revision/main"
        if "hf-429" in self._faults:
            raise Refused(_ERRORS[429].format(url=url))
        if "hf-gated" in self._faults:
            raise Refused(_ERRORS[403].format(url=url) + f" Access to model {model} is restricted.")
