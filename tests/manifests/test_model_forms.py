"""Real repositories in unusual forms: their kinds, and their cache per token, compared with figures calculated by hand.

Each row has the relevant part of one repository's `config.json` and listing.
"""

from typing import Any

import pytest

from manifests.sizing import Machine, kv_bytes_per_token, size
from manifests.sizing.flags import flags_for
from manifests.sizing.repository import Repository

Json = dict[str, Any]
CHAT = {"model.safetensors": 8 * 10**9, "config.json": 1200, "tokenizer.json": 9 * 10**6, "chat_template.jinja": 5000}
BASE = {name: size for name, size in CHAT.items() if name != "chat_template.jinja"}


def llama(model_type: str = "llama", layers: int = 32, kv: int = 8, head: int = 128, **more: Any) -> Json:
    """A dense model with 32 query heads."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": model_type,
        "hidden_size": 32 * head,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": kv,
        "head_dim": head,
        "max_position_embeddings": 32768,
        **more,
    }


def repository(hf_id: str, config: Json | None, files: dict[str, int] | None = None, **more: Any) -> Repository:
    return Repository(hf_id=hf_id, config=config, files=CHAT if files is None else files, **more)


@pytest.mark.parametrize(
    ("hf_id", "config", "per_token"),
    [
        # Every layer has a window of 4096 tokens, and the figure is for a token inside it. The next two models do not use theirs.
        ("HuggingFaceH4/zephyr-7b-beta", llama("mistral", sliding_window=4096), 131072),
        ("Qwen/Qwen2.5-7B-Instruct", llama("qwen2", 28, 4, sliding_window=4096, use_sliding_window=False), 57344),
        ("Qwen/Qwen1.5-7B-Chat", llama("qwen2", 32, 32, sliding_window=4096), 524288),
        # One layer in four is global.
        (
            "CohereLabs/c4ai-command-r7b-12-2024",
            llama("cohere2", sliding_window=4096, sliding_window_pattern=4),
            8 * 4096,
        ),
        ("LGAI-EXAONE/EXAONE-4.0-32B", llama("exaone4", 64, sliding_window=4096, sliding_window_pattern="LLLG"), 65536),
        # 15 of 35 layers use the keys and values of another layer.
        (
            "google/gemma-3n-E4B-it",
            llama(
                "gemma3n_text",
                35,
                2,
                256,
                sliding_window=512,
                num_kv_shared_layers=15,
                layer_types=[*["sliding_attention"] * 4, "full_attention"] * 7,
            ),
            8192,
        ),
        # Latent attention, with and without linear layers.
        ("moonshotai/Kimi-K2-Instruct", llama("kimi_k2", 61, kv_lora_rank=512, qk_rope_head_dim=64), 70272),
        (
            "moonshotai/Kimi-Linear-48B-A3B-Instruct",
            llama(
                "kimi_linear",
                27,
                kv_lora_rank=512,
                qk_rope_head_dim=64,
                linear_attn_config={"full_attn_layers": [4, 8, 12, 16, 20, 24, 27]},
            ),
            8064,
        ),
        # Layers that attend to the image store nothing per token of text.
        (
            "meta-llama/Llama-3.2-11B-Vision-Instruct",
            {
                "model_type": "mllama",
                "text_config": llama("mllama_text_model", 40, cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 38]),
            },
            131072,
        ),
        # Other names for the same figures.
        (
            "databricks/dbrx-instruct",
            {"model_type": "dbrx", "d_model": 6144, "n_layers": 40, "n_heads": 48, "attn_config": {"kv_n_heads": 8}},
            163840,
        ),
        (
            "zai-org/chatglm3-6b",
            {
                "model_type": "chatglm",
                "hidden_size": 4096,
                "num_layers": 28,
                "num_attention_heads": 32,
                "kv_channels": 128,
                "multi_query_attention": True,
                "multi_query_group_num": 2,
                "seq_length": 8192,
            },
            28672,
        ),
        # Bloom has its own name for the width.
        (
            "bigscience/bloomz-3b",
            {"model_type": "bloom", "n_embed": 2560, "n_layer": 30, "num_attention_heads": 32},
            30 * 2 * 2560 * 2,
        ),
    ],
)
def test_the_cache_per_token_is_the_sum_of_the_layers(hf_id: str, config: Json, per_token: int) -> None:
    assert kv_bytes_per_token(repository(hf_id, config).facts()) == per_token


def test_hybrid_layers_store_attention_and_state() -> None:
    """Falcon-H1 has 44 layers, each with 2 KV heads and a state of 24 × 128 × 256 numbers."""
    state = {"mamba_n_heads": 24, "mamba_d_head": 128, "mamba_d_state": 256, "mamba_n_groups": 1}
    cache = repository("tiiuae/Falcon-H1-7B-Instruct", llama("falcon_h1", 44, 2, **state)).facts().kept
    assert cache.per_token == 44 * 2 * 2 * 128 * 2
    assert cache.state_bytes >= 44 * 2 * 24 * 128 * 256


@pytest.mark.parametrize(
    ("checkpoint", "kind", "reason"),
    [
        (repository("baidu/ERNIE-4.5-21B-A3B-PT", llama("ernie4_5_moe", 28, 4)), "chat", ""),
        (repository("google/gemma-3-4b-pt", llama("gemma3_text")), "completion", ""),
        (repository("deepseek-ai/DeepSeek-OCR", llama("deepseek_vl_v2"), BASE), "chat", ""),
        (repository("colbert-ir/colbertv2.0", llama("bert"), BASE), "embeddings", ""),
        (repository("acme/Qwen3-Embedding-mini", llama("qwen3")), "embeddings", ""),
        (
            repository("jinaai/jina-colqwen", llama("qwen2_5_vl"), pipeline_tag="visual-document-retrieval"),
            "embeddings",
            "",
        ),
        (repository("google/recurrentgemma-2b-it", llama("recurrent_gemma")), "chat", "one that vLLM does not serve"),
        (
            repository("nvidia/Eagle2.5-8B", {**llama("eagle_2_5_vl"), "vision_config": {"hidden_size": 1152}}),
            "chat",
            "",
        ),
        (repository("RWKV/v5-Eagle-7B-HF", llama("rwkv5"), BASE), "completion", "one that vLLM does not serve"),
        (
            repository("z-lab/Qwen3-8B-DFlash-b16", llama("qwen3", 5), BASE),
            "draft",
            "a draft model for speculative decoding",
        ),
        (
            repository("mlx-community/Qwen2.5-7B-Instruct-4bit", llama("qwen2", quantization={"bits": 4})),
            "chat",
            "quantized for MLX",
        ),
        (
            repository("turboderp/Llama-3.1-8B-exl2", llama(quantization_config={"quant_method": "exl2"})),
            "chat",
            "quantized with exl2",
        ),
    ],
    ids=lambda value: value.hf_id if isinstance(value, Repository) else None,
)
def test_the_kind_is_derived_from_the_content(checkpoint: Repository, kind: str, reason: str) -> None:
    """Names are misleading: `-PT` means PyTorch, and Eagle is also the name of complete models."""
    facts = checkpoint.facts()
    assert facts.kind == kind
    assert reason in facts.unservable if reason else facts.unservable == ""


def test_a_pipelines_weights_are_in_its_folders() -> None:
    """The file next to the folders has the same weights again, and the other precision is not loaded."""
    files = {
        "model_index.json": 500,
        "sd_xl_base_1.0.safetensors": 6938078334,
        "unet/diffusion_pytorch_model.safetensors": 10270077736,
        "unet/diffusion_pytorch_model.fp16.safetensors": 5135149760,
        "vae/diffusion_pytorch_model.safetensors": 334643268,
    }
    facts = repository("stabilityai/stable-diffusion-xl-base-1.0", None, files, library="diffusers").facts()
    assert (facts.kind, facts.weight_bytes) == ("image", 10270077736 + 334643268)


def test_the_weights_of_a_head_are_counted_although_nothing_serves_it() -> None:
    files = {"medusa_lm_head.pt": 1484000000, "config.json": 200}
    facts = repository("FasterDecoding/medusa-vicuna-7b-v1.3", {"medusa_num_heads": 5}, files).facts()
    assert (facts.kind, facts.weight_bytes) == ("draft", 1484000000)


@pytest.mark.parametrize(
    ("hf_id", "model_type", "parser"),
    [
        ("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl_text", "--enable-auto-tool-choice --tool-call-parser=hermes"),
        ("Qwen/Qwen3-VL-4B-Thinking", "qwen3_vl_text", "--reasoning-parser=qwen3"),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "qwen3", "--reasoning-parser=deepseek_r1"),
        ("mistralai/Ministral-3-8B-Reasoning-2512", "ministral3", "--reasoning-parser=mistral"),
        ("ibm-granite/granite-3.2-8b-instruct", "granite", "--reasoning-parser=granite"),
        ("ibm-granite/granite-3.3-8b-instruct", "granite", "--enable-auto-tool-choice --tool-call-parser=granite"),
        ("allenai/Olmo-3-7B-Think", "olmo3", "--reasoning-parser=olmo3"),
        ("HuggingFaceTB/SmolLM3-3B", "smollm3", "--enable-auto-tool-choice --tool-call-parser=hermes"),
        ("LGAI-EXAONE/EXAONE-4.0-1.2B", "exaone4", "--enable-auto-tool-choice --tool-call-parser=hermes"),
        ("ByteDance-Seed/Seed-OSS-36B-Instruct", "seed_oss", "--reasoning-parser=seed_oss"),
        ("baidu/ERNIE-4.5-21B-A3B-Thinking", "ernie4_5_moe", "--reasoning-parser=ernie45"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "nemotron_h", "--reasoning-parser=nemotron_v3"),
    ],
)
def test_parsers_are_selected_by_model_series(hf_id: str, model_type: str, parser: str) -> None:
    """The parsers are those in vLLM's documentation and on the models' cards."""
    assert parser in " ".join(flags_for(repository(hf_id, llama(model_type)).facts()).all)


def test_a_vision_reranker_is_loaded_with_its_own_class() -> None:
    facts = repository("Qwen/Qwen3-VL-Reranker-2B", llama("qwen3_vl_text"), pipeline_tag="text-ranking").facts()
    assert '"Qwen3VLForSequenceClassification"' in " ".join(flags_for(facts).needed)


@pytest.mark.parametrize(("engine", "served"), [((0, 10), True), ((0, 11), False), (None, False)])
def test_an_architecture_that_vllm_removed_is_refused(engine: tuple[int, int] | None, served: bool) -> None:
    """The class of Llama 3.2 Vision is in vLLM up to 0.10."""
    config = {**llama(), "architectures": ["MllamaForConditionalGeneration"]}
    sizing = size(repository("acme/llama-vision-mini", config).facts(), Machine(), engine=engine)
    assert (sizing.verdict != "does not fit") is served
    assert served or "vLLM 0.10 was the last version that serves its architecture" in sizing.reasons[0]


@pytest.mark.parametrize(("files", "asks"), [(BASE, False), ({"tiktoken.model": 1, "model.safetensors": 8}, True)])
def test_a_tokenizer_in_python_needs_remote_code_if_there_is_no_other(files: dict[str, int], asks: bool) -> None:
    """Moonlight has the architecture of DeepSeek, and its only tokenizer is a Python file."""
    checkpoint = repository("moonshotai/Moonlight-16B-A3B-Instruct", llama("deepseek_v3"), files, tokenizer_code=True)
    assert ("--trust-remote-code" in flags_for(checkpoint.facts()).needed) is asks


def test_a_parser_that_needs_vllms_template_causes_a_warning() -> None:
    """Phi-4-mini's tool calls are read only with a template that the image may lack."""
    flags = flags_for(repository("microsoft/Phi-4-mini-instruct", llama("phi3")).facts())
    assert flags.all == ()
    assert "--chat-template=tool_chat_template_phi4_mini.jinja" in flags.warnings[0]


@pytest.mark.parametrize(("part", "limits_images"), [("audio_config", False), ("vision_config", True)])
def test_an_audio_model_gets_no_image_limit(part: str, limits_images: bool) -> None:
    """Voxtral and Qwen2-Audio take no images."""
    config = {"model_type": "voxtral", part: {"hidden_size": 1280}, "text_config": llama()}
    flags = flags_for(repository("mistralai/Voxtral-Mini-3B-2507", config).facts())
    assert any(flag.startswith("--limit-mm-per-prompt") for flag in flags.all) is limits_images
