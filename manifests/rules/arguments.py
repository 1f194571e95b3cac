"""The rules of the engine's arguments: whether it knows them, can start with them, and can be reached.

Only a spelling that is very close to a known argument is a finding, so that an argument of a newer version is not
reported.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator

from manifests.pieces import Pieces
from manifests.rules.finding import Finding, at
from manifests.sizing import tokens

_ALMOST = 0.86
_SHORT = 10
"""Length up to which one exchanged pair of letters lowers the similarity below the limit."""
_ONLY_LOCAL = ("127.0.0.1", "localhost", "::1")


def check(pieces: Pieces) -> Iterator[Finding]:
    """Arguments with which the engine would not start, or could not be reached."""
    root = pieces.deployment
    named = pieces.flag("--served-model-name")
    yield from _spelling(pieces)
    yield from _reach(pieces)
    yield from _revision(pieces)
    for text, node in zip(named.values, named.value_nodes, strict=True) if named else ():
        if re.search(r"[\s,;]", text) or not text:
            message = f"the served name {text!r} holds what no client sends"
            yield at("argument", root, node, message, "use letters, digits, dots and dashes")
    utilization, context = pieces.flag("--gpu-memory-utilization"), pieces.flag("--max-model-len")
    if utilization is not None and not _is_share(utilization.value):
        message = f"--gpu-memory-utilization={utilization.value} is not a share of the GPU's memory"
        yield at("argument", root, utilization.value_node, message, "give a number above 0 and up to 1, like 0.9")
    if context is not None and context.value not in ("auto", "-1") and not tokens(context.value):
        message = f"--max-model-len={context.value} is not a number of tokens"
        yield at("argument", root, context.value_node, message, "give a number like 16384")
    counted = Counter(each.name for each in pieces.flags if each.name.startswith("--"))
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
    """argparse refuses unknown arguments; an item that contains a space is one word to it."""
    root, known = pieces.deployment, pieces.runtime.arguments
    for flag in pieces.flags:
        spelt = str(flag.node.value).partition("=")[0]
        if flag.positional or not spelt.startswith("-"):
            continue
        name, _, rest = spelt.partition(" ")
        if rest:
            message = f"{flag.node.value!r} is one argument to the engine, with a space in it"
            fix = (
                f"{name}={rest.strip()}"
                if "=" not in str(flag.node.value)
                else "one argument for each item of the list"
            )
            yield at("argument", root, flag.node, message, fix)
            continue
        long = f"--{spelt.lstrip('-')}".replace("_", "-").lower()
        if not spelt.startswith("--"):
            if len(spelt) > 3 and long in known:
                yield at("argument", root, flag.node, f"{spelt} begins with one dash", f"write {long}")
            continue
        plain = long.replace("--no-", "--", 1).partition(".")[0]
        if plain in known or any(each.startswith(plain) for each in known):
            continue
        if near := difflib.get_close_matches(plain, known, 1, _ALMOST if len(plain) > _SHORT else 0.8):
            yield at("argument", root, flag.node, f"{pieces.engine} has no argument {spelt}", f"write {near[0]}")


def _reach(pieces: Pieces) -> Iterator[Finding]:
    """Probes and the Service connect from outside the pod."""
    host = pieces.flag("--host") or pieces.flag("--hostname")
    if host is not None and host.value in _ONLY_LOCAL:
        message = f"{host.name}={host.value} is reached from inside of the pod only"
        yield at("argument", pieces.deployment, host.value_node, message, f"{host.name}=0.0.0.0, or leave it out")


def _revision(pieces: Pieces) -> Iterator[Finding]:
    """A revision that is loaded offline has to be the staged one."""
    revision = pieces.flag("--revision")
    staged = [str(each.value) for each in pieces.staging]
    if revision is None or not any(pieces.model.value in each for each in staged):
        return
    if not any(revision.value in each for each in staged):
        message = f"the engine loads the revision {revision.value}, and the initContainer stages another"
        yield at("staged-model", pieces.deployment, revision.value_node, message, "stage the same revision")
