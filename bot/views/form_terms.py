"""The form's names for the options of a change: a person who fills in a form does not see the `key=value` of a command."""

import re
from collections.abc import Mapping

LABELS: Mapping[str, str] = {
    "like": "Made like",
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
"""The label of the field for each option."""

_OPTION = re.compile(rf"(?<![\w-])({'|'.join(LABELS)})=((?:[^\s,;)`“”]*[^\s,;)`“”.])?)")


def in_form(text: str) -> str:
    """A text about options, with each option replaced by its field in the form."""
    return _OPTION.sub(lambda found: f"“{LABELS[found[1]]}”" + (f" {found[2]}" if found[2] else ""), text)
