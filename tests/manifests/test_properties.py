"""Any changes in any order: the check has no findings, and undoing all of them restores the original tree."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from manifests.add import AddRequest, plan_add
from manifests.contract import Layout, check, read_endpoint, read_endpoints
from manifests.platform import Platform
from manifests.remove import plan_remove
from manifests.sizing import Machine, ModelFacts
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ChangeSet, Checkout, Files, ManifestError, Overlay, Tree
from tests.manifests.layout_variants import STYLES, styled
from tests.manifests.models import CHAT_MODELS, COMPLETION_MODELS, EMBEDDING_MODELS

SAMPLE = Checkout(Path(__file__).parents[2] / "sandbox" / "platform")
# The same examples each time, without shrinking: parsing YAML is slow, and CI may be slower.
UNHURRIED = settings(
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
LAYOUT, MACHINE = Layout(), Machine()
FIRST = {path: text for path in SAMPLE.files("") if (text := SAMPLE.read(path)) is not None}

MODELS = {"chat": CHAT_MODELS, "fim": COMPLETION_MODELS, "vectors": EMBEDDING_MODELS}
CONFIG, GROUPS = "environments/ai-dev/config.yaml", "clusters/ai-dev/groups.generated.yaml"
OFF = "egress"
"""An empty, disabled group of the sample."""
LIKE = {"chat": "coder-chat", "fim": "coder-fim", "vectors": "embeddings"}

steps = st.lists(
    st.tuples(
        st.sampled_from(("add", "swap", "remove")),
        st.sampled_from(tuple(MODELS)),
        st.integers(0, 2),
        st.integers(0, 7),
        st.sampled_from((None, 2048, 8192)),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def contents(tree: Tree) -> dict[str, str | None]:
    return {path: tree.read(path) for path in tree.files("")}


def request_change(
    tree: Tree, verb: str, kind: str, index: int, facts: ModelFacts, context: int | None, portal: bool, apart: bool
) -> ChangeSet:
    """Return one change of a test endpoint (`chat-0`, …); raise ManifestError if it is impossible.

    `apart` adds it to a group that is initially disabled.
    """
    name = f"{kind}-{index}"
    if verb == "add":
        request = AddRequest(
            name=name,
            facts=facts,
            like=LIKE[kind],
            context=None if kind == "vectors" else context,
            portal=portal,
            group=OFF if apart else None,
            kind="completion" if kind == "fim" else None,
        )
        return plan_add(Platform(tree, LAYOUT), request, MACHINE).changes
    if verb == "swap":
        change = SwapRequest(
            name=name,
            facts=facts,
            context=None if kind == "vectors" else context,
            kind="completion" if kind == "fim" else None,
        )
        return plan_swap(Platform(tree, LAYOUT), change, MACHINE).changes
    return plan_remove(Platform(tree, LAYOUT), name, portal=True).changes


def generated(tree: Tree) -> Tree:
    """The tree after the platform's own generator has run: the list of groups matches the flags."""
    text, flags = tree.read(GROUPS) or "", tree.read(CONFIG) or ""
    for name in re.findall(r"name: ([\w-]+), layer", text):
        if flag := re.search(rf"(?m)^  {name}: (true|false)", flags):
            text = re.sub(rf'(name: {name}, layer: [\w-]+, enabled: )"\w+"', rf'\1"{flag[1]}"', text)
    return Overlay(tree, ChangeSet(files={GROUPS: text}))


@pytest.mark.timeout(600)
@given(steps=steps, style=st.sampled_from(sorted(STYLES)), generates=st.booleans())
@settings(UNHURRIED, max_examples=25)
def test_any_sequence_of_changes_follows_the_contract_and_can_be_undone(
    steps: list[tuple[str, str, int, int, int | None, bool, bool]], style: str, generates: bool
) -> None:
    """Every style is tested. At the end every added endpoint is removed, in the order of the names.

    Whether the generator of the groups runs between the changes or only after all of them makes no difference.
    """
    first = styled(FIRST, style)
    tree: Tree = Files(first)
    assert check(Platform(tree, LAYOUT)) == ()
    for verb, kind, index, number, context, portal, apart in steps:
        facts = MODELS[kind][number % len(MODELS[kind])]
        try:
            changes = request_change(tree, verb, kind, index, facts, context, portal, apart)
        except ManifestError:
            continue  # taken, missing, or nothing to change: refused, and the tree is unchanged
        tree = Overlay(tree, changes)
        assert check(Platform(generated(tree), LAYOUT)) == ()
        assert {finding.rule for finding in check(Platform(tree, LAYOUT))} <= {"group-stale"}
        tree = generated(tree) if generates else tree
        if verb != "remove":
            assert read_endpoint(Platform(tree, LAYOUT), f"{kind}-{index}").hf_id == facts.hf_id
    for endpoint in read_endpoints(Platform(tree, LAYOUT)):
        if endpoint.name not in LIKE.values():
            tree = Overlay(tree, plan_remove(Platform(tree, LAYOUT), endpoint.name, portal=True).changes)
    assert contents(generated(tree)) == first


@pytest.mark.timeout(600)
@given(kind=st.sampled_from(("chat", "fim")), model_index=st.integers(0, 7), style=st.sampled_from(sorted(STYLES)))
@settings(UNHURRIED, max_examples=15)
def test_a_swap_and_its_reverse_restore_the_endpoint(kind: str, model_index: int, style: str) -> None:
    """The fields have their old values; a volume that grew stays large, and the evaluation has to be repeated."""
    tree: Tree = Files(styled(FIRST, style))
    name, kind_option = LIKE[kind], "completion" if kind == "fim" else None
    before = read_endpoint(Platform(tree, LAYOUT), name)
    back = next(model for model in MODELS[kind] if model.hf_id == before.hf_id)
    facts = MODELS[kind][model_index % len(MODELS[kind])]
    if facts.hf_id == before.hf_id or facts.weight_bytes > (before.memory_limit_bytes or 0):
        return
    tree = Overlay(
        tree, plan_swap(Platform(tree, LAYOUT), SwapRequest(name=name, facts=facts, kind=kind_option), MACHINE).changes
    )
    assert check(Platform(tree, LAYOUT)) == ()
    request = SwapRequest(name=name, facts=back, context=before.context)
    tree = Overlay(tree, plan_swap(Platform(tree, LAYOUT), request, MACHINE).changes)
    after = read_endpoint(Platform(tree, LAYOUT), name)
    assert after.model_copy(update={"pvc_size": before.pvc_size}) == before
    assert check(Platform(tree, LAYOUT)) == ()
