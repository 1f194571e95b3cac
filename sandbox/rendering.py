"""The objects that kustomize and the deployers render from the files of a repository.

As much of kustomize as platforms use: resources and bases, namespace, prefix and suffix, replicas, patches, generated
ConfigMaps (kubectl.docs.kubernetes.io/references/kustomize/kustomization). Charts of the repository are in `charts`.
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
"""Kustomizations below each other."""


class RenderError(Exception):
    """The files cannot be rendered; has the tool's message."""


UNUSUAL = (RenderError, ApiError, LookupError, TypeError, ValueError, AttributeError)
"""Errors of a repository with unexpected content: they affect one object of a deployer, and no others."""


def message_of(error: Exception) -> str:
    """The message of an error of a deployer."""
    if isinstance(error, RenderError | ApiError):
        return str(error)
    return f"the sandbox cannot render this: {type(error).__name__}: {error}"


def load(text: str) -> Any:
    return next(iter(_parse(text)), None)


def documents(text: str) -> list[Object]:
    return [copied(document) for document in _parse(text) if isinstance(document, dict)]


@lru_cache(maxsize=1024)
def _parse(text: str) -> tuple[Any, ...]:
    """The documents of a file: the same few files are compared and rendered again and again."""
    try:
        return tuple(YAML(typ="safe").load_all(text))
    except YAMLError as error:
        raise RenderError(f"failed to unmarshal manifest: {error}") from error


def directory(path: str, files: Mapping[str, str], *, recurse: bool = True) -> list[Object]:
    """The objects below a directory: those in its kustomization, or every manifest in it (and below it)."""
    if _has_own(path, files):
        return kustomize(path, files)
    found: list[Object] = []
    for name, text in sorted(files.items()):
        inside = name.removeprefix(f"{path}/" if path else "")
        if inside == name and path:
            continue
        if name.endswith((".yaml", ".yml", ".json")) and (recurse or "/" not in inside):
            found += [each for each in documents(text) if each.get("kind")]
    return found


def generated(path: str, files: Mapping[str, str], components: Sequence[str] = ()) -> list[Object]:
    """The objects of a Kustomization of Flux. Without a kustomization there, it makes one of every manifest below, and of
    every directory with one, into which it does not look further (`scanManifests` in fluxcd/pkg/kustomize).
    """
    made = kustomize(path, files) if _has_own(path, files) else _scan(path, files)
    for component in components:
        made = kustomize(component, files, made)
    return made


def _scan(path: str, files: Mapping[str, str]) -> list[Object]:
    with_own = {posixpath.dirname(name) for name in files if posixpath.basename(name) in FILES}
    made: list[Object] = []
    done: set[str] = set()
    for name in sorted(name for name in files if name.startswith(f"{path}/" if path else "")):
        above = next((each for each in _parents(name, path) if each in with_own), None)
        if above is not None and above not in done:
            done.add(above)
            made += kustomize(above, files)
        elif above is None and name.endswith((".yaml", ".yml")):
            made += [each for each in documents(files[name]) if each.get("kind")]
    return made


def _has_own(path: str, files: Mapping[str, str]) -> bool:
    return any(f"{path}/{name}".lstrip("/") in files for name in FILES)


def _parents(name: str, top: str) -> list[str]:
    """The directories from below `top` to that of the file, outermost first."""
    found = [posixpath.dirname(name)]
    while found[-1] not in ("", top):
        found.append(posixpath.dirname(found[-1]))
    return found[-2::-1]


def placed(files: Mapping[str, str]) -> dict[str, str]:
    """The namespace that a kustomization gives to the objects of a file, for each file that one lists."""
    own = {name: load(text) or {} for name, text in files.items() if posixpath.basename(name) in FILES}
    lists: dict[str, list[str]] = {}
    for name, said in own.items():
        resources = (str(each) for key in ("resources", "bases") for each in said.get(key) or ())
        folder = posixpath.dirname(name)
        lists[folder] = [posixpath.normpath(posixpath.join(folder, each)) for each in resources]
    found: dict[str, str] = {}

    def give(folder: str, namespace: str, depth: int = 0) -> None:
        for each in lists.get(folder, ()) if depth < _DEEPEST else ():
            found[each] = namespace
            give(each, namespace, depth + 1)

    for name, said in sorted(own.items(), key=lambda item: -item[0].count("/")):  # the outermost is right
        if said.get("namespace"):
            give(posixpath.dirname(name), str(said["namespace"]))
    return found


def read_by(path: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files that rendering a directory reads: those below it, and below directories in their kustomizations."""
    read: dict[str, str] = {}
    todo = [path]
    while todo:
        below = todo.pop()
        found = {name: text for name, text in files.items() if name == below or name.startswith(f"{below}/")}
        for name, text in found.items():
            if name not in read and posixpath.basename(name) in FILES:
                own = load(text) or {}
                listed = (own.get(key) or () for key in ("resources", "bases", "components"))
                todo += [
                    posixpath.normpath(posixpath.join(posixpath.dirname(name), str(each)))
                    for some in listed
                    for each in some
                ]
        read |= found
    return read


def kustomize(path: str, files: Mapping[str, str], into: list[Object] | None = None) -> list[Object]:
    """The objects of a kustomization. A component (`into`) also changes the objects of the one that lists it."""
    listed = next((files[each] for name in FILES if (each := f"{path}/{name}".lstrip("/")) in files), None)
    if listed is None:
        raise RenderError(f"kustomize build {path} failed: no kustomization file")
    own = load(listed) or {}
    made: list[Object] = []
    for resource in (*(own.get("resources") or ()), *(own.get("bases") or ())):
        if "://" in str(resource) or str(resource).startswith("github.com/"):
            continue  # a remote base; the sandbox has no other network
        wanted = posixpath.normpath(posixpath.join(path, str(resource)))
        if wanted in files:
            made += [each for each in documents(files[wanted]) if each.get("kind")]
        elif any(each.startswith(f"{wanted}/") for each in files):
            made += kustomize(wanted, files)
        else:
            raise RenderError(f"kustomize build {path} failed: {resource}: no such file or directory")
    made += [_config_map(each, path, files) for each in own.get("configMapGenerator") or ()]
    made = [*(into or ()), *made]
    for component in own.get("components") or ():
        wanted = posixpath.normpath(posixpath.join(path, str(component)))
        made = kustomize(wanted, files, made) if "://" not in str(component) else made
    for patch in (*(own.get("patches") or ()), *(own.get("patchesStrategicMerge") or ())):
        _patch(made, patch, path, files)
    for patch in own.get("patchesJson6902") or ():
        _patch(made, patch, path, files)
    replicas = {each["name"]: each["count"] for each in own.get("replicas") or ()}
    for manifest in made:
        meta = manifest.setdefault("metadata", {})
        if meta.get("name") in replicas and manifest.get("kind") == "Deployment":
            manifest["spec"]["replicas"] = replicas[meta["name"]]
        meta["name"] = f"{own.get('namePrefix', '')}{meta.get('name', '')}{own.get('nameSuffix', '')}"
        is_namespaced = manifest["kind"] not in BY_KIND or BY_KIND[manifest["kind"]].namespaced
        if own.get("namespace") and manifest["kind"] == "Namespace":
            meta["name"] = own["namespace"]  # as kustomize's namespace transformer does
        if own.get("namespace") and is_namespaced:
            meta["namespace"] = own["namespace"]
    return made


def _config_map(generator: Object, path: str, files: Mapping[str, str]) -> Object:
    """Without the hash that kustomize adds to its name: nothing here uses it."""
    data = dict(each.partition("=")[::2] for each in generator.get("literals") or ())
    for each in generator.get("files") or ():
        key, equals, file = each.partition("=")
        name = posixpath.normpath(posixpath.join(path, file if equals else key))
        data[key if equals else posixpath.basename(key)] = files.get(name, "")
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}


def _patch(made: list[Object], patch: Any, path: str, files: Mapping[str, str]) -> None:
    text = patch if isinstance(patch, str) else patch.get("patch") or ""
    named = patch if isinstance(patch, str) else patch.get("path") or ""
    file = files.get(posixpath.normpath(posixpath.join(path, named))) if named and "\n" not in named else None
    target = {} if isinstance(patch, str) else patch.get("target") or {}
    for change in _parse(file or text):
        of = target or {"kind": change.get("kind"), "name": (change.get("metadata") or {}).get("name")}
        for manifest in made:
            fits = of.get("kind") in (None, manifest["kind"]) and _is_named(
                of.get("name"), manifest["metadata"]["name"]
            )
            if fits and isinstance(change, list):
                json_patch(manifest, copied(change))
            elif fits:
                _strategic(manifest, copied({key: each for key, each in change.items() if key != "metadata"}))
                _strategic(manifest["metadata"], _without_name(change.get("metadata") or {}))


def _is_named(wanted: Any, name: str) -> bool:
    """A target's name is a regular expression for the whole name."""
    return wanted is None or re.fullmatch(str(wanted), name) is not None


def _without_name(meta: Object) -> Object:
    return copied({key: each for key, each in meta.items() if key not in ("name", "namespace")})


_BY_KEY = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}
"""The lists of a pod that a strategic merge patch merges by a key of their entries."""


def _strategic(target: Object, patch: Object) -> None:
    """A strategic merge patch, in place: like a merge patch, but with the lists of a pod merged by their key."""
    for name, value in patch.items():
        key, kept = _BY_KEY.get(name), target.get(name)
        if isinstance(value, dict) and isinstance(kept, dict):
            _strategic(kept, value)
        elif key and isinstance(kept, list) and all(isinstance(each, dict) and key in each for each in (*kept, *value)):
            for each in value:
                same = next((other for other in kept if other[key] == each[key]), None)
                if each.get("$patch") == "delete":
                    kept[:] = [other for other in kept if other is not same]
                elif same is not None:
                    _strategic(same, each)
                else:
                    kept.append(each)
        else:
            merge_patch(target, {name: value})


def known(manifest: Object) -> bool:
    """Return whether the sandbox's API serves objects of this kind: kustomize's own files have the same kind name as Flux's."""
    resource = BY_KIND.get(manifest.get("kind", ""))
    group = str(manifest.get("apiVersion", "")).rpartition("/")[0]
    return resource is not None and group in (resource.group, "")
