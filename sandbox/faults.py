"""What can be broken on purpose in the sandbox: one set of names that every simulated system looks into."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "no-stock": "the cloud has no GPU left in the zone",
        "no-quota": "the project's GPU quota is used up",
        "image-missing": "the image of a model server cannot be pulled",
        "hf-429": "Hugging Face answers 429 to everything: the weights' download and the model's facts",
        "hf-gated": "the weights are gated, and the cluster's token may not download them",
        "oom": "the kernel kills vLLM while it loads: out of memory",
        "crash": "vLLM ends with an error while it loads",
        "never-ready": "vLLM starts, but never gets ready",
        "smoke-fails": "vLLM answers completions with an error",
        "sync-fails": "Argo CD's syncs fail",
        "github-down": "GitHub answers 503, to its API and to git",
        "api-away": "the Kubernetes API server does not answer",
        "slack-429": "Slack answers 429 to every method",
        "litellm-down": "the LiteLLM gateway does not answer",
        "metrics-down": "vLLM's metrics do not answer",
    }
)


class UnknownFault(ValueError):
    """A name that no simulated system would ever look for."""


class Faults(set[str]):
    """The faults that are on now; it refuses unknown names, since a misspelled fault would be one that never strikes."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        super().__init__()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self._check(name)
        super().add(name)

    def discard(self, name: object) -> None:
        self._check(name)
        super().discard(name)

    @staticmethod
    def _check(name: object) -> None:
        if name not in KNOWN:
            raise UnknownFault(f"There is no fault {name!r}. Known: {', '.join(sorted(KNOWN))}.")
