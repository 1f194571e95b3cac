"""What Hugging Face knows about a model: its size, its shape, its licence, and whether one may have it.

Speaks the Hub's API. A model id is checked before it becomes part of an address.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from bot.clients.http import bearer, body, refuse_if_busy, send
from bot.errors import BotError, Unavailable
from manifests.sizing import ModelFacts

SYSTEM = "Hugging Face"
HF_ID = re.compile(r"[A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,96}")

# One repository may hold the same weights twice, in several formats: the first pattern with a match is what vLLM loads.
WEIGHTS = (r"model[^/]*\.safetensors", r"[^/]*\.safetensors", r"pytorch_model[^/]*\.bin")


class UnknownModel(BotError):
    """There is no such model, or it is hidden from the bot."""

    remedy = "Check the spelling on huggingface.co; for a private model set HF_TOKEN."


class GatedModel(BotError):
    """The model's owner wants its terms accepted first."""

    remedy = "Accept the model's terms on huggingface.co with the account that HF_TOKEN belongs to."


class HuggingFace:
    """The Hub at one endpoint, read with a token or without; the token is asked for anew, so that it may be rotated."""

    def __init__(self, http: httpx.AsyncClient, endpoint: str, token: Callable[[], SecretStr | None]) -> None:
        self._http = http
        self._endpoint = endpoint.rstrip("/")
        self._token = token

    async def model(self, hf_id: str) -> ModelFacts:
        """The facts that sizing and the pull request need, all of one revision."""
        checked(hf_id)
        response = await self._get(f"/api/models/{hf_id}", blobs="true")
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.NOT_FOUND):
            # The Hub answers 401 for a name that does not exist too, so as not to tell what is private.
            raise UnknownModel(f"{hf_id} is not on Hugging Face, or is private: check the spelling, or set HF_TOKEN.")
        about = _accepted(response, hf_id)
        revision = about.get("sha") or "main"
        config = await self._file(hf_id, revision, "config.json")
        if config is None:
            raise BotError(
                f"{hf_id} has no config.json: it is not a model in the Transformers format, so vLLM cannot load it."
            )
        files = {str(f["rfilename"]): int(f.get("size") or 0) for f in about.get("siblings") or [] if "rfilename" in f}
        chat = "chat_template.jinja" in files or await self._has_chat_template(hf_id, revision)
        return _facts(hf_id, about, config, weights=_weight_bytes(hf_id, files), chat=chat)

    async def search(self, text: str, limit: int = 20) -> tuple[str, ...]:
        """Ids of models whose name contains the text, the most downloaded first.

        Only such as `model` takes: the Hub also lists old ones without an organisation, like gpt2.
        """
        response = await self._get("/api/models", search=text[:100], limit=str(limit), sort="downloads", direction="-1")
        if not response.is_success:
            raise Unavailable(SYSTEM, f"the search answered {response.status_code}")
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise Unavailable(SYSTEM, "the search answered something else than a list of models")
        ids = (each.get("id") for each in found if isinstance(each, dict))
        return tuple(hf_id for hf_id in ids if isinstance(hf_id, str) and _is_id(hf_id))

    async def whoami(self) -> str:
        """The name behind the token, or empty without one; BotError when the Hub does not know the token."""
        if self._token() is None:
            await self._get("/api/models", limit="1")
            return ""
        response = await self._get("/api/whoami-v2")
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise BotError(
                "Hugging Face does not accept HF_TOKEN: set a valid one, or none for models that are not gated."
            )
        return str(body(response).get("name") or "")

    async def _has_chat_template(self, hf_id: str, revision: str) -> bool:
        tokenizer = await self._file(hf_id, revision, "tokenizer_config.json")
        return bool((tokenizer or {}).get("chat_template"))

    async def _file(self, hf_id: str, revision: str, name: str) -> dict[str, Any] | None:
        response = await self._get(f"/{hf_id}/resolve/{quote(revision, safe='')}/{name}")
        return None if response.status_code == httpx.codes.NOT_FOUND else _accepted(response, hf_id)

    async def _get(self, path: str, **query: str) -> httpx.Response:
        """An answer that is final. Files redirect to a content network, where httpx does not take the token."""
        url = f"{self._endpoint}{path}"
        headers = bearer(self._token())
        response = await send(
            self._http, SYSTEM, "GET", url, params=query or None, headers=headers, follow_redirects=True
        )
        refuse_if_busy(SYSTEM, response)
        return response


def _is_id(hf_id: str) -> bool:
    """`org/name`, and neither part walks up a path."""
    return bool(HF_ID.fullmatch(hf_id)) and all(part.strip(".") for part in hf_id.split("/"))


def checked(hf_id: str) -> str:
    """The id, if it is one."""
    if not _is_id(hf_id):
        raise BotError(f"{hf_id[:200]!r} is no model id: write it org/name, as in Qwen/Qwen2.5-Coder-7B-Instruct-AWQ.")
    return hf_id


def _accepted(response: httpx.Response, hf_id: str) -> dict[str, Any]:
    if response.is_success:
        return body(response)
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise GatedModel(
            f"{hf_id} is gated: accept its terms at https://huggingface.co/{hf_id} "
            "with the account of HF_TOKEN, then try again."
        )
    raise BotError(f"Hugging Face refused {hf_id}: status {response.status_code}.")


def _facts(hf_id: str, about: dict[str, Any], config: dict[str, Any], *, weights: int, chat: bool) -> ModelFacts:
    # A model that also sees or hears keeps the shape of its language part one level down.
    text = {**config, **(config.get("text_config") or {})}
    hidden = _first(text, "hidden_size", "n_embd", "d_model")
    heads = _first(text, "num_attention_heads", "n_head")
    rank = _first(text, "kv_lora_rank")  # latent attention keeps one vector for keys and values: half of it for each
    quantization = config.get("quantization_config") or text.get("quantization_config") or {}
    architectures = config.get("architectures") or [""]
    return ModelFacts(
        hf_id=hf_id,
        revision=about.get("sha") or "",
        weight_bytes=weights,
        layers=_caching_layers(text),
        kv_heads=1 if rank else _first(text, "num_key_value_heads") or heads,
        head_size=(rank + _first(text, "qk_rope_head_dim")) // 2
        if rank
        else _first(text, "head_dim") or (hidden // heads if heads else 0),
        hidden_size=hidden,
        dtype=_word(text.get("torch_dtype") or text.get("dtype")) or "bfloat16",
        quantization=_word(quantization.get("quant_method")) or None,
        max_context=_first(text, "max_position_embeddings", "n_positions"),
        gated=about.get("gated") or False,
        licence=_licence(about),
        chat=chat,
        architecture=_word(architectures[0]),
        pipeline_tag=_word(about.get("pipeline_tag")) or None,
    )


def _word(text: object, more: str = "") -> str:
    """What somebody wrote on the Hub, without what could be more than a word in a manifest or a pull request."""
    return re.sub(rf"[^\w.{more}-]", "", str(text or ""))[:80]


def _caching_layers(text: dict[str, Any]) -> int:
    """The layers that keep keys and values for each token: of a hybrid model, those with linear attention do not."""
    layers, types = _first(text, "num_hidden_layers", "n_layer"), text.get("layer_types")
    if isinstance(types, list):
        return sum(each not in ("linear_attention", "mamba", "conv") for each in types) or layers
    return layers // (_first(text, "full_attention_interval") or 1)


def _first(config: dict[str, Any], *names: str) -> int:
    """The first of these fields that is a number, since families of models name the same thing differently."""
    given = (config.get(name) for name in names)
    return next((int(each) for each in given if isinstance(each, int | float) and 0 < each < 2**40), 0)


def _licence(about: dict[str, Any]) -> str | None:
    """The licence's id; for `other`, the name that the owner gave it."""
    card = about.get("cardData") or {}
    licence = card.get("license")
    if licence in (None, "other"):
        tagged = (tag.removeprefix("license:") for tag in about.get("tags") or [] if tag.startswith("license:"))
        licence = card.get("license_name") or next(tagged, licence)
    said = ", ".join(map(str, licence)) if isinstance(licence, list) else licence
    return _word(said, more=" ,+/") or None


def _weight_bytes(hf_id: str, files: dict[str, int]) -> int:
    for pattern in WEIGHTS:
        if sizes := [size for name, size in files.items() if re.fullmatch(pattern, name)]:
            return sum(sizes)
    raise BotError(
        f"{hf_id} holds no safetensors or PyTorch weights that vLLM can load: choose a repository that does."
    )
