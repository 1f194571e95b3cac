"""The faults of the sandbox: one set of names that every simulated system checks."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "no-stock": "the cloud has no GPU left in the zone",
        "no-quota": "the project's GPU quota is used up",
        "image-missing": "the image of a model server cannot be pulled",
        "hf-429": "Hugging Face answers 429 to everything: the download of weights and the look-up of models",
        "hf-gated": "the weights are gated, and the cluster's token may not download them",
        "oom": "the kernel kills vLLM while it loads: out of memory",
        "crash": "vLLM ends with an error while it loads",
        "never-ready": "vLLM starts, but never gets ready",
        "kv-cache-too-small": "vLLM ends while it loads: the KV cache is too small for the context",
        "cuda-oom": "vLLM ends while it loads: CUDA out of memory",
        "driver-too-old": "the runtime cannot start vLLM: the node's driver is older than the image's CUDA",
        "secret-sync-blip": "the node gets a Secret a moment late",
        "pull-blip": "the first pull of an image times out",
        "zone-blip": "the first zone has no GPU, the second has",
        "attach-stuck": "the volume of the weights is still attached to another node",
        "smoke-fails": "vLLM answers completions with an error",
        "sync-fails": "Argo CD's syncs fail",
        "flux-fails": "Flux cannot apply its Kustomizations",
        "argocd-outofsync": "Argo CD reports OutOfSync although its syncs succeed and everything is healthy",
        "argocd-comparison-error": "Argo CD cannot compare its Applications with git",
        "argocd-hook-hangs": "a hook of each sync never ends",
        "argocd-sync-window": "a sync window forbids every sync",
        "github-down": "GitHub answers 503, to its API and to git",
        "statuses-refused": "GitHub refuses to return commit statuses, as to a token without that permission",
        "api-away": "the Kubernetes API server does not answer",
        "slack-429": "Slack answers 429 to every method",
        "slack-old-blocks": "Slack refuses its newer blocks: tables, plans, containers, alerts, charts",
        "litellm-keeps-keys": "LiteLLM answers 500 when a virtual key is deleted",
        "litellm-down": "the LiteLLM gateway does not answer",
        "metrics-down": "vLLM's metrics endpoint does not answer",
        "metrics-nan": "a gauge and a counter of vLLM's metrics are NaN and +Inf",
        "metrics-drip": "vLLM sends its metrics at one byte every 5 s, without an end",
        "metrics-huge": "vLLM sends its metrics without an end: the same families repeatedly, as fast as they are read",
        "hub-huge": "every config.json and tokenizer_config.json on Hugging Face is 400 MB, sent without a length",
        "completion-endless": "vLLM streams past max_tokens and never stops",
    }
)


class UnknownFault(ValueError):
    """No fault has this name; the message lists the names."""


class Faults(set[str]):
    """The active faults. Unknown names raise UnknownFault, because a misspelled fault would have no effect."""

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
