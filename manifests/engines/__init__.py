"""The engines that serve models: the signs by which each engine is recognised, and the names of its arguments.

Each file of this package defines one engine in the constant `ENGINE`. A new engine needs only a new file, because no
other file lists the engines.
"""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import field
from functools import cache
from typing import Literal

from manifests.frozen import frozen

Signal = Literal["running", "waiting", "requests", "prompt_tokens", "generation_tokens"]
"""The quantities of a usage measurement; `running` and `waiting` are current numbers, the others only increase."""


@frozen
class LoadingLog:
    """The log lines in which an engine reports measurements while it loads a model.

    The measurements are the size of the model and of the cache in GiB, the number of tokens that fit into the cache,
    and the engine's version. The first group of each pattern matches the figure.
    """

    model: re.Pattern[str]
    cache: re.Pattern[str]
    tokens: re.Pattern[str]
    version: re.Pattern[str]


@frozen
class Engine:
    """One engine. The names of arguments are their long names, with dashes; "" if the engine has no such argument."""

    name: str
    sign: re.Pattern[str]
    """The pattern that identifies the engine in an image's name or in the words before the first argument."""
    words: tuple[str, ...] = ()
    """Each manifest of the engine contains one of these texts, so that most other files need not be parsed."""
    is_usual: bool = False
    """True if this engine is assumed by default."""
    implied_by: str = ""
    """The argument that identifies the engine if neither image nor program does."""
    model: tuple[str, ...] = ("--model",)
    served: str = ""
    """The argument that names the model to clients; without it, the engine accepts any name."""
    context: str = ""
    quantization: str = ""
    utilization: str = ""
    port: int = 0
    """The port without a `--port` argument; 0 if it is unknown."""
    image_port: int = 0
    """The port that its image sets, if it is different."""
    positional: bool = False
    """True if the model may be the first word after `serve`, or the first argument of the image."""
    config: str = ""
    """The argument that names a YAML file of further arguments."""
    lists: frozenset[str] = frozenset()
    """Arguments that take one value or more."""
    short: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that set an argument."""
    key: tuple[str, str] = ("", "")
    """The variable and the argument that set the engine's API key."""
    probes: frozenset[str] = frozenset()
    """Paths that need no key."""
    arguments: frozenset[str] = frozenset()
    """The long names of all its arguments, to check the spelling; empty if they are unknown."""
    switches: frozenset[str] = frozenset()
    """Arguments without a value."""
    counts: frozenset[str] = frozenset()
    """Arguments whose value is a whole number above 0."""
    structured: frozenset[str] = frozenset()
    """Arguments whose value is JSON."""
    choices: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The values of arguments, to check the spelling; newer versions may accept more."""
    closed: frozenset[str] = frozenset()
    """Arguments whose `choices` are complete."""
    rules: frozenset[str] = frozenset()
    """The rules of the check that apply to this engine's arguments and variables."""
    only: frozenset[str] = frozenset()
    """Arguments that no other engine has."""
    gguf: bool = False
    """True if it loads GGUF files."""
    pools: bool = False
    """True if it only embeds and ranks."""
    derives: bool = False
    """True if `manifests.sizing.flags` derives arguments from the model: parsers, quantization."""
    health: str = "/health"
    """The path that returns status 200 if the engine can serve requests."""
    api: str = ""
    """The path before the `/v1` of its OpenAI API."""
    keyed: str = "/v1/models"
    """A path that needs the key."""
    signals: Mapping[str, Signal] = field(default_factory=dict)
    """The samples of /metrics that measure its usage; without them, its models are never idle."""
    loading: LoadingLog | None = None
    """Patterns of its measurements in the log; without them, its boots do not improve the memory estimate."""
    reranks_as: str = "hosted_vllm"
    """LiteLLM's provider for its ranking API."""
    reranks_at: str = "/v1/rerank"
    """The path of its ranking API. The fields of TEI's API differ from the common API."""
    pins: frozenset[str] = frozenset()
    """Arguments about further files of one model, which another model must not inherit."""
    changes: bool = True
    """True if Stoker changes its arguments."""

    def is_named_in(self, text: str) -> bool:
        """Return whether a text such as a table cell names this engine."""
        return bool(self.sign.search(text) or re.search(rf"\b{re.escape(self.name)}\b", text, re.IGNORECASE))

    def spellings(self, *long: str) -> tuple[str, ...]:
        """The given long names, and their short names."""
        return (*long, *(short for short, name in self.short.items() if name in long))

    def long(self, spelt: str) -> str:
        """The long name of an argument, with dashes."""
        plain = spelt.replace("_", "-") if spelt.startswith("--") else spelt
        return self.short.get(plain, plain)


@cache
def engines() -> tuple[Engine, ...]:
    """Every engine; the default engine is the last."""
    modules = (
        importlib.import_module(f"{__name__}.{module_info.name}") for module_info in pkgutil.iter_modules(__path__)
    )
    all_engines = [engine for module in modules for engine in getattr(module, "ENGINES", None) or (module.ENGINE,)]
    return tuple(sorted(all_engines, key=lambda engine: (engine.is_usual, engine.name)))


def engine_named(name: str) -> Engine | None:
    """The engine of this name, in any case and with or without dots and dashes."""
    return next((engine for engine in engines() if _bare_name(engine.name) == _bare_name(name)), None)


def usual() -> Engine:
    """The default engine."""
    return next(engine for engine in engines() if engine.is_usual)


def running(program: str) -> Engine:
    """The engine of a program, by its image and the words of its command; otherwise the default engine."""
    return next((engine for engine in engines() if engine.changes and engine.sign.search(program)), usual())


def _bare_name(name: str) -> str:
    return re.sub(r"\W|_", "", name.lower())
