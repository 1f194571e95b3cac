"""Of an Application that deploys several models, only the objects of one are synced."""

import asyncio

from bot.clients.argocd import ArgoCD
from bot.clients.deployer import ObjectName
from tests.clients.kube import Object, Wire, application, connected
from tests.clients.test_argocd import end, start, stored, until_requested


async def test_some_objects_are_synced_without_the_others(wire: Wire) -> None:
    """The Application stays out of sync because the other objects differ, and that does not count as drift."""
    wire.store.create(application())
    only = (ObjectName("apps", "Deployment", "coder-chat"),)
    async with connected(wire) as client:
        argocd = ArgoCD(client, "argocd", "acme/platform")
        syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="dev", timeout=20, only=only))
        await until_requested(wire)
        resources = [{"group": "apps", "kind": "Deployment", "name": "coder-chat"}]
        assert stored(wire)["operation"]["sync"]["resources"] == resources
        start(wire)

        def end_out_of_sync(app: Object) -> None:
            end(app)
            app["status"]["sync"]["status"] = "OutOfSync"

        wire.store.update("Application", "coder-chat", "argocd", end_out_of_sync)
        assert (await syncing).drift == ""
