"""The sample platform in other styles: the same contract, written differently."""

import re
from collections.abc import Callable, Mapping

Text = Callable[[str, str], str]


def _flow_arguments(path: str, text: str) -> str:
    """Write the arguments in a list on one line."""

    def joined(match: re.Match[str]) -> str:
        flags = re.findall(r"- (--\S+)", match[0])
        return "          args: [" + ", ".join(f'"{flag}"' for flag in flags) + "]\n"

    if not path.endswith("deployment.yaml"):
        return text
    return re.sub(r"          args:\n(?:            (?:- --|#).*\n)+", joined, text)


def _split_arguments(path: str, text: str) -> str:
    """Write flags and their values as separate items, with the values in quotes."""
    return re.sub(r"            - (--[\w-]+)=(\S+)", r'            - \1\n            - "\2"', text)


def _windows(_: str, text: str) -> str:
    return text.replace("\n", "\r\n")


def _no_last_newline(_: str, text: str) -> str:
    return text.rstrip("\n")


def _word_list(path: str, text: str) -> str:
    """Write one application per line."""
    return text.replace('"coder-chat coder-fim"', '"\n  coder-chat\n  coder-fim\n"') if path.endswith(".sh") else text


def _quotes(path: str, text: str) -> str:
    """Write names, models and addresses in quotes."""
    if not path.endswith(".yaml"):
        return text
    return re.sub(r"(?m)^(\s*(?:- )?(?:name|model|api_base|path|claimName|model_name): )([\w./:@-]+)$", r'\1"\2"', text)


def _compact_lists(path: str, text: str) -> str:
    """Indent list items like their key, as kubectl does; this includes LiteLLM's list."""
    if not path.endswith(".yaml") or path.endswith("groups.generated.yaml"):
        return text
    lines, depth = [], [(-1, 0)]  # the column of each open list's key, and by how much its content moves left
    for line in text.splitlines(keepends=True):
        column = len(line) - len(line.lstrip(" "))
        if line.strip() and not line.lstrip().startswith("#"):
            while depth[-1][0] >= column:
                depth.pop()
        lines.append(line[depth[-1][1] :] if line[: depth[-1][1]].isspace() or not depth[-1][1] else line)
        if re.fullmatch(r"[\w./-]+:( *#.*)?", line.strip()) or re.fullmatch(r"- [\w./-]+:( *#.*)?", line.strip()):
            following = text[sum(map(len, text.splitlines(keepends=True)[: len(lines)])) :]
            item = re.match(r"(?: *#.*\n)*( *)- ", following)
            indent = column + (2 if line.strip().startswith("- ") else 0)
            if item and len(item[1]) == indent + 2:
                depth.append((indent, depth[-1][1] + 2))
    return "".join(lines)


def _prices_first(path: str, text: str) -> str:
    """Change the order of keys in LiteLLM's entries."""
    if not path.endswith("litellm/values.yaml"):
        return text
    return re.sub(
        r"(?m)^(        model: \S+.*\n)((?:        (?!input).*\n)*?)(        input_cost_per_token: .*\n)",
        r"\3\1\2",
        text,
    )


def _nested_values(path: str, text: str) -> str:
    """Write LiteLLM's values below the key of a chart's dependency."""
    return "gateway:\n" + re.sub(r"(?m)^(?=.)", "  ", text) if path.endswith("litellm/values.yaml") else text


def _several_names(path: str, text: str) -> str:
    """Add a second name for each engine as a separate item."""
    return re.sub(r"( +- --served-model-name)=(\S+)", r"\1\n            - \2\n            - our-\2", text)


def _prefix(path: str, text: str) -> str:
    """Let kustomize add a prefix to the names, and write the prefixed names into the other files."""
    if path.endswith("kustomization.yaml"):
        return text.replace("namespace: serving\n", "namespace: serving\nnamePrefix: acme-\n")
    if path.endswith("litellm/values.yaml"):
        return re.sub(r"http://([\w-]+)\.serving", r"http://acme-\1.serving", text)
    return re.sub(r"name: ([\w-]+)\n      namespace: serving", r"name: acme-\1\n      namespace: serving", text)


STYLES: Mapping[str, Text] = {
    "as it is": lambda _, text: text,
    "flow arguments": _flow_arguments,
    "split arguments": _split_arguments,
    "windows": _windows,
    "no last newline": _no_last_newline,
    "word list": _word_list,
    "quotes": _quotes,
    "compact lists": _compact_lists,
    "prices first": _prices_first,
    "nested values": _nested_values,
    "several names": _several_names,
    "prefix": _prefix,
}


def styled(files: Mapping[str, str], style: str) -> dict[str, str]:
    return {path: STYLES[style](path, text) for path, text in files.items()}
