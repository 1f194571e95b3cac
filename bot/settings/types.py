"""Types of settings: text with a fixed form, ids of Slack, hours of the day.

Each type defines its JSON schema, from which the chart's schema is generated. The patterns are also valid in Go and
JavaScript.
"""

import re
from datetime import time
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from manifests.frozen import frozen

PINNED = r"[^\s@]+@sha256:[0-9a-f]{64}"
"""An image reference with a digest."""

_CHANNEL = "([CG][A-Z0-9]+)?"
_MEMBER = "[UWS][A-Z0-9]+"


@frozen
class like:  # noqa: N801 - reads as a word in an annotation
    """Text that matches the pattern. The error does not repeat the text: a URL may contain a password."""

    pattern: str
    example: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"pattern": f"^({self.pattern})$"}

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise ValueError(f"this does not have the required form; write, for example, {self.example}")
        return value


def _channel(value: str) -> str:
    if re.fullmatch(_CHANNEL, value):
        return value
    raise ValueError(
        f"“{value[:100]}” is not the id of a channel; write for example C0123456789, which is at the bottom of its details"
    )


Channel = Annotated[str, AfterValidator(_channel), WithJsonSchema({"type": "string", "pattern": f"^({_CHANNEL})$"})]


def _member(value: str) -> str:
    """Validate the id of a user or of a user group."""
    if re.fullmatch(_MEMBER, value):
        return value
    kind = (
        "is a name" if value.startswith("@")
        else "is an e-mail address" if "@" in value
        else "is the id of a channel" if re.fullmatch(r"[CGD][A-Z0-9]{2,}", value)
        else "is written in lower case" if re.fullmatch(_MEMBER, value.upper())
        else "is not an id"
    )  # fmt: skip
    raise ValueError(
        f"“{value[:100]}” {kind}; write a user's id (U0123456789, in their profile under ⋮) or a user group's (S0123456789)"
    )


Member = Annotated[str, AfterValidator(_member), WithJsonSchema({"type": "string", "pattern": f"^{_MEMBER}$"})]


PLACEHOLDERS = ("model", "namespace", "from")
"""The placeholders of a link's address."""

_IN_LINK = r'[^\s<>|`{}"]'
_PLACEHOLDER = r"\{(" + "|".join(PLACEHOLDERS) + r")\}"
LinkTemplate = Annotated[
    str,
    like(
        # Allow only https, no password and no placeholder in the host, and no character that could end the link in
        # Slack.
        rf'(https://[^\s<>|`{{}}"/?#@]+([/?#]({_IN_LINK}|{_PLACEHOLDER})*)?)?',
        "https://grafana.example.com/d/models?var-model={model}&from={from}, with no placeholder but"
        " {model}, {namespace} and {from}, and %7B for a brace",
    ),
]
"""The address of a web page about a model; empty for none."""


_TIME = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?"


def _clock_span(value: object) -> object:
    """Parse `20:00-07:00` as two times of day."""
    if not isinstance(value, str):
        return value
    begins, dash, ends = value.partition("-")
    try:
        span = time.fromisoformat(begins.strip()), time.fromisoformat(ends.strip())
    except ValueError:
        dash = ""
    if not dash or span[0] == span[1]:
        raise ValueError(f"“{value}” is not a span of hours; write for example 20:00-07:00")
    return span


Hours = Annotated[
    tuple[time, time],
    BeforeValidator(_clock_span),
    WithJsonSchema({"type": "string", "pattern": f"^ *{_TIME} *- *{_TIME} *$"}),
]
"""A span of hours of the day, `20:00-07:00`."""
