"""Parse the arguments of an engine like the engine does: argparse over `command` and `args` together.

They may be in the lists of the container, in a shell command, in variables, or in a configuration file of the engine. Each
value has its `Site`, the place where it is written. vLLM takes `--flag=value`, `--flag value`, underscores for dashes,
and several values after some flags; its model follows `--model`, or is the positional argument (`vllm serve
MODEL`, which is also the image's entrypoint since v0.9).
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests import engines
from manifests.edit import Document, entries, find, items, scalar, value
from manifests.objects import mappings
from manifests.sources import shell
from manifests.sources.site import Site

MODEL_FLAGS = tuple(dict.fromkeys(("--model", *(name for each in engines.engines() for name in each.model))))
"""The flags that name the model, of all engines."""

Variables = Mapping[str, Site]
"""The environment of a container: where the value of each variable is written."""

_SWITCHES = re.compile(
    r"--(enable|disable|no|skip|use|return|allow-credentials|trust-remote-code|enforce-eager|async-scheduling|headless|"
    r"calculate-kv-scales|language-model-only|metrics|embeddings?|rerank|reranking|jinja|mlock|cont-batching|flash-attn)(-|$)"
)
_VARIABLE = re.compile(r"\$\(([A-Za-z_][\w.-]*)\)")
_SHELL_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::?-[^}]*)?\}|([A-Za-z_]\w*)|\(([A-Za-z_][\w.-]*)\))")
_MODEL_VARIABLES = ("MODEL", "MODEL_ID", "MODEL_NAME", "MODEL_PATH", "HF_MODEL", "HF_MODEL_ID")


@dataclass(frozen=True)
class Flag:
    """One flag of a command line, by its long name with dashes; `nodes` are its list items.

    A positional model is the flag of the model with one node, which holds the bare value. `carrier` is where the
    flag is written: in a list, in a script (at `words`), in a file of the engine (`entry` is its key), or nowhere, if a
    variable has its meaning. `sites` are the places of the values; None for a value that is composed of several
    places.
    """

    name: str
    values: tuple[str, ...]
    nodes: tuple[ScalarNode, ...]
    positional: bool = False
    sites: tuple[Site | None, ...] = ()
    carrier: Literal["list", "shell", "file", "variable"] = "list"
    words: tuple[int, int] = (0, 0)
    spelt: str = ""

    @property
    def value(self) -> str:
        """The first value; "" for a bare flag."""
        return self.values[0] if self.values else ""

    @property
    def site(self) -> Site | None:
        return self.sites[0] if self.sites else None

    @property
    def node(self) -> ScalarNode:
        return self.nodes[0]

    @property
    def joined(self) -> bool:
        """True if the first value is in the same item as the flag, as in `--flag=value`."""
        return self.positional or len(self.nodes) == len(self.values)

    @property
    def value_nodes(self) -> tuple[ScalarNode, ...]:
        return self.nodes if self.joined else self.nodes[1:]

    @property
    def value_node(self) -> ScalarNode:
        return self.value_nodes[0] if self.value_nodes else self.node


@dataclass(frozen=True)
class Command:
    """The engine that a container runs, and its arguments."""

    engine: engines.Engine | None
    flags: tuple[Flag, ...]
    said: str = ""
    """The description of an unknown engine."""

    @property
    def name(self) -> str:
        return self.engine.name if self.engine is not None else self.said

    @property
    def model(self) -> Flag | None:
        names = self.engine.model if self.engine is not None else MODEL_FLAGS
        return next((flag for name in names for flag in self.flags if flag.name == name), None)

    @property
    def is_known(self) -> bool:
        return self.engine is not None and self.engine.changes


class _Word:
    """A word of the command line: its text, with variables replaced, and its position."""

    def __init__(self, text: str, node: ScalarNode, site: Site | None, words: tuple[int, int] = (0, 0)) -> None:
        self.text = text
        self.node = node
        self.site = site
        self.words = words


def read(
    container: Node | None,
    document: Document | None = None,
    variables: Variables | None = None,
    files: Mapping[str, Document] | None = None,
    runtime: str = "",
) -> Command | None:
    """The engine in a container; None if nothing names a model.

    `variables` is the container's environment, `files` are the files mounted into it, by path; `runtime` names the
    engine if a field beside the container gives it.
    """
    known = variables if variables is not None else own_variables(container, document)
    command, args = _words(find(container, "command")), _words(find(container, "args"))
    image = f"{_image(container)} {runtime}".strip()
    said = [str(each.value) for each in (*command, *args)]
    script = next(
        (
            index
            for index, each in enumerate(said)
            if index > 1 and re.fullmatch(r"-\w*c", said[index - 1]) and shell.is_shell(said[0])
        ),
        None,
    )
    if script is not None:
        return _read_script((*command, *args)[script], image, document, known, files or {})
    words = [_Word(str(each.value), each, _site(document, each)) for each in (*command, *args)]
    program = " ".join([image.partition("@")[0], *itertools.takewhile(lambda word: not word.startswith("-"), said)])
    return _recognised(words, program, image, known, files or {}, own=bool(command)) or _by_variables(
        container, program, known
    )


def further(
    container: Node | None, document: Document, known: Variables, engine: engines.Engine, variable: str
) -> tuple[Flag, ...]:
    """The arguments in a container that names no model: those of its `args`, and those in one variable."""
    words = [_Word(str(each.value), each, _site(document, each)) for each in _words(find(container, "args"))]
    found = list(_flags(words, engine, "", known, {}, own=True, script=False))
    if (site := known.get(variable)) is not None:
        for command in shell.commands(str(site.node.value)):
            own = [
                _Word(word.text, site.node, _inside(site.document, site.node, word), (word.first, word.last))
                for word in command
            ]
            found += _flags(own, engine, "", known, {}, own=True, script=True)
    return tuple(found)


def listed(nodes: Sequence[ScalarNode], document: Document, engine: engines.Engine) -> tuple[Flag, ...]:
    """The arguments in a list that belongs to an engine."""
    words = [_Word(str(node.value), node, _site(document, node)) for node in nodes]
    return tuple(_flags(words, engine, "", {}, {}, own=True, script=False))


def own_variables(container: Node | None, document: Document | None) -> dict[str, Site]:
    """The variables whose values are in the container itself."""
    found = {}
    if document is None:
        return {}
    for each in items(find(container, "env")):
        node = scalar(each, "value")
        if node is not None:
            found[value(each, "name")] = Site.whole(document, node)
    for key, each in entries(find(container, "env")):
        node = each if isinstance(each, ScalarNode) else scalar(each, "value")
        if node is not None:
            found[str(key.value)] = Site.whole(document, node)
    return found


def sequence(container: MappingNode, flags: tuple[Flag, ...]) -> tuple[ScalarNode, ...]:
    """The items of the list that holds the engine's flags: `args`, or `command` if it has all of them."""
    held = {id(node) for flag in flags if flag.carrier == "list" for node in flag.nodes}
    inside = (_words(each) for mapping in mappings(container) for _, each in entries(mapping))
    lists = (*(_words(find(container, key)) for key in ("args", "command")), *inside)
    return next((nodes for nodes in lists if any(id(node) in held for node in nodes)), ())


def _image(container: Node | None) -> str:
    node = find(container, "image")
    return value(node) if isinstance(node, ScalarNode) else f"{value(node, 'repository')}:{value(node, 'tag')}"


def _site(document: Document | None, node: ScalarNode) -> Site | None:
    return Site.whole(document, node) if document is not None else None


def _words(node: Node | None) -> tuple[ScalarNode, ...]:
    return tuple(item for item in items(node) if isinstance(item, ScalarNode))


def _read_script(
    node: ScalarNode, image: str, document: Document | None, known: Variables, files: Mapping[str, Document]
) -> Command | None:
    """The command of a script that starts an engine: the last one that names a model."""
    text = str(node.value)
    found: Command | None = None
    own = {}
    if document is not None:
        own = {name: Site(document, node, word.first, word.last) for name, word in shell.assignments(text).items()}
    for command in shell.commands(text):
        words = [_Word(word.text, node, _inside(document, node, word), (word.first, word.last)) for word in command]
        program = " ".join(itertools.takewhile(lambda each: not each.startswith("-"), (word.text for word in command)))
        read_ = _recognised(words, program, "", {**known, **own}, files, own=True, script=True)
        if read_ is not None and read_.engine is not None and read_.model is not None:
            found = read_
    if found is not None:
        return found
    named = re.search(r"vllm serve|--model[ =]|llama-server|sglang", text)
    return Command(None, (), "a shell command") if named else None


def _inside(document: Document | None, node: ScalarNode, word: shell.Word) -> Site | None:
    """A word of a script without its quotes; None if only a part of it is quoted."""
    raw = str(node.value)[word.first : word.last]
    if document is None or word.text not in raw:
        return None
    at = word.first + raw.index(word.text)
    return Site(document, node, at, at + len(word.text))


def _recognised(
    words: Sequence[_Word],
    program: str,
    image: str,
    known: Variables,
    files: Mapping[str, Document],
    *,
    own: bool,
    script: bool = False,
) -> Command | None:
    candidates = [engine for engine in engines.engines() if engine.sign.search(program)]
    other = next((candidate for candidate in candidates if not candidate.is_usual), None)
    guess = other or next(iter(candidates), None)
    flags = tuple(_flags(words, guess, image, known, files, own=own, script=script))
    flags += tuple(_given(guess, {each.name for each in flags}, known))
    names = {flag.name for flag in flags}
    if other is not None:
        return Command(other, flags)
    usual = engines.usual()
    implied = next((each for each in engines.engines() if not each.is_usual and each.implied_by in names), None)
    if implied is not None and not (own and words and not words[0].text.startswith("-")):
        return Command(implied, flags)
    model = next((flag for flag in flags if flag.name == usual.implied_by), None)
    if model is None:
        said = " ".join(word.text for word in words)
        return Command(None, flags, "a shell command") if re.search(r"vllm serve|--model[ =]", said) else None
    if script and guess is None:
        return Command(None, flags, "a shell command")
    if model.value.lower().endswith(".gguf") and not names & usual.only:
        return Command(None, flags, "a server of GGUF files")
    return Command(usual, flags)


def _by_variables(container: Node | None, program: str, known: Variables) -> Command | None:
    """A custom server, which gets its model from a variable."""
    engine = next((each for each in engines.engines() if each.sign.search(program)), None)
    if engine is not None:
        return Command(engine, ()) if not engine.changes else None
    if find(container, "ports") is None or not any(
        name in known and re.fullmatch(r"[\w.-]+/[\w./-]+", known[name].value) for name in _MODEL_VARIABLES
    ):
        return None
    image = _image(container).partition("@")[0]
    return Command(None, (), f"the image {image}")


def _given(engine: engines.Engine | None, present: set[str], known: Variables) -> Iterator[Flag]:
    """Arguments that are set by a variable."""
    for variable, name in engine.variables.items() if engine else ():
        if variable in known and name not in present:
            site = known[variable]
            yield Flag(name, (site.value,), (site.node,), sites=(site,), carrier="variable", positional=True)


def _flags(
    words: Sequence[_Word],
    engine: engines.Engine | None,
    image: str,
    known: Variables,
    files: Mapping[str, Document],
    *,
    own: bool,
    script: bool,
) -> Iterator[Flag]:
    spoken = engine or engines.usual()
    carrier: Literal["list", "shell"] = "shell" if script else "list"
    texts = [word.text for word in words]
    serves = texts.index("serve") + 1 if "serve" in texts else None
    # Without a command in the manifest, the image's entrypoint is `vllm serve`.
    first = serves if serves is not None else 0 if not own and spoken.positional and spoken.sign.search(image) else None
    at, seen = 0, False
    while at < len(words):
        text = texts[at]
        if not _is_flag(text):
            if first is not None and at >= first and not seen and spoken.positional:
                seen = True
                given, site = _value(text, words[at].site, known)
                yield Flag(
                    spoken.model[0], (given,), (words[at].node,), True, (site,), carrier, words[at].words
                )  # fmt: skip
            at += 1
            continue
        spelt, sign, given = text.partition("=")
        name = spoken.long(spelt)
        following: list[_Word] = []
        while at + 1 + len(following) < len(words) and not _is_flag(texts[at + 1 + len(following)]):
            following.append(words[at + 1 + len(following)])
        if sign:
            # argparse accepts no more values here; a following bare name was meant as another value.
            following = following if name in spoken.lists else []
        elif name not in spoken.lists:
            following = following[:0] if _SWITCHES.match(name) else following[:1]
        own_site = words[at].site
        places = [(given, own_site.part(given, len(spelt) + 1) if own_site and given else None)] if sign else []
        places += [(each.text, each.site) for each in following]
        read_ = [_value(each, site, known) for each, site in places]
        taken = (words[at], *following)
        yield Flag(
            name,
            tuple(each for each, _ in read_),
            tuple(each.node for each in taken),
            sites=tuple(site for _, site in read_),
            carrier=carrier,
            words=(taken[0].words[0], taken[-1].words[1]),
            spelt=spelt,
        )
        if name == spoken.config and read_ and read_[0][0] in files:
            yield from _in_file(files[read_[0][0]], spoken)
        at += 1 + len(following)


def _in_file(document: Document, engine: engines.Engine) -> Iterator[Flag]:
    """The arguments in the engine's YAML configuration file."""
    for root in document.roots:
        for key, inside in entries(root):
            nodes = _words(inside) if not isinstance(inside, ScalarNode) else (inside,)
            values = tuple(str(node.value) for node in nodes)
            sites = tuple(Site.whole(document, each) for each in nodes)
            name = engine.long(f"--{str(key.value).replace('_', '-')}")
            if name == "--model-tag":
                name = engine.model[0]
            yield Flag(name, values, (key, *nodes), sites=sites, carrier="file")


def _value(text: str, site: Site | None, known: Variables) -> tuple[str, Site | None]:
    """A value with its variables replaced, and its place: the variable's place if the value is exactly one variable."""
    match = _VARIABLE.fullmatch(text) or (_SHELL_VARIABLE.fullmatch(text) if text.startswith("$") else None)
    if match is not None:
        name = next(group for group in match.groups() if group)
        return (known[name].value, known[name]) if name in known else (text, None)
    if "$" not in text:
        return text, site
    names = [next(filter(None, found.groups()), "") for found in _SHELL_VARIABLE.finditer(text)]
    if names and all(each in known for each in names):
        whole = _SHELL_VARIABLE.sub(lambda found: known[next(filter(None, found.groups()), "")].value, text)
        return whole, None
    return text, site


def _is_flag(text: str) -> bool:
    return text.startswith("-") and not re.match(r"-\d", text) and text != "-"
