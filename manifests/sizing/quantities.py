"""Numbers in the notation of Kubernetes and vLLM. "GB" in a text is 10^9 bytes, "GiB" is 2^30."""

import math
import re

GB = 10**9
GIB = 2**30


def quantity_bytes(quantity: str) -> int:
    """Return the bytes of a Kubernetes quantity such as `20Gi`, `500M` or `2e10`; raises ValueError if it is invalid."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,2})|([KMGTP]i|[kMGTP]))?", quantity.strip())
    if not match:
        raise ValueError(f"{quantity!r} is not a quantity like 20Gi")
    factor = 1
    if match[3]:
        power = "kMGTP".index(match[3][0].replace("K", "k")) + 1
        factor = 1024**power if match[3].endswith("i") else 1000**power
    return int(float(match[1] + (match[2] or "")) * factor)


def whole(quantity: object) -> int:
    """Return a count from a number, or from a Kubernetes quantity such as `"2"` or `"1e3"`; 0 for anything else.

    A fraction counts as 1, so that no GPU request looks like zero.
    """
    text = str(quantity)
    try:
        return math.ceil(int(text[:-1]) / 1000) if text[-1:] == "m" else quantity_bytes(text)
    except ValueError:
        return 0


def tokens(text: str) -> int | None:
    """Return the number of tokens in a value of `--max-model-len`: 16384, 16k (× 1000), 16K (× 1024); otherwise None."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmKM]?)", text.strip())
    if not match or ("." in match[1] and not match[2]):
        return None
    return int(float(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "K": 2**10, "M": 2**20}[match[2]])


def in_gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB"


def in_gb(number: int) -> str:
    return f"{number / GB:.1f} GB ({in_gib(number)})"
