"""The words of a shell command, each with its place in the script: with enough of POSIX quoting for a command that starts a server."""

import re
from typing import NamedTuple

_SHELLS = re.compile(r"(^|/)(sh|bash|ash|dash|zsh)$")
_ASSIGNED = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)


class Word(NamedTuple):
    """A word as the program gets it, except that variables are not replaced, and its position in the script."""

    text: str
    first: int
    last: int


def is_shell(program: str) -> bool:
    return _SHELLS.search(program) is not None


def commands(script: str) -> list[list[Word]]:
    """The commands of a script, each a list of words; comments and separators are left out."""
    found: list[list[Word]] = [[]]
    at = 0
    while at < len(script):
        char = script[at]
        if script.startswith(("\\\n", "\\\r\n"), at):
            at += 2 if script[at + 1] == "\n" else 3
        elif char in " \t\r":
            at += 1
        elif char in "\n;&|()":
            found.append([])
            at += 1
        elif char == "#":
            end = script.find("\n", at)
            at = len(script) if end < 0 else end
        else:
            word = _word(script, at)
            found[-1].append(word)
            at = word.last
    return [each for each in found if each]


def assignments(script: str) -> dict[str, Word]:
    """The variables that a script sets, with the word that holds each value."""
    found: dict[str, Word] = {}
    for command in commands(script):
        for word in command:
            if word.text == "export":
                continue
            match = _ASSIGNED.fullmatch(word.text)
            if match is None:
                break
            if match[2] and match[2] in script[word.first : word.last]:
                at = script.index(match[2], word.first + len(match[1]) + 1)
                found[match[1]] = Word(match[2], at, at + len(match[2]))
    return found


def _word(script: str, first: int) -> Word:
    text, at, quote = "", first, ""
    while at < len(script):
        char = script[at]
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"' and script[at + 1 : at + 2] in ('"', "\\", "$", "`"):
                at += 1
                text += script[at : at + 1]
            else:
                text += char
        elif char in "'\"":
            quote = char
        elif script.startswith(("$(", "${"), at):
            close = script.find(")" if script[at + 1] == "(" else "}", at)
            close = len(script) - 1 if close < 0 else close
            text += script[at : close + 1]
            at = close
        elif char == "\\":
            if script[at + 1 : at + 2] in ("\n", "\r", ""):
                break
            at += 1
            text += script[at : at + 1]
        elif char in " \t\r\n;&|()":
            break
        else:
            text += char
        at += 1
    return Word(text, first, at)
