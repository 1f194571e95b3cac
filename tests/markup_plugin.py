"""A plugin of mypy: markup must not be put into an f-string, or be joined by a plain text, because the result is plain text.

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
"""Files in which it is intended: tests that compare texts, the terminal without markup, and the code that creates markup."""


def _taken_out(context: MethodContext) -> Type:
    if _is_markup(context.type) and not any(place in context.api.path for place in _PLAIN):
        context.api.fail(
            "This makes a plain text of markup: use md(), strip(), or change the text before", context.context
        )
    return context.default_return_type


def _put_in(context: MethodContext) -> Type:
    if any(place in context.api.path for place in _PLAIN) or _is_markup(context.type):
        return context.default_return_type
    given = [each for types in context.arg_types for each in types]
    # If a plain text is expected, mypy accepts the result of a comprehension: check its expression.
    given += [context.api.get_expression_type(made) for made in _made(context.args)]
    if any(_holds_markup(each) for each in given):
        context.api.fail("Markup becomes a plain text here: use md(), or Mrkdwn's own join()", context.context)
    return context.default_return_type


def _made(arguments: list[list[Expression]]) -> Iterator[Expression]:
    for argument in (each for expressions in arguments for each in expressions):
        inside = argument.generator if isinstance(argument, ListComprehension) else argument
        if isinstance(inside, GeneratorExpr):
            yield inside.left_expr


def _is_markup(given: Type) -> bool:
    proper = get_proper_type(given)
    if isinstance(proper, UnionType):
        return any(_is_markup(each) for each in proper.items)
    return isinstance(proper, Instance) and (proper.type.fullname == _MARKUP or proper.type.has_base(_ERROR))


def _holds_markup(given: Type) -> bool:
    """Markup itself, an error whose text may be markup, or a list or another collection of it."""
    proper = get_proper_type(given)
    inside = proper.args if isinstance(proper, Instance) else ()
    return _is_markup(given) or any(_is_markup(each) for each in inside)


def plugin(version: str) -> type[Plugin]:
    return MarkupPlugin
