"""The Hub's API about a model: the facts, and every possible failure."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from bot.clients.huggingface import GatedModel, HuggingFace, UnknownModel, model_id
from bot.errors import BotError, Unavailable
from manifests.review import refuse_unknown
from manifests.sizing import MissingFigures, kv_bytes_per_token
from manifests.sizing.licence import terms
from tests.clients.wire import Wire, client, nobody, wire

QWEN = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
TOKEN = "hf_tokenOfThisTest"
SHA = "b3a1e0d1b2c3d4e5f60718293a4b5c6d7e8f9012"

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 2048,
    "max_position_embeddings": 32768,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "quantization_config": {"bits": 4, "quant_method": "awq"},
    "torch_dtype": "float16",
}


@pytest.fixture
async def hub() -> AsyncIterator[Wire]:
    async with wire() as server:
        yield server


@pytest.fixture
async def huggingface(hub: Wire) -> AsyncIterator[HuggingFace]:
    async with client() as http:
        yield HuggingFace(http, hub.url, lambda: SecretStr(TOKEN))


def publish(
    hub: Wire,
    files: dict[str, int],
    *,
    hf_id: str = QWEN,
    config: Any = CONFIG,
    tokenizer: Any = None,
    more_files: dict[str, Any] | None = None,
    **more_facts: Any,
) -> None:
    """Publish a repository with these files; for `tokenizer_config.json` and `more`, None means that the file does not exist."""
    siblings = [{"rfilename": name, "size": size} for name, size in files.items()]
    hub.on("GET", f"/api/models/{hf_id}", {"id": hf_id, "sha": SHA, "gated": False, "siblings": siblings, **more_facts})
    for name, text in {"config.json": config, "tokenizer_config.json": tokenizer, **(more_files or {})}.items():
        status = 404 if text is None else 200
        for revision in (SHA, "main"):
            hub.on("GET", f"/{hf_id}/resolve/{revision}/{name}", text or {}, status=status)


def withhold(hub: Wire, *, status: int = 403, headers: dict[str, str] | None = None) -> None:
    """Withhold the files of a gated model, which the Hub describes but does not serve."""
    for revision in (SHA, "main"):
        hub.on("GET", f"/{QWEN}/resolve/{revision}/config.json", {"error": "no"}, status=status, headers=headers or {})


async def test_the_facts_of_a_quantized_chat_model(hub: Wire, huggingface: HuggingFace) -> None:
    """The size comes from the files and the shape from the configuration, both at one revision."""
    publish(
        hub,
        {"model-00001-of-00002.safetensors": 1_500, "model-00002-of-00002.safetensors": 500, "README.md": 9},
        tokenizer={"chat_template": "{{ messages }}"},
        cardData={"license": "other", "license_name": "qwen-research"},
        pipeline_tag="text-generation",
    )
    facts = await huggingface.model(QWEN)
    assert (facts.hf_id, facts.revision, facts.weight_bytes) == (QWEN, SHA, 2_000)
    assert (facts.layers, facts.kv_heads, facts.head_size, facts.hidden_size) == (36, 2, 128, 2048)
    assert (facts.dtype, facts.quantization, facts.max_context) == ("float16", "awq", 32768)
    assert (facts.licence, facts.chat, facts.gated) == ("qwen-research", True, False)
    assert (facts.architecture, facts.pipeline_tag) == ("Qwen2ForCausalLM", "text-generation")
    assert hub.requests[0].query == {"blobs": "true"}
    assert {request.headers["Authorization"] for request in hub.requests} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("config", "per_token"),
    [
        ({"layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 16}, 65536),
        ({"full_attention_interval": 4}, 65536),
        ({"layer_types": ["sliding_attention", "full_attention"] * 32}, 262144),
        ({"num_hidden_layers": 27, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 31104),
    ],
    ids=["layer types", "interval", "windows count as whole", "latent attention"],
)
async def test_only_layers_with_a_cache_count(
    hub: Wire, huggingface: HuggingFace, config: dict[str, Any], per_token: int
) -> None:
    """16 of a hybrid's 64 layers have a cache (measured in mitchross/talos-argocd-proxmox#1995); DeepSeek caches a vector."""
    shape = {"num_hidden_layers": 64, "num_key_value_heads": 4, "head_dim": 256, "hidden_size": 5120}
    publish(hub, {"model.safetensors": 1}, config={**CONFIG, **shape, **config})
    assert kv_bytes_per_token(await huggingface.model(QWEN)) == per_token


async def test_external_text_is_reduced_to_words_and_numbers(hub: Wire, huggingface: HuggingFace) -> None:
    """It is written into comments of manifests and into pull requests, so it has no line break, mention or link."""
    config = {**CONFIG, "num_hidden_layers": -1, "head_dim": float("nan"), "architectures": ["X\nY"]}
    config["quantization_config"] = {"quant_method": "awq\n  image: evil/image # "}
    card = {"license": "other", "license_name": "[free](https://evil.example) @acme/leads\n## Approved"}
    publish(hub, {"model.safetensors": 1}, config=config, cardData=card, pipeline_tag="text-generation\n")
    facts = await huggingface.model(QWEN)
    assert (facts.quantization, facts.architecture) == ("awqimageevilimage", "XY")
    assert facts.licence == "freehttps//evil.example acme/leads Approved"
    assert (facts.layers, facts.head_size, facts.pipeline_tag) == (0, 128, "text-generation")


async def test_a_base_model_has_no_chat_template(hub: Wire, huggingface: HuggingFace) -> None:
    """A template may also be a separate file."""
    publish(hub, {"model.safetensors": 1}, tokenizer={"model_max_length": 1}, hf_id="acme/plain-7B")
    assert (await huggingface.model("acme/plain-7B")).kind == "completion"
    publish(hub, {"model.safetensors": 1, "chat_template.jinja": 1}, hf_id="acme/plain-7B")
    assert (await huggingface.model("acme/plain-7B")).kind == "chat"


async def test_a_tokenizer_that_is_python_code_is_detected(hub: Wire, huggingface: HuggingFace) -> None:
    """Such a model requires --trust-remote-code even if vLLM has its architecture."""
    tokenizer = {"auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}}
    publish(hub, {"model.safetensors": 1, "own.tiktoken": 1}, tokenizer=tokenizer)
    assert (await huggingface.model(QWEN)).remote_code
    publish(hub, {"model.safetensors": 1, "tokenizer.json": 1}, tokenizer=tokenizer)
    assert not (await huggingface.model(QWEN)).remote_code


async def test_weights_in_two_formats_count_once(hub: Wire, huggingface: HuggingFace) -> None:
    """vLLM loads one of them."""
    publish(hub, {"consolidated.safetensors": 70, "model.safetensors": 7, "pytorch_model.bin": 700})
    assert (await huggingface.model(QWEN)).weight_bytes == 7
    publish(hub, {"model.gguf": 7})
    assert "GGUF" in (await huggingface.model(QWEN)).unservable
    publish(hub, {"model.onnx": 7})
    assert "no safetensors" in (await huggingface.model(QWEN)).unservable


async def test_a_vision_model_is_sized_by_its_language_part(hub: Wire, huggingface: HuggingFace) -> None:
    """The shape of that part is one level down; an explicit head size takes precedence over the quotient."""
    text = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "head_dim": 32, "dtype": "bfloat16"}
    publish(hub, {"model.safetensors": 1}, config={"architectures": ["X"], "text_config": text})
    facts = await huggingface.model(QWEN)
    assert (facts.layers, facts.kv_heads, facts.head_size, facts.quantization) == (2, 4, 32, None)
    assert facts.dtype == "bfloat16"


async def test_a_name_without_its_organisation_gets_similar_names(hub: Wire, huggingface: HuggingFace) -> None:
    """The suggestions are independent of the owner; only the search is used."""
    hub.on("GET", "/api/models", [{"id": "openai-community/gpt2"}, {"id": "openai-community/gpt2-xl"}, {"id": "gpt2"}])
    with pytest.raises(BotError, match=r"write it as org/name\. Similar names: openai-community/gpt2"):
        await huggingface.model("gpt2")
    assert {request.path for request in hub.requests} == {"/api/models"}


@pytest.mark.parametrize(
    ("text", "hf_id"),
    [
        (f"https://huggingface.co/{QWEN}/tree/main", QWEN),
        (f"https://huggingface.co/{QWEN}?library=vllm", QWEN),
        (f"hf.co/{QWEN}#usage", QWEN),
        (f"`{QWEN}`", QWEN),
        ("https://huggingface.co/gpt2", "gpt2"),
        ("https://huggingface.co/datasets/a/b", "https://huggingface.co/datasets/a/b"),
        ("https://hf.co/spaces/a/b", "https://hf.co/spaces/a/b"),
        ("https://hf.co/models?search=qwen", "https://hf.co/models?search=qwen"),
    ],
)
def test_a_pasted_link_to_a_model_is_its_id(text: str, hf_id: str) -> None:
    """Other links are not accepted as a model's link."""
    assert model_id(text) == hf_id


@pytest.mark.parametrize(
    ("reason", "error", "says"),
    [("GatedRepo", MissingFigures, "is gated"), ("RepoNotFound", UnknownModel, "is private")],
)
async def test_the_hub_s_reason_distinguishes_gated_from_private(
    hub: Wire, huggingface: HuggingFace, reason: str, error: type[Exception], says: str
) -> None:
    """It answers 401 for both, with the reason in a header."""
    publish(hub, {"model.safetensors": 1})
    withhold(hub, status=401, headers={"X-Error-Code": reason})
    with pytest.raises(error, match=says):
        refuse_unknown(await huggingface.model(QWEN), gpu=True)


@pytest.mark.parametrize("status", [401, 404])
async def test_an_unknown_or_private_model_is_named(hub: Wire, huggingface: HuggingFace, status: int) -> None:
    """The Hub does not distinguish the two."""
    hub.on("GET", f"/api/models/{QWEN}", {"error": "Repository not found"}, status=status)
    with pytest.raises(UnknownModel, match="check the spelling, or set HF_TOKEN"):
        await huggingface.model(QWEN)


async def test_a_gated_model_has_the_address_of_its_terms(hub: Wire, huggingface: HuggingFace) -> None:
    """Its description is readable without the terms; the files are not."""
    publish(hub, {"model.safetensors": 1}, gated="manual")
    withhold(hub)
    facts = await huggingface.model(QWEN)
    assert (facts.withheld, facts.weight_bytes, facts.unservable) == (True, 1, "")
    with pytest.raises(
        MissingFigures, match=rf"is gated: accept its terms at https://huggingface.co/{QWEN}"
    ) as refused:
        refuse_unknown(facts, gpu=True)
    assert "Known without them: chat, 0.0 GB (0.0 GiB) of weights" in str(refused.value)
    assert "layers" in refused.value.options


async def test_a_gated_model_is_sized_by_another_form_of_it(hub: Wire, huggingface: HuggingFace) -> None:
    """The other form has the same layers, but another quantization."""
    publish(hub, {"model.safetensors": 16 * 10**9}, gated="manual")
    withhold(hub)
    hub.on("GET", "/api/models", [{"id": "open/form-AWQ"}])
    awq = CONFIG | {"quantization_config": {"quant_method": "awq"}}
    hub.on("GET", "/open/form-AWQ/resolve/main/config.json", awq)
    facts = await huggingface.model(QWEN)
    assert facts.kept.per_token
    assert (facts.missing(gpu=True), facts.quantization, facts.weight_bytes) == ((), None, 16 * 10**9)
    assert any("taken from another repository" in term for term in terms(facts))


async def test_a_gated_model_without_known_sizes_is_an_error(hub: Wire, huggingface: HuggingFace) -> None:
    """Without sizes there is nothing to show."""
    publish(hub, {}, gated="manual")
    withhold(hub)
    with pytest.raises(GatedModel, match=f"https://huggingface.co/{QWEN}"):
        await huggingface.model(QWEN)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_hub_is_unavailable(hub: Wire, huggingface: HuggingFace, status: int) -> None:
    """The error contains the requested waiting time."""
    hub.on("GET", f"/api/models/{QWEN}", {}, status=status, headers={"Retry-After": "37"})
    with pytest.raises(Unavailable, match="37 s"):
        await huggingface.model(QWEN)


async def test_files_may_come_from_another_host_which_never_sees_the_token(hub: Wire, huggingface: HuggingFace) -> None:
    """The Hub redirects to its content network, which gets no token."""
    publish(hub, {"model.safetensors": 1})
    async with wire() as network:
        location = {"Location": f"{network.url}/blob"}
        hub.on("GET", f"/{QWEN}/resolve/{SHA}/config.json", {}, status=302, headers=location)
        network.on("GET", "/blob", CONFIG)
        assert (await huggingface.model(QWEN)).layers == 36
        assert "Authorization" not in network.requests[0].headers


@pytest.mark.parametrize(
    "hf_id",
    [
        "",
        "a/b/c",
        "../x",
        "a/..",
        "a/b?x=y",
        "a/b\n",
        "a/$(reboot)",
        "a/b c",
        "a/b#c",
        "a/b: c",
        "a/" + "x" * 97,
    ],
)
async def test_an_invalid_model_id_is_refused_without_a_request(
    hub: Wire, huggingface: HuggingFace, hf_id: str
) -> None:
    """It is refused before any URL is built."""
    with pytest.raises(BotError, match="org/name"):
        await huggingface.model(hf_id)
    assert hub.requests == []


async def test_a_hub_that_is_down_is_unavailable() -> None:
    """The error does not contain the token."""
    async with nobody() as url, client() as http:
        with pytest.raises(Unavailable, match="Hugging Face") as outage:
            await HuggingFace(http, url, lambda: SecretStr(TOKEN)).model(QWEN)
    assert TOKEN not in str(outage.value)


async def test_a_rotated_token_is_used_by_the_next_request(hub: Wire) -> None:
    """The mounted file changed; the bot continues without a restart."""
    current = ["hf_old"]
    publish(hub, {"model.safetensors": 1})
    async with client() as http:
        huggingface = HuggingFace(http, hub.url, lambda: SecretStr(current[0]))
        await huggingface.model(QWEN)
        current[0] = "hf_new"
        await huggingface.model(QWEN)
    sent = [call.headers["Authorization"] for call in hub.calls("GET", f"/api/models/{QWEN}")]
    assert sent == ["Bearer hf_old", "Bearer hf_new"]


async def test_a_search_returns_the_most_downloaded_models_first(hub: Wire, huggingface: HuggingFace) -> None:
    """The search requests at most twenty, in the Hub's own order, with the token."""
    hub.on("GET", "/api/models", [{"id": QWEN, "downloads": 9}, {"id": "Qwen/Qwen2.5-Coder-7B", "downloads": 3}])
    assert await huggingface.search("coder 3b") == (QWEN, "Qwen/Qwen2.5-Coder-7B")
    (request,) = hub.requests
    assert request.query == {"search": "coder 3b", "limit": "20", "sort": "downloads", "direction": "-1"}
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"


async def test_a_search_omits_invalid_ids(hub: Wire, huggingface: HuggingFace) -> None:
    """Ids without an organisation, of another type or with path traversal are omitted; the others are kept."""
    weird = [
        "gpt2",
        "../etc",
        "a/..",
        "a/b/c",
        "a/b?x=y",
        "a/b c",
        "<!channel>/x",
        "",
        None,
        7,
        ["a/b"],
        "a/" + "x" * 97,
    ]
    hub.on(
        "GET", "/api/models", [*({"id": hf_id} for hf_id in weird), {"modelId": "no/id"}, "text", None, {"id": QWEN}]
    )
    assert await huggingface.search("x") == (QWEN,)


async def test_typed_text_is_only_a_query(hub: Wire, huggingface: HuggingFace) -> None:
    """It cannot change the URL, and a page of text is truncated."""
    hub.on("GET", "/api/models", [])
    hostile = "../../whoami-v2?limit=9#&full=true\n" + "x" * 5000
    assert await huggingface.search(hostile) == ()
    (request,) = hub.requests
    assert (request.path, request.query["search"], request.query["limit"]) == ("/api/models", hostile[:100], "20")


@pytest.mark.parametrize(
    ("status", "text"),
    [(429, "{}"), (500, "oops"), (400, '{"error": "bad"}'), (200, "<html>maintenance</html>"), (200, '{"error": "x"}'),
     (200, "null"), (200, "")],
)  # fmt: skip
async def test_an_invalid_search_result_is_unavailable(
    hub: Wire, huggingface: HuggingFace, status: int, text: str
) -> None:
    """The answer of the Hub, or of a proxy in front of it, is not a list."""
    hub.on("GET", "/api/models", status=status, text=text, headers={"Content-Type": "application/json"})
    with pytest.raises(Unavailable, match="Hugging Face"):
        await huggingface.search("x")
