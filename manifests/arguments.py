"""Parse the arguments of an engine as the engine does: argparse over `command` and `args` together.

Arguments may be in the lists of the container, in a shell command, in variables, or in a configuration file of the
engine. Each value has a `Site`: its place in a file. vLLM accepts `--flag=value`, `--flag value`, underscores for
dashes, and several values after some flags. Its model follows `--model`, or is the positional argument (`vllm serve
MODEL`; `vllm serve` is also the image's entrypoint since v0.9).
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests import engines
from manifests.edit import Document, entries, find, items, scalar, value
from manifests.frozen import frozen
from manifests.objects import mappings
from manifests.sources import shell
from manifests.sources.site import Site

MODEL_FLAGS = tuple(dict.fromkeys(("--model", *(name for engine in engines.engines() for name in engine.model))))
"""The flags of all engines that name the model."""

Variables = Mapping[str, Site]
"""The environment of a container: the place of the value of each variable."""

_SWITCHES = re.compile(
    r"--(enable|disable|no|skip|use|return|allow-credentials|trust-remote-code|enforce-eager|async-scheduling|headless|"
    r"calculate-kv-scales|language-model-only|metrics|embeddings?|rerank|reranking|jinja|mlock|cont-batching|flash-attn)(-|$)"
)
_VARIABLE = re.compile(r"\$\(([A-Za-z_][\w.-]*)\)")
_SHELL_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::?-[^}]*)?\}|([A-Za-z_]\w*)|\(([A-Za-z_][\w.-]*)\))")
_MODEL_VARIABLES = ("MODEL", "MODEL_ID", "MODEL_NAME", "MODEL_PATH", "HF_MODEL", "HF_MODEL_ID")


@frozen
class Flag:
    """One flag of a command line, under its long name with dashes; `nodes` are its items in the list.

    A positional model is stored as the model's flag with one node, which contains only the value. `carrier` is the
    place of the flag: a list, a script (at `words`), a file of the engine (with its key as the first node), or an
    environment variable that sets the flag. `sites` are the places of the values; the place is None if a value is
    composed of text from several places.
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
    def is_joined(self) -> bool:
        """True if the first value is in the same item as the flag, as in `--flag=value`."""
        return self.positional or len(self.nodes) == len(self.values)

    @property
    def value_nodes(self) -> tuple[ScalarNode, ...]:
        return self.nodes if self.is_joined else self.nodes[1:]

    @property
    def value_node(self) -> ScalarNode:
        return self.value_nodes[0] if self.value_nodes else self.node


@frozen
class Command:
    """The engine that a container runs, and its arguments."""

    engine: engines.Engine | None
    flags: tuple[Flag, ...]
    description: str = ""
    """The description of an unknown engine."""

    @property
    def name(self) -> str:
        return self.engine.name if self.engine is not None else self.description

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
    """The engine that a container runs, with its arguments; None if nothing names a model.

    `variables` is the container's environment, `files` are the files mounted into the container, by path; `runtime` is
    the name of the engine if another field of the object contains it.
    """
    environment = variables if variables is not None else own_variables(container, document)
    command, args = _words(find(container, "command")), _words(find(container, "args"))
    image = f"{_image(container)} {runtime}".strip()
    texts = [str(node.value) for node in (*command, *args)]
    script = next(
        (
            index
            for index, text in enumerate(texts)
            if index > 1 and re.fullmatch(r"-\w*c", texts[index - 1]) and shell.is_shell(texts[0])
        ),
        None,
    )
    if script is not None:
        return _command_of_script((*command, *args)[script], image, document, environment, files or {})
    words = [_Word(str(node.value), node, _site(document, node)) for node in (*command, *args)]
    program = " ".join([image.partition("@")[0], *itertools.takewhile(lambda word: not word.startswith("-"), texts)])
    return _command_of(
        words, program, image, environment, files or {}, has_command=bool(command)
    ) or _command_of_custom_server(container, program, environment)


def arguments_without_model(
    container: Node | None, document: Document, environment: Variables, engine: engines.Engine, variable: str
) -> tuple[Flag, ...]:
    """The arguments of a container that names no model, from its `args` and from the variable `variable`."""
    words = [_Word(str(node.value), node, _site(document, node)) for node in _words(find(container, "args"))]
    flags = list(_flags(words, engine, "", environment, {}, has_command=True, script=False))
    if (site := environment.get(variable)) is not None:
        for command in shell.commands(str(site.node.value)):
            words_of_variable = [
                _Word(word.text, site.node, _unquoted_site(site.document, site.node, word), (word.first, word.last))
                for word in command
            ]
            flags += _flags(words_of_variable, engine, "", environment, {}, has_command=True, script=True)
    return tuple(flags)


def flags_of_list(nodes: Sequence[ScalarNode], document: Document, engine: engines.Engine) -> tuple[Flag, ...]:
    """The arguments in a list that belongs to an engine."""
    words = [_Word(str(node.value), node, _site(document, node)) for node in nodes]
    return tuple(_flags(words, engine, "", {}, {}, has_command=True, script=False))


def own_variables(container: Node | None, document: Document | None) -> dict[str, Site]:
    """The variables whose values are in the container itself."""
    variables = {}
    if document is None:
        return {}
    for variable in items(find(container, "env")):
        node = scalar(variable, "value")
        if node is not None:
            variables[value(variable, "name")] = Site.whole(document, node)
    for key, variable in entries(find(container, "env")):
        node = variable if isinstance(variable, ScalarNode) else scalar(variable, "value")
        if node is not None:
            variables[str(key.value)] = Site.whole(document, node)
    return variables


def sequence(container: MappingNode, flags: tuple[Flag, ...]) -> tuple[ScalarNode, ...]:
    """The items of the list that contains the engine's flags: `args`, `command`, or another list of the container."""
    flag_nodes = {id(node) for flag in flags if flag.carrier == "list" for node in flag.nodes}
    other_lists = (_words(child) for mapping in mappings(container) for _, child in entries(mapping))
    lists = (*(_words(find(container, key)) for key in ("args", "command")), *other_lists)
    return next((nodes for nodes in lists if any(id(node) in flag_nodes for node in nodes)), ())


def _image(container: Node | None) -> str:
    node = find(container, "image")
    return value(node) if isinstance(node, ScalarNode) else f"{value(node, 'repository')}:{value(node, 'tag')}"


def _site(document: Document | None, node: ScalarNode) -> Site | None:
    return Site.whole(document, node) if document is not None else None


def _words(node: Node | None) -> tuple[ScalarNode, ...]:
    return tuple(item for item in items(node) if isinstance(item, ScalarNode))


def _command_of_script(
    node: ScalarNode, image: str, document: Document | None, environment: Variables, files: Mapping[str, Document]
) -> Command | None:
    """The engine's command in a script: the last command that names a model."""
    text = str(node.value)
    result: Command | None = None
    assigned = {}
    if document is not None:
        assigned = {name: Site(document, node, word.first, word.last) for name, word in shell.assignments(text).items()}
    for command in shell.commands(text):
        words = [
            _Word(word.text, node, _unquoted_site(document, node, word), (word.first, word.last)) for word in command
        ]
        words_before_flags = itertools.takewhile(lambda text: not text.startswith("-"), (word.text for word in command))
        program = " ".join(words_before_flags)
        parsed = _command_of(words, program, "", {**environment, **assigned}, files, has_command=True, script=True)
        if parsed is not None and parsed.engine is not None and parsed.model is not None:
            result = parsed
    if result is not None:
        return result
    starts_engine = re.search(r"vllm serve|--model[ =]|llama-server|sglang", text)
    return Command(None, (), "a shell command") if starts_engine else None


def _unquoted_site(document: Document | None, node: ScalarNode, word: shell.Word) -> Site | None:
    """The place of a word of a script without its quotes; None if only a part of the word is quoted."""
    raw = str(node.value)[word.first : word.last]
    if document is None or word.text not in raw:
        return None
    start = word.first + raw.index(word.text)
    return Site(document, node, start, start + len(word.text))


def _command_of(
    words: Sequence[_Word],
    program: str,
    image: str,
    environment: Variables,
    files: Mapping[str, Document],
    *,
    has_command: bool,
    script: bool = False,
) -> Command | None:
    candidates = [engine for engine in engines.engines() if engine.sign.search(program)]
    recognised = next((candidate for candidate in candidates if not candidate.is_usual), None)
    guess = recognised or next(iter(candidates), None)
    flags = tuple(_flags(words, guess, image, environment, files, has_command=has_command, script=script))
    flags += tuple(_flags_of_variables(guess, {flag.name for flag in flags}, environment))
    names = {flag.name for flag in flags}
    if recognised is not None:
        return Command(recognised, flags)
    default_engine = engines.usual()
    implied = next((engine for engine in engines.engines() if not engine.is_usual and engine.implied_by in names), None)
    if implied is not None and not (has_command and words and not words[0].text.startswith("-")):
        return Command(implied, flags)
    model = next((flag for flag in flags if flag.name == default_engine.implied_by), None)
    if model is None:
        text = " ".join(word.text for word in words)
        return Command(None, flags, "a shell command") if re.search(r"vllm serve|--model[ =]", text) else None
    if script and guess is None:
        return Command(None, flags, "a shell command")
    if model.value.lower().endswith(".gguf") and not names & default_engine.only:
        return Command(None, flags, "a server of GGUF files")
    return Command(default_engine, flags)


def _command_of_custom_server(container: Node | None, program: str, environment: Variables) -> Command | None:
    """The command of a custom server, which reads its model from a variable."""
    engine = next((engine for engine in engines.engines() if engine.sign.search(program)), None)
    if engine is not None:
        return Command(engine, ()) if not engine.changes else None
    if find(container, "ports") is None or not any(
        name in environment and re.fullmatch(r"[\w.-]+/[\w./-]+", environment[name].value) for name in _MODEL_VARIABLES
    ):
        return None
    image = _image(container).partition("@")[0]
    return Command(None, (), f"the image {image}")


def _flags_of_variables(engine: engines.Engine | None, present: set[str], environment: Variables) -> Iterator[Flag]:
    """Arguments that environment variables set."""
    for variable, name in engine.variables.items() if engine else ():
        if variable in environment and name not in present:
            site = environment[variable]
            yield Flag(name, (site.value,), (site.node,), sites=(site,), carrier="variable", positional=True)


def _flags(
    words: Sequence[_Word],
    engine: engines.Engine | None,
    image: str,
    environment: Variables,
    files: Mapping[str, Document],
    *,
    has_command: bool,
    script: bool,
) -> Iterator[Flag]:
    syntax = engine or engines.usual()
    carrier: Literal["list", "shell"] = "shell" if script else "list"
    texts = [word.text for word in words]
    serves = texts.index("serve") + 1 if "serve" in texts else None
    # Without a command in the manifest, the image's entrypoint is `vllm serve`.
    first = (
        serves
        if serves is not None
        else 0
        if not has_command and syntax.positional and syntax.sign.search(image)
        else None
    )
    index, has_positional = 0, False
    while index < len(words):
        text = texts[index]
        if not _is_flag(text):
            if first is not None and index >= first and not has_positional and syntax.positional:
                has_positional = True
                text_value, site = _value(text, words[index].site, environment)
                yield Flag(
                    syntax.model[0], (text_value,), (words[index].node,), True, (site,), carrier, words[index].words
                )  # fmt: skip
            index += 1
            continue
        spelt, sign, text_value = text.partition("=")
        name = syntax.long(spelt)
        following: list[_Word] = []
        while index + 1 + len(following) < len(words) and not _is_flag(texts[index + 1 + len(following)]):
            following.append(words[index + 1 + len(following)])
        if sign:
            # argparse accepts no further values after `=`, but people write them.
            following = following if name in syntax.lists else []
        elif name not in syntax.lists:
            following = following[:0] if _SWITCHES.match(name) else following[:1]
        own_site = words[index].site
        places = (
            [(text_value, own_site.part(text_value, len(spelt) + 1) if own_site and text_value else None)]
            if sign
            else []
        )
        places += [(word.text, word.site) for word in following]
        parsed_values = [_value(place_text, site, environment) for place_text, site in places]
        used_words = (words[index], *following)
        yield Flag(
            name,
            tuple(value_text for value_text, _ in parsed_values),
            tuple(word.node for word in used_words),
            sites=tuple(site for _, site in parsed_values),
            carrier=carrier,
            words=(used_words[0].words[0], used_words[-1].words[1]),
            spelt=spelt,
        )
        if name == syntax.config and parsed_values and parsed_values[0][0] in files:
            yield from _in_file(files[parsed_values[0][0]], syntax)
        index += 1 + len(following)


def _in_file(document: Document, engine: engines.Engine) -> Iterator[Flag]:
    """The arguments in the engine's YAML configuration file."""
    for root in document.roots:
        for key, child in entries(root):
            nodes = _words(child) if not isinstance(child, ScalarNode) else (child,)
            values = tuple(str(node.value) for node in nodes)
            sites = tuple(Site.whole(document, node) for node in nodes)
            name = engine.long(f"--{str(key.value).replace('_', '-')}")
            if name == "--model-tag":
                name = engine.model[0]
            yield Flag(name, values, (key, *nodes), sites=sites, carrier="file")


def _value(text: str, site: Site | None, environment: Variables) -> tuple[str, Site | None]:
    """A value with its variables replaced, and its place. If the value is one variable, the place is the variable's definition."""
    match = _VARIABLE.fullmatch(text) or (_SHELL_VARIABLE.fullmatch(text) if text.startswith("$") else None)
    if match is not None:
        name = next(group for group in match.groups() if group)
        return (environment[name].value, environment[name]) if name in environment else (text, None)
    if "$" not in text:
        return text, site
    names = [next(filter(None, variable.groups()), "") for variable in _SHELL_VARIABLE.finditer(text)]
    if names and all(name in environment for name in names):
        expanded = _SHELL_VARIABLE.sub(
            lambda variable: environment[next(filter(None, variable.groups()), "")].value, text
        )
        return expanded, None
    return text, site


def _is_flag(text: str) -> bool:
    return text.startswith("-") and not re.match(r"-\d", text) and text != "-"
