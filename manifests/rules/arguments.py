"""The rules of the engine's arguments: they must exist, be valid, and make the engine reachable.

Only a spelling that is very close to a known argument is a finding, so that an argument of a newer version is not
reported.
"""

import difflib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator

from ruamel.yaml.nodes import Node

from manifests.arguments import Flag
from manifests.edit import entries, find, items, line, value
from manifests.engines import Engine, engines
from manifests.pieces import Located, Pieces, objects
from manifests.platform import Platform
from manifests.rules.finding import Finding, at
from manifests.rules.repository import is_named_secret
from manifests.sizing import tokens
from manifests.sources.workloads import KINDS

_ALMOST = 0.86
_SHORT = 10
"""Names up to this length need less similarity, because two exchanged letters change a larger part of a short name."""
_BOOLEANS = ("true", "false", "1", "0")
_ONLY_LOCAL = ("127.0.0.1", "localhost", "::1")


def check(pieces: Pieces) -> Iterator[Finding]:
    """Report arguments with which the engine would not start, or could not be reached."""
    root = pieces.deployment
    named = pieces.flag("--served-model-name")
    yield from _spelling(pieces)
    yield from _values(pieces)
    yield from _reach(pieces)
    yield from _revision(pieces)
    for text, node in zip(named.values, named.value_nodes, strict=True) if named else ():
        if re.search(r"[\s,;]", text) or not text:
            message = f"the served name {text!r} contains characters that clients do not send"
            yield at("argument", root, node, message, "use letters, digits, dots and dashes")
    counted = Counter(flag.name for flag in pieces.flags if flag.name.startswith("--"))
    for flag in pieces.flags:
        if counted[flag.name] > 1 and flag.name in (
            "--model",
            "--model-id",
            "--served-model-name",
            "--max-model-len",
            "--port",
        ):
            yield at(
                "argument", root, flag.node, f"{flag.name} is given {counted[flag.name]} times", "keep one of them"
            )


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False


def _spelling(pieces: Pieces) -> Iterator[Finding]:
    """Report arguments that argparse refuses, including items of the list that contain a space."""
    root, known_arguments = pieces.deployment, pieces.runtime.arguments
    for flag in pieces.flags:
        spelt = str(flag.node.value).partition("=")[0]
        if flag.positional or not spelt.startswith("-"):
            continue
        name, _, remainder = spelt.partition(" ")
        if remainder:
            message = f"{flag.node.value!r} is one argument to the engine, with a space in it"
            fix = (
                f"{name}={remainder.strip()}"
                if "=" not in str(flag.node.value)
                else "one argument for each item of the list"
            )
            yield at("argument", root, flag.node, message, fix)
            continue
        long = f"--{spelt.lstrip('-')}".replace("_", "-").lower()
        if not spelt.startswith("--"):
            if len(spelt) > 3 and long in known_arguments:
                yield at("argument", root, flag.node, f"{spelt} begins with one dash", f"write {long}")
            continue
        plain = long.replace("--no-", "--", 1).partition(".")[0]
        if plain in known_arguments or any(argument.startswith(plain) for argument in known_arguments):
            continue
        if similar := difflib.get_close_matches(plain, known_arguments, 1, _ALMOST if len(plain) > _SHORT else 0.8):
            yield at("argument", root, flag.node, f"{pieces.engine} has no argument {spelt}", f"write {similar[0]}")


def check_values(pieces: Pieces) -> Iterator[Finding]:
    """Report values that the engine refuses, or that are close to a known value, in every form of an endpoint."""
    engine = pieces.runtime
    for flag in pieces.flags:
        if flag.site is not None and flag.value and "$" not in flag.value and (problem := _problem(engine, flag)):
            message, fix = problem
            yield Finding(rule="argument", path=flag.site.path, line=flag.site.line, message=message, fix=fix)


def _problem(engine: Engine, flag: Flag) -> tuple[str, str] | None:
    """Return the problem of a value and its fix; None if the value is valid."""
    name, text = flag.name, flag.value
    if name == engine.utilization and not _is_share(text):
        return f"{name}={text} is not a share of the GPU's memory", "give a number above 0 and up to 1, like 0.9"
    if name == "--max-model-len" == engine.context and text not in ("auto", "-1") and not tokens(text):
        return f"{name}={text} is not a number of tokens", "give a number like 16384"
    if name in engine.counts and not tokens(text):
        return f"{name}={text} is not a whole number above 0", "give a number like 8"
    if name in engine.structured and text.startswith("{") and not _is_json(text):
        return f"the value of {name} is not JSON", 'write {"key": value}'
    choices = engine.choices.get(name, frozenset())
    if not choices or text in choices:
        return None
    similar = difflib.get_close_matches(text, sorted(choices), 1, 0.6 if name in engine.closed else 0.85)
    newer = bool(similar) and re.sub(r"\d", "", similar[0]) == re.sub(r"\d", "", text)
    if (similar and not newer) or name in engine.closed:
        return f"{engine.name} has no {text} for {name}", f"{name}={(similar or sorted(choices))[0]}"
    return None


def _values(pieces: Pieces) -> Iterator[Finding]:
    """Check switches, the command, the model's name, the API key and the tool parser."""
    root, engine = pieces.deployment, pieces.runtime
    for flag in pieces.flags:
        if flag.name in engine.switches and flag.value.lower() in _BOOLEANS:
            message = f"{flag.name} takes no value, but has the value {flag.value}"
            fix = flag.name if flag.value.lower() in ("true", "1") else f"--no-{flag.name.removeprefix('--')}"
            yield at("argument", root, flag.node, message, f"write {fix}")
    command = find(pieces.container, "command")
    if command is not None and value(next(iter(items(command)), None)).startswith("--"):
        key_node = next(key for key, _ in entries(pieces.container) if key.value == "command")
        message = "the command begins with an argument, so the container runs no program"
        yield at("argument", root, key_node, message, "write args instead of command")
    if re.match(r"https?://", pieces.model.value):
        message = f"{pieces.model.value} is the address of a page, not a model"
        fix = f"{pieces.model.name}={pieces.model.value.partition('huggingface.co/')[2] or 'OWNER/NAME'}"
        yield at("argument", root, pieces.model.value_node, message, fix)
    key = pieces.flag(engine.key[1]) if engine.key[1] else None
    if key is not None and is_named_secret("api_key", key.value):
        message = "the engine's key is in plain text: everybody who can read the repository has it"
        yield at("secret-in-git", root, key.value_node, message, f"{engine.key[0]}, from a Secret; revoke this key")
    automatic = pieces.flag("--enable-auto-tool-choice")
    if automatic is not None and pieces.flag("--tool-call-parser") is None and automatic.name in engine.arguments:
        message = "the engine does not start with --enable-auto-tool-choice and no --tool-call-parser"
        yield at("argument", root, automatic.node, message, "add --tool-call-parser, or remove this")


def check_lost(platform: Platform, endpoints: Collection[Pieces]) -> Iterator[Finding]:
    """Report workloads of an engine that name no model, because the argument is misspelled or has no value."""
    endpoint_places = {_place(endpoint.deployment) for endpoint in endpoints}
    for path in platform.files(platform.layout.serving_dir):
        for kind, located in objects(platform, path) if path.endswith((".yaml", ".yml")) else ():
            if kind not in KINDS or _place(located) in endpoint_places:
                continue
            for container in items(find(located.node, "spec", "template", "spec", "containers")):
                engine = next(
                    (candidate for candidate in engines() if candidate.sign.search(value(container, "image"))), None
                )
                if engine is not None and "argument" in engine.rules:
                    yield from _model_argument(located, container, engine)


def _model_argument(located: Located, container: Node, engine: Engine) -> Iterator[Finding]:
    argument = engine.model[0]
    for node in items(find(container, "args")):
        name, _, text = value(node).partition("=")
        if name == argument and not text and "=" in value(node):
            yield at("argument", located, node, f"{argument} names no model", f"{argument}=OWNER/NAME")
        elif name not in engine.arguments | {"--mode"} and difflib.get_close_matches(name, [argument], 1, 0.8):
            message = f"{engine.name} has no argument {name}, so it serves no model"
            yield at("argument", located, node, message, f"write {argument}")


def _place(located: Located) -> tuple[str, int]:
    return located.document.path, line(located.node)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _reach(pieces: Pieces) -> Iterator[Finding]:
    """Report a host that probes and the Service cannot reach, because they connect from outside the pod."""
    host = pieces.flag("--host") or pieces.flag("--hostname")
    if host is not None and host.value in _ONLY_LOCAL:
        message = f"{host.name}={host.value} can be reached only from inside the pod"
        yield at("argument", pieces.deployment, host.value_node, message, f"{host.name}=0.0.0.0, or leave it out")


def _revision(pieces: Pieces) -> Iterator[Finding]:
    """Check that a revision that is loaded offline is the staged revision."""
    revision = pieces.flag("--revision")
    scripts = [str(node.value) for node in pieces.staging]
    if revision is None or not any(pieces.model.value in script for script in scripts):
        return
    if not any(revision.value in script for script in scripts):
        message = f"the engine loads the revision {revision.value}, but the initContainer stages another"
        yield at("staged-model", pieces.deployment, revision.value_node, message, "stage the same revision")
