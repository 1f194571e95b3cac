"""ruamel.yaml's composer, without the repeated look-ups for each token, which take a fifth of the parsing time."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.nodes import Node
from ruamel.yaml.parser import Parser


def compose(text: str) -> Iterator[Node]:
    """The root node of each document of a YAML text; raises YAMLError.

    The parser's own handling of comments is off, because `Document.comments` reads them. Positions do not change.
    """
    return iter(_Yaml().compose_all(text))


class _Parser(Parser):
    @cached_property
    def scanner(self) -> Any:
        return super().scanner

    @cached_property
    def resolver(self) -> Any:
        return super().resolver


class _Composer(Composer):
    @cached_property
    def parser(self) -> Any:
        return super().parser

    @cached_property
    def resolver(self) -> Any:
        return super().resolver


class _Yaml(YAML):
    def __init__(self) -> None:
        super().__init__(typ="safe", pure=True)
        self.Parser, self.Composer = _Parser, _Composer

    def official_plug_ins(self) -> list[str]:
        return []  # there are no plug-ins, and the search would list directories for each text
