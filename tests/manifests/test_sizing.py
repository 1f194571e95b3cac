"""Sizing against published figures: Qwen2.5-Coder on one L4 and 16 GB of memory."""

import pytest

from manifests.sizing import (
    GIB,
    Cache,
    Layers,
    Machine,
    MissingFigures,
    ModelFacts,
    estimated_weights,
    kv_bytes_per_token,
    largest_context,
    quantity_bytes,
    size,
    storage_for,
    tokens,
)
from manifests.sizing.licence import terms
from manifests.tree import ManifestError
from tests.manifests.models import (
    CODER_1_5B,
    CODER_3B,
    CODER_3B_AWQ,
    CODER_7B,
    CODER_7B_AWQ,
    CODER_14B,
    CODER_14B_AWQ,
    CODER_32B_AWQ,
    LLAMA_8B,
)


@pytest.mark.parametrize(
    ("facts", "per_token"),
    [(CODER_1_5B, 28672), (CODER_3B_AWQ, 36864), (CODER_7B, 57344), (CODER_14B_AWQ, 196608), (CODER_32B_AWQ, 262144)],
    ids=lambda value: getattr(value, "hf_id", ""),
)
def test_the_cache_per_token_follows_from_the_models_shape(facts: ModelFacts, per_token: int) -> None:
    """It is 2 × layers × KV heads × head size × 2 bytes, independent of the quantization of the weights."""
    assert kv_bytes_per_token(facts) == per_token


def test_the_cache_per_token_equals_vllms() -> None:
    """At boot, vLLM 0.15.1 had 19.28 GiB for the cache of Llama-3.1-8B, which is sufficient for 157,936 tokens.

    The log is in https://github.com/ilseokoh/vllm-gce (README); the shape is that of the sizing's test models.
    """
    assert 157_936 * kv_bytes_per_token(LLAMA_8B) / GIB == pytest.approx(19.28, abs=0.005)


def test_windowed_layers_report_the_cache_per_token_inside_the_window() -> None:
    """Mistral-7B-v0.1 needs 32 layers × 2 × 8 heads × 128 × 2 bytes per token, for at most 4096 tokens and one step."""
    layers = Layers(count=32, token_bytes=4096, window=4096)
    facts = CODER_7B.model_copy(update={"cache": Cache(layers=(layers,))})
    assert kv_bytes_per_token(facts) == 131_072
    assert facts.kept.request_bytes(32768) == 131_072 * (4096 + 2048)
    mixed = Cache(layers=(layers, Layers(count=8, token_bytes=4096)))
    assert kv_bytes_per_token(facts.model_copy(update={"cache": mixed})) == 8 * 4096


def test_float32_is_cast_only_on_the_gpu(machine: Machine) -> None:
    """The GPU needs half of the files' size and a cache of float16; host and volume need the size of the files."""
    facts = CODER_3B.model_copy(update={"dtype": "float32", "weight_bytes": 2 * CODER_3B.weight_bytes})
    assert largest_context(facts, machine, 0.5) == largest_context(CODER_3B, machine, 0.5)
    rows = {row.label.partition(" (")[0]: row.value for row in size(facts, machine).numbers}
    assert rows["Weights, host memory"] == "11.5 GiB"
    assert "weights 5.7 GiB" in rows["GPU"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("16384", 16384), ("16k", 16000), ("16K", 16384), ("1.5k", 1500), ("auto", None), ("1.5", None)],
)
def test_a_context_has_vllms_notation(text: str, number: int | None) -> None:
    """A lower-case k is 1000, and an upper-case K is 1024."""
    assert tokens(text) == number


@pytest.mark.parametrize("facts", [CODER_1_5B, CODER_3B_AWQ, CODER_7B_AWQ, CODER_14B_AWQ], ids=lambda f: f.hf_id)
def test_quantized_models_up_to_14b_run_on_the_small_machine(facts: ModelFacts, machine: Machine) -> None:
    """They run with the full context of their own configuration."""
    sizing = size(facts, machine)
    assert sizing.verdict != "does not fit"
    assert sizing.context == 32768


# The GPU memory that Qwen measured for the models of these sizes and formats with 1 input and 2048 output tokens: column
# "GPU Memory" of https://github.com/QwenLM/Qwen2.5/blob/010c37c33b13a1ac59944b349620e13404efe97d/docs/source/benchmark/speed_benchmark.rst
# (Transformers, which takes memory as it needs it). The Coder models have the architecture of their sizes (arXiv
# 2409.12186, section 2).
@pytest.mark.parametrize(
    ("facts", "gib"),
    [
        (CODER_1_5B, 2.95),
        (CODER_3B, 5.95),
        (CODER_3B_AWQ, 2.50),
        (CODER_7B, 14.38),
        (CODER_7B_AWQ, 5.39),
        (CODER_14B, 28.08),
        (CODER_14B_AWQ, 9.79),
        (CODER_32B_AWQ, 18.67),
    ],
    ids=lambda value: getattr(value, "hf_id", ""),
)
def test_weights_and_cache_equal_published_measurements(facts: ModelFacts, gib: float) -> None:
    """The size of the files plus the cache of 2049 tokens by the formula is within 3 % of the measurement."""
    reckoned = facts.weight_bytes + 2049 * kv_bytes_per_token(facts)
    assert reckoned / GIB == pytest.approx(gib, rel=0.03)


# "Number of Parameters" on the models' own cards, like https://huggingface.co/Qwen/Qwen2.5-Coder-7B-Instruct.
@pytest.mark.parametrize(
    ("facts", "billions"),
    [(CODER_1_5B, 1.54), (CODER_3B, 3.09), (CODER_7B, 7.61), (CODER_14B, 14.7)],
    ids=lambda value: getattr(value, "hf_id", ""),
)
def test_unquantized_weights_have_two_bytes_per_parameter(facts: ModelFacts, billions: float) -> None:
    """The size is within 1 % of the published count."""
    assert facts.weight_bytes == pytest.approx(billions * 1e9 * 2, rel=0.01)


def test_an_unquantized_14b_is_refused_with_a_sufficient_machine(machine: Machine) -> None:
    """29.5 GB fit into neither 16 GiB nor an L4: both are reported."""
    sizing = size(CODER_14B, machine)
    assert sizing.verdict == "does not fit"
    assert "g2-standard-12" in sizing.reasons[0]
    assert "leave no room for a cache" in sizing.reasons[1]


def test_the_largest_context_fills_the_memory(machine: Machine) -> None:
    """For a 7B in half precision on an L4, 22.03 GiB × 0.9 - 14.2 - 2.2 leaves 3.4 GiB, which is more than its 32768 tokens need.

    A 32B in 4 bits leaves nothing; a 7B without grouped queries (512 KiB a token) leaves less than its context needs.
    """
    assert largest_context(CODER_7B, machine, 0.9) == 32768
    assert largest_context(CODER_32B_AWQ, machine, 0.9) == 0
    whole = CODER_7B.model_copy(update={"layers": 32, "kv_heads": 32})
    room = int(machine.vram_bytes * 0.9) - CODER_7B.weight_bytes - 2 * GIB - int(machine.vram_bytes * 0.01)
    assert largest_context(whole, machine, 0.9) == room // (512 * 1024) // 1024 * 1024


def test_a_missing_figure_is_requested_by_its_option() -> None:
    """The error lists the figures, so that a form can ask for exactly these."""
    unseen = ModelFacts.unseen("Qwen/Qwen2.5-Coder-7B-Instruct-AWQ")
    assert unseen.quantization == "awq"
    assert unseen.missing(gpu=True) == ("weights", "layers", "kv-heads", "head-size", "max-context")
    assert unseen.missing(gpu=False) == ("weights",)
    error = MissingFigures(unseen.hf_id, unseen.missing(gpu=False))
    assert error.options == ("weights",)
    assert "the size of the weights" in str(error)
    assert "weights=5.6GB" in str(error)
    with_figures = unseen.with_figures({"weights": "5.6GB", "layers": "28"})
    assert (with_figures.weight_bytes, with_figures.layers) == (5_600_000_000, 28)
    assert unseen.with_figures({"weights": "5GiB"}).weight_bytes == 5 * GIB
    for wrong in ({"weights": "much"}, {"layers": "0"}, {"layers": "28.5"}):
        with pytest.raises(ManifestError, match="cannot be read"):
            unseen.with_figures(wrong)


def test_a_32b_model_does_not_fit_into_the_hosts_memory(machine: Machine) -> None:
    """18 GiB of weights are staged through 16 GiB: the refusal contains both numbers and the remedy."""
    sizing = size(CODER_32B_AWQ, machine)
    assert sizing.verdict == "does not fit"
    assert "19.3 GB (18.0 GiB)" in sizing.reasons[0]
    assert "16.0 GiB" in sizing.reasons[0]
    assert "a larger machine (g2-standard-8)" in sizing.reasons[0]


def test_an_unquantized_7b_is_tight(machine: Machine) -> None:
    """15.2 GB barely fit into 16 GiB and into the GPU, so there is a warning and no refusal."""
    sizing = size(CODER_7B, machine, context=16384)
    assert sizing.verdict == "tight"
    assert "Host memory is tight" in sizing.warnings[0]


def test_a_context_that_does_not_fit_is_refused_with_the_largest_that_fits() -> None:
    """On half the GPU a 14B has no room for its longest context."""
    half = Machine(vram_bytes=14 * GIB)
    largest = largest_context(CODER_14B_AWQ, half, 0.9)
    assert 0 < largest < 32768
    sizing = size(CODER_14B_AWQ, half, context=32768)
    assert sizing.verdict == "does not fit"
    assert f"context={largest}" in sizing.reasons[0]
    assert size(CODER_14B_AWQ, half).context == largest


def test_a_context_longer_than_the_models_is_refused(machine: Machine) -> None:
    """The model's own limit applies even if the memory is sufficient."""
    assert "at most 32768" in size(CODER_3B_AWQ, machine, context=65536).reasons[0]


def test_the_containers_memory_limit_is_checked_separately(machine: Machine) -> None:
    """The limit depends on the model, up to the memory of the node; a requested limit is kept, even if it is too small."""
    assert size(CODER_7B, machine, memory_limit_bytes=8 * GIB).memory_bytes == 16 * GIB
    assert size(CODER_3B_AWQ, machine, memory_limit_bytes=20 * GIB).memory_bytes == 20 * GIB
    sizing = size(CODER_7B, machine, memory_limit_bytes=20 * GIB, memory_bytes=8 * GIB)
    assert sizing.verdict == "does not fit"
    assert "ask for memory=16Gi" in sizing.reasons[0]


def test_old_and_new_weights_share_the_volume(machine: Machine) -> None:
    """A swap keeps the old weights, so a volume that holds one model may not hold two."""
    assert size(CODER_7B, machine, storage="20Gi").verdict == "tight"
    resized = size(CODER_7B, machine, storage="20Gi", kept_weight_bytes=CODER_7B_AWQ.weight_bytes)
    assert resized.verdict == "does not fit"
    assert "storage=25Gi" in resized.reasons[0]


def test_gated_and_non_commercial_models_cause_a_warning() -> None:
    """The licence is unrelated to the size, and the reviewer has to know it."""
    facts = CODER_3B_AWQ.model_copy(update={"gated": "manual"})
    warnings = terms(facts)
    assert any("gated" in warning for warning in warnings)
    assert any("commercial" in warning for warning in warnings)


@pytest.mark.parametrize("facts", [CODER_1_5B, CODER_7B, CODER_7B_AWQ, CODER_14B_AWQ], ids=lambda f: f.hf_id)
def test_unknown_weights_are_estimated_from_the_name(facts: ModelFacts) -> None:
    """The estimate is accurate to 20 %, which is enough to decide whether a volume must grow."""
    guess = estimated_weights(facts.hf_id)
    assert guess is not None
    assert abs(guess - facts.weight_bytes) / facts.weight_bytes < 0.2


def test_a_name_without_a_size_gives_no_estimate() -> None:
    """An unknown size is better than a wrong one."""
    assert estimated_weights("BAAI/bge-base-en-v1.5") is None


def test_quantities_have_kubernetes_notation() -> None:
    """Binary and decimal suffixes differ."""
    assert quantity_bytes("20Gi") == 20 * GIB
    assert quantity_bytes("20G") == 20 * 10**9
    with pytest.raises(ValueError, match="20 gigs"):
        quantity_bytes("20 gigs")
    assert storage_for(2 * 10**9) == "5Gi"
