"""Client for Hugging Face: the files, the configuration, the licence and the access conditions of models.

Uses the Hub's API. A model id is validated before it becomes part of a URL.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from bot.clients.http import MIB, Limit, bearer, body, count, decoded, refuse_if_busy, send
from bot.errors import BotError, Unavailable
from manifests.sizing import ModelFacts
from manifests.sizing.configuration import TEXT_PARTS
from manifests.sizing.repository import Repository, plain

SYSTEM = "Hugging Face"
_REASON = "X-Error-Code"
"""The Hub's header with the reason of a refusal: RepoNotFound (also for private models), GatedRepo, EntryNotFound
(`hf_raise_for_status` of huggingface_hub).
"""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,96}")
HF_ID = re.compile(r"[A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,96}")

FILE_HOSTS = ("https://.hf.co", "https://.huggingface.co")
"""Hosts from which the Hub serves files: cdn-lfs.hf.co, cdn-lfs-us-1.hf.co, cas-bridge.xethub.hf.co, us.gcp.cdn.hf.co,
cdn-lfs.huggingface.co and others (https://huggingface.co/docs/hub/xet/using-xet-storage, "network configuration").
"""

_FILE = Limit(size=16 * MIB)
"""Limit of a file: the index of the largest models has about 9 MB, a tokenizer_config.json rarely more than 1 MB."""
_ABOUT = Limit(size=8 * MIB)
"""Limit of the API's description of a model, which has about 200 bytes per file."""

_TREE_PAGES = 20
"""Maximum pages of a listing; the Hub returns 1000 files per page."""


class UnknownModel(BotError):
    """The model does not exist, or is not visible to the bot."""

    remedy = "Check the spelling on huggingface.co; for a private model set HF_TOKEN."


class GatedModel(BotError):
    """The model's terms have to be accepted first."""

    remedy = "Accept the model's terms on huggingface.co with the account that HF_TOKEN belongs to."


class HuggingFace:
    """Sends requests to the Hub at one endpoint. The optional token is read at each use, so that it can be rotated."""

    def __init__(self, http: httpx.AsyncClient, endpoint: str, token: Callable[[], SecretStr | None]) -> None:
        self._http = http
        self._endpoint = endpoint.rstrip("/")
        self._token = token

    async def model(self, hf_id: str) -> ModelFacts:
        """The facts about a model for sizing and the pull request, all from one revision."""
        return (await self.repository(hf_id)).facts()

    async def repository(self, hf_id: str) -> Repository:
        """The list of files, the small configuration files and the description of a model. Missing optional files are
        None.

        Raises UnknownModel if the model does not exist or is hidden, and GatedModel if its terms are not accepted.
        """
        if _NAME.fullmatch(hf_id) and hf_id.strip("."):
            raise BotError(f"{hf_id} lacks its organisation: write it as org/name.{await self._hint(hf_id)}")
        checked(hf_id)
        response = await self._get(
            f"/api/models/{hf_id}", _ABOUT, f"The Hub's description of {hf_id}", {"blobs": "true"}
        )
        hidden = response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.NOT_FOUND)
        if hidden and response.headers.get(_REASON) != "GatedRepo":
            raise UnknownModel(await self._not_found_message(hf_id))
        description = _require_success(response, hf_id)
        revision, place = str(description.get("sha") or "main"), _place(description, hf_id)
        files = _sizes(description.get("siblings"))
        if not files and place != hf_id:  # a redirect to the new name may drop the query parameter for the sizes
            again = await self._get(
                f"/api/models/{place}", _ABOUT, f"The Hub's description of {place}", {"blobs": "true"}
            )
            files = _sizes(body(again).get("siblings"))
        files = files or await self._tree(place, revision) or await self._tree(place, "main")
        files = files or dict.fromkeys(_names(description.get("siblings")), 0)

        withheld: list[str] = []

        async def read(name: str) -> dict[str, Any] | None:
            if files and name not in files and name not in ("config.json", "tokenizer_config.json"):
                return None
            try:
                content = await self._file(hf_id, revision, name)
                return await self._file(place, revision, name) if content is None and place != hf_id else content
            except GatedModel:
                if not any(files.values()):
                    raise  # without sizes, nothing is known about the model
                withheld.append(name)
                return None

        config = await read("config.json")
        if config is None and _describes_layers(description.get("config")):
            config = description["config"]
        tokenizer = await read("tokenizer_config.json")
        repository = Repository(
            hf_id=hf_id,
            revision=str(description.get("sha") or ""),
            files=files,
            config=config,
            params=await read("params.json") if config is None else None,
            quant=await read("hf_quant_config.json"),
            template=_shows_template(description.get("config")) or _holds_template(tokenizer),
            tokenizer_code="AutoTokenizer" in _part(tokenizer, "auto_map"),
            pipeline_tag=plain(description.get("pipeline_tag")),
            library=plain(description.get("library_name")),
            tags=tuple(_tags(description)),
            gated=description.get("gated") or False,
            licence=_licence(description),
            base_model=_base_model(description),
        )
        if repository.needs_index:
            index = await read("model.safetensors.index.json")
            named = (index or {}).get("weight_map")
            repository = repository.model_copy(
                update={"index": tuple(sorted(set(named.values()))) if isinstance(named, dict) else ()}
            )
        if config is None and repository.params is None and (repository.base_model or withheld):
            like = await self._config_like(hf_id if withheld else repository.base_model)
            repository = repository.model_copy(update={"base_config": like})
        return repository.model_copy(update={"withheld": bool(withheld)})

    async def search(self, text: str, limit: int = 20) -> tuple[str, ...]:
        """Ids of models whose name contains the text, the most downloaded first.

        Ids without an organisation, like gpt2, are omitted, because `model` does not accept them.
        """
        query = {"search": text[:100], "limit": str(limit), "sort": "downloads", "direction": "-1"}
        response = await self._get("/api/models", _ABOUT, "The Hub's search result", query)
        if not response.is_success:
            raise Unavailable(SYSTEM, f"the search answered {response.status_code}")
        models = decoded(SYSTEM, response)
        if not isinstance(models, list):
            raise Unavailable(SYSTEM, "the search did not return a list of models")
        ids = (model.get("id") for model in models if isinstance(model, dict))
        return tuple(hf_id for hf_id in ids if isinstance(hf_id, str) and _is_id(hf_id))

    async def whoami(self) -> str:
        """The name of the token's owner; empty if there is no token. Raises BotError if the Hub rejects the token."""
        if self._token() is None:
            await self._get("/api/models", _ABOUT, "The Hub's list of models", {"limit": "1"})
            return ""
        response = await self._get("/api/whoami-v2", _ABOUT, "The Hub's answer about HF_TOKEN")
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise BotError(
                "Hugging Face does not accept HF_TOKEN: set a valid one, or none for models that are not gated."
            )
        return str(body(response).get("name") or "")

    async def _not_found_message(self, hf_id: str) -> str:
        """The message for a model that was not found. The Hub also answers 401 for a missing model, so that private models
        are not revealed.
        """
        hint = await self._hint(hf_id)
        return f"{hf_id} is not on Hugging Face, or is private: check the spelling, or set HF_TOKEN.{hint}"

    async def _hint(self, hf_id: str) -> str:
        similar = await self.similar(hf_id)
        return f" Similar names: {', '.join(similar)}." if similar else ""

    async def similar(self, hf_id: str, limit: int = 3) -> tuple[str, ...]:
        """The ids with the most similar spelling among the Hub's search results for the parts of the id; empty on
        errors.

        If the id has no organisation, only the names of the models are compared.
        """
        owner, _, name = hf_id.rpartition("/")
        words = [word for word in re.split(r"[-_.]", name) if word]
        shorter = ("-".join(words[:count]) for count in (len(words) - 1, 2, 1) if 0 < count < len(words))
        candidates: dict[str, None] = {}
        for text in filter(None, (name, *shorter, owner)):
            try:
                candidates |= dict.fromkeys(await self.search(text, limit=50))
            except (BotError, Unavailable):
                return ()
            spelled: dict[str, list[str]] = {}
            for candidate in candidates:
                if candidate != hf_id:
                    spelling = candidate if owner else candidate.partition("/")[2]
                    spelled.setdefault(spelling.lower(), []).append(candidate)
            close = difflib.get_close_matches(hf_id.lower(), spelled, n=limit, cutoff=0.75)
            if close:
                return tuple(candidate for spelling in close for candidate in spelled[spelling])[:limit]
        return ()

    async def _tree(self, hf_id: str, revision: str) -> dict[str, int]:
        """The files with their sizes in bytes, from the API for repository trees, which returns several pages."""
        files: dict[str, int] = {}
        path: str | None = f"/api/models/{hf_id}/tree/{quote(revision, safe='')}?recursive=true"
        for _ in range(_TREE_PAGES):
            if path is None:
                break
            response = await self._get(path, _ABOUT, f"The Hub's list of files of {hf_id}")
            if not response.is_success:
                break
            files |= _sizes(decoded(SYSTEM, response))
            following = response.links.get("next", {}).get("url")
            path = following.removeprefix(self._endpoint) if following else None
        return files

    async def _config_like(self, hf_id: str) -> dict[str, Any] | None:
        """The configuration of a model, or of another version of it, because quantized weights have the same layers. None
        if it cannot be read.
        """
        try:
            versions = [
                candidate for candidate in await self.search(hf_id.partition("/")[2]) if "gguf" not in candidate.lower()
            ]
        except (BotError, Unavailable):
            versions = []
        for candidate in (hf_id, *versions[:2]):
            try:
                if config := await self._file(candidate, "main", "config.json"):
                    return {key: value for key, value in config.items() if key != "quantization_config"}
            except (BotError, Unavailable):
                continue  # gated or hidden: another version may be accessible
        return None

    async def _file(self, hf_id: str, revision: str, name: str) -> dict[str, Any] | None:
        subject = f"The Hub's {name} for {hf_id}"
        response = await self._get(f"/{hf_id}/resolve/{quote(revision, safe='')}/{name}", _FILE, subject)
        if response.status_code == httpx.codes.NOT_FOUND and revision != "main":
            response = await self._get(f"/{hf_id}/resolve/main/{name}", _FILE, subject)
        return None if response.status_code == httpx.codes.NOT_FOUND else _require_success(response, hf_id)

    async def _get(
        self, path: str, limit: Limit, subject: str, query: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a request and return the answer after redirects. The Hub redirects files to a content delivery network, to
        which httpx does not send the token.
        """
        response = await send(
            self._http,
            SYSTEM,
            "GET",
            f"{self._endpoint}{path}",
            params=query,
            headers=bearer(self._token()),
            follow_redirects=True,
            limit=limit,
            subject=subject,
        )
        refuse_if_busy(SYSTEM, response)
        return response


def model_id(text: str) -> str:
    """Extract the model id from typed or pasted text: `owner/name`, or a link to any page of the model on huggingface.co.

    Slack wraps a link as `<https://…|…>`. Other text is returned unchanged; `checked` refuses it.
    """
    bare = text.strip().removeprefix("<").removesuffix(">").partition("|")[0].strip("`'\"")
    match = re.fullmatch(
        r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(?:models/)?"
        r"(?!(?:api|models|datasets|spaces|collections|papers|docs|blog)(?:[/?#]|$))([^/?#]+(?:/[^/?#]+)?)(?:[/?#].*)?",
        bare,
    )
    return match[1] if match else bare


def _is_id(hf_id: str) -> bool:
    """Return whether the id has the form `org/name`, without path traversal in either part."""
    return bool(HF_ID.fullmatch(hf_id)) and all(part.strip(".") for part in hf_id.split("/"))


def checked(hf_id: str) -> str:
    """Return the id; raises BotError if it is not valid."""
    if not _is_id(hf_id):
        raise BotError(
            f"{hf_id[:200]!r} is not a model id: write it as org/name, for example Qwen/Qwen2.5-Coder-7B-Instruct-AWQ."
        )
    return hf_id


def _require_success(response: httpx.Response, hf_id: str) -> dict[str, Any]:
    """Return the JSON object of a successful response; raise the error for a refusal."""
    if response.is_success:
        return body(response)
    if response.headers.get(_REASON) == "RepoNotFound":
        raise UnknownModel(f"{hf_id} is private: the account of HF_TOKEN has no access to its files.")
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise GatedModel(
            f"{hf_id} is gated: accept its terms at https://huggingface.co/{hf_id} "
            "with the account of HF_TOKEN, then try again."
        )
    raise BotError(f"Hugging Face refused {hf_id}: status {response.status_code}.")


def _sizes(listed: object) -> dict[str, int]:
    """The size in bytes of each path, from a model's siblings or from a tree; empty if the listing contains no sizes."""
    files: dict[str, int] = {}
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, dict) or entry.get("type") == "directory":
            continue
        name, lfs = entry.get("rfilename") or entry.get("path"), entry.get("lfs")
        size = entry.get("size") or (lfs.get("size") if isinstance(lfs, dict) else None)
        if isinstance(name, str):
            files[name] = count(size)
    return files if any(files.values()) else {}


def _names(listed: object) -> list[str]:
    """The paths of a listing without sizes."""
    paths = [entry.get("rfilename") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [path for path in paths if isinstance(path, str)]


def _place(description: dict[str, Any], hf_id: str) -> str:
    """The current id of the model. After an owner is renamed, the Hub finds its models under both names."""
    now = description.get("id")
    return now if isinstance(now, str) and _is_id(now) else hf_id


def _describes_layers(config: object) -> bool:
    return isinstance(config, dict) and any(
        key in config for key in ("num_hidden_layers", "num_layers", "n_layer", "n_layers", *TEXT_PARTS)
    )


def _shows_template(config: object) -> bool:
    """Return whether the Hub's extract of the tokenizer has a chat template."""
    if not isinstance(config, dict):
        return False
    return bool(config.get("chat_template_jinja")) or _holds_template(config.get("tokenizer_config"))


def _part(content: dict[str, Any] | None, key: str) -> dict[str, Any]:
    part = (content or {}).get(key)
    return part if isinstance(part, dict) else {}


def _holds_template(tokenizer: object) -> bool:
    return isinstance(tokenizer, dict) and bool(tokenizer.get("chat_template"))


def _base_model(description: dict[str, Any]) -> str:
    """The base model, from the card or the tags; "" if unknown."""
    card = description.get("cardData")
    base_model = card.get("base_model") if isinstance(card, dict) else None
    tagged = [tag.rsplit(":", 1)[-1] for tag in _tags(description) if tag.startswith("base_model:")]
    candidates = [base_model] if isinstance(base_model, str) else [*base_model] if isinstance(base_model, list) else []
    return next(
        (candidate for candidate in (*candidates, *tagged) if isinstance(candidate, str) and _is_id(candidate)), ""
    )


def _tags(description: dict[str, Any]) -> list[str]:
    listed = description.get("tags")
    return [tag for tag in listed if isinstance(tag, str)] if isinstance(listed, list) else []


def _licence(description: dict[str, Any]) -> str | None:
    """The licence's id; for `other`, the owner's name for it."""
    said_there = description.get("cardData")
    card = said_there if isinstance(said_there, dict) else {}
    licence = card.get("license")
    if licence in (None, "other"):
        tagged = (tag.removeprefix("license:") for tag in _tags(description) if tag.startswith("license:"))
        licence = card.get("license_name") or next(tagged, licence)
    text = ", ".join(map(str, licence)) if isinstance(licence, list) else licence
    return plain(text, more=" ,+/") or None
