"""`/model bench`: a Job that loads the model, its table and picture below the card, and its report as a pull request."""

import asyncio
import json
from pathlib import Path

from sandbox.objects import Object
from sandbox.process import Bot
from tests.forked import start_stoker
from tests.operations.platform import Platform, open_platform

LONG = {"bench": {"concurrency": [2], "each": "100s"}}
"""A benchmark that does not end during the test."""


async def bring_up(platform: Platform, model: str = "coder-chat") -> None:
    await platform.say("dev", f"/gpu up {model}")
    await platform.click("lead", "Approve")
    await platform.sees(f"{model} is up and answers")


def jobs(platform: Platform) -> list[Object]:
    return platform.cluster.store.find("Job", "serving")


def pods(platform: Platform) -> list[Object]:
    return platform.cluster.store.find("Pod", "serving", labels="app.kubernetes.io/name=stoker-benchmark")


def benchmark_runs(platform: Platform) -> bool:
    """Return whether the benchmark is sending requests."""
    return any(
        "running" in s["state"] for pod in pods(platform) for s in pod["status"].get("initContainerStatuses") or ()
    )


async def test_a_benchmark_ends_with_a_table_a_picture_and_a_pull_request(platform: Platform) -> None:
    """The report has the data for comparisons, and the pull request adds only the report."""
    await bring_up(platform)
    await platform.say("dev", "/model bench coder-chat")
    card = await platform.sees("Benchmark coder-chat")
    assert "256 in, 128 out" in card
    assert "the benchmark ends with it" in card
    await platform.sees("coder-chat generates up to")
    table = await platform.sees("first token, ms")
    assert [line.split()[0] for line in table.splitlines() if line.strip()[:1].isdigit()] == ["1", "4", "16"]
    await platform.sees("[file Benchmark of coder-chat]")
    await platform.click("lead", "Open a pull request")
    await platform.sees("A pull request adds this result")
    assert platform.pulls[0].title.startswith("docs(benchmarks): coder-chat, ")
    path, text = await reported(platform)
    assert path.startswith("benchmarks/coder-chat/")
    for fact in (
        "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ",
        "g2-standard-4",
        "1 × L4",
        "--max-model-len",
        "guidellm:v0.8.1@sha256:",
    ):
        assert fact in text
    assert not [text for text in platform.visible("lead") if "Open a pull request" in text]


async def test_a_benchmark_counts_as_use_and_its_job_is_locked_down(platform: Platform) -> None:
    """Its requests count in the session; it runs beside the model, with the key from the Secret and without rights."""
    await bring_up(platform)
    await platform.say("dev", "/model bench coder-chat")
    await platform.sees("coder-chat generates up to")
    await platform.until(lambda: len(jobs(platform)) == 1)
    job = jobs(platform)[0]
    secret = platform.object("Secret", "vllm-api-key")
    assert secret
    assert secret["data"]["api-key"] not in json.dumps(job)
    spec = job["spec"]["template"]["spec"]
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 300)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v] == [
        "coder-chat-model-cache"
    ]
    model = platform.cluster.store.find("Pod", "serving", labels="app.kubernetes.io/name=coder-chat")[0]
    assert pods(platform)[0]["spec"]["nodeName"] == model["spec"]["nodeName"]
    await platform.say("dev", "/gpu down")
    receipt = await platform.sees("requests, ")
    served = next(line for line in receipt.splitlines() if " requests, " in line)
    assert int(served.split(" requests, ")[0].split()[-1]) > 20


async def test_a_benchmark_that_is_not_allowed_is_refused_with_a_reason(platform: Platform) -> None:
    """One sentence explains that no model is up, that the session is another person's, or that a benchmark runs already."""
    await platform.say("dev", "/model bench coder-chat")
    await platform.sees("coder-chat is not up under a lease")
    await platform.say("dev", "/model bench embeddings")
    await platform.sees("embeddings does not generate text on a GPU")
    await platform.say("lead", "/gpu up coder-chat")
    await platform.click("admin", "Approve")
    await platform.sees("coder-chat is up and answers")
    await platform.say("dev", "/model bench coder-chat")
    await platform.sees("Only @lead, who holds the GPU, or an approver can start a benchmark")
    assert not jobs(platform)


async def test_without_an_image_the_missing_setting_is_named(tmp_path: Path, redis_url: str) -> None:
    async with open_platform(tmp_path, redis_url, settings={"bench": {"image": ""}}) as platform:
        await platform.say("dev", "/model bench coder-chat")
        assert "set bench.image, in the file named by STOKER_CONFIG" in await platform.sees(
            "No benchmark is configured"
        )


async def test_a_lease_that_ends_too_soon_is_extended_first(tmp_path: Path, redis_url: str) -> None:
    async with open_platform(tmp_path, redis_url, settings={"bench": {"each": "40m", "limit": "3h"}}) as platform:
        await platform.say("dev", "/gpu up coder-chat for 1h")
        await platform.click("lead", "Approve")
        await platform.sees("coder-chat is up and answers")
        await platform.say("dev", "/model bench coder-chat")
        assert "/gpu extend" in await platform.sees("and the benchmark takes 2 h 1 min")


async def test_the_job_is_deleted_when_a_benchmark_ends_early(tmp_path: Path, redis_url: str) -> None:
    """If it is cancelled, or the model is brought down, the Job and its pod are deleted, and the card shows it."""
    async with open_platform(tmp_path, redis_url, settings=LONG) as platform:
        await bring_up(platform)
        await platform.say("dev", "/model bench coder-chat")
        await platform.until(lambda: benchmark_runs(platform))
        await platform.say("lead", "/model bench coder-chat")
        await platform.sees("coder-chat is already being measured, as @dev requested", user="lead")
        await platform.click("dev", "Cancel")
        await platform.sees("Cancelled by @dev. Its Job is deleted.")
        await platform.until(lambda: not jobs(platform) and not pods(platform))
        await platform.say("dev", "/model bench coder-chat")
        await platform.until(lambda: benchmark_runs(platform))
        await platform.end_for_another("lead", "/gpu down")
        await platform.sees("coder-chat went down during the benchmark")
        await platform.sees("Its Job is deleted.")
        await platform.sees("coder-chat is down and the GPU is free")
        await platform.until(lambda: not jobs(platform) and not pods(platform))


async def test_down_in_the_terminal_deletes_the_job(tmp_path: Path, redis_url: str) -> None:
    """The command uses neither Slack nor Redis; a benchmark's pod would keep the node, which is billed."""
    async with open_platform(tmp_path, redis_url, settings=LONG) as platform:
        await bring_up(platform)
        await platform.say("dev", "/model bench coder-chat")
        await platform.until(lambda: benchmark_runs(platform))
        environment = {name: platform.environment[name] for name in ("KUBECONFIG", "STOKER_CONFIG")}
        down = await start_stoker("gpu", "down", "coder-chat", environment=environment, directory=tmp_path)
        output, _ = await down.communicate()
        assert down.returncode == 0, output
        await platform.until(lambda: not jobs(platform) and not pods(platform))
        await platform.sees("❌ Benchmark coder-chat")


async def test_a_model_that_answers_nothing_has_no_table(platform: Platform) -> None:
    """GuideLLM then ends successfully, and prints a table without latencies."""
    await bring_up(platform)
    platform.faults.add("smoke-fails")
    await platform.say("dev", "/model bench coder-chat")
    await platform.sees("The model answered no request at a concurrency of 1. Its Job is deleted.")


async def test_a_bot_killed_in_the_middle_runs_one_job_and_posts_one_table(tmp_path: Path, redis_url: str) -> None:
    """The bot is killed during the benchmark's requests, and again when its table is posted."""
    settings = {"bench": {"concurrency": [1, 2], "each": "3s"}}
    async with open_platform(tmp_path, redis_url, settings=settings, started=False) as platform:
        port = int(platform.environment["STOKER_PORT"])
        async with Bot(platform.environment, port=port, directory=tmp_path) as bot:
            await platform.workspace.connected(platform.patience)
            await bring_up(platform)
            await platform.say("dev", "/model bench coder-chat")
            await platform.until(lambda: benchmark_runs(platform))
            first = pods(platform)[0]["metadata"]["uid"]
            await bot.kill()
            await platform.sees("first token, ms")
            await bot.kill()
            await platform.sees("coder-chat generates up to")
            await platform.click("dev", "Open a pull request")
            await platform.sees("The pull request is being opened")
            await bot.kill()
            await platform.sees("A pull request adds this result")
            await platform.until(lambda: [text for text in platform.visible("dev") if "[file Benchmark" in text])
            await asyncio.sleep(3)  # time for repeated actions, if there were any
        assert [pod["metadata"]["uid"] for pod in pods(platform)] == [first]
        visible = platform.visible("dev")
        assert len([text for text in visible if "first token, ms" in text]) == 1
        assert len([text for text in visible if "[file Benchmark" in text]) == 1
        assert len(platform.pulls) == 1


async def reported(platform: Platform) -> tuple[str, str]:
    """Return the path and the text of the only file that the pull request's branch adds."""
    ref = platform.pulls[0].head_ref

    async def git(*words: str) -> str:
        done = await asyncio.create_subprocess_exec(
            "git", "-C", str(platform.remote), *words, stdout=asyncio.subprocess.PIPE
        )
        return (await done.communicate())[0].decode()

    path = (await git("diff", "--name-only", "main", ref)).strip()
    return path, await git("show", f"{ref}:{path}")
