"""What the plans share towards their reader: the contract as rows, and refusals in sentences."""

import re

from manifests.contract import ModelEndpoint, check, describe
from manifests.pieces import Layout, Pieces, locate, names
from manifests.sizing import MissingFigures, ModelFacts, Sizing, quantity_bytes
from manifests.tree import ManifestError, Tree, within


def contract_rows(endpoint: ModelEndpoint) -> tuple[tuple[str, str], ...]:
    """The contract as a reviewer reads it: label and value."""
    rows = (
        ("Endpoint", f"{endpoint.name} ({endpoint.kind})"),
        ("Model", endpoint.hf_id),
        ("Served name", endpoint.served_name),
        ("Tenant alias", endpoint.alias),
        ("Context", str(endpoint.context or "")),
        ("Quantization", endpoint.quantization or ("none" if endpoint.gpus else "")),
        ("GPU memory utilization", f"{endpoint.gpu_utilization:g}" if endpoint.gpu_utilization else ""),
        ("Volume", f"{endpoint.pvc_name}, {endpoint.pvc_size}"),
        ("Price per token, in / out", f"{endpoint.price_in or '–'} / {endpoint.price_out or '–'}"),
        ("Application", f"{endpoint.application} ({'manual' if endpoint.manual_sync else 'automated'} sync)"),
    )
    return tuple((label, value) for label, value in rows if value)


def refuse_unknown(facts: ModelFacts, *, gpu: bool) -> None:
    """Nothing is opened for a model of which nobody knows whether it can run; the refusal names the options to give."""
    if missing := facts.missing(gpu=gpu):
        raise MissingFigures(facts.hf_id, missing)


def unchecked(facts: ModelFacts) -> str:
    """What a reviewer must know of a model that nobody looked up."""
    return (
        f"{facts.hf_id} was not looked up on Hugging Face: the figures are those of the request, its format "
        f"({facts.quantization or 'unquantized'}) is taken from its name, and its licence is unknown."
    )


def refuse_misfit(facts: ModelFacts, sizing: Sizing) -> None:
    """Nothing is opened for a model that cannot run."""
    if sizing.verdict == "does not fit":
        raise ManifestError(f"{facts.hf_id} does not fit: {'; '.join(sizing.reasons)}.")


def kept_contract(before: Tree, after: Tree, layout: Layout, model: str, name: str) -> tuple[str, ...]:
    """What the check finds in the endpoint `name` after a change; ManifestError for what the change would bring.

    A rule that the endpoint `model` (itself, or the one it is copied from) broke before is told, and so is what stands in
    documents and lists, which are in people's own words.
    """
    had = {each.rule for each in check(before, layout, model)}
    found = [each for each in check(after, layout, name) if not each.rule.startswith("group-")]
    for each in found:
        if each.rule not in had and not each.rule.startswith(("catalog-", "manual-")):
            raise ManifestError(
                f"This cannot be written into {layout.home(name)} without breaking the contract, so it has to be done by "
                f"hand: {each.path}:{each.line}: {each.message}."
            )
    return tuple(f"{each.path}:{each.line}: {each.message} ({each.fix})." for each in found)


def refuse_storage(storage: str | None) -> None:
    """A size of a volume that Kubernetes would refuse."""
    if storage is not None and not re.fullmatch(r"[1-9]\d{0,5}(Mi|Gi|Ti|M|G|T)", storage):
        raise ManifestError(f"{storage!r} is no size of a volume: give it like 20Gi.")
    if storage is not None:
        quantity_bytes(storage)


def named_elsewhere(tree: Tree, layout: Layout, pieces: Pieces, endpoint: ModelEndpoint) -> tuple[str, ...]:
    """The files beside the endpoint's own pieces that name it by its served name.

    Another endpoint that serves the same name means itself by it.
    """
    if not endpoint.served_name:
        return ()
    found = named_in_values(tree, layout, pieces, endpoint.served_name)
    located = (
        locate(tree, layout, name)
        for name in names(tree, layout)
        if any(within(each, layout.home(name)) for each in found)
    )
    others = [
        other for other in located if other is not None and describe(other, layout).served_name == endpoint.served_name
    ]
    return tuple(path for path in found if not any(path in other.files for other in others))


def named_in_values(tree: Tree, layout: Layout, pieces: Pieces, name: str) -> tuple[str, ...]:
    """The files beside the endpoint's own that hold this name outside of comments; any mention in a document counts."""
    application = pieces.application.document.path if pieces.application else ""
    own = {layout.litellm_values, layout.model_catalog, layout.bring_up_guide, application}
    # Behind a slash it is a part of something else, like owner/name on Hugging Face; LiteLLM's provider is none.
    whole = re.compile(rf"(?:(?<![\w./-])|(?<=openai/)|(?<=//)){re.escape(name)}(?![\w-])")
    return tuple(
        path
        for path in tree.grep(name)
        if path not in own
        and not within(path, layout.home(pieces.name))
        and not (within(path, layout.measurements(pieces.name)) and is_prose(path))  # what was once measured stays true
        and whole.search(_without_comments(path, tree.read(path) or ""))
    )


def _without_comments(path: str, text: str) -> str:
    return text if is_prose(path) else re.sub(r"(?m)(^|\s)#.*$", "", text)


def is_prose(path: str) -> bool:
    """Documents are read by people: a stale name there is a warning, not an outage."""
    return path.endswith((".md", ".mdx", ".rst", ".txt"))
