"""The Applications that an ApplicationSet of Argo CD generates: one for each directory, file or element of its generators.

Sources: argo-cd.readthedocs.io/en/stable/operator-manual/applicationset (git directory and file generators, list, Go
templates, templatePatch). Only the Go templates that ApplicationSets over git directories use are supported:
paths, and `if` with `eq`.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from sandbox.objects import Object, copied, merge_patch
from sandbox.rendering import documents, load

Parameters = dict[str, str]


def generated_applications(application_set: Object, files: Mapping[str, str]) -> list[Object]:
    spec = application_set["spec"]
    applications = []
    for parameters in _parameters(spec.get("generators") or (), files):
        application = _substitute(copied(spec["template"]), parameters)
        if patch := spec.get("templatePatch"):
            for change in documents(_text(_conditions(patch, parameters), parameters)):
                merge_patch(application, change)
        applications.append({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", **application})
    return applications


def _parameters(generators: Any, files: Mapping[str, str]) -> Iterator[Parameters]:
    for generator in generators:
        git, elements = generator.get("git") or {}, (generator.get("list") or {}).get("elements") or ()
        for element in elements:
            yield {str(key): str(value) for key, value in element.items()}
        yield from _directories(git.get("directories") or (), files)
        for file_generator in git.get("files") or ():
            for path in sorted(files):
                if fnmatchcase(path, file_generator["path"]):
                    content = load(files[path])
                    flat = {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}
                    yield _path_parameters(posixpath.dirname(path)) | flat


def _directories(patterns: Any, files: Mapping[str, str]) -> Iterator[Parameters]:
    every = {parent for path in files for parent in _parents(path)}
    for path in sorted(every):
        fits = [
            pattern
            for pattern in patterns
            if path.count("/") == pattern["path"].count("/") and fnmatchcase(path, pattern["path"])
        ]
        if fits and not any(pattern.get("exclude") for pattern in fits):
            yield _path_parameters(path)


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def _path_parameters(path: str) -> Parameters:
    return {"path": path, "path.path": path, "path.basename": posixpath.basename(path)}


def _substitute(value: Any, parameters: Parameters) -> Any:
    if isinstance(value, dict):
        return {key: _substitute(child, parameters) for key, child in value.items()}
    if isinstance(value, list):
        return [_substitute(child, parameters) for child in value]
    return _text(value, parameters) if isinstance(value, str) else value


def _text(text: str, parameters: Parameters) -> str:
    return re.sub(r"\{\{-? *\.?([\w.]+) *-?\}\}", lambda match: parameters.get(match[1], ""), text)


def _conditions(text: str, parameters: Parameters) -> str:
    def block(match: re.Match[str]) -> str:
        holds = [parameters.get(name) == literal for name, literal in re.findall(r'eq \.([\w.]+) "([^"]*)"', match[1])]
        every = " and " in f" {match[1]} " or match[1].strip().startswith("and")
        return match[2] if holds and (all(holds) if every else any(holds)) else ""

    return re.sub(r"\{\{-? *if (.*?)-?\}\}(.*?)\{\{-? *end *-?\}\}", block, text, flags=re.DOTALL)
