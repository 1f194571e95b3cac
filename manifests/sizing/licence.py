"""Licence terms of a model's weights that a reviewer has to know."""

from manifests.sizing.facts import ModelFacts

_NOT_COMMERCIAL = {
    "mnpl": "the Mistral Non-Production License allows research and tests only",
    "mrl": "the Mistral Research License allows research only",
    "mistral-research": "the Mistral Research License allows research only",
    "qwen-research": "the Qwen Research License allows research and evaluation only",
    "cc-by-nc": "Creative Commons NC licences exclude commercial use",
    "-nc": "NC licences exclude commercial use",
    "non-commercial": "its licence excludes commercial use",
    "noncommercial": "its licence excludes commercial use",
    "exaone": "LG's EXAONE licence allows research only",
    "apple-amlr": "Apple's research licence excludes commercial use",
    "nsclv1": "NVIDIA's source code licence excludes commercial use",
    "research": "its licence allows research only",
}
_CONDITIONS = {
    "gemma": "Gemma's terms contain a list of prohibited uses, and they bind everybody who gets access to the model",
    "llama": 'Meta\'s community licence requires the notice "Built with Llama", and another licence above 700 million '
    "monthly users",
    "nvidia-open-model-license": "NVIDIA's open model licence contains conditions for redistribution and guardrails",
}


def terms(facts: ModelFacts) -> tuple[str, ...]:
    """Return warnings about access and licence: gated weights, restrictions, requirements."""
    warnings = []
    if facts.gated:
        warnings.append(
            f"{facts.hf_id} is gated: accept its terms on Hugging Face and give the pod a token, or stage it."
        )
    if facts.withheld:
        warnings.append(
            f"The files of {facts.hf_id} cannot be read: its layers were taken from another repository of the same model."
        )
    licence = (facts.licence or "").lower()
    if reason := next((reason for mark, reason in _NOT_COMMERCIAL.items() if mark in licence), ""):
        warnings.append(f"The licence of {facts.hf_id} ({facts.licence}) does not allow commercial use: {reason}.")
    elif condition := next((text for mark, text in _CONDITIONS.items() if licence.startswith(mark)), ""):
        warnings.append(f"The licence of {facts.hf_id} ({facts.licence}) has conditions: {condition}.")
    return tuple(warnings)
