"""Find the root cause in the log of a model server or of a download. Pure: text in, a finding out.

vLLM's engine is a child process. Its error is followed by the server's traceback of 60 lines or more, which only
reports that the engine has failed ("Engine core initialization failed. See root cause above"). Lines contain the
process and, in most versions, level, time and source: `(EngineCore_DP0 pid=123) ERROR 09-28 15:47:24 [core.py:718]
ValueError: …`.
"""

import re

from bot.clients.diagnosis.cause import Cause, Kind
from bot.clients.diagnosis.causes import CAUSES
from manifests.frozen import frozen

LONGEST = 400
"""Maximum characters in a headline of an error without a known cause."""
_BEFORE, _AFTER, _LAST = 12, 4, 6
"""Lines shown before and after the cause, and from the end of the log."""
_JOINED = 12
"""Maximum number of continuation lines of an exception's message."""
_LINE_LENGTH, _MESSAGE = 500, 4000
"""Maximum characters of a shown line, and of the error text that is searched for causes."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PROCESS = re.compile(r"^\s*(?:\((?P<name>[A-Za-z]\w*)[^()]*?\bpid=\d+[^()]*\)|\[rank\d+\]:?)\s?")
_LEVEL = re.compile(
    r"^(?:\d{4}-\d\d-\d\d[T ][\d:.,]+Z?\s+)?(?P<level>DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)\b:?"
    r"(?:\s+\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)?(?:\s+\[[^\]]*\])?\s?"
)
_JSON_LEVEL = re.compile(r'"level"\s*:\s*"(?P<level>\w+)".*?"message"\s*:\s*"(?P<text>(?:[^"\\]|\\.)*)"')
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*\w*(?:[Ee]rror|Exception|OutOfResources|SystemExit|NotFound|IsEnabled)(?:\([\w ,]*\))?(?::\s|:$|$)"
)
_FRAME = re.compile(r'^\s*(?:File "|\^+\s*$|~+|raise |return |self\.|\.\.\.<\d+ lines>|Process \w+[-:])')
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_CONSEQUENCE = re.compile(
    r"Engine ?core initialization failed|See root cause above|See stack trace (?:\(?above\)? )?for (?:the )?root cause"
    r"|WorkerProc initialization failed|Engine process failed to start|EngineCore encountered an issue|EngineDeadError"
    r"|EngineCore (?:failed to start|hit an exception|died)|sigquit from a child|Failed core proc|destroy_process_group"
    r"|CalledProcessError|cannot schedule new futures|leaked (?:shared_memory|semaphore)",
    re.IGNORECASE,
)
_KILLED_CHILD = re.compile(
    r"Failed core proc\(s\): \{[^}]*?'(?P<name>[\w-]+)': -(?P<signal>\d+)|died.{0,40}exit code:? -(?P<other>\d+)"
)
_SIGNALS = {"9": "SIGKILL", "11": "SIGSEGV", "6": "SIGABRT", "4": "SIGILL", "7": "SIGBUS", "15": "SIGTERM"}


@frozen
class Finding:
    """The reason why a container ended, according to its log."""

    kind: Kind
    headline: str
    remedy: str
    excerpt: str
    """The lines around the cause, and the last lines of the log."""
    crashes: int = 1
    """The number of times that the container must end in this way before the cause is reported."""
    name: str = "unknown"
    """The name of the cause in the table."""


@frozen
class _Line:
    number: int
    process: str
    level: str
    text: str


@frozen
class _Complaint:
    """An error in the log: its first and last line, its whole message, and the number of its chain of tracebacks."""

    first: int
    last: int
    text: str
    chain: int
    exception: bool
    plain: bool = False
    """True if it is neither an exception nor logged with a level, so that it has a lower priority."""


def find(log: str) -> Finding | None:
    """The root cause in a log; None if the log contains no error."""
    lines = [_parsed(number, raw) for number, raw in enumerate(log.splitlines())]
    complaints = [
        complaint for complaint in _complaints(lines) if not _CONSEQUENCE.search(complaint.text.split("\n")[0])
    ]
    best: tuple[tuple[bool, bool, int, int, int], _Complaint, Cause, re.Match[str]] | None = None
    unexplained: _Complaint | None = None
    for complaint in complaints:
        for position, cause in enumerate(CAUSES):
            if match := cause.find(complaint.text):
                rank = (cause.vague, complaint.plain, -complaint.chain, position, -complaint.first)
                if best is None or rank < best[0]:
                    best = (rank, complaint, cause, match)
                break
        else:
            unexplained = complaint if complaint.exception else unexplained
    exceptions = [complaint for complaint in complaints if complaint.exception]
    if best and not (best[1].plain and unexplained and unexplained.first > best[1].last):
        _, complaint, cause, match = best
        headline, remedy = cause.explain(match)
        return Finding(cause.kind, headline, remedy, _excerpt(lines, complaint), cause.crashes, cause.name)
    if killed := _KILLED_CHILD.search(log):
        return _killed(killed, lines)
    errors = exceptions or [complaint for complaint in complaints if _sounds_bad(complaint.text)]
    if not errors:
        return None
    last = errors[-1]
    headline = " ".join(last.text.split()).rstrip(".")[:LONGEST]
    remedy = "Correct what the log lines in the thread name (arguments, model or image), in git."
    return Finding(Kind.UNKNOWN, headline, remedy, _excerpt(lines, last))


def tail(log: str, count: int = 8) -> str:
    """The last lines of a log, truncated."""
    return "\n".join(_COLOURS.sub("", line)[:_LINE_LENGTH] for line in log.strip().splitlines()[-count:])


def _killed(killed: re.Match[str], lines: list[_Line]) -> Finding:
    signal = killed["signal"] or killed["other"]
    excerpt = "\n".join(line.text[:_LINE_LENGTH] for line in lines[-_BEFORE:])
    if signal == "9":
        return Finding(
            Kind.MEMORY,
            "The engine's process was killed (SIGKILL), most likely for using more memory than the container's limit.",
            "Raise the container's memory limit (on a larger machine, if the node's memory is used up), or serve a smaller model.",
            excerpt,
            name="engine-killed",
        )
    name = _SIGNALS.get(signal, f"signal {signal}")
    return Finding(
        Kind.UNKNOWN,
        f"The engine's process was ended by {name} without a message.",
        "Try another engine image; a driver that does not match, or a broken GPU, can also be the reason.",
        excerpt,
        name="engine-signalled",
    )


def _parsed(number: int, raw: str) -> _Line:
    text, process = _COLOURS.sub("", raw).rstrip(), ""
    while prefix := _PROCESS.match(text):
        process, text = prefix["name"] or process, text[prefix.end() :]
    if text.startswith("{") and (structured := _JSON_LEVEL.search(text)):  # TEI's --json-output
        return _Line(number, process, structured["level"].upper(), structured["text"])
    if level := _LEVEL.match(text):
        return _Line(number, process, level["level"], text[level.end() :])
    return _Line(number, process, "", text)


def _complaints(lines: list[_Line]) -> list[_Complaint]:
    complaints: list[_Complaint] = []
    chain = 0
    chained: dict[str, bool] = {}  # by process: whether the next traceback belongs to the previous one
    for position, line in enumerate(lines):
        stripped = line.text.strip()
        if stripped.startswith(_CHAINED):
            chained[line.process] = True
        elif stripped.startswith("Traceback (most recent call last)"):
            chain += 0 if chained.pop(line.process, False) else 1
        elif _is_noise(line) or (complaints and line.number <= complaints[-1].last):
            continue  # the line belongs to the message of the exception above
        elif _EXCEPTION.match(stripped):
            text, last = _message(lines, position)
            complaints.append(_Complaint(line.number, last, text, chain, exception=True))
        else:
            complaints.append(
                _Complaint(line.number, line.number, stripped[:_MESSAGE], chain, exception=False, plain=not line.level)
            )
    return complaints


def _is_noise(line: _Line) -> bool:
    """Return whether a line is not an error: information, a warning, or a frame of a traceback (which quotes source
    code).
    """
    if line.level in ("DEBUG", "INFO", "WARN", "WARNING") or not line.text.strip():
        return True
    return bool(_FRAME.match(line.text)) or line.text.startswith("    ")


def _message(lines: list[_Line], position: int) -> tuple[str, int]:
    """An exception's message with its continuation lines, as pydantic and huggingface_hub write them."""
    first, parts, last = lines[position], [lines[position].text.strip()], lines[position].number
    for line in lines[position + 1 : position + 1 + _JOINED]:
        text = line.text.strip()
        if line.process != first.process or line.level in ("INFO", "WARNING", "DEBUG"):
            break
        if text.startswith(("Traceback", "Process ", "File ", "usage:", *_CHAINED)) or _EXCEPTION.match(text):
            break
        if text.startswith("For further information"):
            break
        if text:
            parts.append(text)
            last = line.number
    return "\n".join(parts)[:_MESSAGE], last


def _sounds_bad(text: str) -> bool:
    return bool(
        re.search(r"\b(?:error|failed|fatal|cannot|unable|panicked|killed|denied|refused)\b", text, re.IGNORECASE)
    )


def _excerpt(lines: list[_Line], complaint: _Complaint) -> str:
    """The lines around the cause and the end of the log; `…` replaces omitted lines."""
    excerpt: list[str] = []
    begin, end = max(0, complaint.first - _BEFORE), min(len(lines), complaint.last + _AFTER + 1)
    tail_start = max(end, len(lines) - _LAST)
    if begin:
        excerpt.append("…")
    excerpt += [line.text[:_LINE_LENGTH] for line in lines[begin:end]]
    if tail_start > end:
        excerpt.append("…")
    excerpt += [line.text[:_LINE_LENGTH] for line in lines[tail_start:]]
    return "\n".join(excerpt)
