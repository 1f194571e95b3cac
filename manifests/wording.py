"""Rewrite comments that describe the old model when the model in a file changes.

Works sentence by sentence. Names with a counterpart are replaced. Text that still describes the old model (its size, its
quantization, a number of gigabytes) is removed: first a parenthesis, then the rest of a sentence, then the sentence. No
stale comment remains, and a correct sentence is never changed.
"""

import re
import textwrap
from collections.abc import Callable
from functools import cached_property

from pydantic import BaseModel

from manifests.edit import Comment, Document, Edit

_SUFFIX = re.compile(r"[-_.](awq|gptq|gguf|fp8|int4|int8|4bit|8bit|bnb|w4a16|w8a8|nvfp4|mxfp4)\b.*$", re.IGNORECASE)
_SIZE = re.compile(r"(?<![\w.])\d+(?:\.\d+)?[BM](?![\w])")
_AMOUNT = re.compile(
    r"(?P<tilde>[~≈] ?|\b(?:about|around|roughly|downloads?) )?\b(?P<number>\d+(?:\.\d+)?)(?P<gap> ?)(?P<unit>[GM]i?B)\b"
    r"(?(tilde)|(?=(?: of)?(?: [\w.-]+){0,4} (?:weights|model|download)))",
    re.IGNORECASE,
)
_SAVED = re.compile(r"\b(?:save|free|reserve)s? $", re.IGNORECASE)
"""The words in front of an amount that describes an option, not the model."""
_ITEM = re.compile(r"\s*[-*] +[\w.-]+/[\w.-]+(?=\s|$)")
"""An item of a list of models, which begins with the name of the model that it describes."""
_UNITS = {"gb": 10**9, "mb": 10**6, "gib": 2**30, "mib": 2**20}
_NEAR = 0.3  # relative tolerance, because people round: "~6GB" means 5.6
_PARAMETERS = re.compile(r"(?<![\w.-])~?\d+(?:\.\d+)?[BM](?=[- ](?:model|param))", re.IGNORECASE)
# Families of models that comments name: used to recognise a comment about a third model.
_MODEL = re.compile(
    r"(?<![\w./-])(?:[\w.-]+/)?(?:qwen|llama|meta-llama|codellama|mistral|mixtral|codestral|devstral|gemma|codegemma|phi|"
    r"deepseek|starcoder|granite|smollm|nomic|bge|gte|e5|jina|mxbai|minilm|all-minilm|arctic-embed|gpt-oss)"
    r"[\w.]*-[\w.-]*\w",
    re.IGNORECASE,
)
# Text in brackets after a model's name that other code handles: its quantization, whether it is a base model.
_HANDLED_ELSEWHERE = re.compile(
    r"(?i)(awq|gptq|fp16|bf16|fp8|int[48]|bits?|un|quanti[sz]ed|base|instruct|chat|model|n/a|\d|\W)+"
)
_UNQUANTIZED = re.compile(r"(?i)\b(fp16|bf16|float16|bfloat16|unquanti[sz]ed|(full|half)[- ]precision)\b")
_VERB = re.compile(r"\b(is|are|was|would|will|be|has|have|needs?|fits?|loads?|takes?|lea(?:ve|d)s?)\b")
_CHATS = re.compile(r"(?<![\w/-])chat(?![\w/-])", re.IGNORECASE)
_COMPLETES = re.compile(
    r"(?<![\w/-])(base( model)?|fill-in-the-middle|FIM|(auto)?complet(es?|ions?)|/v1/completions)(?![\w/-])",
    re.IGNORECASE,
)
_POOLS = {
    "embeddings": re.compile(r"(?<![\w/-])(?<!text )(embed(s|dings?)?|vectors?)(?![\w/-])", re.IGNORECASE),
    "reranker": re.compile(r"(?<![\w/-])(re-?)?rank(s|ing|ers?)?(?![\w/-])", re.IGNORECASE),
}
_WIDTH = 128  # a comment line may have up to this length before it is split
_BOUNDARY = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)[)\"']?(\s+)(?=[A-Z(`\"—]|[a-z][\w.]*-[\w.-]*\w)|(\n\s*\n|\n(?=\s*[-*] |[A-Z][\w ()/-]{,30}: | {4,}\S))"
)
_QUANTIZATION_WORDS = {
    "awq": r"AWQ|4[- ]?bits?|int4|Marlin|quanti[sz]ed",
    "gptq": r"GPTQ|4[- ]?bits?|int4|Marlin|quanti[sz]ed",
    "fp8": r"FP8|8[- ]?bits?|quanti[sz]ed",
    "": r"fp16|bf16|float16|bfloat16|unquanti[sz]ed|(full|half)[- ]precision",
}


def stem(hf_id: str) -> str:
    """A model's name without its owner and its quantization suffix."""
    return _SUFFIX.sub("", hf_id.rsplit("/", 1)[-1])


class CommentFacts(BaseModel, frozen=True, defer_build=True):
    """Facts about an endpoint that comments may mention: names, quantization ("" for none), context, size, chat."""

    endpoint: str
    hf_id: str
    served_name: str
    quantization: str = ""
    context: int | None = None
    weight_bytes: int = 0
    chat: bool | None = None
    pools: str = ""
    """The task of a pooling model: "embeddings" or "reranker"."""

    @property
    def model(self) -> str:
        return self.hf_id.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        return stem(self.hf_id)

    @property
    def family(self) -> str:
        """The part of the name before its size: "Qwen2.5-Coder" of "Qwen2.5-Coder-7B-Instruct-AWQ"."""
        return re.split(r"[-_]\d+(?:\.\d+)?[BM]\b", self.stem, flags=re.IGNORECASE)[0]

    @property
    def sizes(self) -> set[str]:
        return {size_text.lower() for size_text in _SIZE.findall(re.sub(r"[-_]", " ", self.model))}

    @property
    def size(self) -> str:
        """The number of parameters, like "7B"; "" if the name contains none, or several."""
        return next(iter(self.sizes)).upper() if len(self.sizes) == 1 else ""

    @property
    def method(self) -> str:
        """The name of the quantization in comments."""
        return self.quantization.upper() or ("GGUF" if "gguf" in self.hf_id.lower() else "unquantized")


class Rewording:
    """Rewrite facts about the old endpoint as facts about the new one."""

    def __init__(self, old: CommentFacts, new: CommentFacts) -> None:
        self._old = old
        self._new = new

    def document(self, document: Document, *, concerns: Callable[[Comment], bool] = lambda _: True) -> Document:
        """The document with corrected comments, for the comments that `concerns` selects."""
        edits: list[Edit] = []
        block: list[Comment] = []
        for comment in (candidate for candidate in document.comments() if concerns(candidate)):
            follows = block and comment.line == block[-1].line + 1 and comment.column == block[-1].column
            if block and not (comment.alone and follows):
                edits += self._block(document, block)
                block = []
            if comment.alone:
                block.append(comment)
            else:
                edits += self._trailing(document, comment)
        if block:
            edits += self._block(document, block)
        return document.apply(edits) if edits else document

    def phrase(self, text: str) -> str:
        """Return the sentence with its facts corrected; "" if nothing in it remains correct."""
        if self._is_about_other_model(text):
            return ""
        if self._is_about_other_format(text) or _ITEM.match(text):
            return text
        reworded = self._with_new_names(self._without_claims(text))
        if reworded != text and reworded.strip(" .") in (self._new.hf_id, self._new.model, self._new.stem):
            return ""
        if not self._is_stale(reworded):
            return reworded
        shortened = re.sub(r"\s?\(([^()]*)\)", self._parenthesis, reworded)
        shortened = shortened if reworded.startswith(" ") else shortened.lstrip(" ")
        if not self._is_stale(shortened):
            return shortened
        return self._up_to_the_name(shortened)

    def text(self, text: str) -> str:
        """Return the text with each sentence corrected; line breaks between unchanged sentences stay."""
        parts: list[str] = []
        position = 0
        for match in [*_BOUNDARY.finditer(text), None]:
            gap = match.span(1) if match and match.group(1) else match.span(2) if match else (len(text), len(text))
            sentence, space = text[position : gap[0]], text[gap[0] : gap[1]]
            new, with_breaks = self.phrase(_on_one_line(sentence)), self.phrase(sentence)
            if new:
                # Keep the line breaks if possible, for a smaller diff.
                parts += [with_breaks if _on_one_line(with_breaks) == new else new, space]
            position = gap[1]
        return "".join(parts).rstrip()

    def _block(self, document: Document, block: list[Comment]) -> list[Edit]:
        bodies = [re.sub(r"^#+ ?", "", comment.text) for comment in block]
        old = "\n".join(bodies)
        new = self.text(old)
        if new == old.rstrip():
            return []
        first, last = block[0], block[-1]
        if not new.strip():
            return [document.delete_lines(first.line, last.line)]
        prefix = " " * first.column + "# "
        width = max(_WIDTH, *(comment.column + len(comment.text) for comment in block)) - len(prefix)
        lines = [part for body in new.split("\n") for part in _wrap(body, width)]
        ending = "\r\n" if document.lines[first.line].endswith("\r\n") else "\n"
        text = "".join((prefix + line).rstrip() + ending for line in lines)
        return [Edit(document.offset(first.line), document.offset(last.line + 1), text)]

    def _trailing(self, document: Document, comment: Comment) -> list[Edit]:
        old = re.sub(r"^#+ ?", "", comment.text)
        new = self.text(old)
        if new == old:
            return []
        line = document.lines[comment.line]
        start = document.offset(comment.line)
        code = line[: comment.column]
        new_line = f"{code}# {new}" if new else code.rstrip()
        return [Edit(start, start + comment.column + len(comment.text), new_line)]

    def _is_about_other_model(self, text: str) -> bool:
        """Return whether a sentence already describes the new model or, in a copy, a third model."""
        if self._old.stem == self._new.stem or self._old.stem in text:
            return False
        without_brackets = re.sub(r"\([^()]*\)", "", text)
        if self._names_any(without_brackets, (self._new.hf_id, self._new.model, self._new.stem)):
            return True
        is_copy = self._old.endpoint != self._new.endpoint
        return (
            is_copy
            and _MODEL.search(without_brackets) is not None
            and not self._names_any(without_brackets, self._old_names)
        )

    def _is_about_other_format(self, text: str) -> bool:
        """Return whether a sentence names the old model in a format that the endpoint does not serve, to explain a choice."""
        names = "|".join(re.escape(name) for name in self._old_names)
        match = re.search(rf"(?<![\w./-])(?:{names})[ -](AWQ|GPTQ|GGUF|FP8|NVFP4)\b", text)
        if match is None or self._old.stem == self._new.stem:
            return False
        served = f"{self._old.quantization} {self._old.hf_id}".lower()
        return match[1].lower() not in served

    def _without_claims(self, text: str) -> str:
        """Remove the text in brackets right after the old model's name.

        Such text (a licence, a speed, a size) describes only that model. Other code handles the quantization.
        """
        if self._old.stem == self._new.stem:
            return text

        def without_brackets(match: re.Match[str]) -> str:
            return match[0] if _HANDLED_ELSEWHERE.fullmatch(match[2]) else match[1]

        names = "|".join(re.escape(name) for name in sorted(self._old_names, key=len, reverse=True))
        return re.sub(rf"((?<![\w.-])(?:{names})(?![\w-]))\s?\(([^()]*)\)", without_brackets, text)

    @cached_property
    def _old_names(self) -> tuple[str, ...]:
        return (self._old.hf_id, self._old.model, self._old.stem)

    @staticmethod
    def _names_any(text: str, names: tuple[str, ...]) -> bool:
        return any(re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", text) for name in names)

    def _parenthesis(self, match: re.Match[str]) -> str:
        inner = match[1]
        if not self._is_stale(inner):
            return match[0]
        for name in (self._new.hf_id, self._new.model, self._new.stem):
            if name in inner:
                return f" ({self._new.stem}, {self._new.method})"
        clauses = re.split(r"[,;] ", inner)
        stale_clauses = [clause for clause in clauses if self._is_stale(clause)]
        if any(_VERB.search(clause) or len(clause.split()) > 3 for clause in stale_clauses):
            return ""
        correct_clauses = ", ".join(clause for clause in clauses if clause not in stale_clauses)
        return f" ({correct_clauses})" if correct_clauses else ""

    def _up_to_the_name(self, text: str) -> str:
        """The part of a sentence up to the model's name and quantization."""
        for name in (self._new.hf_id, self._new.model, self._new.stem):
            head, match, _ = text.partition(name)
            if match and not self._is_stale(head):
                return f"{head}{self._new.stem}, {self._new.method}" + ("." if text.rstrip().endswith(".") else "")
        return ""

    def _with_new_names(self, text: str) -> str:
        reworded = self._names.sub(lambda match: self._counterparts[match[0]], text) if self._counterparts else text
        reworded = self._identifiers.sub(self._new.endpoint, reworded)
        if self._old.hf_id != self._new.hf_id:
            reworded = re.sub(r"\([^()]*\)", self._third_model, reworded)
            reworded = _AMOUNT.sub(self._amount, reworded)
            reworded = _PARAMETERS.sub(self._parameters, reworded)
            reworded = self._with_new_size(reworded)
        return reworded

    def _with_new_size(self, text: str) -> str:
        """Replace a number of parameters without a model's name, as in "7B weights".

        A statement about the unquantized model ("fp16 7B would be ~15GB, too tight") also applies to a larger model,
        but not always to a smaller model.
        """
        (old, new) = (self._old.size, self._new.size)
        if not old or not new or old.lower() == new.lower():
            return text
        new_size = re.compile(rf"(?<![\w.-]){re.escape(new)}(?!\w)", re.IGNORECASE)
        if new_size.search(re.sub(re.escape(self._new.stem), "", text)):
            return text  # the sentence compares both models
        old_size = re.compile(rf"(?<![\w.-]){re.escape(old)}(?!\w)", re.IGNORECASE)
        if not self._old.quantization or not _UNQUANTIZED.search(text):
            return old_size.sub(new, text)
        if float(new[:-1]) < float(old[:-1]):
            return text
        ratio, old_unquantized_bytes = float(new[:-1]) / float(old[:-1]), float(old[:-1]) * 2 * 10**9

        def scaled(match: re.Match[str]) -> str:
            unit = _UNITS[match["unit"].lower()]
            if not _is_near(float(match["number"]) * unit, old_unquantized_bytes):
                return match[0]
            return f"{match['tilde'] or ''}{float(match['number']) * ratio:.0f}{match['gap']}{match['unit']}"

        return old_size.sub(new, _AMOUNT.sub(scaled, text)) if old_size.search(text) else text

    def _third_model(self, match: re.Match[str]) -> str:
        """Replace the model in a short bracket like "(TEI some-model)", which was already wrong before."""
        models = _MODEL.findall(match[0])
        names = (*self._old_names, self._new.hf_id, self._new.model, self._new.stem, self._new.endpoint)
        is_expected = self._names_any(match[0], names)
        if len(models) != 1 or is_expected or len(match[0].split()) > 3:
            return match[0]
        return _MODEL.sub(self._new.stem, match[0])

    def _parameters(self, match: re.Match[str]) -> str:
        """Replace a number of parameters, as in "~110M model". The new number is computed from the bytes per parameter."""
        number, unit = re.findall(r"[\d.]+|[BM]", match[0].upper())[:2]
        factor = 10**9 if unit == "B" else 10**6
        for width in (4, 2):
            if self._old.weight_bytes and _is_near(float(number) * factor * width, self._old.weight_bytes):
                count = self._new.weight_bytes / width / factor
                return match[0].replace(number, f"{count:.0f}" if count >= 10 else f"{count:.2g}", 1)
        return match[0]

    def _amount(self, match: re.Match[str]) -> str:
        """Replace the size of the old weights, in any unit, with the size of the new weights."""
        unit = _UNITS[match["unit"].lower()]
        if not self._new.weight_bytes or not _is_near(float(match["number"]) * unit, self._old.weight_bytes):
            return match[0]
        number, name = self._new.weight_bytes / unit, match["unit"]
        if number < 1 and name[0] in "Gg":
            number, name = number * 1000, "M" + name[1:]
        rough = match["tilde"] is not None and "." not in match["number"] and number >= 1.5
        digits = len(match["number"].partition(".")[2]) or (1 if number < 10 and name[0] in "Gg" and not rough else 0)
        shown = f"{number:.{digits}f}".removesuffix(".0")
        return f"{match['tilde'] or ''}{shown}{match['gap']}{name}"

    def _is_stale(self, text: str) -> bool:
        if any(pattern.search(text) for pattern in self._stale_patterns):
            return True
        return (
            self._old.hf_id != self._new.hf_id
            and any(
                not _is_near(float(match["number"]) * _UNITS[match["unit"].lower()], self._new.weight_bytes)
                for match in _AMOUNT.finditer(text)
                if not (match["tilde"] or "").strip().isalpha()
                and not self._is_unquantized_size(text, match)
                and not _SAVED.search(text[: match.start()])
            )
        ) or (
            self._old.stem != self._new.stem
            and any(not self._is_of_new_model(match[0]) for match in _PARAMETERS.finditer(text))
        )

    def _is_of_new_model(self, parameters: str) -> bool:
        """Return whether a number of parameters like "14B" is the new model's, by its name or by the size of its weights."""
        number, unit = re.findall(r"[\d.]+|[BM]", parameters.upper())[:2]
        count = float(number) * (10**9 if unit == "B" else 10**6)
        is_near = any(_is_near(count * width, self._new.weight_bytes) for width in (4, 2, 1, 0.7))
        return is_near or f"{number}{unit}" == self._new.size

    def _is_unquantized_size(self, text: str, amount: re.Match[str]) -> bool:
        """Return whether an amount is the size of the unquantized new model."""
        size = self._new.size
        number = float(amount["number"]) * _UNITS[amount["unit"].lower()]
        return bool(size and _UNQUANTIZED.search(text) and _is_near(number, float(size[:-1]) * 2 * 10**9))

    @cached_property
    def _counterparts(self) -> dict[str, str]:
        old, new = self._old, self._new
        pairs = [(old.hf_id, new.hf_id), (old.model, new.model), (old.stem, new.stem)]
        pairs.append((old.served_name, new.served_name))
        if not _is_word(old.endpoint):
            pairs += [
                (spelt(old.endpoint), spelt(new.endpoint))
                for spelt in (str, _with_spaces, _capital, _with_last_word_in_capitals)
            ]
        if len(old.family) < len(old.model):
            is_same_family = old.family == new.family
            for old_whole, new_whole in ((old.model, new.model), (old.stem, new.stem)):
                short = old_whole[len(old.family) + 1 :]
                if "-" in short:
                    pairs.append((short, new_whole[len(new.family) + 1 :] if is_same_family else new_whole))
        if old.context and new.context:
            pairs += [(spelt(old.context), spelt(new.context)) for spelt in (str, _thousands, _in_k, _in_capital_k)]
        return {before: after for before, after in pairs[::-1] if before and before != after}

    @cached_property
    def _names(self) -> re.Pattern[str]:
        longest_first = sorted(self._counterparts, key=len, reverse=True)
        return re.compile(r"(?<![\w.-])(" + "|".join(map(re.escape, longest_first)) + r")(?![\w-])")

    @cached_property
    def _identifiers(self) -> re.Pattern[str]:
        """The endpoint's name where it is unambiguous: an ordinary word in prose or in a URL is not changed."""
        name = re.escape(self._old.endpoint)
        return re.compile(
            rf"(?<=[`'\"]){name}(?=[`'\"])|(?<=\(){name}(?=\))|(?<=\w: ){name}(?=[\s),;]|\.?$)|(?<=[a-z]/){name}(?![\w/-])"
        )

    @cached_property
    def _stale_patterns(self) -> tuple[re.Pattern[str], ...]:
        old, new = self._old, self._new
        patterns = []
        if old.hf_id != new.hf_id:
            old_sizes = [size for size in old.sizes if size not in new.sizes]
            patterns += [re.compile(rf"(?<![\w.]){re.escape(size)}(?!\w)", re.IGNORECASE) for size in old_sizes]
        if old.family and not new.stem.startswith(old.family):
            patterns.append(re.compile(rf"(?<![\w.-]){re.escape(old.family)}(?!\w)"))
        if old.quantization != new.quantization:
            words = _QUANTIZATION_WORDS.get(old.quantization, rf"{re.escape(old.quantization)}|quanti[sz]ed")
            patterns.append(re.compile(rf"(?<![a-zA-Z-])({words})(?![a-z])", re.IGNORECASE))
        if old.chat is not None and new.chat is not None and old.chat != new.chat:
            patterns.append(_CHATS if old.chat else _COMPLETES)
        if old.pools and new.pools and old.pools != new.pools:
            patterns.append(_POOLS[old.pools])
        return tuple(patterns)


def _is_near(number: float, expected: float) -> bool:
    return expected > 0 and abs(number - expected) <= _NEAR * expected


def _is_word(name: str) -> bool:
    """Return whether a name is an ordinary word, like "embeddings", which has another meaning in prose."""
    return name.isalpha()


def _on_one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text)


def _wrap(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _with_spaces(name: str) -> str:
    return name.replace("-", " ")


def _capital(name: str) -> str:
    return _with_spaces(name).capitalize()


def _with_last_word_in_capitals(name: str) -> str:
    """The name with its last word in capitals, as in "Coder CHAT endpoint"."""
    head, _, last = _capital(name).rpartition(" ")
    return f"{head} {last.upper()}".strip()


def _thousands(context: int) -> str:
    return f"{context:,}"


def _in_k(context: int) -> str:
    return f"{context // 1024}k"


def _in_capital_k(context: int) -> str:
    return f"{context // 1024}K"
