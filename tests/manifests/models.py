"""Models as Hugging Face describes them: weights from the file listing, shapes from config.json."""

from manifests.sizing import ModelFacts

REVISION = "0123456789abcdef0123456789abcdef01234567"

CODER_1_5B = ModelFacts(
    revision=REVISION,
    hf_id="Qwen/Qwen2.5-Coder-1.5B",
    weight_bytes=3_087_467_144,
    layers=28,
    kv_heads=2,
    head_size=128,
    max_context=32768,
    chat=False,
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
    update={"hf_id": "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ", "weight_bytes": 2_069_000_000, "quantization": "awq"}
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
