"""The words of a shell command with their places in the script; supports the POSIX quoting that server commands use."""

import re
from typing import NamedTuple

_SHELLS = re.compile(r"(^|/)(sh|bash|ash|dash|zsh)$")
_ASSIGNED = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)


class Word(NamedTuple):
    """A word as the program receives it (variables are not replaced), and its position in the script."""

    text: str
    first: int
    last: int


def is_shell(program: str) -> bool:
    return _SHELLS.search(program) is not None


def commands(script: str) -> list[list[Word]]:
    """The commands of a script, each as a list of words, without comments and separators."""
    all_commands: list[list[Word]] = [[]]
    position = 0
    while position < len(script):
        char = script[position]
        if script.startswith(("\\\n", "\\\r\n"), position):
            position += 2 if script[position + 1] == "\n" else 3
        elif char in " \t\r":
            position += 1
        elif char in "\n;&|()":
            all_commands.append([])
            position += 1
        elif char == "#":
            end = script.find("\n", position)
            position = len(script) if end < 0 else end
        else:
            word = _word(script, position)
            all_commands[-1].append(word)
            position = word.last
    return [command for command in all_commands if command]


def assignments(script: str) -> dict[str, Word]:
    """The variables that a script sets, each with the word of its value."""
    variables: dict[str, Word] = {}
    for command in commands(script):
        for word in command:
            if word.text == "export":
                continue
            match = _ASSIGNED.fullmatch(word.text)
            if match is None:
                break
            if match[2] and match[2] in script[word.first : word.last]:
                start = script.index(match[2], word.first + len(match[1]) + 1)
                variables[match[1]] = Word(match[2], start, start + len(match[2]))
    return variables


def _word(script: str, first: int) -> Word:
    text, position, quote = "", first, ""
    while position < len(script):
        char = script[position]
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"' and script[position + 1 : position + 2] in ('"', "\\", "$", "`"):
                position += 1
                text += script[position : position + 1]
            else:
                text += char
        elif char in "'\"":
            quote = char
        elif script.startswith(("$(", "${"), position):
            close = script.find(")" if script[position + 1] == "(" else "}", position)
            close = len(script) - 1 if close < 0 else close
            text += script[position : close + 1]
            position = close
        elif char == "\\":
            if script[position + 1 : position + 2] in ("\n", "\r", ""):
                break
            position += 1
            text += script[position : position + 1]
        elif char in " \t\r\n;&|()":
            break
        else:
            text += char
        position += 1
    return Word(text, first, position)
