"""Cache expensive results once per tree: its files, their declarations, and their relations."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

Subject = TypeVar("Subject")
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


def remembered(
    function: Callable[Concatenate[Subject, Rest], Result],
) -> Callable[Concatenate[Subject, Rest], Result]:
    """Keep each result in the `memory` (a dict) of the function's first argument, if it has one. Errors are not kept.

    The first argument must never change, the others must be hashable, and nobody may change a result.
    """

    @wraps(function)
    def wrapper(subject: Subject, /, *rest: Rest.args, **named: Rest.kwargs) -> Result:
        memory = getattr(subject, "memory", None)
        if memory is None:
            return function(subject, *rest, **named)
        key = (function, rest, *sorted(named.items()))
        if key not in memory:
            memory[key] = function(subject, *rest, **named)
        return cast("Result", memory[key])

    return wrapper
