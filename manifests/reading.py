"""Read the actual content of a branch for an endpoint, as it will be after the merge: for the card and the approvers.

The bot knows its own plan. Commits that somebody pushes on top of it are only known by reading the branch.
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
from manifests.strays import Touch, is_large, strange_content, strange_files
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
"""Fields of a pod that grant more than serving a model needs."""


class Reading(BaseModel, frozen=True, defer_build=True):
    """The content of the files: the contract with every further difference, warnings, and problems that prevent an
    approval.
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

    `template` is the endpoint for the comparison (the endpoint itself unless it is new), `touched` are the files that
    the branch changes, `planned` those that the bot's own change needs.
    """
    layout = after.layout
    problems: list[str] = []
    try:
        was = before.locate(template)
        problems += strange_files(before, after, name, touched, planned, was)
        if any(is_large(after, path) for path in touched):
            return Reading(problems=tuple(problems))  # files of that size are not parsed
        pieces = after.locate(name)
        problems += strange_content(before, after, name, touched, pieces, was)
        if pieces is None:
            place = was.deployment.document.path if was and was.name == name else layout.home(name)
            gone = () if removes else (f"{place}:1: no Deployment here names a model any more.",)
            return Reading(problems=(*problems, *gone))
        endpoint = describe(pieces, layout)
        if removes:
            file = pieces.deployment.document.path
            problems.append(f"{file}:1: this removes {name}, and its Deployment is still here.")
        problems += _broken(before, after, name, template)
        rows, warnings = further(before, after, was, pieces)
        return Reading(
            rows=(*_rows(pieces, layout), *rows),
            before=_rows(was, before.layout) if was and was.name == name else (),
            warnings=warnings,
            problems=tuple(problems),
            endpoint=endpoint,
        )
    except InvalidYaml as error:
        problems.append(f"{error.path}:{error.line}: this is not valid YAML: {error.problem}.")
    except ManifestError as error:
        problems.append(f"{layout.home(name)}:1: {error}")
    return Reading(problems=tuple(problems))


def _rows(pieces: Pieces, layout: Layout) -> tuple[tuple[str, str], ...]:
    return (*contract_rows(describe(pieces, layout)), ("Image", value(pieces.container, "image")))


def further(
    before: Platform, after: Platform, was: Pieces | None, now: Pieces
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Each argument and field that differs from before and is not in the contract's rows; and the dangerous ones.

    A new endpoint is compared with its template, whose names count as the new ones.
    """
    rows: list[tuple[str, str]] = []
    warnings: list[str] = []
    than = "until now" if was is None or was.name == now.name else "in the template"
    old_flags, new_flags = _flags(was), _flags(now)
    for flag in (*new_flags, *(each for each in old_flags if each not in new_flags)):
        old, new = old_flags.get(flag), new_flags.get(flag)
        if old == new or flag in _IN_ROWS:
            continue
        rows.append((f"Argument {flag}", _told(new, old, than)))
        if new is not None and (why := danger_of(flag)):
            warnings.append(f"{_argument(flag, new)}: {why}.")
        if new is not None and "$(" in new.replace("$$", ""):
            warnings.append(
                f"{_argument(flag, new)}: Kubernetes replaces $(NAME) with that variable, even if it is a secret."
            )
    renamed = _renaming(after.layout, was, now)
    old_leaves, new_leaves = _leaves(before, was, renamed), _leaves(after, now, {})
    for path in (*new_leaves, *(leave for leave in old_leaves if leave not in new_leaves)):
        old, new = old_leaves.get(path), new_leaves.get(path)
        if old == new:
            continue
        if old and new and "snapshot_download" in new and _without_patterns(old) == _without_patterns(new):
            rows.append(("Files to download", _told(_patterns(new), _patterns(old), than)))
            continue
        if was is not None:
            rows.append((_short(path), _told(new, old, than)))
        if new is not None and (why := _danger(path, new)):
            warnings.append(f"{_short(path)} = {new}: {why}.")
    return tuple(rows), tuple(warnings)


def _flags(pieces: Pieces | None) -> dict[str, str]:
    """The arguments by name; for a repeated argument every value, because some arguments collect them."""
    found: dict[str, list[str]] = {}
    for each in pieces.flags if pieces else ():
        found.setdefault(each.name, []).append(" ".join(each.values))
    return {name: " ".join(values) for name, values in found.items()}


def _argument(flag: str, given: str) -> str:
    return f"{flag}={given}" if given else flag


def _told(new: str | None, old: str | None, than: str) -> str:
    """A value with the value that it is compared with; an argument without a value is "on"."""
    return f"{'removed' if new is None else new or 'on'}, {than} {'not given' if old is None else old or 'on'}"


def _renaming(layout: Layout, was: Pieces | None, now: Pieces) -> dict[str, str]:
    """Texts of the old files that correspond to different texts in the new files, the longest first."""
    if was is None:
        return {}
    old, new = describe(was, layout), describe(now, layout)
    pairs = {old.hf_id: new.hf_id, old.served_name: new.served_name, old.alias: new.alias, was.name: now.name}
    return {text: pairs[text] for text in sorted(pairs, key=len, reverse=True) if text and pairs[text]}


def _leaves(platform: Platform, pieces: Pieces | None, renamed: Mapping[str, str]) -> dict[str, str]:
    """Every field of the endpoint's objects, its Application and its gateway entry, without those in the contract's
    rows.
    """
    if pieces is None:
        return {}
    found: dict[str, str] = {}
    files = (path for path in pieces.files if path.endswith((".yaml", ".yml")))
    application = pieces.application.document.path if pieces.application else ""
    for path in (*files, *([application] if application else ())):
        for what, node in documents(platform, path).items():
            if path == application and what != f"Application {_name(pieces)}":
                continue
            found |= {
                f"{what} {at}": said for at, said in leaves(node).items() if not at.startswith("metadata.annotations")
            }
    if pieces.entry is not None:
        prices = ("input_cost_per_token", "output_cost_per_token")
        said = leaves(pieces.entry.node)
        found |= {f"LiteLLM {at}": each for at, each in said.items() if not at.endswith(prices)}
    own = _arguments_in_command(pieces)
    kept = {
        at: said
        for at, said in found.items()
        if ".args[" not in at and not at.endswith(own) and not at.endswith(_STORAGE)
    }
    return {_renamed(at, renamed): _renamed(said, renamed) for at, said in kept.items()}


def _arguments_in_command(pieces: Pieces) -> tuple[str, ...]:
    """The items of `command` from the first argument on, which have rows of their own."""
    words = items(find(pieces.container, "command"))
    held = {id(node) for flag in pieces.flags if flag.carrier == "list" for node in flag.nodes}
    first = next((index for index, each in enumerate(words) if id(each) in held), len(words))
    name = value(pieces.container, "name")
    return tuple(f"containers[{name}].command[{index}]" for index in range(first, len(words) + 16))


_LIST = r'\[(?:"[^"\\\n]*"(?:, ?)?)*\]'
_VARIABLE = "patterns|allow_patterns|files_of_the_engine"


def _without_patterns(script: str) -> str:
    """A staging script without the lists that select its files, as `manifests.staging` writes them: texts and no code."""
    bare = re.sub(rf"(?m)^ *(?:{_VARIABLE}) = {_LIST}\n", "", script)
    return re.sub(rf", ?allow_patterns=(?:{_VARIABLE}|{_LIST})(?=[,)])", "", bare)


def _patterns(script: str) -> str | None:
    """The patterns that the script downloads; None for the whole repository."""
    found = re.search(_LIST, script)
    return ", ".join(re.findall(r'"([^"]*)"', found[0])) if found else None


def _name(pieces: Pieces) -> str:
    node = pieces.application.node if pieces.application else None
    found = find(node, "metadata", "name")
    return str(found.value) if found is not None else ""


def _renamed(text: str, renamed: Mapping[str, str]) -> str:
    """In one pass, because a new name may contain an old one."""
    if not renamed:
        return text
    whole = rf"(?<![\w-])(?:{'|'.join(map(re.escape, renamed))})(?!\w)"
    return re.sub(whole, lambda found: renamed[found[0]], text)


def _short(path: str) -> str:
    """A field's path as shown in a row: without the prefix that all fields of the Deployment share."""
    what, _, at = path.partition(" ")
    if what == "LiteLLM":
        return f"LiteLLM {at}"
    _, _, at = at.partition(" ")
    return at.removeprefix(_POD) if what == "Deployment" else f"{what} {at}"


def _danger(path: str, given: str) -> str:
    if ".env[" in path and path.endswith(".value"):
        name = path.rpartition(".env[")[2].partition("]")[0]
        return VARIABLES.get(name.upper(), "")
    if any(f".{power}" in path.replace("[", ".") for power in _POWERS) and given not in ("false", ""):
        return "it changes what the pod may do or what it runs"
    return ""


def _broken(before: Platform, after: Platform, name: str, template: str) -> list[str]:
    """Findings of the check after the change that did not exist before: the content no longer follows the contract."""
    had: set[str] = set()
    if before.locate(template) is not None:
        had = {each.rule for each in check(before, template)}
    return [
        f"{each.path}:{each.line}: {each.message}."
        for each in check(after, name)
        if each.rule not in had and not each.rule.startswith(("group-", "catalog-", "manual-"))
    ]
