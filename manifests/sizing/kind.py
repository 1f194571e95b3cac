"""The kind and format of a model, derived from the content of its repository; its name is the last resort.

Evidence in this order: files that only one kind has (an adapter's, a pipeline's), the architecture, the Hub's pipeline
tag, the files of sentence-transformers, the chat template in any of its places, and finally naming conventions.
"""

import re
from collections.abc import Collection

from pydantic import BaseModel

from manifests.sizing.cache import is_encoder
from manifests.sizing.configuration import Configuration
from manifests.sizing.facts import Kind
from manifests.sizing.weights import is_gguf

_PIPELINES: dict[str, Kind] = {
    "text-ranking": "reranker",
    "sentence-similarity": "embeddings",
    "feature-extraction": "embeddings",
    "visual-document-retrieval": "embeddings",
    "automatic-speech-recognition": "transcription",
    "text-to-speech": "speech",
    "text-to-audio": "speech",
    "audio-to-audio": "speech",
    "translation": "seq2seq",
    "summarization": "seq2seq",
    "text2text-generation": "seq2seq",
    "text-to-image": "image",
    "image-to-image": "image",
    "text-to-video": "image",
    "image-to-video": "image",
    "token-classification": "classifier",
    "fill-mask": "classifier",
    "image-classification": "classifier",
    "object-detection": "classifier",
    "zero-shot-classification": "classifier",
}
"""The Hub's pipeline tags (huggingface.co/tasks) that identify the kind. `text-generation` does not distinguish chat
models and rerankers; `text-classification` may mean a reranker or a classifier.
"""

_DRAFT = re.compile(r"eagle|medusa|mlp_?speculator|hydra|draft", re.IGNORECASE)
_DRAFT_LAYERS = 8
"""Maximum layers of a draft model: RWKV's Eagle and NVIDIA's vision model Eagle 2.5 are complete models with "eagle" in the name.
"""
_SEQ2SEQ = re.compile(r"^(T5|MT5|UMT5|Bart|MBart|Marian|Pegasus|M2M100|Blenderbot|LED|ProphetNet|LongT5)")
_TEMPLATE_IN_VLLM = ("deepseek_vl_v2", "deepseek_ocr", "minicpmv")
"""Chat models without their own template: vLLM provides one (its `chat_templates/registry.py`)."""
_EMBEDS = re.compile(r"(?i)(^|[-_/])(embed(ding)?s?|bge|gte|e5|sfr-embedding)([-_.]|$)")
_RANKS = re.compile(r"(?i)re-?rank|cross-encoder|(^|[-_])ranker([-_]|$)")
_REWARDS = re.compile(r"(?i)reward|(^|[-_])(o?rm|prm)([-_]|$)|guard")
_BASE = re.compile(r"(?i)[-_](base|(?-i:pt)|pretrained?)(?=[-_.]|$)")  # in ERNIE 4.5, "-PT" means the format PyTorch
_CHATS = re.compile(
    r"(?i)(^|[-_.])(instruct|chat|it|sft|dpo|rlhf|distill|thinking|reasoning|assistant|tulu|hermes|zephyr)([-_.]|$)"
)
# Families that publish the chat model with a suffix (`Qwen2.5-Coder-7B-Instruct`) and the base model under the bare
# name, although the base model's tokenizer also contains the chat template.
_BARE_IS_BASE = re.compile(
    r"(?i)((code)?qwen(1\.5|2|2\.5)(-coder|-math)?-\d+(\.\d+)?b(-a\d+(\.\d+)?b)?|(meta-)?llama-[23](\.\d)?-\d+b|"
    r"granite-3\.\d-\d+b-[a-z]*base|starcoder2?(-\d+b)?|codellama-\d+b(-hf)?|codegemma-\d+b|gemma-\d+(\.\d+)?-\d+b|gemma-[27]b)"
    r"([-_.](awq|gptq|fp8|int4|int8|4bit|8bit|bnb|w4a16|w8a8|dynamic|quantized).*)?"
)


class Evidence(BaseModel, frozen=True, defer_build=True):
    """The content of a repository. `template` is true if it has a chat template in any place; `files` are the paths of its files."""

    hf_id: str
    files: frozenset[str]
    pipeline_tag: str = ""
    library: str = ""
    tags: frozenset[str] = frozenset()
    template: bool = False
    base_model: str = ""


class Judgement(BaseModel, frozen=True, defer_build=True):
    """The kind of a model; `unservable` is a clause that describes the model if it cannot be served."""

    kind: Kind
    unservable: str = ""


def judge(evidence: Evidence, config: Configuration | None) -> Judgement:
    """Return the kind of a model, and the reason if no engine of the platform can serve it."""
    name = evidence.hf_id.rsplit("/", 1)[-1]
    if "adapter_config.json" in evidence.files:
        return Judgement(
            kind="chat",
            unservable=f"it is a LoRA adapter, not a model: serve its base model{_base(evidence)} with --enable-lora",
        )
    if "model_index.json" in evidence.files or evidence.library == "diffusers":
        return Judgement(kind="image", unservable="it is a diffusers pipeline: it generates images, not text")
    if is_gguf(evidence.files):
        # The chat template is inside the GGUF file, and the suffix for the format is not part of the model's own name.
        name = re.sub(r"(?i)[-_.](gguf|i\d|q\d\w*)(?=[-_.]|$)", "", name)
        kind = _kind(evidence.model_copy(update={"template": True}), config, name)
        return Judgement(
            kind=kind, unservable=f"it holds GGUF files for llama.cpp only: use the model itself{_base(evidence)}"
        )
    kind = _kind(evidence, config, name)
    return Judgement(
        kind=kind, unservable=_UNSERVABLE.get(kind, "").format(base=_base(evidence)) or _own_code(kind, config)
    )


_UNSERVABLE: dict[Kind, str] = {
    "draft": "it is a draft model for speculative decoding, which cannot be served alone: name it in --speculative-config "
    "of its target model{base}",
    "transcription": "it transcribes speech, and the platform has no endpoint for audio",
    "speech": "it generates speech, and the platform has no endpoint for audio",
    "seq2seq": "it is an encoder-decoder (translation, summaries), which vLLM does not serve",
    "image": "it generates images, not text",
    "classifier": "it classifies or scores, and the platform has no endpoint for that",
}


def _kind(evidence: Evidence, config: Configuration | None, name: str) -> Kind:
    architecture = config.architecture if config else ""
    if _is_draft(evidence, config, name):
        return "draft"
    if config and (decided := _by_architecture(architecture, config, evidence, name)):
        return decided
    if "text-ranking" in (evidence.pipeline_tag, *evidence.tags) or _RANKS.search(name):
        return "reranker"
    if decided := _by_pipeline(evidence, config):
        return decided
    if evidence.library == "sentence-transformers" or any(
        file == "modules.json" or file.startswith("1_Pooling/") for file in evidence.files
    ):
        return "embeddings"
    if _EMBEDS.search(name) or (config and is_encoder(config)):
        return "embeddings"
    return (
        "chat"
        if _chats(evidence, name) or (config and config.whole.get("model_type") in _TEMPLATE_IN_VLLM)
        else "completion"
    )


def _by_architecture(architecture: str, config: Configuration, evidence: Evidence, name: str) -> Kind | None:
    if "Whisper" in architecture or config.model_type == "whisper":
        return "transcription"
    if _SEQ2SEQ.match(architecture) and architecture.endswith("ForConditionalGeneration"):
        return "seq2seq"
    if architecture.endswith(("ForSequenceClassification", "ForRewardModel")):
        labels = config.whole.get("id2label")
        single = len(labels) == 1 if isinstance(labels, dict) else config.whole.get("num_labels", 1) == 1
        ranks = _RANKS.search(name) or evidence.pipeline_tag == "text-ranking" or "cross-encoder" in evidence.tags
        return "reranker" if ranks or (single and not _REWARDS.search(name)) else "classifier"
    if architecture.endswith(("ForTokenClassification", "ForQuestionAnswering", "ForImageClassification")):
        return "classifier"
    return None


def _by_pipeline(evidence: Evidence, config: Configuration | None) -> Kind | None:
    decided = _PIPELINES.get(evidence.pipeline_tag)
    if decided == "seq2seq" and not (config and config.whole.get("is_encoder_decoder")):
        # A causal model whose tag describes its use case still generates text.
        return None if config and "CausalLM" in config.architecture else "seq2seq"
    if decided == "transcription" and config and "CausalLM" in config.architecture and evidence.template:
        return None  # the model chats and also accepts sound
    if evidence.pipeline_tag == "text-classification":
        return "classifier"
    return decided


def _is_draft(evidence: Evidence, config: Configuration | None, name: str) -> bool:
    """Return whether the model is a speculative draft, by its fields, its single layer or its name.

    A draft may have the architecture of its target model.
    """
    if config:
        marks = ("draft_vocab_size", "speculators_model_type", "speculators_config", "medusa_num_heads", "eagle_config")
        if any(mark in config.whole for mark in marks):
            return True
        if _DRAFT.search(f"{config.architecture} {config.model_type}") and not config.sees_or_hears:
            return True
        if config.number("num_hidden_layers") == 1 and config.number("hidden_size") >= 2048:
            return True
        if config.number("num_hidden_layers") > _DRAFT_LAYERS:
            return False
    return (
        bool(re.search(r"(?i)(^|[-_])(eagle\d?|medusa|mtp|speculator|dflash)([-_.]|$)", name)) and not evidence.template
    )


def _chats(evidence: Evidence, name: str) -> bool:
    """Return whether the model was trained to chat. A chat template is not sufficient: some base models also have one."""
    if _BASE.search(name):
        return False
    if _CHATS.search(name):
        return True
    template = evidence.template or "conversational" in evidence.tags or "tekken.json" in evidence.files
    return template and not _BARE_IS_BASE.fullmatch(name)


def _own_code(kind: Kind, config: Configuration | None) -> str:
    """Return why neither TEI nor vLLM can load a custom implementation of a known model type; "" for other models."""
    if config is None or kind != "embeddings":
        return ""
    if config.model_type == "xlm-roberta" and config.whole.get("auto_map"):
        return (
            "it uses custom code (LoRA per task) under the model type of XLM-RoBERTa, which neither TEI nor vLLM loads: "
            "use another embedding model, like BAAI/bge-m3"
        )
    return ""


def _base(evidence: Evidence) -> str:
    return f" ({evidence.base_model})" if evidence.base_model else ""


def has_template(files: Collection[str]) -> bool:
    """Return whether the files contain a chat template; otherwise it may be inside `tokenizer_config.json`."""
    return any(name in files for name in ("chat_template.jinja", "chat_template.json")) or any(
        file.startswith("additional_chat_templates/") for file in files
    )
