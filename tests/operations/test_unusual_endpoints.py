"""Endpoints that the repository describes in an unusual way: brought up, or refused in one sentence."""

from tests.operations.platform import Platform
from tests.operations.steps import bring_up, push_change

APPLICATION = "clusters/ai-dev/catalog/coding-assistant/coder-chat.yaml"
DEPLOYMENT = "serving/coder-chat/deployment.yaml"


async def test_an_endpoint_without_application_is_refused(platform: Platform) -> None:
    await push_change(platform, "main", APPLICATION, "kind: Application", "kind: AppProject")
    # Argo CD removes the Application when it polls git; until then the one in the cluster can be synced.
    await platform.until(lambda: platform.object("Application", "coder-chat", "argocd") is None)
    await platform.say("dev", "/gpu up coder-chat")
    await platform.sees("No Argo CD Application in clusters/ai-dev/catalog deploys coder-chat")


async def test_a_deployment_of_another_name_is_brought_up_and_down(platform: Platform) -> None:
    await push_change(platform, "main", DEPLOYMENT, "name: coder-chat\n  namespace", "name: vllm-server\n  namespace")
    await bring_up(platform)
    assert platform.cluster.replicas("vllm-server") == 1
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("coder-chat is down and the GPU is free")
    assert platform.cluster.replicas("vllm-server") == 0
