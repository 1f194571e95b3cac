"""The engines that serve models: how each is recognised, and the names of its arguments.

Each file of this package is one engine, in the constant `ENGINE`. A new engine is a new file; there is no other list of them.
"""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

Signal = Literal["running", "waiting", "requests", "prompt_tokens", "generation_tokens"]
"""The quantities of a usage measurement; `running` and `waiting` are current numbers, the others only increase."""


@dataclass(frozen=True)
class LoadingLog:
    """The log lines with an engine's measurements while it loads a model: GiB of the model and left for the cache, the tokens
    that fit there, and its own version. Each pattern has the figure in its first group.
    """

    model: re.Pattern[str]
    cache: re.Pattern[str]
    tokens: re.Pattern[str]
    version: re.Pattern[str]


@dataclass(frozen=True)
class Engine:
    """One engine. Names of arguments are the long ones, with dashes; "" if the engine has no such argument."""

    name: str
    sign: re.Pattern[str]
    """The pattern that identifies the engine in an image's name or in the words before the first argument."""
    words: tuple[str, ...] = ()
    """Texts that identify its manifests: each contains one of them, so that only those files are parsed."""
    is_usual: bool = False
    """True if this engine is assumed when nothing identifies another one."""
    implied_by: str = ""
    """The argument that identifies it if image and program do not."""
    model: tuple[str, ...] = ("--model",)
    served: str = ""
    """The argument that names the model to clients; without one, the engine answers to any name."""
    context: str = ""
    quantization: str = ""
    utilization: str = ""
    port: int = 0
    """The port without a `--port` argument; 0 if it is unknown."""
    image_port: int = 0
    """The port that its image sets, if that is another one."""
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
    """The variable and the argument that give the engine a key."""
    probes: frozenset[str] = frozenset()
    """Paths that are answered without a key."""
    arguments: frozenset[str] = frozenset()
    """The long names of all its arguments, for the check of their spelling; empty if they are not known."""
    switches: frozenset[str] = frozenset()
    """Arguments without a value."""
    counts: frozenset[str] = frozenset()
    """Arguments whose value is a whole number above 0."""
    structured: frozenset[str] = frozenset()
    """Arguments whose value is JSON."""
    choices: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The values of arguments, for the check of their spelling; newer versions may know more."""
    closed: frozenset[str] = frozenset()
    """Arguments whose `choices` are all of them."""
    rules: frozenset[str] = frozenset()
    """The rules of the check that are about this engine's own arguments and variables."""
    only: frozenset[str] = frozenset()
    """Arguments that no other engine has."""
    gguf: bool = False
    """True if it loads GGUF files."""
    pools: bool = False
    """True if it only embeds and ranks."""
    derives: bool = False
    """True if `manifests.sizing.flags` derives arguments from the model: parsers, quantization."""
    health: str = "/health"
    """The path that answers 200 if it can serve."""
    api: str = ""
    """The path before the `/v1` of its OpenAI API."""
    keyed: str = "/v1/models"
    """A path that it refuses without its key."""
    signals: Mapping[str, Signal] = field(default_factory=dict)
    """The samples of its /metrics that measure its use; without any, its models are never idle."""
    loading: LoadingLog | None = None
    """Patterns of its measurements in the log; without them, its boots do not improve the estimate of the memory."""
    reranks_as: str = "hosted_vllm"
    """LiteLLM's provider for its ranking API."""
    reranks_at: str = "/v1/rerank"
    """The path of its ranking API. TEI's API has other fields than the common one."""
    pins: frozenset[str] = frozenset()
    """Arguments that name further files of one model, or features of these files: another model must not inherit them."""
    changes: bool = True
    """True if Stoker changes its arguments."""

    def is_named_in(self, text: str) -> bool:
        """Return whether people mean this engine in a text such as a cell of a table."""
        return bool(self.sign.search(text) or re.search(rf"\b{re.escape(self.name)}\b", text, re.IGNORECASE))

    def spellings(self, *long: str) -> tuple[str, ...]:
        """These arguments, and their short names."""
        return (*long, *(short for short, name in self.short.items() if name in long))

    def long(self, spelt: str) -> str:
        """The long name of an argument, with dashes."""
        plain = spelt.replace("_", "-") if spelt.startswith("--") else spelt
        return self.short.get(plain, plain)


@cache
def engines() -> tuple[Engine, ...]:
    """Every engine; the default engine is the last."""
    modules = (importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__))
    found = [engine for module in modules for engine in getattr(module, "ENGINES", None) or (module.ENGINE,)]
    return tuple(sorted(found, key=lambda each: (each.is_usual, each.name)))


def named(name: str) -> Engine | None:
    """The engine of this name, in any case and with or without dots and dashes."""
    return next((engine for engine in engines() if _bare(engine.name) == _bare(name)), None)


def usual() -> Engine:
    """The engine that is assumed if nothing identifies another one."""
    return next(engine for engine in engines() if engine.is_usual)


def running(program: str) -> Engine:
    """The engine that a program is, from its image and the words of its command; the default engine if it is unknown."""
    return next((engine for engine in engines() if engine.changes and engine.sign.search(program)), usual())


def _bare(name: str) -> str:
    return re.sub(r"\W|_", "", name.lower())
