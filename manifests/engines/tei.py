"""Text Embeddings Inference: one model for embeddings or ranking, under any name. Source: its router's `--help`."""

import re

from manifests.engines import Engine

_ARGUMENTS = """
    model-id revision served-model-name tokenization-workers dtype pooling max-concurrent-requests
    max-batch-tokens max-batch-requests max-client-batch-size auto-truncate default-prompt-name default-prompt
    dense-path hf-api-token hf-token hostname port uds-path huggingface-hub-cache payload-limit api-key
    json-output disable-spans otlp-endpoint otlp-service-name prometheus-port cors-allow-origin
"""

ENGINE = Engine(
    name="TEI",
    sign=re.compile(r"text-embeddings", re.IGNORECASE),
    words=("text-embeddings",),
    model=("--model-id",),
    implied_by="--model-id",
    image_port=80,
    pools=True,
    reranks_as="huggingface",
    reranks_at="/rerank",
    arguments=frozenset(f"--{name}" for name in _ARGUMENTS.split()),
    rules=frozenset({"argument"}),
    signals={"te_request_count": "requests", "te_request_count_total": "requests", "te_queue_size": "waiting"},
    short={"-p": "--port"},
    variables={"MODEL_ID": "--model-id"},
    key=("API_KEY", "--api-key"),
    probes=frozenset({"/health", "/ping", "/", "/info", "/metrics"}),
)
