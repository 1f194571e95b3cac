"""LiteLLM's configuration in practice: other places, other forms, several entries for one endpoint."""

import difflib
import re

import pytest

from manifests.add import AddRequest, plan_add
from manifests.contract import Layout, check, read_endpoint
from manifests.platform import Platform
from manifests.remove import plan_remove
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, Files, ManifestError, Overlay, Tree
from tests.manifests.models import CODER_1_5B, CODER_3B_AWQ

VALUES = "platform/litellm/values.yaml"
CHAT_BASE = "http://coder-chat.serving.svc.cluster.local:8000/v1"
SECOND = f"""\
    - model_name: assistant
      litellm_params:
        model: openai/qwen2.5-coder-7b-instruct
        api_base: {CHAT_BASE}
        api_key: os.environ/UPSTREAM_API_KEY
        input_cost_per_token: 0.0000005
        output_cost_per_token: 0.0000015
"""


def contents(tree: Tree) -> dict[str, str]:
    return {path: text for path in tree.files("") if (text := tree.read(path)) is not None}


def replaced(tree: Tree, old: str, new: str, path: str = VALUES) -> Files:
    files = contents(tree)
    assert old in files[path], old
    return Files(files | {path: files[path].replace(old, new, 1)})


def subchart(text: str) -> str:
    """The values of LiteLLM's chart below the key of a dependency of another chart."""
    return "gateway:\n" + re.sub(
        r"(?m)^(?=.)", "  ", text.split("\nproxy_config:")[0] + "\nproxy_config:" + text.split("\nproxy_config:")[1]
    )


def config_map(text: str) -> str:
    """LiteLLM's own configuration in the text of a ConfigMap."""
    config = re.sub(r"(?m)^  ", "", text.split("proxy_config:\n")[1].split("\n# PROXY")[0])
    inner = re.sub(r"(?m)^(?=.)", "    ", config)
    return f'# The gateway.\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: litellm\ndata:\n  other: |\n    {{{{ no yaml\n  config.yaml: |\n{inner.rstrip()}\n  last: "1"\n'


def values_object(text: str) -> str:
    """Helm values inside the Application."""
    inner = re.sub(r"(?m)^(?=.)", "        ", text)
    return f"apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata:\n  name: gateway\nspec:\n  source:\n    helm:\n      valuesObject:\n{inner}"


PLACES = {
    "subchart": (VALUES, subchart),
    "config map": ("apps/litellm/config.yaml", config_map),
    "values object": ("apps/gateway.yaml", values_object),
}


@pytest.fixture(params=PLACES)
def elsewhere(request: pytest.FixtureRequest, platform: Files) -> tuple[Files, str]:
    """The sample platform with its model list at another place, and the path of that file."""
    path, convert = PLACES[request.param]
    files = contents(platform)
    text = convert(files.pop(VALUES))
    return Files(files | {path: text}), path


def test_a_list_at_another_place_is_changed_without_other_edits(
    elsewhere: tuple[Files, str], layout: Layout, machine: Machine
) -> None:
    """The pull request changes the lines of the entry; every other line of the file stays."""
    tree, path = elsewhere
    assert check(Platform(tree, layout)) == ()
    first = (tree.read(path) or "").splitlines()
    swapped = plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine).changes
    after = Overlay(tree, swapped)
    assert check(Platform(after, layout)) == ()
    assert "model: openai/qwen2.5-coder-3b-instruct" in (after.read(path) or "")
    lines = (after.read(path) or "").splitlines()
    assert len(lines) == len(first)
    changed = [new for old, new in zip(first, lines, strict=True) if old != new]
    assert len(changed) == 2, changed  # the name, and the comment with the model
    added = plan_add(Platform(tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine).changes
    grown = Overlay(tree, added)
    assert check(Platform(grown, layout)) == ()
    new = (grown.read(path) or "").splitlines()
    changes = difflib.SequenceMatcher(None, first, new, autojunk=False).get_opcodes()
    assert {tag for tag, *_ in changes} == {"equal", "insert"}
    assert contents(Overlay(grown, plan_remove(Platform(grown, layout), "mini").changes)) == contents(tree)


def test_every_alias_of_an_endpoint_is_swapped(platform: Files, layout: Layout, machine: Machine) -> None:
    """Otherwise the second alias would answer 404 after the merge."""
    tree = replaced(platform, "    # A model that runs elsewhere", SECOND + "    # A model that runs elsewhere")
    assert check(Platform(tree, layout)) == ()
    assert read_endpoint(Platform(tree, layout), "coder-chat").aliases == ("coder-chat", "assistant")
    change = plan_swap(
        Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ, price_in="0.0000003"), machine
    )
    text = Overlay(tree, change.changes).read(VALUES) or ""
    assert text.count("model: openai/qwen2.5-coder-3b-instruct") == 2
    assert text.count("input_cost_per_token: 0.0000003") == 2
    assert "qwen2.5-coder-7b" not in text
    assert check(Platform(Overlay(tree, change.changes), layout)) == ()
    without_alias = Overlay(tree, plan_remove(Platform(tree, layout), "coder-chat").changes).read(VALUES) or ""
    assert "assistant" not in without_alias
    assert "claude-haiku" in without_alias


def test_an_outdated_second_alias_is_reported(platform: Files, layout: Layout) -> None:
    stale = SECOND.replace("qwen2.5-coder-7b-instruct", "qwen2.5-coder-3b-instruct")
    tree = replaced(platform, "    # A model that runs elsewhere", stale + "    # A model that runs elsewhere")
    (finding,) = check(Platform(tree, layout))
    assert finding.rule == "served-name"
    assert (tree.read(VALUES) or "").splitlines()[finding.line - 1].strip() == "model: openai/qwen2.5-coder-3b-instruct"


PRICES = "        input_cost_per_token: 0.0000002\n        output_cost_per_token: 0.0000004\n"


@pytest.mark.parametrize(
    "price",
    [
        "      model_info:\n        input_cost_per_token: 0.0000002\n        output_cost_per_token: 0.0000004\n",
        "        input_cost_per_second: 0.0004\n",
        "        input_cost_per_character: 0.0000001\n        output_cost_per_character: 0.0000001\n",
        "        input_cost_per_token: 0\n        output_cost_per_token: 0\n",
        "      model_info:\n        input_cost_per_token: 0.0\n        output_cost_per_token: 0.0\n",
        "      model_info:\n        base_model: gpt-4o-mini\n",
    ],
)
def test_prices_are_read_where_litellm_reads_them(platform: Files, layout: Layout, price: str) -> None:
    """The expected prices are those of LiteLLM; the catalog must have the same."""
    tree = replaced(platform, PRICES, price)
    assert {finding.rule for finding in check(Platform(tree, layout))} <= {"catalog-cost"}


def test_a_price_in_a_merge_key_stays_for_other_entries(platform: Files, layout: Layout, machine: Machine) -> None:
    """A price for one model is written into its own entry; the shared one stays."""
    shared = "prices: &cheap\n  input_cost_per_token: 0.0000002\n  output_cost_per_token: 0.0000004\nproxy_config:\n"
    tree = replaced(replaced(platform, PRICES, "        <<: *cheap\n"), "proxy_config:\n", shared)
    assert check(Platform(tree, layout)) == ()
    assert read_endpoint(Platform(tree, layout), "coder-fim").price_in == "0.0000002"
    request = SwapRequest(name="coder-fim", facts=CODER_1_5B, price_in="0.0000009")
    change = plan_swap(Platform(tree, layout), request, machine)
    after = Overlay(tree, change.changes)
    assert read_endpoint(Platform(after, layout), "coder-fim").price_in == "0.0000009"
    assert "prices: &cheap\n  input_cost_per_token: 0.0000002\n" in (after.read(VALUES) or "")


def test_a_price_of_zero_is_accepted_if_it_is_explicit(platform: Files, layout: Layout, machine: Machine) -> None:
    request = AddRequest(name="mini", facts=CODER_3B_AWQ, price_in="0", price_out="0")
    after = Overlay(platform, plan_add(Platform(platform, layout), request, machine).changes)
    assert (read_endpoint(Platform(after, layout), "mini").price_in, check(Platform(after, layout))) == ("0.0", ())


def deployments(
    extra: str,
    api_base: str = "http://chat-b.other.svc.cluster.local:8000/v1",
    model: str = "openai/qwen2.5-coder-7b-instruct",
) -> str:
    return (
        SECOND.replace("model_name: assistant", "model_name: coder-chat")
        .replace(CHAT_BASE, api_base)
        .replace("openai/qwen2.5-coder-7b-instruct", model)
        .replace("        api_key", f"{extra}        api_key")
    )


@pytest.mark.parametrize(
    ("alias", "rules"),
    [
        (deployments(""), set()),
        (deployments("        weight: 2\n", model="openai/other"), set()),
        (deployments("        order: 2\n", "https://api.example.com/v1", "openai/gpt-4o-mini"), set()),
        (
            deployments("", "http://coder-fim.serving.svc.cluster.local:8000/v1", "openai/qwen2.5-coder-1.5b"),
            {"alias-duplicate"},
        ),
        (deployments("", CHAT_BASE), {"alias-duplicate"}),
    ],
)
def test_one_alias_with_several_deployments(platform: Files, layout: Layout, alias: str, rules: set[str]) -> None:
    """Load balancing and fallbacks are configuration; two different models without such settings are a mistake."""
    tree = replaced(platform, "    # A model that runs elsewhere", alias + "    # A model that runs elsewhere")
    assert {finding.rule for finding in check(Platform(tree, layout))} == rules


def test_an_address_in_a_variable_is_resolved_in_the_same_file(
    platform: Files, layout: Layout, machine: Machine
) -> None:
    """Without the variable the only finding is that the address was not checked."""
    tree = replaced(platform, f"api_base: {CHAT_BASE}", "api_base: os.environ/CHAT_URL")
    (finding,) = check(Platform(tree, layout))
    assert (finding.rule, finding.severity) == ("not-checked", "note")
    replaced_tree = replaced(tree, "extraEnvVars:\n", f"extraEnvVars:\n  - name: CHAT_URL\n    value: {CHAT_BASE}\n")
    assert check(Platform(replaced_tree, layout)) == ()
    wrong = replaced(
        tree, "extraEnvVars:\n", f"extraEnvVars:\n  - name: CHAT_URL\n    value: {CHAT_BASE.replace('8000', '9000')}\n"
    )
    assert {finding.rule for finding in check(Platform(wrong, layout))} == {"api-base-port"}
    change = plan_add(Platform(replaced_tree, layout), AddRequest(name="mini", facts=CODER_3B_AWQ), machine)
    assert "api_base: http://mini.serving.svc.cluster.local:8000/v1" in (
        Overlay(replaced_tree, change.changes).read(VALUES) or ""
    )


def test_an_included_file_is_read(platform: Files, layout: Layout, machine: Machine) -> None:
    """An included file that does not exist is a finding."""
    text = platform.read(VALUES) or ""
    start, end = text.index("    - model_name: embeddings"), text.index("    # A model that runs")
    listed = "model_list:\n" + re.sub(r"(?m)^  ", "", text[start:end])
    apart = replaced(platform, text[start:end], "")
    included = replaced(apart, "proxy_config:\n", "proxy_config:\n  include:\n    - models.yaml\n")
    rules = {finding.rule for finding in check(Platform(included, layout))}
    assert rules == {"endpoint-without-alias", "not-checked"}
    whole = Files(contents(included) | {"platform/litellm/models.yaml": listed})
    assert check(Platform(whole, layout)) == ()


SETTINGS = """\
  router_settings:
    fallbacks:
      - coder-chat: [claude-haiku]
    context_window_fallbacks: [{"coder-fim": ["claude-haiku"]}]
    model_group_alias: {"gpt-4": "coder-chat", "hidden": {"model": "coder-fim", "hidden": true}}
  litellm_settings:
    default_fallbacks: [gpt-4]
    default_internal_user_params:
      models: [embeddings, all-team-models]
"""


def test_an_alias_that_a_setting_names_is_not_removed(platform: Files, layout: Layout) -> None:
    """An alias that a fallback needs is not removed; each place is named with its line."""
    tree = replaced(platform, "  general_settings:\n", SETTINGS + "  general_settings:\n")
    assert check(Platform(tree, layout)) == ()
    lines = (tree.read(VALUES) or "").splitlines()
    line = lines.index("      models: [embeddings, all-team-models]") + 1
    with pytest.raises(ManifestError, match=rf"LiteLLM's settings name embeddings: {VALUES}:{line} \(models\)"):
        plan_remove(Platform(tree, layout), "embeddings")


def test_a_swap_that_cannot_find_its_alias_is_refused(platform: Files, layout: Layout, machine: Machine) -> None:
    """The gateway would keep the old name. A swap that keeps the name is allowed."""
    text = platform.read(VALUES) or ""
    start, end = text.index("    - model_name: coder-chat"), text.index("    - model_name: coder-fim")
    tree = replaced(platform, text[start:end], "")
    request = SwapRequest(name="coder-chat", facts=CODER_3B_AWQ)
    with pytest.raises(ManifestError, match=r"No alias in platform/litellm/values\.yaml leads to coder-chat"):
        plan_swap(Platform(tree, layout), request, machine)
    same_name = request.model_copy(update={"served_name": "qwen2.5-coder-7b-instruct"})
    assert plan_swap(Platform(tree, layout), same_name, machine).changes.files


def test_a_repository_without_a_gateway_has_no_findings_about_one(platform: Files, layout: Layout) -> None:
    files = contents(platform)
    del files[VALUES]
    tree = Overlay(Files(files), ChangeSet(files={"docs/public/reference/model-catalog.md": None}))
    assert check(Platform(tree, layout)) == ()


def test_an_entry_with_an_anchor_for_others_is_not_deleted(platform: Files, layout: Layout) -> None:
    tree = replaced(
        platform, "        input_cost_per_token: 0.0000002\n", "        input_cost_per_token: &price 0.0000002\n"
    )
    tree = replaced(tree, "input_cost_per_token: 0.0000001 ", "input_cost_per_token: *price ")
    with pytest.raises(ManifestError, match="defines the anchor &price"):
        plan_remove(Platform(tree, layout), "coder-fim")


KEYED = "api_key: os.environ/UPSTREAM_API_KEY             # the engine's key, not a tenant's"
CREDENTIAL = f"""\
  credential_list:
    - credential_name: engine
      credential_values:
        api_base: {CHAT_BASE}
        api_key: os.environ/UPSTREAM_API_KEY
"""


@pytest.mark.parametrize(
    ("old", "new", "asks"),
    [
        ("model: openai/", "custom_llm_provider: openai\n        model: ", "model: qwen2.5-coder-3b-instruct "),
        (f"api_base: {CHAT_BASE}", f"base_url: {CHAT_BASE}", "model: openai/qwen2.5-coder-3b-instruct "),
    ],
    ids=["provider in a key of its own", "base_url"],
)
def test_other_keys_with_the_same_meaning_are_read_and_kept(
    platform: Files, layout: Layout, machine: Machine, old: str, new: str, asks: str
) -> None:
    """Nothing is reported, a swap changes only the name, and the entry of a copy leads to the copy's Service."""
    tree = replaced(platform, old, new)
    assert check(Platform(tree, layout)) == ()
    change = plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)
    values = Overlay(tree, change.changes).read(VALUES) or ""
    assert new.partition("\n")[0] in values
    assert asks in values
    added = plan_add(Platform(tree, layout), AddRequest(name="mini", like="coder-chat", facts=CODER_3B_AWQ), machine)
    grown = Overlay(tree, added.changes)
    assert f"{'base_url' if 'base_url' in new else 'api_base'}: http://mini.serving" in (grown.read(VALUES) or "")
    removed = plan_remove(Platform(grown, layout), "mini")
    assert contents(Overlay(grown, removed.changes)) == contents(tree)


def test_a_credential_of_the_same_file_gives_the_address(platform: Files, layout: Layout, machine: Machine) -> None:
    """A credential without a definition causes a note. The address is shared, so the entry is not copied."""
    tree = replaced(platform, f"api_base: {CHAT_BASE}\n        {KEYED}", "litellm_credential_name: engine")
    (finding,) = check(Platform(tree, layout))
    assert (finding.rule, finding.severity) == ("not-checked", "note")
    replaced_tree = replaced(tree, "  general_settings:\n", f"{CREDENTIAL}  general_settings:\n")
    assert check(Platform(replaced_tree, layout)) == ()
    with pytest.raises(ManifestError, match="its address comes from a credential"):
        plan_add(
            Platform(replaced_tree, layout), AddRequest(name="mini", like="coder-chat", facts=CODER_3B_AWQ), machine
        )


def test_a_model_in_a_variable_is_not_overwritten(platform: Files, layout: Layout, machine: Machine) -> None:
    """The name of the variable is not the name of the model."""
    tree = replaced(platform, "model: openai/qwen2.5-coder-7b-instruct", "model: os.environ/CHAT_MODEL")
    (finding,) = check(Platform(tree, layout))
    assert (finding.rule, finding.severity) == ("not-checked", "note")
    with pytest.raises(ManifestError, match="an anchor or a variable"):
        plan_swap(Platform(tree, layout), SwapRequest(name="coder-chat", facts=CODER_3B_AWQ), machine)


def test_an_entry_that_ends_in_a_merge_key_is_removed_with_it(platform: Files, layout: Layout) -> None:
    """The merge key's line belongs to the entry; the content of the key is in another place."""
    prices = "        input_cost_per_token: 0.0000002\n        output_cost_per_token: 0.0000004\n"
    tree = replaced(platform, prices, "        <<: *cost\n")
    anchor = f"x-cost: &cost\n{prices.replace('        ', '  ')}\nproxy_config:\n"
    tree = replaced(tree, "proxy_config:\n", anchor)
    assert check(Platform(tree, layout)) == ()
    removed = plan_remove(Platform(tree, layout), "coder-fim")
    text = Overlay(tree, removed.changes).read(VALUES) or ""
    assert "coder-fim" not in text
    assert "*cost" not in text
    assert "&cost" in text
