"""Find the Hugging Face model of an endpoint whose engine gets a path, a file, or a repository with a quantization."""

import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from ruamel.yaml.nodes import ScalarNode

from manifests.arguments import own_variables
from manifests.edit import entries, find, items, scalars
from manifests.objects import mappings
from manifests.pieces import Pieces
from manifests.sizing import ModelFacts
from manifests.tree import ManifestError

HF_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
GGUF_FORMAT = re.compile(r"(?i)(?<![a-z0-9])(UD-)?(I?Q\d(_[A-Z0-9]+)*|TQ\d_\d|BF16|F16|F32|MXFP4(_MOE)?)(?![a-z0-9])")
_GGUF = re.compile(r"(?i)/[\w.]+(-[\w.]+)*-gguf$")
_PLACES = frozenset(
    [
        "models",
        "model",
        "data",
        "cache",
        "hub",
        "weights",
        "llm",
        "llms",
        "huggingface",
        "mnt",
        "opt",
        "srv",
        "var",
        "home",
        "root",
        "workspace",
        "app",
        "vllm",
        "gguf",
    ]
)
_DOWNLOADED = re.compile(
    r"huggingface\.co/(?P<url>[\w.-]+/[\w.-]+)/(?:resolve|raw)/[^\s\"'/]+/(?P<urlfile>[\w./-]+)"
    r"|(?:hf|huggingface-cli) download (?P<cli>[\w.-]+/[\w.-]+)(?: +(?P<clifile>[\w./-]+))?"
)


_FETCHES = re.compile(r"snapshot_download|(?:\bhf|huggingface-cli) download")
_USED = re.compile(r"""environ(?:\.get\(|\[)["'](\w+)|getenv\(["'](\w+)|\$[({]?(\w+)""")
"""A variable that a script of the shell or of Python reads."""
_HUB_CACHE = re.compile(r"(?<=/)models--([\w.-]+?)--([\w.-]+)(?=/|$)")
"""A model's directory in the cache of huggingface_hub."""


class Naming(NamedTuple):
    """The names of a new model in an endpoint's manifests: the engine's value, and each old name with its new name."""

    model: str
    renames: dict[str, str]


class Model(NamedTuple):
    """A model: its id on Hugging Face, or the path if the id is unknown; the format of its weights; its file."""

    hf_id: str
    quantization: str | None
    file: str = ""


def model_of(pieces: Pieces) -> Model:
    """The model that an endpoint serves, according to the manifests."""
    given = pieces.model.value
    argument = pieces.said("quantization")
    if not pieces.runtime.gguf:
        found = _id_of_path(pieces, given) or _cached(given) or _folders(given)
        return Model(found or given, argument.value if argument else None)
    if pieces.model.name == "--hf-repo":
        repository, _, mark = given.partition(":")
        named = pieces.flag("--hf-file")
        return Model(repository, mark or (_format(named.value) if named else "") or None, named.value if named else "")
    file = posixpath.basename(given)
    folder = posixpath.dirname(given)
    return Model(
        _source_of(pieces, file) or _cached(folder) or (_folders(folder) if _GGUF.search(folder) else "") or given,
        _format(file) or None,
        file,
    )


def is_path(text: str) -> bool:
    """Return whether a model is named by its place in the container."""
    return text.startswith(("/", "./", "../")) or "://" in text or text.count("/") > 1


def is_only_a_path(pieces: Pieces) -> bool:
    """Return whether the model is a place in the container, and nothing in the manifests puts weights there."""
    given = pieces.model.value
    file, cached = posixpath.basename(given), _cached(given)
    if cached and any(cached in str(node.value) for _, node in pieces.texts()):
        return False
    return is_path(given) and not (_source_of(pieces, file) if pieces.runtime.gguf else _id_of_path(pieces, given))


def _id_of_path(pieces: Pieces, given: str) -> str:
    """The id whose weights are at a path: the one that the endpoint's own manifests name, with the same last part."""
    if not is_path(given):
        return ""
    last = posixpath.basename(given.rstrip("/"))
    paths = {
        id(node)
        for mapping in mappings(pieces.candidate.subject)
        for key in ("volumeMounts", "volumes")
        for node in scalars(items(find(mapping, key)))
    }
    found = {
        match[0]
        for _, node in pieces.texts()
        if id(node) not in paths
        for match in re.finditer(rf"(?<![\w./-])[A-Za-z0-9][\w.-]*/{re.escape(last)}(?![\w./-])", str(node.value))
    }
    return found.pop() if len(found) == 1 and last else _fetched_to(pieces, given)


def _fetched_to(pieces: Pieces, path: str) -> str:
    """The id that an initContainer downloads to a path, where variables have both."""
    configured = {
        str(key.value): str(node.value)
        for each in pieces.related
        for key, node in entries(find(each.node, "data"))
        if isinstance(node, ScalarNode)
    }
    found = set()
    for init in items(find(pieces.pod, "initContainers")):
        script = " ".join(
            str(scalar.value) for key in ("command", "args") for scalar in scalars(items(find(init, key)))
        )
        own = {name: site.value for name, site in own_variables(init, pieces.deployment.document).items()}
        used = {name for match in _USED.finditer(script) for name in match.groups() if name}
        values = {known[name].rstrip("/") for known in (configured | own,) for name in used & known.keys()}
        if _FETCHES.search(script) and path.rstrip("/") in values:
            found |= {each for each in values if HF_ID.fullmatch(each)}
    return found.pop() if len(found) == 1 else ""


def _cached(path: str) -> str:
    """The id of a model in huggingface_hub's cache."""
    match = _HUB_CACHE.search(path)
    return "/".join(match.groups()) if match else ""


def _folders(path: str) -> str:
    """The id whose owner and name are the last two directories of a path, as people lay out a volume of many models."""
    parts = path.strip("/").split("/")
    if not path.startswith("/") or len(parts) < 3 or parts[-2].lower() in _PLACES or not re.search(r"\d", parts[-1]):
        return ""
    return "/".join(parts[-2:]) if HF_ID.fullmatch("/".join(parts[-2:])) else ""


def _source_of(pieces: Pieces, file: str) -> str:
    """The repository that a file is downloaded from."""
    found = set()
    for _, node in pieces.texts():
        for match in _DOWNLOADED.finditer(str(node.value)):
            name = posixpath.basename(match["urlfile"] or match["clifile"] or "")
            if name == file:
                found.add(match["url"] or match["cli"])
    return found.pop() if len(found) == 1 else ""


def _format(name: str) -> str:
    """The quantization in a GGUF file's name, like `Q4_K_M`."""
    found = list(GGUF_FORMAT.finditer(name))
    return found[-1][0] if found else ""


def name_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """These names as whole words: not as a part of a longer name or path, but behind `hf://` and in addresses."""
    every = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(
        rf"(?:(?<![\w./-])|(?<=hf://)|(?<=huggingface\.co/)|(?<=:-)|(?<=/)(?=[^/]*\.gguf))(?:{every})(?![\w-]|\.\w|/(?!resolve/|raw/|tree/))"
    )


def naming(pieces: Pieces, facts: ModelFacts, file: str) -> Naming:
    """Return how to name a model in place of another one; `file` is its GGUF file. Raises ManifestError if that is unknown."""
    old, given, new = model_of(pieces), pieces.model.value, facts.hf_id
    if _cached(given):
        return _naming_in_cache(pieces, old, facts, file)
    if pieces.runtime.gguf:
        return _naming_of_file(pieces, old, new, file)
    if not is_path(given):
        return Naming(new, {given: new})
    if given.startswith("oci://"):
        raise ManifestError(
            f"{pieces.name} serves the image {given}, which contains its weights: write the image of another model into "
            f"{pieces.deployment.document.path} by hand."
        )
    last = posixpath.basename(given.rstrip("/"))
    if old.hf_id == given and not re.search(r"\d", last):
        raise ManifestError(
            f"{pieces.name} serves {given}, and its manifests do not show which model this is or where it comes from: "
            f"change {pieces.deployment.document.path} by hand."
        )
    name = new if _folders(given.rstrip("/")) == old.hf_id else posixpath.basename(new)
    kept = given.rstrip("/").removesuffix(old.hf_id if name == new else last)
    path = f"{kept}{name}{'/' if given.endswith('/') else ''}"
    renames = {given: path, given.rstrip("/"): path.rstrip("/")}
    return Naming(path, renames if old.hf_id == given else {**renames, old.hf_id: new})


def _naming_in_cache(pieces: Pieces, old: Model, facts: ModelFacts, file: str) -> Naming:
    """The same place in huggingface_hub's cache, and the new model where its download names the old one."""
    given, new = pieces.model.value, facts.hf_id
    path = _HUB_CACHE.sub(f"models--{new.replace('/', '--')}", given)
    if re.search(r"/snapshots/[0-9a-f]{40}(?=/|$)", path):
        path = re.sub(r"(?<=/snapshots/)[0-9a-f]{40}", facts.revision or "main", path)
    if file and re.search(r"\d", old.file):  # a specific name, not `model.gguf`
        path = posixpath.join(posixpath.dirname(path), posixpath.basename(file))
    marks = {
        match[0]: f"{new}:{_format(file)}"
        for _, node in pieces.texts()
        for match in re.finditer(rf"(?<![\w./-]){re.escape(old.hf_id)}:[\w-]+", str(node.value))
    }
    return Naming(path, {given: path, old.hf_id: new, **(marks if _format(file) else {})})


def _naming_of_file(pieces: Pieces, old: Model, new: str, file: str) -> Naming:
    given = pieces.model.value
    mark = _format(file)
    if pieces.model.name == "--hf-repo":
        told = f"{new}:{mark}" if ":" in given and mark else new
        renames = {given: told}
        if old.file:
            renames[old.file] = file
        return Naming(told, renames)
    folder = posixpath.dirname(given)
    if _GGUF.search(folder):  # the directory is named after the repository
        kept = folder.removesuffix(old.hf_id) if _folders(folder) == old.hf_id else ""
        folder = f"{kept}{new}" if kept else posixpath.join(posixpath.dirname(folder), posixpath.basename(new))
    path = posixpath.join(folder, posixpath.basename(file)) if folder else posixpath.basename(file)
    renames = {given: path, old.file: posixpath.basename(file)}
    return Naming(path, renames if old.hf_id == given else {**renames, old.hf_id: new})
