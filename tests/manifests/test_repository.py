"""Repositories in addition to `real_models.json`: forms of config.json, and the evidence for each kind."""

from typing import Any

import pytest

from manifests.sizing import allow_patterns, kv_bytes_per_token, loaded_files, staged_files
from manifests.sizing.flags import engine_version, flags_for, on_cpu
from manifests.sizing.repository import Repository

Json = dict[str, Any]

FILES = {"model.safetensors": 8 * 10**9, "config.json": 1, "tokenizer.json": 9, "tokenizer_config.json": 9}
LLAMA: Json = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
}  # fmt: skip
QWEN2: Json = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "max_position_embeddings": 32768,
}  # fmt: skip


def repository(hf_id: str, config: Json | None, **more: Any) -> Repository:
    return Repository(
        **{
            "hf_id": hf_id,
            "files": FILES,
            "config": config,
            "template": True,
            "pipeline_tag": "text-generation",
            **more,
        }
    )


@pytest.mark.parametrize(
    ("config", "per_token"),
    [
        pytest.param(
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "num_hidden_layers": 34, "sliding_window": 1024}},
            5 * 4 * 1024,
            id="heads, head size and pattern are the class's defaults",
        ),
        pytest.param(
            {"model_type": "gemma3n", "text_config": {"num_hidden_layers": 35, "sliding_window": 512}},
            4 * 2 * 1024,
            id="the last layers share the caches of others",
        ),
        pytest.param(
            {"model_type": "internvl_chat", "auto_map": {}, "llm_config": QWEN2}, 57344, id="the language part in llm_config"
        ),
        pytest.param(
            {"model_type": "qwen2_5_omni", "thinker_config": {"text_config": {**QWEN2, "model_type": "qwen2_5_omni_text"}}},
            57344,
            id="two levels down",
        ),
        pytest.param(
            {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "multi_query": True},
            32 * 256,
            id="one head for all",
        ),
        pytest.param(
            {**LLAMA, "model_type": "nemotron-nas", "num_key_value_heads": None, "block_configs": [
                {"attention": {"n_heads_in_group": 4}}, {"attention": {"n_heads_in_group": None, "no_op": True}},
                {"attention": {"n_heads_in_group": 8}}, {"attention": {"replace_with_linear": True}},
            ]},
            (8 + 4) * 128 * 4,
            id="pruned blocks",
        ),
        pytest.param(
            {**LLAMA, "model_type": "mllama_text_model", "cross_attention_layers": [3, 8]}, 30 * 4096, id="cross attention"
        ),
        pytest.param(
            {**LLAMA, "model_type": "cohere2", "sliding_window": 4096, "sliding_window_pattern": 4}, 8 * 4096, id="a pattern"
        ),
        pytest.param({**LLAMA, "model_type": "mistral", "sliding_window": 131072}, 131072, id="a window as long as the context"),
        pytest.param(
            {**LLAMA, "quantization_config": {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8}}},
            65536,
            id="a cache in FP8",
        ),
        pytest.param(
            {**LLAMA, "layer_types": ["conv", "conv", "full_attention", "conv"] * 8}, 8 * 4096, id="convolutions keep no tokens"
        ),
    ],
)  # fmt: skip
def test_only_layers_with_full_attention_store_each_token(config: Json, per_token: int) -> None:
    """The bytes for one token are summed over all layers that have a cache for the whole context."""
    assert kv_bytes_per_token(repository("acme/some-Instruct", config).facts()) == per_token


@pytest.mark.parametrize(
    ("hf_id", "more", "kind"),
    [
        ("Qwen/Qwen2.5-Coder-3B", {}, "completion"),
        ("Qwen/Qwen3-8B-Base", {}, "completion"),
        ("nvidia/Llama-3.1-Nemotron-Nano-8B-v1", {}, "chat"),
        ("acme/plain-7B", {"template": False}, "completion"),
        ("mistralai/Some-24B-Instruct", {"template": False, "files": {**FILES, "tekken.json": 9}}, "chat"),
        ("mistralai/Some-24B-Base-2503", {"template": False, "files": {**FILES, "tekken.json": 9}}, "completion"),
        ("acme/model", {"files": {**FILES, "1_Pooling/config.json": 1}}, "embeddings"),
        ("acme/model", {"pipeline_tag": "text-ranking"}, "reranker"),
        ("acme/model", {"config": {**LLAMA, "architectures": ["XLMRobertaForSequenceClassification"]}}, "reranker"),
        ("acme/reward-model", {"config": {**LLAMA, "architectures": ["LlamaForSequenceClassification"]}}, "classifier"),
        ("acme/model", {"config": {**LLAMA, "num_hidden_layers": 1}}, "draft"),
        ("acme/model", {"config": {**LLAMA, "speculators_model_type": "eagle3"}}, "draft"),
        ("acme/model", {"files": {"model_index.json": 1, "unet/model.safetensors": 9}}, "image"),
        ("bartowski/Qwen3-8B-GGUF", {"config": None, "template": False, "files": {"q4.gguf": 9}}, "chat"),
        (
            "bartowski/Qwen2.5-Coder-1.5B-GGUF",
            {"config": None, "template": False, "files": {"q4.gguf": 9}},
            "completion",
        ),
    ],
)
def test_the_kind_follows_from_the_evidence_in_the_repository(hf_id: str, more: Json, kind: str) -> None:
    """The name decides only if there is no other evidence."""
    assert repository(hf_id, **{"config": LLAMA, **more}).facts().kind == kind


def test_only_one_of_two_formats_is_loaded_and_staged() -> None:
    """The weights and the small files are staged, without other formats, precisions or copies in directories."""
    shards = {f"model-0000{n}-of-00002.safetensors": 10**9 for n in (1, 2)}
    other_files = {
        "original/model.safetensors": 2 * 10**9, "consolidated.safetensors": 2 * 10**9, "pytorch_model.bin": 2 * 10**9,
        "model.fp32-00001-of-00001.safetensors": 4 * 10**9, "onnx/model.onnx": 10**9, "README.md": 9, "training_args.bin": 1,
    }  # fmt: skip
    files = {
        **shards,
        **other_files,
        "params.json": 1,
        "config.json": 1,
        "tokenizer.json": 9,
        "1_Pooling/config.json": 1,
    }
    assert loaded_files(files) == tuple(shards)
    assert set(staged_files(files)) == {
        *shards,
        "params.json",
        "config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    }
    assert allow_patterns(files)[-1] == "model-*-of-00002.safetensors"
    bare = {name: size for name, size in files.items() if name != "tokenizer.json"}
    assert loaded_files(bare) == ("consolidated.safetensors",)
    assert loaded_files({"a.safetensors": 1, "b.safetensors": 1}, index=("b.safetensors",)) == ("b.safetensors",)


def test_the_engines_version_determines_its_parsers() -> None:
    """An older engine gets a warning instead of an argument that it does not support."""
    facts = repository("Qwen/Qwen3-8B", {**LLAMA, "model_type": "qwen3"}).facts()
    assert "--tool-call-parser=hermes" in flags_for(facts, (0, 23)).optional
    old = flags_for(facts, (0, 8))
    assert old.optional == ()
    assert "since 0.9" in old.warnings[0]
    assert engine_version("vllm/vllm-openai:v0.23.0@sha256:6d84") == (0, 23)
    assert engine_version("vllm/vllm-openai@sha256:6d84") is None
    assert engine_version("registry:5000/vllm-openai") is None


def test_a_pooling_model_on_the_gpu_gets_its_runner() -> None:
    """A small encoder embeds on a CPU; a language model that ranks needs additional arguments."""
    bert = {"architectures": ["BertModel"], "model_type": "bert", "num_hidden_layers": 12, "hidden_size": 768}
    small = repository("acme/embed", bert, files={**FILES, "model.safetensors": 4 * 10**8, "modules.json": 1}).facts()
    assert on_cpu(small)
    assert flags_for(small).all == ()
    large = repository("acme/embed", LLAMA, files={**FILES, "modules.json": 1}).facts()
    assert flags_for(large).needed == ("--runner=pooling",)
    ranks = repository("Qwen/Qwen3-Reranker-4B", {**LLAMA, "model_type": "qwen3"}, pipeline_tag="text-ranking").facts()
    assert any(flag.startswith("--hf-overrides=") and " " not in flag for flag in flags_for(ranks).needed)
