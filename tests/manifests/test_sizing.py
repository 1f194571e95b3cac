"""Sizing against published figures: Qwen2.5-Coder on one L4 and 16 GB of memory."""

import pytest

from manifests.sizing import (
    GIB,
    Machine,
    ModelFacts,
    estimated_weights,
    kv_bytes_per_token,
    largest_context,
    quantity_bytes,
    size,
    storage_for,
)
from tests.manifests.models import (
    CODER_1_5B,
    CODER_3B_AWQ,
    CODER_7B,
    CODER_7B_AWQ,
    CODER_14B_AWQ,
    CODER_32B_AWQ,
)


@pytest.mark.parametrize(
    ("facts", "per_token"),
    [(CODER_1_5B, 28672), (CODER_3B_AWQ, 36864), (CODER_7B, 57344), (CODER_14B_AWQ, 196608), (CODER_32B_AWQ, 262144)],
    ids=lambda value: getattr(value, "hf_id", ""),
)
def test_the_cache_of_one_token_follows_from_the_shape(facts: ModelFacts, per_token: int) -> None:
    """2 × layers × KV heads × head size × 2 bytes, whatever the weights are quantized to."""
    assert kv_bytes_per_token(facts) == per_token


@pytest.mark.parametrize("facts", [CODER_1_5B, CODER_3B_AWQ, CODER_7B_AWQ, CODER_14B_AWQ], ids=lambda f: f.hf_id)
def test_up_to_14b_quantized_everything_runs_on_the_small_machine(facts: ModelFacts, machine: Machine) -> None:
    """With the full context of the model's own configuration."""
    sizing = size(facts, machine)
    assert sizing.verdict != "does not fit"
    assert sizing.context == 32768


def test_32b_does_not_pass_through_the_memory_of_the_small_machine(machine: Machine) -> None:
    """18 GiB of weights are staged through 16 GiB: the refusal says both numbers and the remedy."""
    sizing = size(CODER_32B_AWQ, machine)
    assert sizing.verdict == "does not fit"
    assert "19.3 GB (18.0 GiB)" in sizing.reasons[0]
    assert "16.0 GiB" in sizing.reasons[0]
    assert "larger machine" in sizing.reasons[0]


def test_7b_unquantized_is_tight(machine: Machine) -> None:
    """15.2 GB fit into 16 GiB and into the GPU, with little to spare: a warning, not a refusal."""
    sizing = size(CODER_7B, machine, context=16384)
    assert sizing.verdict == "tight"
    assert "Host memory is tight" in sizing.warnings[0]


def test_a_context_that_does_not_fit_is_refused_with_the_one_that_does() -> None:
    """On half the GPU a 14B has no room for its longest context."""
    half = Machine(vram_bytes=14 * GIB)
    largest = largest_context(CODER_14B_AWQ, half, 0.9)
    assert 0 < largest < 32768
    sizing = size(CODER_14B_AWQ, half, context=32768)
    assert sizing.verdict == "does not fit"
    assert f"context={largest}" in sizing.reasons[0]
    assert size(CODER_14B_AWQ, half).context == largest


def test_a_context_longer_than_the_model_reads_is_refused(machine: Machine) -> None:
    """The model's own limit counts also where memory would suffice."""
    assert "at most 32768" in size(CODER_3B_AWQ, machine, context=65536).reasons[0]


def test_the_container_s_memory_limit_is_a_limit_of_its_own(machine: Machine) -> None:
    """Kubernetes kills the container before the host is full."""
    sizing = size(CODER_7B, machine, memory_limit_bytes=8 * GIB)
    assert any("resources.limits.memory" in reason for reason in sizing.reasons)


def test_old_and_new_weights_share_the_volume(machine: Machine) -> None:
    """A swap keeps the old weights, so a volume that holds one model may not hold two."""
    assert size(CODER_7B, machine, storage="20Gi").verdict == "tight"
    kept = size(CODER_7B, machine, storage="20Gi", kept_weight_bytes=CODER_7B_AWQ.weight_bytes)
    assert kept.verdict == "does not fit"
    assert "storage=25Gi" in kept.reasons[0]


def test_gated_and_non_commercial_models_are_warned_of(machine: Machine) -> None:
    """Who may use the weights is no question of size, and the reviewer has to know."""
    facts = CODER_3B_AWQ.model_copy(update={"gated": "manual"})
    warnings = size(facts, machine).warnings
    assert any("gated" in each for each in warnings)
    assert any("commercial" in each for each in warnings)


@pytest.mark.parametrize("facts", [CODER_1_5B, CODER_7B, CODER_7B_AWQ, CODER_14B_AWQ], ids=lambda f: f.hf_id)
def test_the_size_of_unseen_weights_is_guessed_from_the_name(facts: ModelFacts) -> None:
    """Good enough to decide whether a volume must grow: within a fifth."""
    guess = estimated_weights(facts.hf_id)
    assert guess is not None
    assert abs(guess - facts.weight_bytes) / facts.weight_bytes < 0.2


def test_a_name_without_a_size_gives_no_guess() -> None:
    """Better unknown than wrong."""
    assert estimated_weights("BAAI/bge-base-en-v1.5") is None


def test_quantities_are_those_of_kubernetes() -> None:
    """Binary and decimal suffixes differ."""
    assert quantity_bytes("20Gi") == 20 * GIB
    assert quantity_bytes("20G") == 20 * 10**9
    with pytest.raises(ValueError, match="20 gigs"):
        quantity_bytes("20 gigs")
    assert storage_for(2 * 10**9) == "5Gi"
