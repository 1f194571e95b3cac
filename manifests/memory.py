"""Cache expensive results for each tree."""

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

    The first argument must never change, the others must be hashable, and results must not be modified.
    """

    @wraps(function)
    def wrapper(subject: Subject, /, *arguments: Rest.args, **keywords: Rest.kwargs) -> Result:
        memory = getattr(subject, "memory", None)
        if memory is None:
            return function(subject, *arguments, **keywords)
        key = (function, arguments, *sorted(keywords.items()))
        if key not in memory:
            memory[key] = function(subject, *arguments, **keywords)
        return cast("Result", memory[key])

    return wrapper
