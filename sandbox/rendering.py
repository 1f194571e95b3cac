"""Renders the files of a repository to objects, like kustomize and the deployers.

It supports the parts of kustomize that platforms use: resources and bases, namespace, prefix and suffix, replicas,
patches, generated ConfigMaps (kubectl.docs.kubernetes.io/references/kustomize/kustomization). `charts` renders charts
in the repository.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sandbox.objects import BY_KIND, ApiError, Object, copied, json_patch, merge_patch

FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_DEEPEST = 20
"""Maximum depth of kustomizations that include each other."""


class RenderError(Exception):
    """The files cannot be rendered; the message is the tool's."""


UNUSUAL = (RenderError, ApiError, LookupError, TypeError, ValueError, AttributeError)
"""Errors that unexpected content of a repository causes. Each may affect only one object of a deployer."""


def message_of(error: Exception) -> str:
    """Return the message for the status of a deployer's object."""
    if isinstance(error, RenderError | ApiError):
        return str(error)
    return f"the sandbox cannot render this: {type(error).__name__}: {error}"


def load(text: str) -> Any:
    return next(iter(_parse(text)), None)


def documents(text: str) -> list[Object]:
    return [copied(document) for document in _parse(text) if isinstance(document, dict)]


@lru_cache(maxsize=1024)
def _parse(text: str) -> tuple[Any, ...]:
    """Parse the documents of a file; cached, because the same few files are rendered repeatedly."""
    try:
        return tuple(YAML(typ="safe").load_all(text))
    except YAMLError as error:
        raise RenderError(f"failed to unmarshal manifest: {error}") from error


def directory(path: str, files: Mapping[str, str], *, recurse: bool = True) -> list[Object]:
    """Return the objects of a directory's kustomization, or every manifest in it (and below it, with `recurse`)."""
    if _has_own(path, files):
        return kustomize(path, files)
    manifests: list[Object] = []
    for name, text in sorted(files.items()):
        inside = name.removeprefix(f"{path}/" if path else "")
        if inside == name and path:
            continue
        if name.endswith((".yaml", ".yml", ".json")) and (recurse or "/" not in inside):
            manifests += [manifest for manifest in documents(text) if manifest.get("kind")]
    return manifests


def generated(path: str, files: Mapping[str, str], components: Sequence[str] = ()) -> list[Object]:
    """Return the objects of a Kustomization of Flux.

    If the directory has no kustomization, Flux generates one with every manifest below it. A subdirectory with its own
    kustomization is included as a whole (`scanManifests` in fluxcd/pkg/kustomize).
    """
    manifests = kustomize(path, files) if _has_own(path, files) else _scan(path, files)
    for component in components:
        manifests = kustomize(component, files, manifests)
    return manifests


def _scan(path: str, files: Mapping[str, str]) -> list[Object]:
    with_own = {posixpath.dirname(name) for name in files if posixpath.basename(name) in FILES}
    manifests: list[Object] = []
    rendered: set[str] = set()
    for name in sorted(name for name in files if name.startswith(f"{path}/" if path else "")):
        parent_with_own = next((parent for parent in _parents(name, path) if parent in with_own), None)
        if parent_with_own is not None and parent_with_own not in rendered:
            rendered.add(parent_with_own)
            manifests += kustomize(parent_with_own, files)
        elif parent_with_own is None and name.endswith((".yaml", ".yml")):
            manifests += [manifest for manifest in documents(files[name]) if manifest.get("kind")]
    return manifests


def _has_own(path: str, files: Mapping[str, str]) -> bool:
    return any(f"{path}/{name}".lstrip("/") in files for name in FILES)


def _parents(name: str, top: str) -> list[str]:
    """Return the directories between `top` and the file, outermost first."""
    parents = [posixpath.dirname(name)]
    while parents[-1] not in ("", top):
        parents.append(posixpath.dirname(parents[-1]))
    return parents[-2::-1]


def placed(files: Mapping[str, str]) -> dict[str, str]:
    """Return the namespaces that kustomizations set, by the path of each file that they list."""
    kustomizations = {name: load(text) or {} for name, text in files.items() if posixpath.basename(name) in FILES}
    lists: dict[str, list[str]] = {}
    for name, kustomization in kustomizations.items():
        resources = (str(resource) for key in ("resources", "bases") for resource in kustomization.get(key) or ())
        folder = posixpath.dirname(name)
        lists[folder] = [posixpath.normpath(posixpath.join(folder, resource)) for resource in resources]
    namespaces: dict[str, str] = {}

    def set_namespace(folder: str, namespace: str, depth: int = 0) -> None:
        for listed in lists.get(folder, ()) if depth < _DEEPEST else ():
            namespaces[listed] = namespace
            set_namespace(listed, namespace, depth + 1)

    for name, kustomization in sorted(
        kustomizations.items(), key=lambda item: -item[0].count("/")
    ):  # the outermost kustomization takes precedence
        if kustomization.get("namespace"):
            set_namespace(posixpath.dirname(name), str(kustomization["namespace"]))
    return namespaces


def read_by(path: str, files: Mapping[str, str]) -> dict[str, str]:
    """Return the files that rendering a directory reads: those below it, and below directories in their kustomizations."""
    read: dict[str, str] = {}
    folders = [path]
    while folders:
        folder = folders.pop()
        read_here = {name: text for name, text in files.items() if name == folder or name.startswith(f"{folder}/")}
        for name, text in read_here.items():
            if name not in read and posixpath.basename(name) in FILES:
                kustomization = load(text) or {}
                listed = (kustomization.get(key) or () for key in ("resources", "bases", "components"))
                folders += [
                    posixpath.normpath(posixpath.join(posixpath.dirname(name), str(resource)))
                    for resources in listed
                    for resource in resources
                ]
        read |= read_here
    return read


def kustomize(path: str, files: Mapping[str, str], into: list[Object] | None = None) -> list[Object]:
    """Return the objects of a kustomization.

    A component also changes `into`, the objects of the kustomization that lists it.
    """
    listed = next((files[candidate] for name in FILES if (candidate := f"{path}/{name}".lstrip("/")) in files), None)
    if listed is None:
        raise RenderError(f"kustomize build {path} failed: no kustomization file")
    kustomization = load(listed) or {}
    manifests: list[Object] = []
    for resource in (*(kustomization.get("resources") or ()), *(kustomization.get("bases") or ())):
        if "://" in str(resource) or str(resource).startswith("github.com/"):
            continue  # a remote base, which the sandbox cannot read
        target = posixpath.normpath(posixpath.join(path, str(resource)))
        if target in files:
            manifests += [manifest for manifest in documents(files[target]) if manifest.get("kind")]
        elif any(file.startswith(f"{target}/") for file in files):
            manifests += kustomize(target, files)
        else:
            raise RenderError(f"kustomize build {path} failed: {resource}: no such file or directory")
    manifests += [_config_map(generator, path, files) for generator in kustomization.get("configMapGenerator") or ()]
    manifests = [*(into or ()), *manifests]
    for component in kustomization.get("components") or ():
        target = posixpath.normpath(posixpath.join(path, str(component)))
        manifests = kustomize(target, files, manifests) if "://" not in str(component) else manifests
    for patch in (*(kustomization.get("patches") or ()), *(kustomization.get("patchesStrategicMerge") or ())):
        _patch(manifests, patch, path, files)
    for patch in kustomization.get("patchesJson6902") or ():
        _patch(manifests, patch, path, files)
    _transform(manifests, kustomization)
    return manifests


def _transform(manifests: list[Object], kustomization: Object) -> None:
    """Set the replicas, names and namespaces of a kustomization."""
    replicas = {entry["name"]: entry["count"] for entry in kustomization.get("replicas") or ()}
    namespace = kustomization.get("namespace")
    for manifest in manifests:
        meta = manifest.setdefault("metadata", {})
        if meta.get("name") in replicas and manifest.get("kind") == "Deployment":
            manifest["spec"]["replicas"] = replicas[meta["name"]]
        meta["name"] = (
            f"{kustomization.get('namePrefix', '')}{meta.get('name', '')}{kustomization.get('nameSuffix', '')}"
        )
        is_namespaced = manifest["kind"] not in BY_KIND or BY_KIND[manifest["kind"]].namespaced
        if namespace and manifest["kind"] == "Namespace":
            meta["name"] = namespace  # as kustomize's namespace transformer does
        if namespace and is_namespaced:
            meta["namespace"] = namespace


def _config_map(generator: Object, path: str, files: Mapping[str, str]) -> Object:
    """Return a generated ConfigMap, without the hash that kustomize adds to its name."""
    data = dict(literal.partition("=")[::2] for literal in generator.get("literals") or ())
    for file_entry in generator.get("files") or ():
        key, equals, file = file_entry.partition("=")
        name = posixpath.normpath(posixpath.join(path, file if equals else key))
        data[key if equals else posixpath.basename(key)] = files.get(name, "")
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}


def _patch(manifests: list[Object], patch: Any, path: str, files: Mapping[str, str]) -> None:
    text = patch if isinstance(patch, str) else patch.get("patch") or ""
    named = patch if isinstance(patch, str) else patch.get("path") or ""
    file = files.get(posixpath.normpath(posixpath.join(path, named))) if named and "\n" not in named else None
    target = {} if isinstance(patch, str) else patch.get("target") or {}
    for change in _parse(file or text):
        selector = target or {"kind": change.get("kind"), "name": (change.get("metadata") or {}).get("name")}
        for manifest in manifests:
            fits = selector.get("kind") in (None, manifest["kind"]) and _is_named(
                selector.get("name"), manifest["metadata"]["name"]
            )
            if fits and isinstance(change, list):
                json_patch(manifest, copied(change))
            elif fits:
                _strategic(manifest, copied({key: value for key, value in change.items() if key != "metadata"}))
                _strategic(manifest["metadata"], _without_name(change.get("metadata") or {}))


def _is_named(pattern: Any, name: str) -> bool:
    """Return whether an object has a target's name, which is a regular expression for the whole name."""
    return pattern is None or re.fullmatch(str(pattern), name) is not None


def _without_name(meta: Object) -> Object:
    return copied({key: value for key, value in meta.items() if key not in ("name", "namespace")})


_BY_KEY = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}
"""The lists of a pod that a strategic merge patch merges by a key of their entries."""


def _strategic(target: Object, patch: Object) -> None:
    """Apply a strategic merge patch in place: a merge patch that merges the lists of a pod by their key."""
    for name, value in patch.items():
        key, current = _BY_KEY.get(name), target.get(name)
        if isinstance(value, dict) and isinstance(current, dict):
            _strategic(current, value)
        elif (
            key
            and isinstance(current, list)
            and all(isinstance(entry, dict) and key in entry for entry in (*current, *value))
        ):
            for entry in value:
                same = next((existing for existing in current if existing[key] == entry[key]), None)
                if entry.get("$patch") == "delete":
                    current[:] = [existing for existing in current if existing is not same]
                elif same is not None:
                    _strategic(same, entry)
                else:
                    current.append(entry)
        else:
            merge_patch(target, {name: value})


def known(manifest: Object) -> bool:
    """Return whether the sandbox's API serves this kind and group. kustomize's files have the same kind as Flux's objects."""
    resource = BY_KIND.get(manifest.get("kind", ""))
    group = str(manifest.get("apiVersion", "")).rpartition("/")[0]
    return resource is not None and group in (resource.group, "")
