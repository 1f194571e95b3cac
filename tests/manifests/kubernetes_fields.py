"""Print the fields of an endpoint's objects as JSON, from the models of Kubernetes' Python client.

`python -m tests.manifests.kubernetes_fields > manifests/rules/kubernetes.json`
"""

import json
import re
import sys

from kubernetes.aio.client import models

ROOTS = ("V1Deployment", "V1Service", "V1PersistentVolumeClaim")
NOT_WRITTEN = frozenset({"status", "managedFields", "ephemeralContainers"})
"""Fields that the API server sets."""
QUANTITIES = frozenset({"limits", "requests", "sizeLimit", "divisor"})
"""Fields that accept numbers or texts, although the models declare them as texts."""


def table() -> dict[str, dict[str, str]]:
    """Return the type of each field of each type: str, int, bool, object, map[str], list[…] or another type of the table."""
    schemas: dict[str, dict[str, str]] = {}
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        if short(name) in schemas:
            continue
        model = getattr(models, name)
        fields = {model.attribute_map[key]: type_name for key, type_name in model.openapi_types.items()}
        fields = {key: type_name for key, type_name in fields.items() if key not in NOT_WRITTEN}
        schemas[short(name)] = {
            key: "object" if key in QUANTITIES else plain(type_name) for key, type_name in fields.items()
        }
        waiting += [
            kind_name for type_name in fields.values() for kind_name in re.findall(r"(?:Core)?V\d\w+", type_name)
        ]
    return dict(sorted(schemas.items()))


def plain(type_name: str) -> str:
    if of := re.fullmatch(r"List\[(.*)\]", type_name):
        return f"list[{plain(of[1])}]"
    if type_name.startswith("Dict"):
        return "map[str]" if type_name == "Dict[str, str]" else "object"
    return "str" if type_name == "datetime" else short(type_name)


def short(name: str) -> str:
    return re.sub(r"^(Core)?V\d+(alpha\d|beta\d)?", "", name)


def text() -> str:
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in table().items())
    return f"{{\n{rows}\n}}\n"


if __name__ == "__main__":
    sys.stdout.write(text())
