"""The endpoints as the platform repo has them."""

import asyncio
from difflib import get_close_matches

from bot.errors import BotError
from bot.services import Services
from bot.views import code, escape
from manifests.contract import ModelEndpoint, read_endpoints
from manifests.tree import ManifestError


class UnknownModel(BotError):
    """No endpoint of that name."""


async def all_endpoints(svc: Services, commit: str) -> tuple[ModelEndpoint, ...]:
    """The endpoints at a commit; BotError when the repository does not follow the contract."""
    tree = await svc.repository.tree(commit)
    try:
        # Reading a git tree starts processes, so it is done in a thread.
        return await asyncio.to_thread(read_endpoints, tree, svc.config.platform)
    except ManifestError as error:
        raise BotError(escape(str(error))) from error


async def known_endpoint(svc: Services, commit: str, model: str) -> ModelEndpoint:
    """The endpoint as the repo has it, or UnknownModel with the nearest name."""
    found = await all_endpoints(svc, commit)
    names = [endpoint.name for endpoint in found]
    if model in names:
        return found[names.index(model)]
    near = get_close_matches(model, names, n=1)
    hint = f"Did you mean {code(near[0])}?" if near else f"There are: {', '.join(code(n) for n in names) or 'none'}."
    raise UnknownModel(f"Unknown model {code(model)}. {hint}")
