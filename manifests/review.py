"""Code that all plans share: contract rows for reviewers, and refusals."""

import math
import re
from typing import NamedTuple

from manifests.contract import ModelEndpoint, check
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.sizing import MissingFigures, ModelFacts, Sizing, in_gb, quantity_bytes
from manifests.tree import ManifestError, Tree, within


def contract_rows(endpoint: ModelEndpoint) -> tuple[tuple[str, str], ...]:
    """The contract for reviewers, as label and value."""
    sync = "manual" if endpoint.manual_sync else "automated"
    rows = (
        ("Endpoint", f"{endpoint.name} ({endpoint.kind})"),
        ("Model", endpoint.hf_id),
        ("Served name", endpoint.served_name),
        ("Tenant alias", endpoint.alias),
        ("Context", str(endpoint.context or "")),
        ("Quantization", endpoint.quantization or ("none" if endpoint.gpus else "")),
        ("GPU memory utilization", f"{endpoint.gpu_utilization:g}" if endpoint.gpu_utilization else ""),
        ("Volume", ", ".join(filter(None, (endpoint.pvc_name, endpoint.pvc_size)))),
        (
            "Price per million tokens, in / out",
            f"{_per_million(endpoint.price_in)} / {_per_million(endpoint.price_out)}",
        ),
        ("Application", f"{endpoint.application} ({sync} sync)" if endpoint.application else ""),
    )
    return tuple((label, value) for label, value in rows if value)


def _per_million(price: str) -> str:
    """A price per token, in dollars per million tokens; the unchanged text if it is not a number."""
    if not price:
        return "–"
    try:
        dollars = float(price) * 1e6
    except ValueError:
        return price
    if not math.isfinite(dollars):
        return price
    return f"${dollars:.2f}" if dollars >= 0.01 or not dollars else f"${dollars:.3g}"


def refuse_unknown(facts: ModelFacts, *, gpu: bool) -> None:
    """Refuse a model whose size is unknown; the message names the options to give."""
    if missing := facts.missing(gpu=gpu):
        raise MissingFigures(facts.hf_id, missing, _gated_model_hint(facts))


def _gated_model_hint(facts: ModelFacts) -> str:
    """A message about a gated model: how to read its files, and which facts are known without them; "" for other models."""
    if not facts.withheld:
        return ""
    licence = f", licence {facts.licence}" if facts.licence else ""
    return (
        f"{facts.hf_id} is gated: accept its terms at https://huggingface.co/{facts.hf_id} with the account of HF_TOKEN, then "
        f"try again. Known without them: {facts.kind}, {in_gb(facts.weight_bytes)} of weights{licence}. Or size it now:"
    )


def not_looked_up_warning(facts: ModelFacts) -> str:
    """A warning about a model that was not looked up."""
    return (
        f"{facts.hf_id} was not looked up on Hugging Face: the figures come from the request, its format "
        f"({facts.quantization or 'unquantized'}) is taken from its name, and its licence is unknown."
    )


def refuse_unservable(facts: ModelFacts) -> None:
    """Refuse a model that no engine of the platform serves, with the reason."""
    if facts.unservable:
        raise ManifestError(f"{facts.hf_id} cannot be served: {facts.unservable}.")


def refuse_misfit(facts: ModelFacts, sizing: Sizing) -> None:
    """Refuse a model that cannot run on the machine."""
    if sizing.verdict == "does not fit":
        raise ManifestError(f"{facts.hf_id} does not fit: {'; '.join(sizing.reasons)}.")


def check_after_change(before: Platform, after: Platform, model: str, name: str) -> tuple[str, ...]:
    """The findings for the endpoint `name` after a change, as text.

    Raises ManifestError for a serious finding, unless the endpoint `model` (the same, or the template) already breaks the
    rule. Findings in documents and lists are never serious, because these contain free text.
    """
    findings = [finding for finding in check(after, name) if not finding.rule.startswith("group-")]
    serious = [
        finding
        for finding in findings
        if finding.severity == "error" and not finding.rule.startswith(("catalog-", "manual-"))
    ]
    broken_before = {finding.rule for finding in check(before, model)} if serious else set()
    for finding in serious:
        if finding.rule not in broken_before:
            raise ManifestError(
                f"This change would break the contract in {after.layout.home(name)}, so it has to be made by "
                f"hand: {finding.path}:{finding.line}: {finding.message}."
            )
    return tuple(f"{finding.path}:{finding.line}: {finding.message} ({finding.fix})." for finding in findings)


def refuse_storage(storage: str | None) -> None:
    """Refuse a volume size that Kubernetes would refuse."""
    if storage is not None and not re.fullmatch(r"[1-9]\d{0,5}(Mi|Gi|Ti|M|G|T)", storage):
        raise ManifestError(f"{storage!r} is not a volume size: write it like 20Gi.")
    if storage is not None:
        quantity_bytes(storage)


class Mention(NamedTuple):
    """A place that names the endpoint outside its own files."""

    path: str
    line: int
    name: str
    kind_of_name: str = "served name"

    @property
    def is_prose(self) -> bool:
        return is_prose(self.path)


def mentions(platform: Platform, pieces: Pieces, endpoint: ModelEndpoint) -> tuple[Mention, ...]:
    """Mentions of the endpoint in other files: its address, its served names, and its aliases in clients' settings."""
    namespace = pieces.rendering.namespace or platform.layout.namespace
    address = f"{pieces.host}.{namespace}"
    every_mention = list(other_mentions(platform, pieces, endpoint))
    every_mention += [mention._replace(kind_of_name="address") for mention in mentions_of(platform, pieces, address)]
    for alias in endpoint.aliases:
        alias_mentions = mentions_of(platform, pieces, alias)
        every_mention += [
            mention._replace(kind_of_name="alias") for mention in alias_mentions if _is_call(platform, mention)
        ]
    unique = {(mention.path, mention.line): mention for mention in reversed(every_mention)}
    return tuple(unique[place] for place in sorted(unique))


# Settings in which clients of the gateway select their model.
_CALLS = re.compile(
    r"(?i)(?:\b|_)(?:(?:default|chat|task|completion|embeddings?|rag|small|fast|autocomplete|code|llm|openai|api|served)_?)*"
    r"models?(?:_?(?:name|id|list|ids))?[\"']?\s*[:=]"
)


def _is_call(tree: Tree, mention: Mention) -> bool:
    """Return whether a line configures a client to call an alias, as in `model: NAME` or in a variable `…_MODEL`."""
    if mention.is_prose:
        return False
    lines = (tree.read(mention.path) or "").splitlines()
    line = lines[mention.line - 1]
    text_before = line[: line.find(mention.name)]
    if re.fullmatch(r"\s*- [\"']?", text_before):
        text_before = _parent(lines, mention.line - 1)
    if _CALLS.search(text_before) or re.search(r"--[\w-]*model[\w-]*[ =]", text_before):
        return True
    # A variable like `- name: DEFAULT_MODELS` has its value on the next line.
    previous_line = lines[mention.line - 2] if mention.line > 1 else ""
    variable = re.search(r"(?i)\bname:\s*[\"']?[A-Z0-9_]*MODELS?([_A-Z]*)[\"']?\s*$", previous_line)
    return bool(variable and re.match(r"\s*value:", line))


def _parent(lines: list[str], item: int) -> str:
    """The line of the key that contains a list item."""
    dash = lines[item].index("-")
    lines_above = (
        line for line in reversed(lines[:item]) if line.strip() and not line.lstrip().startswith(("- ", "#"))
    )
    return next((line for line in lines_above if len(line) - len(line.lstrip()) <= dash), "")


def other_mentions(platform: Platform, pieces: Pieces, endpoint: ModelEndpoint) -> tuple[Mention, ...]:
    """Mentions of the endpoint's served names outside its own files.

    Ignores mentions that belong to another endpoint with the same served name.
    """
    served = endpoint.served_names or ((endpoint.served_name,) if endpoint.served_name else ())
    places = [mention for name in served for mention in mentions_of(platform, pieces, name)]
    same_name_endpoints = (
        [
            endpoint_with_name
            for endpoint_with_name in platform.endpoints()
            if set(endpoint_with_name.served_names) & set(served)
        ]
        if places
        else []
    )
    return tuple(
        place
        for place in places
        if not any(place.path in endpoint_with_name.files for endpoint_with_name in same_name_endpoints)
    )


def mentions_of(platform: Platform, pieces: Pieces, name: str) -> tuple[Mention, ...]:
    """Values outside the endpoint's own files that contain this name, and all mentions in documents."""
    layout = platform.layout
    application = pieces.application.document.path if pieces.application else ""
    lists = {models.document.path for models in platform.model_lists()}
    own_configs = {config.document.path for config in pieces.candidate.configs}
    own_files = {layout.litellm_values, layout.model_catalog, layout.bring_up_guide, application, *lists}
    # After a slash the text is part of another name, like owner/name, except after LiteLLM's provider prefix.
    pattern = re.compile(rf"(?:(?<![\w./-])|(?<=openai/)|(?<=//)){re.escape(name)}(?![\w-])")
    mentions_found = []
    for path in platform.grep(name):
        if path in own_files or within(path, pieces.home) or path in own_configs or path == layout.key_portal:
            continue
        if within(path, layout.measurements(pieces.name)) and is_prose(path):
            continue  # old measurements stay correct
        text = _without_comments(path, platform.read(path) or "")
        mentions_found += [
            Mention(path, number, name) for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)
        ]
    return tuple(mentions_found)


def _without_comments(path: str, text: str) -> str:
    return text if is_prose(path) else re.sub(r"(?m)(^|[ \t])#.*$", "", text)


def is_prose(path: str) -> bool:
    """Return whether the file is a document for people, in which a stale name only causes a warning."""
    return path.endswith((".md", ".mdx", ".rst", ".txt", ".adoc"))
