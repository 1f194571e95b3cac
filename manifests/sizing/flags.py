"""The arguments that a model needs besides its name and its context, each from a table with its source.

Without a *needed* argument the engine does not start, or serves another kind. Without an *optional* argument a feature
is missing (tool calls, separate reasoning). A model that is not in the table gets no argument.
"""

import re
from collections.abc import Sequence

from pydantic import BaseModel

from manifests.frozen import frozen
from manifests.sizing.facts import ModelFacts

TOOLS = "https://docs.vllm.ai/en/stable/features/tool_calling/"
REASONING = "https://docs.vllm.ai/en/stable/features/reasoning_outputs/"
POOLING = "https://docs.vllm.ai/en/stable/models/pooling_models/"

Version = tuple[int, int]

OF_THE_MODEL = (
    "--tool-call-parser",
    "--enable-auto-tool-choice",
    "--reasoning-parser",
    "--tokenizer-mode",
    "--config-format",
    "--load-format",
    "--runner",
    "--convert",
    "--hf-overrides",
    "--limit-mm-per-prompt",
    "--mm-processor-kwargs",
    "--chat-template",
    "--rope-scaling",
    "--trust-remote-code",
    "--speculative-config",
)
"""Arguments that belong to one model or its family; other models must not inherit them."""


class Flags(BaseModel, frozen=True, defer_build=True):
    """Arguments to write, and open questions as warnings."""

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.needed, *self.optional)


@frozen
class _Family:
    """Models by type and name, with their parsers and the first version of vLLM that has them; the first match applies."""

    model_types: tuple[str, ...]
    name: str
    tools: str = ""
    reasoning: str = ""
    since: Version = (0, 8)
    template: str = ""
    """A chat template from vLLM's examples that the parser needs to find tool calls; the image may not contain it."""


_QWEN3 = ("qwen3", "qwen3_moe", "qwen3_next", "qwen3_vl_text", "qwen3_vl_moe_text")
_LLAMA = ("llama", "mllama_text_model", "mllama")
_MISTRAL = ("mistral", "ministral3", "ministral", "mixtral")

FAMILIES: Sequence[_Family] = (
    # Qwen's model cards name the parser of each series; the names of the series are in TOOLS and REASONING.
    _Family(_QWEN3, r"coder", tools="qwen3_coder", since=(0, 10)),
    _Family(_QWEN3, r"thinking", tools="hermes", reasoning="qwen3", since=(0, 9)),
    _Family(_QWEN3, r"instruct", tools="hermes"),
    _Family(("qwen3", "qwen3_moe"), r"^qwen3-\d", tools="hermes", reasoning="qwen3", since=(0, 9)),
    _Family(("qwen3_5_text", "qwen3_5_moe_text"), r"", tools="qwen3_coder", reasoning="qwen3", since=(0, 17)),
    _Family((*_LLAMA, "qwen2", "qwen3"), r"deepseek-r1-", reasoning="deepseek_r1"),
    _Family(("qwen2",), r"^qwq-", tools="hermes", reasoning="deepseek_r1"),
    _Family(("qwen2",), r"^qwen2\.5-\d.*instruct", tools="hermes"),
    _Family((*_LLAMA, "mistral"), r"^(nous-)?hermes-[234]", tools="hermes"),
    _Family(_LLAMA, r"llama-3\.[123].*instruct", tools="llama3_json"),
    _Family(("llama4_text",), r"", tools="llama4_pythonic"),
    _Family(_MISTRAL, r"magistral|ministral.*reasoning", tools="mistral", reasoning="mistral", since=(0, 12)),
    _Family(
        _MISTRAL, r"mistral-7b-instruct-v0\.3|mistral-(nemo|small|medium|large)|ministral|devstral", tools="mistral"
    ),
    _Family(("gpt_oss",), r"", tools="openai", reasoning="openai_gptoss", since=(0, 11)),
    _Family(("nemotron_h",), r"nemotron-3-", tools="qwen3_coder", reasoning="nemotron_v3", since=(0, 18)),
    _Family(("granitemoehybrid", "granite", "granitemoe"), r"granite-4", tools="granite4", since=(0, 20)),
    _Family(("granite",), r"granite-3\.2.*instruct", tools="granite", reasoning="granite"),
    _Family(("granite", "granitemoe"), r"granite-3\.[0-3].*instruct", tools="granite"),
    _Family(("jamba",), r"jamba-(1\.5|large|mini)", tools="jamba"),
    _Family(("glm4_moe_lite",), r"", tools="glm47", reasoning="glm45", since=(0, 14)),
    _Family(("glm4_moe",), r"glm-4\.7", tools="glm47", reasoning="glm45", since=(0, 14)),
    _Family(("glm4_moe",), r"", tools="glm45", reasoning="glm45", since=(0, 10)),
    _Family(("deepseek_v3",), r"v3\.1", tools="deepseek_v31", reasoning="deepseek_v3", since=(0, 11)),
    _Family(("deepseek_v3",), r"r1", tools="deepseek_v3", reasoning="deepseek_r1"),
    _Family(("deepseek_v3",), r"v3-0324", tools="deepseek_v3"),
    _Family(("kimi_k2",), r"instruct", tools="kimi_k2", since=(0, 10)),
    _Family(("internlm2",), r"internlm2_5", tools="internlm"),
    _Family(("olmo3",), r"think", tools="olmo3", reasoning="olmo3", since=(0, 12)),
    _Family(("olmo3",), r"", tools="olmo3", since=(0, 12)),
    _Family(("ernie4_5_moe",), r"thinking", tools="ernie45", reasoning="ernie45", since=(0, 12)),
    _Family(("ernie4_5_vl_moe_text",), r"", reasoning="ernie45", since=(0, 12)),
    _Family(("seed_oss",), r"", tools="seed_oss", reasoning="seed_oss", since=(0, 11)),
    _Family(("minimax_m2",), r"", tools="minimax_m2", reasoning="minimax_m2_append_think", since=(0, 12)),
    _Family(("exaone4",), r"", tools="hermes"),
    _Family(("smollm3",), r"", tools="hermes"),
    _Family(("hunyuan_v1_moe",), r"a13b", tools="hunyuan_a13b", reasoning="hunyuan_a13b", since=(0, 10)),
    _Family(("phi3",), r"^phi-4-mini-instruct", tools="phi4_mini_json", template="tool_chat_template_phi4_mini.jinja"),
    _Family(("gemma4_text",), r"", tools="gemma4", reasoning="gemma4", since=(0, 19)),
)
"""Sources: TOOLS and REASONING of vLLM, and the cards of Qwen3, Qwen3.5 and gpt-oss."""

_RERANKERS = (
    (
        re.compile(r"(?i)qwen3-vl-reranker"),
        '{"architectures":["Qwen3VLForSequenceClassification"],"classifier_from_token":["no","yes"],'
        '"is_original_qwen3_reranker":true}',
    ),
    (
        re.compile(r"(?i)qwen3-reranker"),
        '{"architectures":["Qwen3ForSequenceClassification"],"classifier_from_token":["no","yes"],'
        '"is_original_qwen3_reranker":true}',
    ),
    (
        re.compile(r"(?i)bge-reranker-v2-gemma"),
        '{"architectures":["GemmaForSequenceClassification"],"classifier_from_token":["Yes"],"method":"no_post_processing"}',
    ),
    (
        re.compile(r"(?i)mxbai-rerank.*-v2"),
        '{"architectures":["Qwen2ForSequenceClassification"],"classifier_from_token":["0","1"],'
        '"method":"from_2_way_softmax"}',
    ),
)
"""The `--hf-overrides` of rerankers that are published as generating models. Source: POOLING, section on scoring; each model's card."""

_REMOVED: dict[Version, tuple[str, ...]] = {
    (0, 9): ("Phi3SmallForCausalLM",),
    (0, 10): (
        "BartForConditionalGeneration",
        "DonutForConditionalGeneration",
        "Florence2ForConditionalGeneration",
        "MBartForConditionalGeneration",
        "MllamaForConditionalGeneration",
        "MotifForCausalLM",
        "Phi4FlashForCausalLM",
    ),
    (0, 12): ("Phi4MultimodalForCausalLM",),
    (0, 22): ("JAISLMHeadModel",),
    (0, 23): (
        "BaiChuanForCausalLM",
        "BaichuanForCausalLM",
        "BambaForCausalLM",
        "Dots1ForCausalLM",
        "InternLMForCausalLM",
        "QWenLMHeadModel",
        "QwenVLForConditionalGeneration",
        "XverseForCausalLM",
    ),
    (0, 24): ("AquilaForCausalLM", "AyaVisionForConditionalGeneration", "Grok1ForCausalLM"),
    (0, 25): ("FuyuForCausalLM", "PersimmonForCausalLM", "TeleChatForCausalLM"),
    (0, 26): ("OuroForCausalLM", "Plamo2ForCausalLM"),
}
"""Architectures by the last version of vLLM that serves them (`_PREVIOUSLY_SUPPORTED_MODELS` in its registry)."""

# vLLM selects slower kernels for these formats by default; it reads the other formats from the weights' configuration.
KERNELS = {"awq": "awq_marlin", "gptq": "gptq_marlin"}

_TEI_TYPES = (
    "bert", "camembert", "roberta", "xlm-roberta", "distilbert", "mpnet", "modernbert", "nomic_bert", "new", "qwen3",
    "gemma3_text",
)  # fmt: skip
_TEI_RERANKER_TYPES = ("bert", "camembert", "roberta", "xlm-roberta", "modernbert", "new")
TEI_ON_CPU_BYTES = 25 * 10**8
"""Embedding models that are fast enough without a GPU: up to half a billion parameters in float32."""


def on_cpu(facts: ModelFacts) -> bool:
    """Return whether the model is added on a CPU by default, which applies to small embedding models.

    A reranker reads every candidate text for each question, which takes seconds on a CPU, so a request has to choose the
    CPU for it (`like=`).
    """
    return facts.kind == "embeddings" and tei_serves(facts)


def tei_serves(facts: ModelFacts) -> bool:
    """Return whether text-embeddings-inference serves the model on a CPU.

    Source: "Supported models" of its documentation (Qwen3 since 1.7.2, Gemma 3 since 1.8; rerankers are the classes for
    sequence classification of some encoders).
    """
    if facts.unservable or not 0 < facts.weight_bytes <= TEI_ON_CPU_BYTES:
        return False
    if facts.kind == "reranker":
        scores = facts.architecture.endswith("ForSequenceClassification")
        return scores and facts.model_type in _TEI_RERANKER_TYPES and not facts.remote_code
    return facts.kind == "embeddings" and facts.model_type in _TEI_TYPES


def flags_for(facts: ModelFacts, version: Version | None = None) -> Flags:
    """Return vLLM's arguments for a model. `version` is the version of vLLM; None (unknown) counts as the current version."""
    if facts.unservable or on_cpu(facts):
        return Flags()
    needed: list[str] = []
    warnings: list[str] = []
    if facts.pools:
        needed.append("--runner=pooling")
        if overrides := _overrides(facts):
            needed.append(f"--hf-overrides={overrides}")
        elif facts.kind == "reranker" and not facts.architecture.endswith("ForSequenceClassification"):
            warnings.append(f"It is unknown how {facts.hf_id} computes scores: see its model card for --hf-overrides.")
    if facts.mistral_format:
        needed += ["--tokenizer-mode=mistral", "--config-format=mistral", "--load-format=mistral"]
    if needs_remote_code(facts):
        needed.append("--trust-remote-code")
    if facts.kind != "chat":
        return Flags(needed=tuple(needed), warnings=tuple(warnings))
    optional, doubts = _parsers(facts, version)
    if facts.multimodal and not facts.hears_only:
        optional.append('--limit-mm-per-prompt={"image":4}')
    return Flags(needed=tuple(needed), optional=tuple(optional), warnings=(*warnings, *doubts))


def outdated(facts: ModelFacts, version: Version | None = None) -> str:
    """Return why this version of vLLM no longer serves the model's architecture; "" if it may serve it, or for GGUF files."""
    for last, architectures in _REMOVED.items():
        if facts.architecture in architectures and not facts.gguf and (version is None or version > last):
            return f"vLLM {last[0]}.{last[1]} was the last version that serves its architecture ({facts.architecture})"
    return ""


def needs_remote_code(facts: ModelFacts) -> bool:
    """Return whether the engine has to run Python code from the repository, because no library has the model's class."""
    return facts.remote_code and not facts.unservable


def engine_version(image: str) -> Version | None:
    """Return the version in an image's tag, like `vllm/vllm-openai:v0.23.0@sha256:…`; None for `latest` or only a digest."""
    match = re.search(r":v?(\d+)\.(\d+)(?:\.\d+)?[^/]*$", image.partition("@")[0])
    return (int(match[1]), int(match[2])) if match else None


def _parsers(facts: ModelFacts, version: Version | None) -> tuple[list[str], list[str]]:
    name = facts.hf_id.rsplit("/", 1)[-1].lower()
    family = next(
        (family for family in FAMILIES if facts.model_type in family.model_types and re.search(family.name, name)), None
    )
    if family is None:
        return [], []
    if version is not None and version < family.since:
        parsers = ", ".join(filter(None, (family.tools, family.reasoning)))
        since = ".".join(map(str, family.since))
        return [], [f"vLLM has the parsers of {facts.hf_id} ({parsers}) since {since}; this engine is older."]
    if family.template:
        return [], [
            f"Tool calls of {facts.hf_id} need --tool-call-parser={family.tools}, --enable-auto-tool-choice and "
            f"--chat-template={family.template} from vLLM's examples; without them it chats, but calls no tools."
        ]
    optional = [f"--reasoning-parser={family.reasoning}"] if family.reasoning else []
    if family.tools:
        optional += ["--enable-auto-tool-choice", f"--tool-call-parser={family.tools}"]
    return optional, []


def _overrides(facts: ModelFacts) -> str:
    return next(
        (overrides for name, overrides in _RERANKERS if facts.kind == "reranker" and name.search(facts.hf_id)), ""
    )
