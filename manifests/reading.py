"""Read the content of an endpoint on a branch as it will be after the merge, for the card and the approvers.

The bot has its own plan, but other commits on the branch are visible only in the branch.
"""

import re
from collections.abc import Collection, Mapping

from pydantic import BaseModel

from manifests.arguments import MODEL_FLAGS
from manifests.contract import ModelEndpoint, describe
from manifests.deployed import documents, leaves
from manifests.edit import InvalidYaml, find, items, value
from manifests.layout import Layout
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.review import contract_rows
from manifests.risks import VARIABLES, danger_of
from manifests.rules import check
from manifests.strays import Touch, is_large, unrelated_content, unrelated_files
from manifests.tree import ManifestError

_IN_ROWS = (
    *MODEL_FLAGS,
    "--served-model-name",
    "--quantization",
    "--max-model-len",
    "--gpu-memory-utilization",
)
"""Arguments that the contract's rows already show."""
_STORAGE = "spec.resources.requests.storage"
_POD = "spec.template.spec."
_POWERS = (
    "privileged",
    "allowPrivilegeEscalation",
    "capabilities",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostPath",
    "runAsUser",
    "runAsNonRoot",
    "serviceAccountName",
    "automountServiceAccountToken",
    "command",
    "lifecycle",
)
"""Fields of a pod that grant more rights than serving a model needs."""


class Reading(BaseModel, frozen=True, defer_build=True):
    """The content of the files: the rows of the contract and of every further difference, the warnings, and the problems.

    A problem prevents an approval.
    """

    rows: tuple[tuple[str, str], ...] = ()
    before: tuple[tuple[str, str], ...] = ()
    """The rows of the contract before the change; empty for a new endpoint."""
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    endpoint: ModelEndpoint | None = None


def read_change(
    before: Platform, after: Platform, name: str, *, template: str, removes: bool,
    touched: Mapping[str, Touch], planned: Collection[str],
) -> Reading:  # fmt: skip
    """The endpoint `name` after merging a branch.

    `template` is the endpoint for the comparison (`name` itself unless it is new). `touched` are the files that the
    branch changes, and `planned` are the files that the bot's own change needs.
    """
    layout = after.layout
    problems: list[str] = []
    try:
        old_pieces = before.locate(template)
        problems += unrelated_files(before, after, name, touched, planned, old_pieces)
        if any(is_large(after, path) for path in touched):
            return Reading(problems=tuple(problems))  # large files are not parsed
        pieces = after.locate(name)
        problems += unrelated_content(before, after, name, touched, pieces, old_pieces)
        if pieces is None:
            place = old_pieces.deployment.document.path if old_pieces and old_pieces.name == name else layout.home(name)
            missing = () if removes else (f"{place}:1: no Deployment here names a model any more.",)
            return Reading(problems=(*problems, *missing))
        endpoint = describe(pieces, layout)
        if removes:
            file = pieces.deployment.document.path
            problems.append(f"{file}:1: this change removes {name}, but its Deployment is still here.")
        problems += _new_findings(before, after, name, template)
        rows, warnings = other_differences(before, after, old_pieces, pieces)
        return Reading(
            rows=(*_contract_rows(pieces, layout), *rows),
            before=_contract_rows(old_pieces, before.layout) if old_pieces and old_pieces.name == name else (),
            warnings=warnings,
            problems=tuple(problems),
            endpoint=endpoint,
        )
    except InvalidYaml as error:
        problems.append(f"{error.path}:{error.line}: this is not valid YAML: {error.problem}.")
    except ManifestError as error:
        problems.append(f"{layout.home(name)}:1: {error}")
    return Reading(problems=tuple(problems))


def _contract_rows(pieces: Pieces, layout: Layout) -> tuple[tuple[str, str], ...]:
    return (*contract_rows(describe(pieces, layout)), ("Image", value(pieces.container, "image")))


def other_differences(
    before: Platform, after: Platform, old_pieces: Pieces | None, new_pieces: Pieces
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Each changed argument and field that is not in the contract's rows, and a warning for each dangerous one.

    A new endpoint is compared with its template; differences that come only from its new names are omitted.
    """
    rows: list[tuple[str, str]] = []
    warnings: list[str] = []
    compared_with = "until now" if old_pieces is None or old_pieces.name == new_pieces.name else "in the template"
    old_flags, new_flags = _flags(old_pieces), _flags(new_pieces)
    for flag in (*new_flags, *(name for name in old_flags if name not in new_flags)):
        old, new = old_flags.get(flag), new_flags.get(flag)
        if old == new or flag in _IN_ROWS:
            continue
        rows.append((f"Argument {flag}", _with_old_value(new, old, compared_with)))
        if new is not None and (reason := danger_of(flag)):
            warnings.append(f"{_argument(flag, new)}: {reason}.")
        if new is not None and "$(" in new.replace("$$", ""):
            warnings.append(
                f"{_argument(flag, new)}: Kubernetes replaces $(NAME) with that variable, even if it is a secret."
            )
    new_names = _renaming(after.layout, old_pieces, new_pieces)
    old_leaves, new_leaves = _leaves(before, old_pieces, new_names), _leaves(after, new_pieces, {})
    for path in (*new_leaves, *(field_path for field_path in old_leaves if field_path not in new_leaves)):
        old, new = old_leaves.get(path), new_leaves.get(path)
        if old == new:
            continue
        if old and new and "snapshot_download" in new and _without_patterns(old) == _without_patterns(new):
            rows.append(("Files to download", _with_old_value(_patterns(new), _patterns(old), compared_with)))
            continue
        if old_pieces is not None:
            rows.append((_short_path(path), _with_old_value(new, old, compared_with)))
        if new is not None and (reason := _danger(path, new)):
            warnings.append(f"{_short_path(path)} = {new}: {reason}.")
    return tuple(rows), tuple(warnings)


def _flags(pieces: Pieces | None) -> dict[str, str]:
    """The values by argument; a repeated argument has all its values, because some arguments collect them."""
    values_by_name: dict[str, list[str]] = {}
    for flag in pieces.flags if pieces else ():
        values_by_name.setdefault(flag.name, []).append(" ".join(flag.values))
    return {name: " ".join(values) for name, values in values_by_name.items()}


def _argument(flag: str, text: str) -> str:
    return f"{flag}={text}" if text else flag


def _with_old_value(new: str | None, old: str | None, compared_with: str) -> str:
    """The new value with the old one. An argument without a value is shown as "on"."""
    return f"{'removed' if new is None else new or 'on'}, {compared_with} {'not given' if old is None else old or 'on'}"


def _renaming(layout: Layout, old_pieces: Pieces | None, new_pieces: Pieces) -> dict[str, str]:
    """Names in the old files with their names in the new files, the longest first."""
    if old_pieces is None:
        return {}
    old, new = describe(old_pieces, layout), describe(new_pieces, layout)
    pairs = {
        old.hf_id: new.hf_id,
        old.served_name: new.served_name,
        old.alias: new.alias,
        old_pieces.name: new_pieces.name,
    }
    return {text: pairs[text] for text in sorted(pairs, key=len, reverse=True) if text and pairs[text]}


def _leaves(platform: Platform, pieces: Pieces | None, new_names: Mapping[str, str]) -> dict[str, str]:
    """Every field of the endpoint's objects, its Application and its gateway entry, by its path.

    Fields that the contract's rows show are left out.
    """
    if pieces is None:
        return {}
    fields: dict[str, str] = {}
    files = (path for path in pieces.files if path.endswith((".yaml", ".yml")))
    application = pieces.application.document.path if pieces.application else ""
    for path in (*files, *([application] if application else ())):
        for object_name, node in documents(platform, path).items():
            if path == application and object_name != f"Application {_name(pieces)}":
                continue
            fields |= {
                f"{object_name} {field_path}": text
                for field_path, text in leaves(node).items()
                if not field_path.startswith("metadata.annotations")
            }
    if pieces.entry is not None:
        prices = ("input_cost_per_token", "output_cost_per_token")
        entry_fields = leaves(pieces.entry.node)
        fields |= {
            f"LiteLLM {field_path}": text
            for field_path, text in entry_fields.items()
            if not field_path.endswith(prices)
        }
    command_arguments = _arguments_in_command(pieces)
    other_fields = {
        field_path: text
        for field_path, text in fields.items()
        if ".args[" not in field_path
        and not field_path.endswith(command_arguments)
        and not field_path.endswith(_STORAGE)
    }
    return {
        _with_new_names(field_path, new_names): _with_new_names(text, new_names)
        for field_path, text in other_fields.items()
    }


def _arguments_in_command(pieces: Pieces) -> tuple[str, ...]:
    """The ends of the paths of the arguments in `command`, which have their own rows."""
    words = items(find(pieces.container, "command"))
    flag_nodes = {id(node) for flag in pieces.flags if flag.carrier == "list" for node in flag.nodes}
    first = next((index for index, word in enumerate(words) if id(word) in flag_nodes), len(words))
    name = value(pieces.container, "name")
    return tuple(f"containers[{name}].command[{index}]" for index in range(first, len(words) + 16))


_LIST = r'\[(?:"[^"\\\n]*"(?:, ?)?)*\]'
_VARIABLE = "patterns|allow_patterns|files_of_the_engine"


def _without_patterns(script: str) -> str:
    """A staging script without the lists of file patterns that `manifests.staging` writes, which contain no code."""
    bare = re.sub(rf"(?m)^ *(?:{_VARIABLE}) = {_LIST}\n", "", script)
    return re.sub(rf", ?allow_patterns=(?:{_VARIABLE}|{_LIST})(?=[,)])", "", bare)


def _patterns(script: str) -> str | None:
    """The patterns that the script downloads; None for the whole repository."""
    match = re.search(_LIST, script)
    return ", ".join(re.findall(r'"([^"]*)"', match[0])) if match else None


def _name(pieces: Pieces) -> str:
    node = pieces.application.node if pieces.application else None
    name = find(node, "metadata", "name")
    return str(name.value) if name is not None else ""


def _with_new_names(text: str, new_names: Mapping[str, str]) -> str:
    """The text with new names, replaced in one pass because a new name may contain an old one."""
    if not new_names:
        return text
    pattern = rf"(?<![\w-])(?:{'|'.join(map(re.escape, new_names))})(?!\w)"
    return re.sub(pattern, lambda match: new_names[match[0]], text)


def _short_path(path: str) -> str:
    """A field's path as shown in a row, without the prefix that all fields of the Deployment share."""
    object_name, _, field_path = path.partition(" ")
    if object_name == "LiteLLM":
        return f"LiteLLM {field_path}"
    _, _, field_path = field_path.partition(" ")
    return field_path.removeprefix(_POD) if object_name == "Deployment" else f"{object_name} {field_path}"


def _danger(path: str, text: str) -> str:
    if ".env[" in path and path.endswith(".value"):
        name = path.rpartition(".env[")[2].partition("]")[0]
        return VARIABLES.get(name.upper(), "")
    if any(f".{power}" in path.replace("[", ".") for power in _POWERS) and text not in ("false", ""):
        return "it changes what the pod may do or what it runs"
    return ""


def _new_findings(before: Platform, after: Platform, name: str, template: str) -> list[str]:
    """The findings that the change adds, as text with file and line."""
    rules_before: set[str] = set()
    if before.locate(template) is not None:
        rules_before = {finding.rule for finding in check(before, template)}
    return [
        f"{finding.path}:{finding.line}: {finding.message}."
        for finding in check(after, name)
        if finding.rule not in rules_before and not finding.rule.startswith(("group-", "catalog-", "manual-"))
    ]
