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
"""The variables that a shell or Python script reads."""
_HUB_CACHE = re.compile(r"(?<=/)models--([\w.-]+?)--([\w.-]+)(?=/|$)")
"""A model's directory in the cache of huggingface_hub."""


class Naming(NamedTuple):
    """The names of a new model: the engine's value, and the new name for each name of the old model in the manifests."""

    model: str
    renames: dict[str, str]


class Model(NamedTuple):
    """A model: its id on Hugging Face (the path if the id is unknown), the format of its weights, and its file."""

    hf_id: str
    quantization: str | None
    file: str = ""


def model_of(pieces: Pieces) -> Model:
    """The model that an endpoint serves, according to the manifests."""
    text = pieces.model.value
    argument = pieces.argument_for("quantization")
    if not pieces.runtime.gguf:
        hf_id = _id_of_path(pieces, text) or _id_in_cache(text) or _id_of_directories(text)
        return Model(hf_id or text, argument.value if argument else None)
    if pieces.model.name == "--hf-repo":
        repository, _, mark = text.partition(":")
        file_flag = pieces.flag("--hf-file")
        return Model(
            repository,
            mark or (_format(file_flag.value) if file_flag else "") or None,
            file_flag.value if file_flag else "",
        )
    file = posixpath.basename(text)
    folder = posixpath.dirname(text)
    return Model(
        _download_source(pieces, file)
        or _id_in_cache(folder)
        or (_id_of_directories(folder) if _GGUF.search(folder) else "")
        or text,
        _format(file) or None,
        file,
    )


def is_path(text: str) -> bool:
    """Return whether the name of a model is a path in the container or an address."""
    return text.startswith(("/", "./", "../")) or "://" in text or text.count("/") > 1


def is_only_a_path(pieces: Pieces) -> bool:
    """Return whether the model is a path in the container, and nothing in the manifests puts weights there."""
    path = pieces.model.value
    file, hf_id = posixpath.basename(path), _id_in_cache(path)
    if hf_id and any(hf_id in str(node.value) for _, node in pieces.texts()):
        return False
    return is_path(path) and not (_download_source(pieces, file) if pieces.runtime.gguf else _id_of_path(pieces, path))


def _id_of_path(pieces: Pieces, path: str) -> str:
    """The id of the model at a path: the id in the endpoint's manifests that ends with the last part of the path."""
    if not is_path(path):
        return ""
    last = posixpath.basename(path.rstrip("/"))
    paths = {
        id(node)
        for mapping in mappings(pieces.candidate.subject)
        for key in ("volumeMounts", "volumes")
        for node in scalars(items(find(mapping, key)))
    }
    ids = {
        match[0]
        for _, node in pieces.texts()
        if id(node) not in paths
        for match in re.finditer(rf"(?<![\w./-])[A-Za-z0-9][\w.-]*/{re.escape(last)}(?![\w./-])", str(node.value))
    }
    return ids.pop() if len(ids) == 1 and last else _id_downloaded_to(pieces, path)


def _id_downloaded_to(pieces: Pieces, path: str) -> str:
    """The id that an initContainer downloads to a path, if variables contain the id and the path."""
    configured = {
        str(key.value): str(node.value)
        for located in pieces.related
        for key, node in entries(find(located.node, "data"))
        if isinstance(node, ScalarNode)
    }
    ids = set()
    for init in items(find(pieces.pod, "initContainers")):
        script = " ".join(
            str(scalar.value) for key in ("command", "args") for scalar in scalars(items(find(init, key)))
        )
        own_values = {name: site.value for name, site in own_variables(init, pieces.deployment.document).items()}
        names_read = {name for match in _USED.finditer(script) for name in match.groups() if name}
        values = {
            variables[name].rstrip("/")
            for variables in (configured | own_values,)
            for name in names_read & variables.keys()
        }
        if _FETCHES.search(script) and path.rstrip("/") in values:
            ids |= {text for text in values if HF_ID.fullmatch(text)}
    return ids.pop() if len(ids) == 1 else ""


def _id_in_cache(path: str) -> str:
    """The id of a model in huggingface_hub's cache."""
    match = _HUB_CACHE.search(path)
    return "/".join(match.groups()) if match else ""


def _id_of_directories(path: str) -> str:
    """The id from the last two directories of a path, a common layout of a volume with several models."""
    parts = path.strip("/").split("/")
    if not path.startswith("/") or len(parts) < 3 or parts[-2].lower() in _PLACES or not re.search(r"\d", parts[-1]):
        return ""
    return "/".join(parts[-2:]) if HF_ID.fullmatch("/".join(parts[-2:])) else ""


def _download_source(pieces: Pieces, file: str) -> str:
    """The repository that a file is downloaded from."""
    repositories = set()
    for _, node in pieces.texts():
        for match in _DOWNLOADED.finditer(str(node.value)):
            name = posixpath.basename(match["urlfile"] or match["clifile"] or "")
            if name == file:
                repositories.add(match["url"] or match["cli"])
    return repositories.pop() if len(repositories) == 1 else ""


def _format(name: str) -> str:
    """The quantization in a GGUF file's name, like `Q4_K_M`."""
    matches = list(GGUF_FORMAT.finditer(name))
    return matches[-1][0] if matches else ""


def name_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """A pattern for these names as whole words: also after `hf://` and in addresses, but not in a longer name or path."""
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(
        rf"(?:(?<![\w./-])|(?<=hf://)|(?<=huggingface\.co/)|(?<=:-)|(?<=/)(?=[^/]*\.gguf))(?:{alternatives})(?![\w-]|\.\w|/(?!resolve/|raw/|tree/))"
    )


def naming(pieces: Pieces, facts: ModelFacts, file: str) -> Naming:
    """The names that replace the current model's names; `file` is the new GGUF file. Raises ManifestError if they are unknown."""
    old, path, new = model_of(pieces), pieces.model.value, facts.hf_id
    if _id_in_cache(path):
        return _naming_in_cache(pieces, old, facts, file)
    if pieces.runtime.gguf:
        return _naming_of_file(pieces, old, new, file)
    if not is_path(path):
        return Naming(new, {path: new})
    if path.startswith("oci://"):
        raise ManifestError(
            f"{pieces.name} serves the image {path}, which contains its weights: write the image of another model into "
            f"{pieces.deployment.document.path} by hand."
        )
    last = posixpath.basename(path.rstrip("/"))
    if old.hf_id == path and not re.search(r"\d", last):
        raise ManifestError(
            f"{pieces.name} serves {path}, and its manifests do not show which model this is or where it comes from: "
            f"change {pieces.deployment.document.path} by hand."
        )
    name = new if _id_of_directories(path.rstrip("/")) == old.hf_id else posixpath.basename(new)
    parent = path.rstrip("/").removesuffix(old.hf_id if name == new else last)
    new_path = f"{parent}{name}{'/' if path.endswith('/') else ''}"
    renames = {path: new_path, path.rstrip("/"): new_path.rstrip("/")}
    return Naming(new_path, renames if old.hf_id == path else {**renames, old.hf_id: new})


def _naming_in_cache(pieces: Pieces, old: Model, facts: ModelFacts, file: str) -> Naming:
    """The corresponding path in huggingface_hub's cache, and the new names for the download."""
    old_path, new = pieces.model.value, facts.hf_id
    path = _HUB_CACHE.sub(f"models--{new.replace('/', '--')}", old_path)
    if re.search(r"/snapshots/[0-9a-f]{40}(?=/|$)", path):
        path = re.sub(r"(?<=/snapshots/)[0-9a-f]{40}", facts.revision or "main", path)
    if file and re.search(r"\d", old.file):  # a specific name, not `model.gguf`
        path = posixpath.join(posixpath.dirname(path), posixpath.basename(file))
    marks = {
        match[0]: f"{new}:{_format(file)}"
        for _, node in pieces.texts()
        for match in re.finditer(rf"(?<![\w./-]){re.escape(old.hf_id)}:[\w-]+", str(node.value))
    }
    return Naming(path, {old_path: path, old.hf_id: new, **(marks if _format(file) else {})})


def _naming_of_file(pieces: Pieces, old: Model, new: str, file: str) -> Naming:
    old_value = pieces.model.value
    mark = _format(file)
    if pieces.model.name == "--hf-repo":
        new_value = f"{new}:{mark}" if ":" in old_value and mark else new
        renames = {old_value: new_value}
        if old.file:
            renames[old.file] = file
        return Naming(new_value, renames)
    folder = posixpath.dirname(old_value)
    if _GGUF.search(folder):  # the directory is named after the repository
        parent = folder.removesuffix(old.hf_id) if _id_of_directories(folder) == old.hf_id else ""
        folder = f"{parent}{new}" if parent else posixpath.join(posixpath.dirname(folder), posixpath.basename(new))
    path = posixpath.join(folder, posixpath.basename(file)) if folder else posixpath.basename(file)
    renames = {old_value: path, old.file: posixpath.basename(file)}
    return Naming(path, renames if old.hf_id == old_value else {**renames, old.hf_id: new})
