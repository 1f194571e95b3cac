"""What the files of a repository come to in the cluster, as kustomize and the deployers render them.

As much of kustomize as platforms use: resources and bases, namespace, prefix and suffix, replicas, patches, generated
ConfigMaps (kubectl.docs.kubernetes.io/references/kustomize/kustomization). Charts of the repository are in `charts`.
"""

import posixpath
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sandbox.objects import BY_KIND, Object, copied, json_patch, merge_patch

FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")


class RenderError(Exception):
    """Why the files cannot be rendered, with the tool's message."""


def load(text: str) -> Any:
    return next(iter(_parsed(text)), None)


def documents(text: str) -> list[Object]:
    return [copied(document) for document in _parsed(text) if isinstance(document, dict)]


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[Any, ...]:
    """The documents of a file: the same few files are compared and rendered again and again."""
    try:
        return tuple(YAML(typ="safe").load_all(text))
    except YAMLError as error:
        raise RenderError(f"failed to unmarshal manifest: {error}") from error


def directory(path: str, files: Mapping[str, str], *, recurse: bool = True) -> list[Object]:
    """The objects below a directory: those in its kustomization, or every manifest in it (and below it)."""
    if any(f"{path}/{name}".lstrip("/") in files for name in FILES):
        return kustomize(path, files)
    found: list[Object] = []
    for name, text in sorted(files.items()):
        inside = name.removeprefix(f"{path}/" if path else "")
        if inside == name and path:
            continue
        if name.endswith((".yaml", ".yml", ".json")) and (recurse or "/" not in inside):
            found += [each for each in documents(text) if each.get("kind")]
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


def kustomize(path: str, files: Mapping[str, str]) -> list[Object]:
    listed = next((files[each] for name in FILES if (each := f"{path}/{name}".lstrip("/")) in files), None)
    if listed is None:
        raise RenderError(f"kustomize build {path} failed: no kustomization file")
    own = load(listed) or {}
    made: list[Object] = []
    for resource in (*(own.get("resources") or ()), *(own.get("bases") or ()), *(own.get("components") or ())):
        if "://" in str(resource):
            continue  # a remote base; the sandbox has no other network
        wanted = posixpath.normpath(posixpath.join(path, str(resource)))
        if wanted in files:
            made += documents(files[wanted])
        elif any(each.startswith(f"{wanted}/") for each in files):
            made += kustomize(wanted, files)
        else:
            raise RenderError(f"kustomize build {path} failed: {resource}: no such file or directory")
    made += [_config_map(each, path, files) for each in own.get("configMapGenerator") or ()]
    for patch in (*(own.get("patches") or ()), *(own.get("patchesStrategicMerge") or ())):
        _patch(made, patch, path, files)
    replicas = {each["name"]: each["count"] for each in own.get("replicas") or ()}
    for manifest in made:
        meta = manifest.setdefault("metadata", {})
        if meta.get("name") in replicas and manifest.get("kind") == "Deployment":
            manifest["spec"]["replicas"] = replicas[meta["name"]]
        meta["name"] = f"{own.get('namePrefix', '')}{meta.get('name', '')}{own.get('nameSuffix', '')}"
        is_namespaced = manifest["kind"] not in BY_KIND or BY_KIND[manifest["kind"]].namespaced
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
    for change in _parsed(file or text):
        of = target or {"kind": change.get("kind"), "name": (change.get("metadata") or {}).get("name")}
        for manifest in made:
            fits = of.get("kind") in (None, manifest["kind"]) and of.get("name") in (None, manifest["metadata"]["name"])
            if fits and isinstance(change, list):
                json_patch(manifest, copied(change))
            elif fits:
                merge_patch(manifest, copied(change))


def known(manifest: Object) -> bool:
    """Whether the sandbox's API serves objects of this kind: kustomize's own files have the same kind name as Flux's."""
    resource = BY_KIND.get(manifest.get("kind", ""))
    group = str(manifest.get("apiVersion", "")).rpartition("/")[0]
    return resource is not None and group in (resource.group, "")


def app_template(release: str, values: Object) -> list[Object]:
    """The Deployments and Services of bjw-s' app-template (v4), the generic chart of many home clusters.

    A controller has the release's name if it is the only one, or if its own name is the same, otherwise both names.
    """
    controllers = values.get("controllers") or {}
    made: list[Object] = []
    for key, controller in controllers.items():
        name = release if key == release or len(controllers) == 1 else f"{release}-{key}"
        labels = {"app.kubernetes.io/instance": release, "app.kubernetes.io/controller": key}
        containers = [_container(each, said) for each, said in (controller.get("containers") or {}).items()]
        inits = [_container(each, said) for each, said in (controller.get("initContainers") or {}).items()]
        pod: Object = {"containers": containers} | ({"initContainers": inits} if inits else {})
        spec = {
            "replicas": controller.get("replicas", 1),
            "strategy": {"type": controller.get("strategy", "Recreate")},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        meta = {"name": name, "labels": {"app.kubernetes.io/name": release, **labels}}
        made.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
    services = values.get("service") or {}
    for key, service in services.items():
        name = release if len(services) == 1 else f"{release}-{key}"
        controller_name = service.get("controller") or next(iter(controllers), key)
        labels = {"app.kubernetes.io/instance": release, "app.kubernetes.io/controller": controller_name}
        ports = [{"name": each, "port": said["port"]} for each, said in (service.get("ports") or {}).items()]
        made.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"selector": labels, "ports": ports},
            }
        )
    return made


def _container(name: str, said: Object) -> Object:
    image = said.get("image") or {}
    env = said.get("env") or {}
    variables = [{"name": key, "value": str(value)} for key, value in env.items()] if isinstance(env, dict) else env
    made = {"name": name, "image": f"{image.get('repository', '')}:{image.get('tag', 'latest')}", "env": variables}
    return made | {key: said[key] for key in ("command", "args", "resources") if key in said}
