"""The influence of a boot on the next estimate, and its limits."""

import pytest

from manifests.sizing import GIB, Machine, largest_context, overhead_of
from manifests.sizing.observed import Observation, Report, observe, read_report
from tests.manifests.models import CODER_3B_AWQ, CODER_7B, CODER_7B_AWQ

LOG = """\
(APIServer pid=1) INFO 11-28 10:00:00 [api_server.py:1896] vLLM API server version 0.29.1
(EngineCore_DP0 pid=71) INFO 11-28 10:00:20 [gpu_model_runner.py:2653] Model loading took 9.0100 GiB and 38.5 seconds
(EngineCore_DP0 pid=71) INFO 11-28 10:00:40 [gpu_worker.py:298] Available KV cache memory: 9.10 GiB
(EngineCore_DP0 pid=71) INFO 11-28 10:00:41 [kv_cache_utils.py:1087] GPU KV cache size: 267,842 tokens
"""
L4 = Machine()
BUDGET = int(L4.vram_bytes * 0.92)


def observation(report: Report, weights: int = int(8.68 * GIB)) -> Observation | None:
    return observe(report, hf_id="acme/x", gpu="L4", budget=BUDGET, weights=weights, model_class="text", engine="0.23")


def taught(overhead: float, weights: int = CODER_7B_AWQ.weight_bytes, engine: str = "0.23") -> Observation:
    return Observation(
        hf_id="acme/x", engine=engine, gpu="L4", model_class="text", weight_bytes=weights,
        overhead_bytes=int(overhead * GIB), weights_factor=1.0,
    )  # fmt: skip


def test_the_figures_of_a_real_boot_are_read() -> None:
    """Of 20.27 GiB, the model takes 9.01 and the cache 9.10, so the engine's overhead is 2.16 GiB."""
    report = read_report(LOG)
    assert report == Report(model_gib=9.01, available_gib=9.1, tokens=267_842, version="0.29")
    observed = observation(report)
    assert observed is not None
    assert observed.overhead_bytes / GIB == pytest.approx(2.16, abs=0.01)
    assert (observed.engine, observed.weights_factor) == ("0.29", 1.038)


@pytest.mark.parametrize(
    "report",
    [
        Report(model_gib=9.0, available_gib=40.0),
        Report(model_gib=9.0, available_gib=11.2),
        Report(model_gib=0.1, available_gib=9.1),
        Report(model_gib=19.0, available_gib=0.1),
    ],
    ids=["more than there is", "no overhead at all", "no model", "twice the weights"],
)
def test_impossible_figures_are_ignored(report: Report) -> None:
    """A log may contain any text."""
    assert observation(report) is None
    assert read_report("Model loading took GiB\nAvailable KV cache memory: lots GiB") is None


def test_the_next_estimate_uses_and_names_the_observed_figures() -> None:
    """It uses the maximum of comparable boots, with the margin; a larger context fits if the engine used less."""
    facts = CODER_7B_AWQ.model_copy(update={"observed": (taught(1.1), taught(1.3)), "max_context": 10**6})
    overhead = overhead_of(facts, L4, (0, 23))
    assert overhead.source == "observed at 2 boots of vLLM 0.23"
    assert overhead.bytes == int(1.3 * GIB) + int(L4.vram_bytes * 0.01)
    fresh = facts.model_copy(update={"observed": ()})
    assert largest_context(facts, L4, 0.9, overhead) > largest_context(fresh, L4, 0.9)


@pytest.mark.parametrize(
    ("facts", "observed", "engine"),
    [
        (CODER_7B, taught(1.1, weights=CODER_3B_AWQ.weight_bytes), (0, 23)),
        (CODER_7B_AWQ, taught(1.1, engine="0.21"), (0, 23)),
        (CODER_7B_AWQ.model_copy(update={"multimodal": True}), taught(1.1), (0, 23)),
    ],
    ids=["of a much smaller model", "of another engine", "of another class"],
)
def test_other_boots_do_not_lower_the_estimate(facts: object, observed: Observation, engine: tuple[int, int]) -> None:
    """Activations grow with the model, and engines differ."""
    assert isinstance(facts, type(CODER_7B))
    assert overhead_of(facts.model_copy(update={"observed": (observed,)}), L4, engine).source == "estimated"


def test_a_small_model_with_high_overhead_raises_the_estimate_for_a_large_one() -> None:
    """The measured memory of one boot also counts for a larger model."""
    facts = CODER_7B.model_copy(update={"observed": (taught(4.0, weights=CODER_3B_AWQ.weight_bytes),)})
    assert overhead_of(facts, L4, (0, 23)).bytes > 4 * GIB
