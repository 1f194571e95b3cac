"""Point the pieces of an endpoint at a model: the edits that `add` makes in its copy and `swap` in place."""

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel
from ruamel.yaml.nodes import ScalarNode

from manifests.arguments import MODEL_FLAGS, Flag, sequence
from manifests.edit import Document, Edit, decimal, refuse_variables, scalar, yaml_scalar
from manifests.gateway import ENVIRON, Direction, Entry
from manifests.model_names import HF_ID, model_of, name_pattern
from manifests.pieces import Pieces
from manifests.risks import refuse_argument
from manifests.sizing import POOLING_KINDS, ModelFacts, tokens
from manifests.sizing.flags import KERNELS
from manifests.sources.site import Site, refuse_shared
from manifests.tree import ManifestError
from manifests.wording import CommentFacts, stem

DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")

# Arguments that name a commit or a file of one repository on Hugging Face.
_PINS = ("--revision", "--code-revision", "--tokenizer-revision", "--tokenizer")
_PINNED_IN_SCRIPT = re.compile(r"\brevision ?= ?[\"']|--revision[ =]")


class Target(BaseModel, frozen=True, defer_build=True):
    """The requested model. None leaves an argument unchanged; an empty `quantization` removes that argument."""

    hf_id: str
    served_name: str
    quantization: str | None = None
    context: int | None = None
    gpu_utilization: float | None = None
    args: tuple[str, ...] = ()
    alone: bool = False
    """True if the engine gets only one served name, as in a copy: the template's other names are not copied."""
    removed: tuple[str, ...] = ()
    """Names of arguments that the model must not have."""
    model: str = ""
    """The engine's value for the model: the id, a path, or a file."""
    renames: Mapping[str, str] = {}
    """The names of the old model in the manifests, and the corresponding names of the new one."""


def refuse_bad_input(hf_id: str, served_name: str | None, quantization: str | None, args: tuple[str, ...]) -> None:
    """Refuse options with unusual characters, because their values are written to files that machines execute."""
    if not HF_ID.fullmatch(hf_id) or len(hf_id) > 96 or ".." in hf_id or "--" in hf_id:
        raise ManifestError(f"{hf_id!r} is not a model on Hugging Face: give it as owner/name, like Qwen/Qwen2.5-7B.")
    if served_name is not None and not NAME.fullmatch(served_name):
        raise ManifestError(f"{served_name!r} is not a served name: use letters, digits, dots and dashes.")
    if quantization is not None and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", quantization):
        raise ManifestError(f"{quantization!r} is not a quantization: give vLLM's name, like awq_marlin, or none.")
    for argument in args:
        refuse_argument(argument)


def derived_served_name(facts: ModelFacts) -> str:
    """The model's name in lower case, without the suffix for its quantization."""
    return stem(facts.hf_id).lower()


def derived_quantization(facts: ModelFacts, requested: str | None) -> str:
    """The value of `--quantization`; "" for no such argument."""
    if requested is not None:
        return "" if requested == "none" else requested
    return KERNELS.get(facts.quantization or "", "")


def family(quantization: str | None, hf_id: str = "") -> str:
    """The format of the weights ("awq", "gptq", …; "" for none), from the argument or the model's name."""
    text = (quantization or hf_id).lower()
    return next(
        (weight_format for weight_format in ("awq", "gptq", "fp8", "bitsandbytes", "gguf") if weight_format in text),
        quantization or "",
    )


def comment_facts(
    endpoint: str,
    target: Target,
    facts: ModelFacts | None = None,
    weight_bytes: int = 0,
    chat: bool | None = None,
    task: str = "",
) -> CommentFacts:
    """The facts about an endpoint that comments may mention; `weight_bytes`, `chat` and `task` replace unknown facts."""
    return CommentFacts(
        endpoint=endpoint,
        hf_id=target.hf_id,
        served_name=target.served_name,
        quantization=(facts.quantization or "") if facts else family(target.quantization, target.hf_id),
        context=target.context,
        weight_bytes=facts.weight_bytes if facts else weight_bytes,
        # An embedding model or a reranker does not chat: text about chat describes only the old model.
        chat=(False if facts.pools else facts.chat) if facts else chat,
        pools=next(
            (pooling_kind for pooling_kind in POOLING_KINDS if pooling_kind == (facts.kind if facts else task)), ""
        ),
    )


def retarget(pieces: Pieces, target: Target, other_edits: Iterable[tuple[str, Edit]] = ()) -> dict[str, Document]:
    """The files of an endpoint with the new model in every place, and its arguments.

    `other_edits` are pairs of a file and an edit. Raises ManifestError if a place cannot be edited.
    """
    edits: dict[str, list[Edit]] = defaultdict(list)
    for path, edit in other_edits:
        edits[path].append(edit)
    if pieces.model.value != target.model and any(_PINNED_IN_SCRIPT.search(node.value) for node in pieces.staging):
        raise ManifestError(
            f"The initContainer in {pieces.deployment.document.path} pins a revision of {pieces.model.value}: "
            "remove it by hand, then try again."
        )
    served_flags = (pieces.served,) if pieces.served else ()
    served_spots = {_spot(site) for flag in served_flags for site in flag.sites if site is not None}
    sites = [*_served_name_sites(pieces, target), *_model_sites(pieces, target, served_spots)]
    for site, text in sites:
        edits[site.path].append(site.write(text))
    changing = [site for site, _ in sites]
    additions: list[tuple[str, str]] = []
    bare = {argument for argument in target.args if "=" not in argument}
    requested = {argument.partition("=")[0] for argument in target.args}
    for name, setting in _settings(pieces, target).items():
        flag = pieces.flag(name)
        if flag is None:
            # Most engines read the quantization from the weights: add the argument only on request.
            is_derived = name == pieces.runtime.quantization and not pieces.runtime.derives
            additions += [(name, setting)] if (setting and not is_derived) or name in {*bare, *requested} else []
        elif changed := _setting_edit(pieces, flag, setting, bare=name in bare):
            edits[changed[0]].append(changed[1])
            changing += [flag.site] if flag.site is not None and setting else []
    refuse_shared(pieces.name, pieces.files, changing)
    edits[_path(pieces)] += _duplicate_name_edits(pieces, target)
    for path, edit in arguments_added(pieces, additions, requested):
        edits[path].append(edit)
    documents = {document.path: Document(document.path, document.text) for document in _documents(pieces)}
    return {path: documents[path].apply(_disjoint(path, path_edits)) for path, path_edits in edits.items()}


def _spot(site: Site) -> tuple[str, int, int]:
    """The file, start and end of the text that an edit of this value replaces."""
    return (site.path, *site.origin.span)


def _settings(pieces: Pieces, target: Target) -> dict[str, str]:
    """The arguments to set, with the value "" for an argument that the engine must not have."""
    engine = pieces.runtime
    settings_to_set = {argument.name: "" for argument in pinned_arguments(pieces, target)}
    if engine.served and pieces.served is None and not engine.gguf and pieces.form not in ("InferenceService", "Model"):
        settings_to_set[engine.served] = (
            "" if target.served_name in (target.hf_id, target.model) else target.served_name
        )
    settings = (
        (engine.quantization, target.quantization),
        (engine.context, None if target.context is None else str(target.context)),
        (engine.utilization, None if target.gpu_utilization is None else f"{target.gpu_utilization:g}"),
    )
    settings_to_set |= {name: setting for name, setting in settings if name and setting is not None}
    settings_to_set |= dict.fromkeys(target.removed, "")
    return settings_to_set | {name: text for name, _, text in (argument.partition("=") for argument in target.args)}


def _disjoint(path: str, edits: list[Edit]) -> list[Edit]:
    """The edits; raises ManifestError if two of them change the same text."""
    ordered = sorted(set(edits))
    for earlier, later in itertools.pairwise(ordered):
        if later.start < earlier.end and later.start != earlier.start:
            raise ManifestError(f"{path} combines several settings in the value that has to change: change it by hand.")
    return ordered


def _documents(pieces: Pieces) -> list[Document]:
    sites = [site for flag in pieces.flags for site in flag.sites if site is not None]
    return [
        *(located.document for located in (pieces.deployment, *pieces.related)),
        *(site.origin.document for site in sites),
    ]


def _path(pieces: Pieces) -> str:
    return pieces.deployment.document.path


def _model_sites(
    pieces: Pieces, target: Target, served_spots: Collection[tuple[str, int, int]]
) -> Iterator[tuple[Site, str]]:
    """Every place in the endpoint's own objects that names its model, with the new text; `served_spots` are skipped."""
    site = pieces.model.site
    if pieces.model.value == target.model:
        return
    if site is None:
        raise ManifestError(
            f"{_path(pieces)} composes the model {pieces.model.value} from several variables: change it by hand."
        )
    if pieces.fields is not None:
        yield site, target.model
        return
    pattern = name_pattern(target.renames)
    for located, node in pieces.texts():
        for match in pattern.finditer(str(node.value)):
            site_of_match = Site(located.document, node, match.start(), match.end())
            match_path, first, last = _spot(site_of_match)
            if not any(path == match_path and start < last and first < end for path, start, end in served_spots):
                yield site_of_match, target.renames[match[0]]


def _served_name_sites(pieces: Pieces, target: Target) -> Iterator[tuple[Site, str]]:
    """The places of the served names that change, with the new names."""
    flag, names, kept_names = pieces.served, new_served_names(pieces, target), set[str]()
    for old_value, site in zip(flag.values, flag.sites, strict=True) if flag else ():
        new_names = dict.fromkeys(names.get(name, name) for name in _names_in_value(pieces, old_value))
        new, repeats = ",".join(new_names), set(new_names) <= kept_names
        kept_names |= set(new_names)
        if new == old_value or repeats:
            continue
        if site is None:
            raise ManifestError(
                f"{_path(pieces)} composes the served name {old_value} from several variables: change it by hand."
            )
        yield site, new


def _names_in_value(pieces: Pieces, text: str) -> list[str]:
    """The names in one value: llama.cpp takes several, separated by commas."""
    return text.split(",") if pieces.runtime.gguf else [text]


def _duplicate_name_edits(pieces: Pieces, target: Target) -> list[Edit]:
    """The edits that remove duplicates from the list of served names."""
    flag, names, kept_names = pieces.served, new_served_names(pieces, target), set[str]()
    removals: list[Edit] = []
    if flag is None or pieces.runtime.gguf:
        return []
    for name, node in zip(
        flag.values, flag.value_nodes if flag.carrier == "list" else flag.nodes[-len(flag.values) :], strict=True
    ):
        if names[name] in kept_names and flag.carrier == "list" and not (flag.is_joined and node is flag.node):
            removals.append(
                _items_removal_edit(pieces.deployment.document, sequence(pieces.container, pieces.flags), node, node)
            )
        kept_names.add(names[name])
    if flag.carrier == "shell":
        names_so_far: set[str] = set()
        for name, site in zip(flag.values, flag.sites, strict=True):
            if names[name] in names_so_far and site is not None:
                start, end = site.span
                removals.append(Edit(len(site.document.text[:start].rstrip(" ")), end, ""))
            names_so_far.add(names[name])
    return removals


def _setting_edit(pieces: Pieces, flag: Flag, new_value: str, *, bare: bool) -> tuple[str, Edit] | None:
    """The edit that sets one argument, or removes it if the new value is "" and it is not `bare`; None for no change."""
    document = pieces.deployment.document
    if not new_value and not bare:
        match flag.carrier:
            case "list":
                args = sequence(pieces.container, pieces.flags)
                return document.path, _items_removal_edit(document, args, flag.nodes[0], flag.nodes[-1])
            case "shell":
                return document.path, _words_removal_edit(document, flag)
            case "file" if flag.site is not None:
                lines = [node.start_mark.line for node in flag.nodes]
                return flag.site.path, flag.site.document.delete_lines(min(lines), max(lines))
        raise ManifestError(
            f"{_where(pieces, flag)} sets {flag.name}, which the new model must not have: remove it by hand."
        )
    is_same = flag.value == new_value
    if flag.name == pieces.runtime.context:
        is_same = tokens(flag.value) == tokens(new_value) is not None
    if is_same or (bare and not new_value):
        return None
    if flag.site is None and flag.carrier == "list" and not flag.values:
        return document.path, document.set_value(flag.node, f"{flag.spelt}={new_value}")
    if flag.site is None:
        for node in flag.nodes:
            refuse_variables(f"{document.path}:{node.start_mark.line + 1}", str(node.value), new_value)
        raise ManifestError(
            f"{_where(pieces, flag)} composes the value of {flag.name} from several parts: change it by hand."
        )
    return flag.site.path, flag.site.write(new_value)


def _where(pieces: Pieces, flag: Flag) -> str:
    return f"{flag.site.path}:{flag.site.line}" if flag.site else _path(pieces)


def _words_removal_edit(document: Document, flag: Flag) -> Edit:
    """The edit that removes a flag's words from a script, and the whole line if nothing else is on it."""
    start, end = Site(document, flag.node, *flag.words).span
    line_start = document.text.rfind("\n", 0, start) + 1
    line_end = re.match(r"[ \t]*\\?\r?\n", document.text[end:])
    if not document.text[line_start:start].strip() and line_end and "\\" in line_end[0]:
        return Edit(line_start, end + line_end.end(), "")
    gap = len(document.text[:start]) - len(document.text[:start].rstrip(" "))
    return Edit(start - gap, end, "")


def arguments_added(
    pieces: Pieces, additions: Sequence[tuple[str, str]], requested: Collection[str]
) -> Iterator[tuple[str, Edit]]:
    """The edits that add arguments. If there is no list of arguments, only the arguments in `requested` and the context are added."""
    document, model = pieces.deployment.document, pieces.model
    args = sequence(pieces.container, pieces.flags)
    texts: dict[tuple[str, int], str] = {}

    def insert(path: str, edit: Edit) -> None:
        before = texts.get((path, edit.start), "")
        texts[path, edit.start] = before + (edit.text.removeprefix("\n") if before.endswith("\n") else edit.text)

    for name, text in additions:
        if args:
            insert(document.path, _added_argument_edit(document, args, pieces, name, text))
        elif model.carrier == "shell" and (name in requested or name == pieces.runtime.context):
            end = Site(document, model.node, *model.words).span[1]
            insert(document.path, Edit(end, end, f" {name}={text}" if text else f" {name}"))
        elif (
            model.carrier == "file" and model.site is not None and (name in requested or name == pieces.runtime.context)
        ):
            inner, line = model.site.document, model.node.start_mark.line
            key = f"{inner.lines[line][: model.node.start_mark.column]}{name.removeprefix('--').replace('-', '_')}"
            insert(inner.path, inner.insert_lines(line + 1, f"{key}: {yaml_scalar(text) if text else 'true'}\n"))
        elif name in requested or name == pieces.runtime.context:
            raise ManifestError(f"{document.path} has no list of arguments for {name}: add it by hand.")
    for (path, start), text in texts.items():
        yield path, Edit(start, start, text)


def pinned_arguments(pieces: Pieces, target: Target) -> tuple[Flag, ...]:
    """The arguments that pin files of the old model's repository, which the new model does not have."""
    if pieces.model.value == target.model:
        return ()
    requested = {argument.partition("=")[0] for argument in target.args}
    return tuple(flag for flag in pieces.flags if flag.name in _PINS and flag.name not in requested)


def prose_names(hf_id: str) -> tuple[str, str, str]:
    """The names of a model in prose: its id, the id without the owner, and the id without owner and quantization."""
    return hf_id, hf_id.rsplit("/", 1)[-1], stem(hf_id)


def main_name(pieces: Pieces) -> str:
    """The served name that LiteLLM requests, otherwise the first served name."""
    requested = next(
        (entry.requested_model for entry in pieces.entries if entry.requested_model in pieces.served_names), None
    )
    return requested or next(iter(pieces.served_names), "")


def new_served_names(pieces: Pieces, target: Target) -> dict[str, str]:
    """The new name for each served name. A name that a person chose stays."""
    new_names = {}
    for name in pieces.served_names:
        new_names[name] = name
        if target.alone or name == main_name(pieces):
            new_names[name] = target.served_name
        elif model_of(pieces).hf_id != target.hf_id:
            pairs = zip(prose_names(model_of(pieces).hf_id), prose_names(target.hf_id), strict=True)
            counterpart = next((new for old, new in pairs if old.lower() == name.lower()), name)
            new_names[name] = counterpart.lower() if name.islower() else counterpart
    return new_names


def reprice(
    entry: Entry, *, model: str, price_in: str | None, price_out: str | None, provider: str | None = None
) -> Document:
    """LiteLLM's entry with another served name and, if given, other prices.

    `provider` is LiteLLM's provider, if it has to change. Content that an anchor shares with other entries is not
    edited; the entry gets its own price instead.
    """
    document = entry.document
    node = scalar(entry.node, "litellm_params", "model")
    if node is None:
        raise ManifestError(f"{document.path} has no model for {entry.alias}: add it by hand, then try again.")
    bare = provider is None and bool(entry.provider) and not entry.model.startswith(f"{entry.provider}/")
    new_model = model if bare else f"{provider or entry.provider or 'openai'}/{model}"
    edits: list[Edit] = []
    if entry.model != new_model:
        if not entry.owns(node) or node.value != entry.model or entry.model.startswith(ENVIRON):
            raise ManifestError(
                f"{document.path}:{node.start_mark.line + 1} shares the model of {entry.alias} with other entries "
                "(through an anchor or a variable): change it by hand."
            )
        edits.append(document.set_value(node, new_model))
    directions: tuple[tuple[Direction, str | None], ...] = (("input", price_in), ("output", price_out))
    for direction, price in directions:
        if price is not None:
            edits.append(_price_edit(entry, direction, decimal(price)))
    return document.apply([edit for edit in edits if document.text[edit.start : edit.end] != edit.text])


def _price_edit(entry: Entry, direction: Direction, text: str) -> Edit:
    price, document = entry.price(direction), entry.document
    if price is not None and not price.is_per_token:
        raise ManifestError(
            f"{entry.alias} has a price in another unit ({document.path}:{price.node.start_mark.line + 1}: {price.key}): "
            "change it by hand."
        )
    if price is not None and entry.owns(price.node):
        return document.set_value(price.node, text)
    other_price = entry.price("output" if direction == "input" else "input")
    neighbour = (
        other_price.node
        if other_price is not None and entry.owns(other_price.node)
        else scalar(entry.node, "litellm_params", "model")
    )
    if neighbour is None or not entry.owns(neighbour) or entry.node.flow_style:
        raise ManifestError(
            f"{document.path} has no {direction} price for {entry.alias}: add it by hand, then try again."
        )
    line = document.lines[neighbour.start_mark.line]
    indentation = " " * (len(line) - len(line.lstrip(" ")))
    return document.insert_lines(neighbour.start_mark.line + 1, f"{indentation}{direction}_cost_per_token: {text}\n")


def _added_argument_edit(
    document: Document, args: tuple[ScalarNode, ...], pieces: Pieces, name: str, text_value: str
) -> Edit:
    argument = f"{name}={text_value}" if text_value else name
    own_items = {id(node) for node in args}
    neighbours = [
        flag.nodes[-1]
        for flag in pieces.flags
        if flag.name in ("--served-model-name", *MODEL_FLAGS) and id(flag.nodes[-1]) in own_items
    ]
    # The quantization is added after the names, which is the usual order; other arguments are appended.
    anchor = neighbours[-1] if name in ("--quantization", "--served-model-name") and neighbours else args[-1]
    if _is_flow(document, args):
        return Edit(anchor.end_mark.index, anchor.end_mark.index, f", {yaml_scalar(argument, quoted=True)}")
    prefix = document.lines[anchor.start_mark.line][: anchor.start_mark.column]
    added = f"{prefix}{yaml_scalar(argument)}"
    columns = {comment.column for comment in document.comments() if not comment.alone and comment.line in _lines(args)}
    if name == "--quantization" and columns:
        comment = f"# the format of the weights ({family(text_value).upper()})"
        added = f"{added.ljust(min(columns) - 1)} {comment}"
    return document.insert_lines(anchor.end_mark.line + 1, added + "\n")


def _items_removal_edit(document: Document, args: tuple[ScalarNode, ...], first: ScalarNode, last: ScalarNode) -> Edit:
    """The edit that removes the items from `first` to `last` of a list."""
    if not _is_flow(document, args):
        return document.delete_lines(first.start_mark.line, last.end_mark.line)
    first_index = next(index for index, argument in enumerate(args) if argument is first)
    if first_index:
        return Edit(args[first_index - 1].end_mark.index, last.end_mark.index, "")
    after = next(index for index, argument in enumerate(args) if argument is last) + 1
    return Edit(first.start_mark.index, args[after].start_mark.index if after < len(args) else last.end_mark.index, "")


def _is_flow(document: Document, args: tuple[ScalarNode, ...]) -> bool:
    first = args[0]
    return not document.lines[first.start_mark.line][: first.start_mark.column].rstrip().endswith("-")


def _lines(args: tuple[ScalarNode, ...]) -> set[int]:
    return {argument.start_mark.line for argument in args}
