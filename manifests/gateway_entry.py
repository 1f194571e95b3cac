"""LiteLLM's entry of a new endpoint: a copy of the template's, with its own name, address, mode and comments."""

import itertools
import re

from ruamel.yaml.nodes import MappingNode

from manifests.change import Wanted
from manifests.edit import Comment, Document, Edit, find, scalar
from manifests.engines import Engine
from manifests.gateway import Entry, entries_of
from manifests.retarget import Target, reprice
from manifests.tree import ManifestError
from manifests.wording import Rewording

_MODES = {"embeddings": "embedding", "reranker": "rerank", "completion": "completion"}
"""`mode` in LiteLLM's `model_info` (docs.litellm.ai/docs/proxy/health) for models that do not chat."""


def _provider(request: Wanted, engine: Engine) -> str | None:
    """The provider for a reranker: LiteLLM does not rank through `openai/` (its page "/rerank")."""
    return engine.reranks_as if request.facts.kind == "reranker" else None


def with_entry(
    entry: Entry, hosts: dict[str, str], request: Wanted, target: Target, rewording: Rewording, engine: Engine
) -> str:
    """The file of LiteLLM's list with the new entry after the last one of the template's group."""
    if entry.is_spread:
        raise ManifestError(
            f"The entry {entry.alias} in {entry.document.path} is in `helm.parameters`, where Stoker cannot add entries: add the new"
            " one by hand, or move the list to `helm.valuesObject`."
        )
    if entry.is_unresolved or not entry.owns(entry.node):
        raise ManifestError(
            f"The entry {entry.alias} in {entry.document.path} cannot be copied: its address is in a variable that "
            "the repository does not define. Name another template with like=."
        )
    document = reprice(
        entry,
        model=target.served_name,
        price_in=request.price_in,
        price_out=request.price_out,
        provider=_provider(request, engine),
    )
    copied = next(each for each in entries_of(document) if each.first == entry.first)
    below = request.facts.kind == "reranker" and not engine.reranks_at.startswith("/v1")
    document = _renamed_entry(document, copied, hosts, request.name, at_root=below)
    copied = next(each for each in entries_of(document) if each.first == entry.first)
    if mode := _MODES.get(request.facts.kind or ""):
        document = document.apply([_with_mode(copied, mode)])
        copied = next(each for each in entries_of(document) if each.first == entry.first)
    # A second definition of an anchor would change the meaning of later aliases.
    text = re.sub(r"(?m)(?<=[:-]) &[\w-]+(?=\s)", "", _own_comments(document, copied, rewording))
    original = entry.document
    after = _last_of_group(entries_of(original), entry)
    return original.apply([original.insert_lines(after.last + 1, text)]).text


def _with_mode(entry: Entry, mode: str) -> Edit:
    """Set the request type of LiteLLM's health check; without `mode` it sends a chat."""
    document, info, given = entry.document, find(entry.node, "model_info"), scalar(entry.node, "model_info", "mode")
    inline = [each for each in (entry.node, info) if isinstance(each, MappingNode) and each.flow_style]
    if inline or (info is not None and not entry.owns(info)):
        raise ManifestError(
            f"The entry {entry.alias} in {document.path} is written on one line: add model_info.mode to it, or name another "
            "template with like=."
        )
    if given is not None:
        return document.set_value(given, mode)
    lead = " " * entry.node.start_mark.column
    if info is not None:
        first = info.start_mark
        return document.insert_lines(first.line, f"{' ' * first.column}mode: {mode}\n")
    return document.insert_lines(entry.last + 1, f"{lead}model_info:\n{lead}  mode: {mode}\n")


def _renamed_entry(document: Document, entry: Entry, hosts: dict[str, str], name: str, *, at_root: bool) -> Document:
    """The entry with the copy's name and address. `at_root`: the engine's API is not below `/v1`."""
    edits = []
    alias, base = scalar(entry.node, "model_name"), entry.base_node
    identity = scalar(entry.node, "model_info", "id")
    if alias is not None:
        edits.append(document.set_value(alias, name))
    if identity is not None:
        own = str(identity.value)
        edits.append(document.set_value(identity, own.replace(entry.alias, name) if entry.alias in own else name))
    if (base is not None and not entry.owns(base)) or (base is None and entry.api_base):
        where = "an anchor that other entries share" if base is not None else "a credential"
        raise ManifestError(
            f"The entry {entry.alias} in {document.path} cannot be copied: its address comes from {where}. "
            "Name another template with like=."
        )
    if base is not None:
        # The host's first label is the Service, whose name may differ from the endpoint's.
        moved = _moved(entry.api_base, hosts)
        edits.append(document.set_value(base, moved.removesuffix("/").removesuffix("/v1") if at_root else moved))
    return document.apply(edits)


def _moved(address: str, hosts: dict[str, str]) -> str:
    """An address at the copy's Service, in its namespace; a gateway has both in its path."""

    def label(match: re.Match[str]) -> str:
        service, space = match[1], match[2] or ""
        return hosts.get(service, service) + hosts.get(space, space)

    moved = re.sub(r"(?<=://)([\w-]+)(\.[\w-]+)?", label, address)
    scheme, _, rest = moved.partition("://")
    host, slash, path = rest.partition("/")
    parts = (hosts.get(f"/{each}", each) for each in path.split("/"))
    return f"{scheme}://{host}{slash}{'/'.join(parts)}" if rest else moved


def _own_comments(document: Document, entry: Entry, rewording: Rewording) -> str:
    """The entry's text with only the comments about the model; comments that explain fields stay above the first entry."""

    def about_the_model(comment: Comment) -> bool:
        key = document.lines[comment.line][: comment.column].strip(" -")
        return not comment.alone and key.startswith(("model_name:", "litellm_params:"))

    def inside(comment: Comment) -> bool:
        return entry.first <= comment.line <= entry.last

    edits = []
    for comment in document.comments():
        if not inside(comment) or about_the_model(comment):
            continue
        start = document.offset(comment.line)
        if comment.alone:
            edits.append(document.delete_lines(comment.line, comment.line))
        else:
            kept = document.lines[comment.line][: comment.column].rstrip()
            edits.append(Edit(start, start + comment.column + len(comment.text), kept))
    bare = document.apply(edits)
    entry = next(each for each in entries_of(bare) if each.first == entry.first)
    worded = rewording.document(bare, concerns=lambda comment: entry.first <= comment.line <= entry.last)
    text = next(each for each in entries_of(worded) if each.first == entry.first).text
    return text if text.endswith("\n") else text + "\n"


def _last_of_group(entries: tuple[Entry, ...], entry: Entry) -> Entry:
    """The last entry below the same comment that is reached in the same way (same port of a Service)."""
    found = entry
    port = re.search(r":\d+/", entry.api_base)
    for previous, each in itertools.pairwise(entries):
        if each.first <= entry.first:
            continue
        if each.first != previous.last + 1:
            break
        if (other := re.search(r":\d+/", each.api_base)) and port and other[0] == port[0]:
            found = each
    return found
