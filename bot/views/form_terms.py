"""The form's labels for the options of a change, which commands write as `key=value`."""

import re
from collections.abc import Mapping

LABELS: Mapping[str, str] = {
    "like": "Copy from",
    "context": "Context",
    "served": "Served name",
    "quantization": "Quantization",
    "gpu-util": "GPU memory utilization",
    "storage": "Volume",
    "memory": "Container's memory limit",
    "cpu": "Container's CPU limit",
    "kind": "Kind",
    "price-in": "Price per million input tokens, dollars",
    "price-out": "Price per million output tokens, dollars",
    "group": "Group",
    "arg": "Arguments of vLLM",
}
"""The label of the form's field, by option."""

_OPTION = re.compile(rf"(?<![\w-])({'|'.join(LABELS)})=((?:[^\s,;)`“”]*[^\s,;)`“”.])?)")


def in_form(text: str) -> str:
    """Replace each `key=value` in a text with the label of its field and the value."""
    return _OPTION.sub(lambda match: f"“{LABELS[match[1]]}”" + (f" {match[2]}" if match[2] else ""), text)
