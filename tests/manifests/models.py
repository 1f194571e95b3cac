"""Models as Hugging Face describes them: weights from the file listing, shapes from config.json."""

from manifests.sizing import Cache, ModelFacts

REVISION = "0123456789abcdef0123456789abcdef01234567"

CODER_1_5B = ModelFacts(
    revision=REVISION,
    hf_id="Qwen/Qwen2.5-Coder-1.5B",
    weight_bytes=3_087_467_144,
    layers=28,
    kv_heads=2,
    head_size=128,
    max_context=32768,
    kind="completion",
)
CODER_3B = ModelFacts(
    revision=REVISION,
    hf_id="Qwen/Qwen2.5-Coder-3B-Instruct",
    weight_bytes=6_171_926_112,
    layers=36,
    kv_heads=2,
    head_size=128,
    max_context=32768,
    licence="qwen-research",
)
CODER_3B_AWQ = CODER_3B.model_copy(
    update={"hf_id": "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ", "weight_bytes": 2_686_000_000, "quantization": "awq"}
)
CODER_7B = ModelFacts(
    revision=REVISION,
    hf_id="Qwen/Qwen2.5-Coder-7B-Instruct",
    weight_bytes=15_231_271_888,
    layers=28,
    kv_heads=4,
    head_size=128,
    max_context=32768,
    licence="apache-2.0",
)
CODER_7B_AWQ = CODER_7B.model_copy(
    update={"hf_id": "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "weight_bytes": 5_571_000_000, "quantization": "awq"}
)
CODER_14B_AWQ = ModelFacts(
    revision=REVISION,
    hf_id="Qwen/Qwen2.5-Coder-14B-Instruct-AWQ",
    weight_bytes=9_985_000_000,
    layers=48,
    kv_heads=8,
    head_size=128,
    max_context=32768,
    quantization="awq",
)
CODER_32B_AWQ = CODER_14B_AWQ.model_copy(
    update={"hf_id": "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ", "weight_bytes": 19_330_000_000, "layers": 64}
)

CODER_14B = CODER_14B_AWQ.model_copy(
    update={"hf_id": "Qwen/Qwen2.5-Coder-14B-Instruct", "weight_bytes": 29_540_067_328, "quantization": None}
)
CODER_0_5B = CODER_1_5B.model_copy(
    update={"hf_id": "Qwen/Qwen2.5-Coder-0.5B", "weight_bytes": 988_065_536, "layers": 24, "head_size": 64}
)
CODER_3B_BASE = CODER_3B.model_copy(update={"hf_id": "Qwen/Qwen2.5-Coder-3B", "kind": "completion"})
CODER_3B_TEMPLATE = CODER_3B_BASE.model_copy(update={"kind": "chat"})
"""A base model whose tokenizer has a chat template, as on the Hub."""
LLAMA_8B = ModelFacts(
    hf_id="hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4",
    revision=REVISION,
    weight_bytes=5_730_000_000,
    layers=32,
    kv_heads=8,
    head_size=128,
    max_context=131072,
    quantization="awq",
    licence="llama3.1",
    model_type="llama",
    gated="manual",
)
QWEN_GPTQ = CODER_7B.model_copy(
    update={"hf_id": "Qwen/Qwen2.5-Coder-7B-Instruct-GPTQ-Int4", "weight_bytes": 5_590_000_000, "quantization": "gptq"}
)


def _embedding(hf_id: str, weight_bytes: int, max_context: int, hidden_size: int) -> ModelFacts:
    return ModelFacts(
        hf_id=hf_id,
        revision=REVISION,
        weight_bytes=weight_bytes,
        hidden_size=hidden_size,
        max_context=max_context,
        kind="embeddings",
        model_type="bert",
        cache=Cache(),
        pipeline_tag="feature-extraction",
        licence="mit",
    )


BGE_BASE = _embedding("BAAI/bge-base-en-v1.5", 437_951_328, 512, 768)
BGE_SMALL = _embedding("BAAI/bge-small-en-v1.5", 133_466_304, 512, 384)
NOMIC = _embedding("nomic-ai/nomic-embed-text-v1.5", 546_938_168, 8192, 768)

CHAT_MODELS = (CODER_7B_AWQ, CODER_3B, CODER_3B_AWQ, CODER_7B, CODER_14B_AWQ, LLAMA_8B, QWEN_GPTQ)
COMPLETION_MODELS = (CODER_1_5B, CODER_0_5B, CODER_3B_TEMPLATE)
EMBEDDING_MODELS = (BGE_BASE, BGE_SMALL, NOMIC)
