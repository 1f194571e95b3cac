"""The rules for a single LiteLLM entry: its keys, its provider, the form of its address and of its key."""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterator

from ruamel.yaml.nodes import MappingNode, Node

from manifests.edit import entries, find, items, line, scalar, value
from manifests.gateway import ENVIRON, Direction, Entry, ModelList
from manifests.layout import Layout
from manifests.pieces import Pieces
from manifests.rules.finding import Finding, at

# Keys whose spelling is checked: without them, LiteLLM does not route or bill the entry.
_KEYS = {
    "": ("model_name", "litellm_params", "model_info"),
    "litellm_params": ("model", "api_base", "api_key", "input_cost_per_token", "output_cost_per_token"),
    "model_info": ("mode", "base_model", "input_cost_per_token", "output_cost_per_token", "access_groups"),
}
_ALMOST = 0.88

# Providers that call another vendor, or use a protocol that the engines do not have (docs.litellm.ai/docs/providers).
_FOREIGN = frozenset(
    {
        "ollama", "ollama_chat", "azure", "azure_ai", "anthropic", "bedrock", "vertex_ai", "gemini", "groq", "mistral",
        "cohere", "cohere_chat", "deepseek", "together_ai", "openrouter", "replicate", "sagemaker", "watsonx", "xai",
        "fireworks_ai", "perplexity", "llamafile", "lm_studio", "triton", "petals", "vllm",
    }
)  # fmt: skip

_NUMBERS = ("rpm", "tpm", "max_parallel_requests", "timeout", "stream_timeout", "max_retries", "weight", "order")

# Providers with a handler in `litellm.rerank` and a configurable address. `litellm.rerank` refuses `openai/`
# ("Unsupported provider", litellm/rerank_api/main.py).
RERANKS = ("hosted_vllm", "huggingface", "infinity", "jina_ai", "cohere", "litellm_proxy")

# `mode` in `model_info`, which LiteLLM's health check uses (docs.litellm.ai/docs/proxy/health).
_POOLING_MODES = ("embedding", "rerank")
_MODES = (*_POOLING_MODES, "chat", "completion", "responses", "batch", "image_generation", "audio_transcription")

# The parts of LiteLLM's configuration (docs.litellm.ai/docs/proxy/config_settings).
_PARTS = (
    "model_list", "litellm_settings", "general_settings", "router_settings", "environment_variables", "include",
    "credential_list", "guardrails", "mcp_servers", "callback_settings", "vector_store_registry", "search_tools",
)  # fmt: skip
_ROUTES = "api-base-host"


def check(pieces: Pieces, entry: Entry) -> Iterator[Finding]:
    """Report problems in an entry that leads to an endpoint."""
    node = find(entry.node, "litellm_params", "model")
    provider = entry.model.partition("/")[0].lower() if "/" in entry.model else ""
    ranks = value(entry.node, "model_info", "mode") == "rerank" or bool(re.search(r"(?i)re-?rank", pieces.model.value))
    custom_provider = value(entry.node, "litellm_params", "custom_llm_provider")
    if provider in _FOREIGN - set(RERANKS if ranks else ()) and not custom_provider:
        message = f"LiteLLM calls {provider} with {entry.model}, but the engine uses OpenAI's protocol"
        yield at("served-name", entry, node, message, f"model: openai/{entry.requested_model}")
    elif ranks and provider and not custom_provider and provider not in RERANKS:
        right = pieces.runtime.reranks_as
        message = f"LiteLLM does not rerank through {provider}/: every call of {entry.alias} is refused"
        yield at("served-name", entry, node, message, f"model: {right}/{entry.requested_model}")
    mode = scalar(entry.node, "model_info", "mode")
    if (
        mode is not None
        and mode.value not in _MODES
        and (similar := difflib.get_close_matches(mode.value, _MODES, 1, 0.8))
    ):
        yield at("mode", entry, mode, f"LiteLLM has no mode {mode.value}", f"mode: {similar[0]}")
        return
    pooling = pieces.runtime.pools or ((flag := pieces.flag("--runner")) is not None and flag.value == "pooling")
    if mode is not None and pooling != (mode.value in _POOLING_MODES):
        expected = ("rerank" if ranks else "embedding") if pooling else "chat"
        message = f"LiteLLM's health check sends {entry.alias} requests of the mode {mode.value}, which {pieces.model.value} does not support"
        yield at("mode", entry, mode, message, f"mode: {expected}")


def check_list(layout: Layout, listed: ModelList, aliases: Collection[str] | None) -> Iterator[Finding]:
    """Report problems in the form of a list's entries: in all entries, or only in the entries with these `aliases`."""
    variables = Counter(value(listed_entry.node, "litellm_params", "api_key") for listed_entry in listed.entries)
    for entry in listed.entries:
        if aliases is not None and entry.alias not in aliases:
            continue
        for part, keys in _KEYS.items():
            yield from _keys(entry, find(entry.node, part) if part else entry.node, keys)
        yield from _domain(layout, entry, listed.entries)
        yield from _key(entry, variables)
        yield from _order(entry)
        yield from _numbers(entry)
    for node in items(find(listed.config, "model_list")) if aliases is None else ():
        if isinstance(node, MappingNode) and find(node, "model_name") is None:
            similar_keys = (
                key for key, _ in entries(node) if difflib.get_close_matches(key.value, ["model_name"], 1, 0.8)
            )
            key_node = next(similar_keys, node)
            message = "this entry has no model_name, so nobody can call it"
            yield Finding(
                rule="schema", path=listed.document.path, line=line(key_node), message=message, fix="model_name: ALIAS"
            )
    yield from _settings(listed) if aliases is None else ()


def _keys(entry: Entry, node: object, keys: Collection[str]) -> Iterator[Finding]:
    if not isinstance(node, MappingNode):
        return
    present = {str(key.value) for key, _ in entries(node)}
    for key, _ in entries(node):
        almost = _ALMOST if len(key.value) > len("model") else 0.8
        similar = difflib.get_close_matches(key.value, [name for name in keys if name not in present], 1, almost)
        if similar and key.value not in keys:
            yield at("schema", entry, key, f"LiteLLM does not read {key.value}", f"{similar[0]}:")


def _domain(layout: Layout, entry: Entry, every: Collection[Entry]) -> Iterator[Finding]:
    """Check that the host of a Service in the cluster has the form `NAME.NAMESPACE.svc.DOMAIN`."""
    labels = entry.host
    if labels[1:2] != [layout.namespace] or len(labels) < 3:
        return
    domains = {"cluster.local", *(".".join(other.host[3:]) for other in every if other is not entry)} - {""}
    if labels[2] != "svc" or (labels[3:] and ".".join(labels[3:]) not in domains):
        message = f"the host {'.'.join(labels)} is not the name of a Service"
        fix = f"{labels[0]}.{labels[1]}.svc.cluster.local"
        yield at(_ROUTES, entry, entry.base_node, message, fix)


def _key(entry: Entry, key_counts: Counter[str]) -> Iterator[Finding]:
    """Report a variable that LiteLLM would use as the key itself, because `os.environ/` is missing or misspelled."""
    node = scalar(entry.node, "litellm_params", "api_key")
    if node is None:
        return
    name = re.sub(r"^os\.environ[./\[]?|^\$\{?|['\"\]}]+$", "", node.value)
    if not node.value.startswith(ENVIRON) and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", name):
        message = f"LiteLLM sends the text {node.value} itself as the key of {entry.alias}"
        yield at("api-key-missing", entry, node, message, f"api_key: {ENVIRON}{name}")
    elif node.value.startswith(ENVIRON) and key_counts[node.value] == 1:
        shared_keys = [text for text, count in key_counts.items() if count > 1 and text.startswith(ENVIRON)]
        if similar := difflib.get_close_matches(node.value, shared_keys, 1, 0.93):
            message = f"{entry.alias} is the only entry that reads its key from {name}"
            yield at("api-key-missing", entry, node, message, f"api_key: {similar[0]}")


def _order(entry: Entry) -> Iterator[Finding]:
    """Report an input price above the output price, which no vendor has."""
    sides: tuple[Direction, ...] = ("input", "output")
    prices = [entry.price(side) if entry.per_token(side) else None for side in sides]
    if prices[0] is None or prices[1] is None:
        return
    try:
        input_price, output_price = float(prices[0].node.value), float(prices[1].node.value)
    except ValueError:
        return
    if input_price > output_price > 0:
        message = f"{entry.alias} costs more per input token than per output token: the two prices may be exchanged"
        yield at("cost-order", entry, prices[0].node, message, "exchange them, or accept it with a comment")


def _numbers(entry: Entry) -> Iterator[Finding]:
    for key in _NUMBERS:
        node = scalar(entry.node, "litellm_params", key)
        if (
            node is not None
            and not re.fullmatch(r"\d*\.?\d+|null|~|", node.value)
            and not node.value.startswith(ENVIRON)
        ):
            yield at("schema", entry, node, f"{key} must be a number, not {node.value}", f"{key}: 60")


def _settings(listed: ModelList) -> Iterator[Finding]:
    def finding(rule: str, node: Node, message: str, fix: str) -> Finding:
        return Finding(rule=rule, path=listed.document.path, line=line(node), message=message, fix=fix)

    for key, _ in entries(listed.config):
        similar = difflib.get_close_matches(str(key.value), _PARTS, 1, _ALMOST)
        if similar and key.value not in _PARTS:
            yield finding("schema", key, f"LiteLLM does not read {key.value}", f"{similar[0]}:")
    for part in ("router_settings", "litellm_settings"):
        for setting in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
            node = find(listed.config, part, setting)
            if isinstance(node, MappingNode):
                message = f"{setting} must be a list of mappings: LiteLLM does not start with a mapping"
                yield finding("schema", node, message, "begin each item with -")
    words = Counter(re.findall(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+", listed.document.text))
    for name in ("master_key", "database_url"):
        node = scalar(listed.config, "general_settings", name)
        variable = node.value.removeprefix(ENVIRON) if node is not None and node.value.startswith(ENVIRON) else ""
        similar = difflib.get_close_matches(variable, [word for word in words if word != variable], 1, 0.93)
        if node is not None and similar and words[variable] < 2:
            yield finding(
                "variable", node, f"nothing else in this file mentions {variable}", f"{name}: {ENVIRON}{similar[0]}"
            )
    for name in ("master_key", "salt_key"):
        node = scalar(listed.config, "general_settings", name)
        if node is not None and node.value and not re.match(r"os\.environ/|\$|\{\{", node.value):
            message = f"{name} is in plain text: everybody who can read the repository has it"
            yield Finding(
                rule="secret-in-git",
                path=listed.document.path,
                line=line(node),
                message=message,
                fix=f"{name}: {ENVIRON}…, from a Secret; revoke this one",
            )
