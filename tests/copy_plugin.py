"""A plugin of mypy: `model_copy(update={…})` may only change fields that the model has, to values of their types.

pydantic accepts any dictionary and validates nothing, so a wrong name would be stored as a new attribute.
"""

from collections.abc import Callable

from mypy.nodes import DictExpr, StrExpr, Var
from mypy.plugin import MethodContext, Plugin
from mypy.subtypes import is_subtype
from mypy.typeops import make_simplified_union
from mypy.types import AnyType, Instance, Type, TypeOfAny, TypeVarType, UnionType, get_proper_type


class CopyPlugin(Plugin):
    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        return _checked if fullname.endswith(".model_copy") else None


def _checked(context: MethodContext) -> Type:
    """Report unknown fields and wrong types in a dictionary that is written at the call."""
    models = list(_models(context.type))
    for update in (argument for group in context.args for argument in group):
        if not isinstance(update, DictExpr) or not models:
            continue
        for key, value in update.items:
            if not isinstance(key, StrExpr):
                continue
            fields = [_field(model, key.value) for model in models]
            if any(field is None for field in fields):
                name = next(model.type.name for model, field in zip(models, fields, strict=True) if field is None)
                context.api.fail(f'"{name}" has no field "{key.value}"', key)
                continue
            expected = make_simplified_union([field for field in fields if field is not None])
            actual = context.api.get_expression_type(value, expected)
            if not is_subtype(actual, expected):
                context.api.fail(f'The field "{key.value}" has the type {expected}, not {actual}', value)
    return context.default_return_type


def _models(type_of_expression: Type) -> list[Instance]:
    """Return the models that an expression may be; empty if its type is unknown."""
    proper = get_proper_type(type_of_expression)
    match proper:
        case Instance():
            return [proper]
        case TypeVarType():
            return _models(proper.upper_bound)
        case UnionType():
            return [model for item in proper.items for model in _models(item)]
        case _:
            return []


def _field(model: Instance, name: str) -> Type | None:
    """Return the type of a field; the field of a generic model is not checked."""
    symbol = model.type.get(name)
    if symbol is None or not isinstance(symbol.node, Var) or symbol.node.type is None:
        return None
    return AnyType(TypeOfAny.special_form) if model.type.type_vars else symbol.node.type


def plugin(version: str) -> type[Plugin]:
    return CopyPlugin
