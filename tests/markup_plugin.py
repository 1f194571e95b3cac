"""A plugin of mypy: markup must not be put into an f-string or joined with a plain string, because the result is plain text.

`bot.text.mrkdwn` would then escape it a second time. mypy sees an f-string as a call of `str.format` (mypy/fastparse.py).
"""

from collections.abc import Callable, Iterator

from mypy.nodes import Expression, GeneratorExpr, ListComprehension
from mypy.plugin import MethodContext, Plugin
from mypy.types import Instance, Type, UnionType, get_proper_type

_MARKUP = "bot.text.mrkdwn.Mrkdwn"
_ERROR = "bot.errors.BotError"


class MarkupPlugin(Plugin):
    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        of, _, method = fullname.rpartition(".")
        if of != "builtins.str":
            return None
        return _put_in if method in ("format", "join", "__add__") else _taken_out if method in _PLAIN_RESULT else None


_PLAIN_RESULT = frozenset(
    {
        "__getitem__",
        "__mod__",
        "capitalize",
        "lower",
        "lstrip",
        "removeprefix",
        "removesuffix",
        "replace",
        "rstrip",
        "upper",
    }
)
"""Methods that turn markup into a plain string, because the result may contain half of the markup."""

_PLAIN = (
    "tests/",
    "bot/doctor/",
    "bot/cli/",
    "bot/app.py",
    "bot/text/mrkdwn.py",
    "bot/views/text.py",
    "bot/views/blocks.py",
)
"""Files in which this is intended: tests that compare texts, the terminal without markup, and the code that creates markup."""


def _taken_out(context: MethodContext) -> Type:
    if _is_markup(context.type) and not any(place in context.api.path for place in _PLAIN):
        context.api.fail(
            "This turns markup into plain text: use md(), strip(), or change the text before", context.context
        )
    return context.default_return_type


def _put_in(context: MethodContext) -> Type:
    if any(place in context.api.path for place in _PLAIN) or _is_markup(context.type):
        return context.default_return_type
    types = [part for group in context.arg_types for part in group]
    # If a plain text is expected, mypy accepts the result of a comprehension: check its expression.
    types += [context.api.get_expression_type(expression) for expression in _comprehension_results(context.args)]
    if any(_holds_markup(part) for part in types):
        context.api.fail("Markup becomes a plain text here: use md(), or Mrkdwn's own join()", context.context)
    return context.default_return_type


def _comprehension_results(arguments: list[list[Expression]]) -> Iterator[Expression]:
    for argument in (expression for expressions in arguments for expression in expressions):
        inside = argument.generator if isinstance(argument, ListComprehension) else argument
        if isinstance(inside, GeneratorExpr):
            yield inside.left_expr


def _is_markup(type_: Type) -> bool:
    proper = get_proper_type(type_)
    if isinstance(proper, UnionType):
        return any(_is_markup(part) for part in proper.items)
    return isinstance(proper, Instance) and (proper.type.fullname == _MARKUP or proper.type.has_base(_ERROR))


def _holds_markup(type_: Type) -> bool:
    """Return whether the type is markup, an error whose text may be markup, or a collection of markup."""
    proper = get_proper_type(type_)
    inside = proper.args if isinstance(proper, Instance) else ()
    return _is_markup(type_) or any(_is_markup(part) for part in inside)


def plugin(version: str) -> type[Plugin]:
    return MarkupPlugin
