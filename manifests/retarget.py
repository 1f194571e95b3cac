"""Pointing the pieces of an endpoint at a model: the edits that `add` makes in its copy and `swap` in place."""

import re

from pydantic import BaseModel
from ruamel.yaml.nodes import ScalarNode

from manifests.edit import Document, Edit, Flag, decimal, find, flags, items, scalar, written
from manifests.pieces import MODEL_FLAGS, Entry, Pieces
from manifests.sizing import ModelFacts, tokens
from manifests.tree import ManifestError
from manifests.wording import Words, stem

HF_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
ARGUMENT = re.compile(r"--[a-z0-9][a-z0-9-]*(=[^\s\x00-\x1f\x7f-\x9f]+)?")
_SECRET = re.compile(r"(^|-)(key|token|secret|password)$")

# vLLM picks slower kernels for these formats unless told; the others it reads from the weights' own configuration.
_KERNELS = {"awq": "awq_marlin", "gptq": "gptq_marlin"}
# What names a commit or a file of one repository on Hugging Face.
_PINS = ("--revision", "--code-revision", "--tokenizer-revision", "--tokenizer")
_PINNED_IN_SCRIPT = re.compile(r"\brevision ?= ?[\"']|--revision[ =]")
_OWN_OPTION = {
    "--model": "the model id",
    "--model-id": "the model id",
    "--served-model-name": "served=",
    "--quantization": "quantization=",
    "--max-model-len": "context=",
    "--gpu-memory-utilization": "gpu-util=",
    "--port": "the Service (by hand)",
}


class Target(BaseModel, frozen=True):
    """What the engine is to serve. None leaves an argument as it is, an empty `quantization` removes it."""

    hf_id: str
    served_name: str
    quantization: str | None = None
    context: int | None = None
    gpu_utilization: float | None = None
    args: tuple[str, ...] = ()


def refuse_bad_input(hf_id: str, served_name: str | None, quantization: str | None, args: tuple[str, ...]) -> None:
    """What people typed is put into files that machines run: anything unusual is refused by name."""
    if not HF_ID.fullmatch(hf_id) or len(hf_id) > 96 or ".." in hf_id or "--" in hf_id:
        raise ManifestError(f"{hf_id!r} is not a model on Hugging Face: give it as owner/name, like Qwen/Qwen2.5-7B.")
    if served_name is not None and not NAME.fullmatch(served_name):
        raise ManifestError(f"{served_name!r} is no served name: use letters, digits, dots and dashes.")
    if quantization is not None and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", quantization):
        raise ManifestError(f"{quantization!r} is no quantization: give vLLM's name, like awq_marlin, or none.")
    for each in args:
        if not ARGUMENT.fullmatch(each):
            raise ManifestError(f"{each!r} is no argument: give it as --flag or --flag=value.")
        if option := _OWN_OPTION.get(each.partition("=")[0]):
            raise ManifestError(f"{each!r} is not for arg=: use {option}.")
        if _SECRET.search(each.partition("=")[0]):
            # Without its value: this sentence is posted.
            raise ManifestError(
                f"{each.partition('=')[0]} takes a secret, which must not stand in git: put it into a Secret and read it "
                "from the environment (by hand)."
            )


def derived_served_name(facts: ModelFacts) -> str:
    """The model's name in small letters, without the mark of its quantization."""
    return stem(facts.hf_id).lower()


def derived_quantization(facts: ModelFacts, wanted: str | None) -> str:
    """The value of `--quantization`, "" for no such argument."""
    if wanted is not None:
        return "" if wanted == "none" else wanted
    return _KERNELS.get(facts.quantization or "", "")


def family(quantization: str | None, hf_id: str = "") -> str:
    """The format of the weights ("awq", "gptq", …; "" for none), from the argument or else the model's name."""
    given = (quantization or hf_id).lower()
    return next((each for each in ("awq", "gptq", "fp8", "bitsandbytes", "gguf") if each in given), quantization or "")


def words(
    endpoint: str, target: Target, facts: ModelFacts | None = None, weight_bytes: int = 0, chat: bool | None = None
) -> Words:
    """What comments may say of the endpoint; `weight_bytes` and `chat` are those of a model of which there are no facts."""
    return Words(
        endpoint=endpoint,
        hf_id=target.hf_id,
        served_name=target.served_name,
        quantization=(facts.quantization or "") if facts else family(target.quantization, target.hf_id),
        context=target.context,
        weight_bytes=facts.weight_bytes if facts else weight_bytes,
        chat=facts.chat if facts else chat,
    )


def retarget(pieces: Pieces, target: Target) -> Document:
    """The Deployment with the model in both of its places, and the arguments that go with it."""
    document = pieces.deployment.document
    if pieces.model.value != target.hf_id and any(_PINNED_IN_SCRIPT.search(node.value) for node in pieces.staging):
        raise ManifestError(
            f"The initContainer in {document.path} pins a revision of {pieces.model.value}: take it out by hand, then try again."
        )
    edits = [
        document.set_value(node, target.hf_id, part=pieces.model.value)
        for node in pieces.staging
        if re.search(rf"(?<![\w./-]){re.escape(pieces.model.value)}(?![\w./-])", node.value)
    ]
    document = document.apply(edits)
    wanted: dict[str, str | None] = {pieces.model.name: target.hf_id}
    wanted |= {each.name: "" for each in pinned(pieces, target)}
    if pieces.model.name == "--model":
        wanted |= {
            "--served-model-name": target.served_name,
            "--quantization": target.quantization,
            "--max-model-len": None if target.context is None else str(target.context),
            "--gpu-memory-utilization": None if target.gpu_utilization is None else f"{target.gpu_utilization:g}",
        }
    for each in target.args:
        name, _, given = each.partition("=")
        wanted[name] = given
    bare = {each for each in target.args if "=" not in each}
    for flag, setting in wanted.items():
        if setting is not None:
            document = _set_flag(document, flag, setting, bare=flag in bare)
    return document


def pinned(pieces: Pieces, target: Target) -> tuple[Flag, ...]:
    """The arguments that pin files of the old model's repository: with another model they name what is not there."""
    if pieces.model.value == target.hf_id:
        return ()
    given = {each.partition("=")[0] for each in target.args}
    return tuple(each for each in pieces.flags if each.name in _PINS and each.name not in given)


def reprice(entry: Entry, *, model: str, price_in: str | None, price_out: str | None) -> Document:
    """LiteLLM's entry with another served name, and other prices where they are given."""
    document, params = entry.document, find(entry.node, "litellm_params")
    edits: list[Edit] = []
    provider = entry.model.partition("/")[0] if "/" in entry.model else "openai"
    wanted = {"model": f"{provider}/{model}"}
    if price_in is not None:
        wanted["input_cost_per_token"] = decimal(price_in)
    if price_out is not None:
        wanted["output_cost_per_token"] = decimal(price_out)
    for key, text in wanted.items():
        node = scalar(params, key)
        if node is None:
            raise ManifestError(f"{document.path} has no {key} for {entry.alias}: add it by hand, then try again.")
        if node.value != text:
            edits.append(document.set_value(node, text))
    return document.apply(edits)


def _set_flag(document: Document, name: str, given: str, *, bare: bool) -> Document:
    """One argument set, changed, or (with "" for one that takes a value) removed."""
    args, present = _arguments(document)
    flag = next((each for each in present if each.name == name), None)
    if flag is None:
        return document.apply([_added(document, args, present, name, given)]) if given or bare else document
    if not given and not bare:
        return document.apply([_removed(document, args, flag)])
    same = tokens(flag.value) == tokens(given) is not None if name == "--max-model-len" else flag.value == given
    if same:
        return document
    if flag.value_node is flag.node:
        spelt = str(flag.node.value).partition("=")[0]  # with dashes or underscores, as people wrote it
        return document.apply([document.set_value(flag.node, f"{spelt}={given}" if given else spelt)])
    return document.apply([document.set_value(flag.value_node, given)])


def _arguments(document: Document) -> tuple[list[ScalarNode], tuple[Flag, ...]]:
    for root in document.roots:
        for container in items(find(root, "spec", "template", "spec", "containers")):
            present = flags(find(container, "args"))
            if any(each.name in MODEL_FLAGS for each in present):
                nodes = [each for each in items(find(container, "args")) if isinstance(each, ScalarNode)]
                return nodes, present
    raise ManifestError(f"{document.path} has no container that names a model")


def _added(document: Document, args: list[ScalarNode], present: tuple[Flag, ...], name: str, given: str) -> Edit:
    text = f"{name}={given}" if given else name
    beside = [each.value_node for each in present if each.name in ("--served-model-name", *MODEL_FLAGS)]
    # Quantization goes beside the names, as people write it; anything else at the end.
    anchor = beside[-1] if name == "--quantization" and beside else args[-1]
    if _is_flow(document, args):
        return Edit(anchor.end_mark.index, anchor.end_mark.index, f", {written(text, quoted=True)}")
    lead = document.lines[anchor.start_mark.line][: anchor.start_mark.column]
    added = f"{lead}{written(text)}"
    columns = {each.column for each in document.comments() if not each.alone and each.line in _lines(args)}
    if name == "--quantization" and columns:
        comment = f"# the format of the weights ({family(given).upper()})"
        added = f"{added.ljust(min(columns) - 1)} {comment}"
    return document.insert_lines(anchor.end_mark.line + 1, added + "\n")


def _removed(document: Document, args: list[ScalarNode], flag: Flag) -> Edit:
    if _is_flow(document, args):
        before = args[args.index(flag.node) - 1]
        return Edit(before.end_mark.index, flag.value_node.end_mark.index, "")
    return document.delete_lines(flag.node.start_mark.line, flag.value_node.end_mark.line)


def _is_flow(document: Document, args: list[ScalarNode]) -> bool:
    first = args[0]
    return not document.lines[first.start_mark.line][: first.start_mark.column].rstrip().endswith("-")


def _lines(args: list[ScalarNode]) -> set[int]:
    return {each.start_mark.line for each in args}
