"""The content to which an approval is bound: everything that it deploys. It is read for the plan, and again before
each action.
"""

import asyncio

from bot.clients.application import Application
from bot.clients.deployer import Deployer
from bot.component import component
from bot.domain.plans import BringUpPlan, ChangePlan
from bot.engine.lifecycle import PlanMoved
from bot.errors import BotError
from bot.git.merging import MergedTree
from bot.git.mirror import GitTree
from bot.git.repository import Repository
from bot.settings.config import Config
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import code
from manifests.deployed import Bound, changed_items, declared_source, deployed_content, digest
from manifests.platform import Platform
from manifests.replicas import blobs_at_zero
from manifests.tree import ManifestError

_NAMED = 5
"""Maximum number of items in a sentence."""
_LIVE = "the {} {} in the cluster"


class Unreadable(BotError):
    """The deployed content is unknown, because a file does not parse."""

    remedy = "Correct that file on the main branch, then request it again."


@component
class Binding:
    """Reads the content to which an approval is bound."""

    deployer: Deployer
    repository: Repository
    config: Config

    async def of(
        self, model: str, tree: GitTree | MergedTree, live: tuple[Application, ...], *, gateway: bool
    ) -> Bound:
        """Return the content that the endpoint deploys from this tree.

        `live` are the current Applications in the cluster that the approval syncs. An Application that equals its
        declaration in git is bound only by this declaration, because it may not exist yet. With `gateway`, LiteLLM's
        entries are included. Raises Unreadable.
        """
        layout, gateway_application = self.config.platform, self.config.litellm.application
        # An automated application deploys the other files of its directories without this approval.
        paths = tuple(
            path for app in live if app.name != gateway_application and not app.automated for path in app.paths
        )

        def read() -> tuple[Bound, str]:
            platform = Platform(tree, layout)
            digests = dict(deployed_content(platform, model, content=tree.content, gateway=gateway, paths=paths))
            if self.config.switch.by != "api":  # starting it with a commit is part of the approval
                digests |= {
                    path: at_rest_digest
                    for path, at_rest_digest in blobs_at_zero(platform, model).items()
                    if path in digests
                }
            return tuple(sorted(digests.items())), declared_source(platform, model)

        try:
            files, declared = await asyncio.to_thread(read)  # in a thread, because reading a git tree starts processes
        except ManifestError as error:
            raise Unreadable(str(error)) from error
        apart = (app for app in live if app.name == gateway_application or app.source != declared)
        return (*files, *((_live(app), digest(app.source)) for app in apart))

    async def applications_of(self, plan: BringUpPlan | ChangePlan) -> tuple[Application, ...]:
        """The current Applications in the cluster that a plan syncs, without those that do not exist yet."""
        current = [await self.deployer.get(name) for name in plan.applications if name]
        return tuple(app for app in current if app is not None)

    async def refuse_if_elsewhere(self, model: str, plan: ChangePlan, app: Application) -> None:
        """Raise PlanMoved if the source of an Application is neither the source on the card nor the source in git."""
        tree, key = await self.repository.tree(plan.target), _live(app)
        declared = await asyncio.to_thread(declared_source, Platform(tree, self.config.platform), model)
        if app.source != declared and dict(plan.bound).get(key) != digest(app.source):
            raise PlanMoved(
                md(
                    "{application} was changed after the plan was shown: it deploys {paths} now. It was not synced."
                    " The approval is void.",
                    application=code(key),
                    paths=code(", ".join(app.paths) or "a chart"),
                )
            )


def _live(app: Application) -> str:
    return _LIVE.format(app.word, app.name)


def in_git(bound: Bound) -> Bound:
    """The bound content of a commit, without the Applications in the cluster."""
    return tuple(item for item in bound if not item[0].endswith(_LIVE.rpartition("{}")[2]))


def changed_names(before: Bound, after: Bound) -> Mrkdwn:
    """The names of the items that differ; empty if none does."""
    names = changed_items(before, after)
    text = md(", ").join(code(name) for name in names[:_NAMED])
    return md("{text} and {more} more", text=text, more=len(names) - _NAMED) if len(names) > _NAMED else text
