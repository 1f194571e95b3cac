"""The fields of an endpoint's objects, from the models of Kubernetes' own client, as JSON.

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
"""Fields that accept numbers or texts, which the models declare as texts."""


def table() -> dict[str, dict[str, str]]:
    """Type -> field -> type of its value: str, int, bool, object, map[str], list[…] or another type of the table."""
    found: dict[str, dict[str, str]] = {}
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        if short(name) in found:
            continue
        model = getattr(models, name)
        fields = {model.attribute_map[key]: said for key, said in model.openapi_types.items()}
        fields = {key: said for key, said in fields.items() if key not in NOT_WRITTEN}
        found[short(name)] = {key: "object" if key in QUANTITIES else plain(said) for key, said in fields.items()}
        waiting += [each for said in fields.values() for each in re.findall(r"(?:Core)?V\d\w+", said)]
    return dict(sorted(found.items()))


def plain(said: str) -> str:
    if of := re.fullmatch(r"List\[(.*)\]", said):
        return f"list[{plain(of[1])}]"
    if said.startswith("Dict"):
        return "map[str]" if said == "Dict[str, str]" else "object"
    return "str" if said == "datetime" else short(said)


def short(name: str) -> str:
    return re.sub(r"^(Core)?V\d+(alpha\d|beta\d)?", "", name)


def text() -> str:
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in table().items())
    return f"{{\n{rows}\n}}\n"


if __name__ == "__main__":
    sys.stdout.write(text())
