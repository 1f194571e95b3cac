"""LiteLLM's entry of a new endpoint: a copy of the template's entry, with another name, address, mode and comments."""

import itertools
import re

from ruamel.yaml.nodes import MappingNode

from manifests.change import ModelRequest
from manifests.edit import Comment, Document, Edit, find, scalar
from manifests.engines import Engine
from manifests.gateway import Entry, entries_of
from manifests.retarget import Target, reprice
from manifests.tree import ManifestError
from manifests.wording import Rewording

_MODES = {"embeddings": "embedding", "reranker": "rerank", "completion": "completion"}
"""`mode` in LiteLLM's `model_info` (docs.litellm.ai/docs/proxy/health) for models other than chat models."""


def _provider(request: ModelRequest, engine: Engine) -> str | None:
    """The provider for a reranker, because LiteLLM does not rank through `openai/` (its page "/rerank"); None for other kinds."""
    return engine.reranks_as if request.facts.kind == "reranker" else None


def with_copied_entry(
    entry: Entry, hosts: dict[str, str], request: ModelRequest, target: Target, rewording: Rewording, engine: Engine
) -> str:
    """The file of LiteLLM's list with the new entry after the last entry of the template's group."""
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
    copy = next(candidate for candidate in entries_of(document) if candidate.first == entry.first)
    is_at_root = request.facts.kind == "reranker" and not engine.reranks_at.startswith("/v1")
    document = _with_name_and_address(document, copy, hosts, request.name, at_root=is_at_root)
    copy = next(candidate for candidate in entries_of(document) if candidate.first == entry.first)
    if mode := _MODES.get(request.facts.kind or ""):
        document = document.apply([_with_mode(copy, mode)])
        copy = next(candidate for candidate in entries_of(document) if candidate.first == entry.first)
    # A second definition of an anchor would change the meaning of later aliases.
    text = re.sub(r"(?m)(?<=[:-]) &[\w-]+(?=\s)", "", _own_comments(document, copy, rewording))
    original = entry.document
    after = _last_of_group(entries_of(original), entry)
    return original.apply([original.insert_lines(after.last + 1, text)]).text


def _with_mode(entry: Entry, mode: str) -> Edit:
    """The edit that sets `mode`, the request type of LiteLLM's health check; without `mode`, LiteLLM sends a chat request."""
    document, info, mode_node = entry.document, find(entry.node, "model_info"), scalar(entry.node, "model_info", "mode")
    inline = [node for node in (entry.node, info) if isinstance(node, MappingNode) and node.flow_style]
    if inline or (info is not None and not entry.owns(info)):
        raise ManifestError(
            f"The entry {entry.alias} in {document.path} is written on one line: add model_info.mode to it, or name another "
            "template with like=."
        )
    if mode_node is not None:
        return document.set_value(mode_node, mode)
    indentation = " " * entry.node.start_mark.column
    if info is not None:
        first = info.start_mark
        return document.insert_lines(first.line, f"{' ' * first.column}mode: {mode}\n")
    return document.insert_lines(entry.last + 1, f"{indentation}model_info:\n{indentation}  mode: {mode}\n")


def _with_name_and_address(
    document: Document, entry: Entry, hosts: dict[str, str], name: str, *, at_root: bool
) -> Document:
    """The entry with the copy's name and address. `at_root` means that the engine's API is not below `/v1`."""
    edits = []
    alias, base = scalar(entry.node, "model_name"), entry.base_node
    identity = scalar(entry.node, "model_info", "id")
    if alias is not None:
        edits.append(document.set_value(alias, name))
    if identity is not None:
        old_id = str(identity.value)
        edits.append(document.set_value(identity, old_id.replace(entry.alias, name) if entry.alias in old_id else name))
    if (base is not None and not entry.owns(base)) or (base is None and entry.api_base):
        source = "an anchor that other entries share" if base is not None else "a credential"
        raise ManifestError(
            f"The entry {entry.alias} in {document.path} cannot be copied: its address comes from {source}. "
            "Name another template with like=."
        )
    if base is not None:
        # The host's first label is the Service, whose name may differ from the endpoint's.
        address = _address_of_copy(entry.api_base, hosts)
        edits.append(document.set_value(base, address.removesuffix("/").removesuffix("/v1") if at_root else address))
    return document.apply(edits)


def _address_of_copy(address: str, hosts: dict[str, str]) -> str:
    """The address of the copy's Service in the copy's namespace. A gateway's address has the names in its path."""

    def label(match: re.Match[str]) -> str:
        service, space = match[1], match[2] or ""
        return hosts.get(service, service) + hosts.get(space, space)

    new_address = re.sub(r"(?<=://)([\w-]+)(\.[\w-]+)?", label, address)
    scheme, _, host_and_path = new_address.partition("://")
    host, slash, path = host_and_path.partition("/")
    parts = (hosts.get(f"/{part}", part) for part in path.split("/"))
    return f"{scheme}://{host}{slash}{'/'.join(parts)}" if host_and_path else new_address


def _own_comments(document: Document, entry: Entry, rewording: Rewording) -> str:
    """The entry's text with only the comments about the model. Comments that explain fields are not repeated."""

    def about_the_model(comment: Comment) -> bool:
        key = document.lines[comment.line][: comment.column].strip(" -")
        return not comment.alone and key.startswith(("model_name:", "litellm_params:"))

    def is_inside(comment: Comment) -> bool:
        return entry.first <= comment.line <= entry.last

    edits = []
    for comment in document.comments():
        if not is_inside(comment) or about_the_model(comment):
            continue
        start = document.offset(comment.line)
        if comment.alone:
            edits.append(document.delete_lines(comment.line, comment.line))
        else:
            code = document.lines[comment.line][: comment.column].rstrip()
            edits.append(Edit(start, start + comment.column + len(comment.text), code))
    bare = document.apply(edits)
    entry = next(candidate for candidate in entries_of(bare) if candidate.first == entry.first)
    worded = rewording.document(bare, concerns=lambda comment: entry.first <= comment.line <= entry.last)
    text = next(candidate for candidate in entries_of(worded) if candidate.first == entry.first).text
    return text if text.endswith("\n") else text + "\n"


def _last_of_group(entries: tuple[Entry, ...], entry: Entry) -> Entry:
    """The last of the adjacent entries after `entry` whose address has the same port."""
    last = entry
    port = re.search(r":\d+/", entry.api_base)
    for previous, candidate in itertools.pairwise(entries):
        if candidate.first <= entry.first:
            continue
        if candidate.first != previous.last + 1:
            break
        if (candidate_port := re.search(r":\d+/", candidate.api_base)) and port and candidate_port[0] == port[0]:
            last = candidate
    return last
