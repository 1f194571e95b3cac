"""The rules of the repository: of any file, and of the pages and lists about its endpoints."""

from manifests.rules.rule import Rule

RULES = {
    "yaml": Rule(
        "every manifest that the check reads is valid YAML",
        "Argo CD cannot render the Application, and the file is not checked",
        "fix the syntax at the line",
    ),
    "schema": Rule(
        "objects have the API version, fields, types and words that Kubernetes, Argo CD, kustomize and LiteLLM know",
        "the object is refused, or what is misspelled is ignored",
        "write the field as the API reference spells it",
    ),
    "duplicate-key": Rule(
        "no key stands twice in one mapping",
        "one of the values is ignored, or the file is refused",
        "remove one of them",
    ),
    "portal-alias": Rule(
        "the key portal offers aliases that LiteLLM has, each once",
        "people make keys for what nothing answers to",
        "remove it from the list",
    ),
    "secret-in-git": Rule(
        "no key is written out in a manifest",
        "everybody who can read the repository has it",
        "read it from a Secret, and revoke this one",
    ),
    "not-checked": Rule(
        "the check can look into everything that routes to an endpoint",
        "a fault there is not found",
        "compare it by hand",
        "note",
    ),
    "manual-apps-missing": Rule(
        "each manual-sync Application is in the word list `manual_apps`",
        "waiting for the platform never ends",
        "add the word",
    ),
    "manual-apps-surplus": Rule(
        "no automated Application is in `manual_apps`", "nobody waits for it", "remove the word"
    ),
    "manual-apps-unknown": Rule(
        "each word of `manual_apps` is an Application",
        "an Application of that name is not waited for",
        "remove it",
    ),
    "manual-table-missing": Rule(
        "the table of what is synced by hand names each manual-sync endpoint",
        "people who bring the platform up miss it",
        "add its row",
    ),
    "manual-table-surplus": Rule(
        "that table names no endpoint that syncs automatically",
        "somebody syncs it unnecessarily",
        "remove the row",
    ),
    "catalog-alias": Rule(
        "a row of the model catalog is about an alias that LiteLLM has",
        "tenants call what nothing answers to",
        "remove the row, or add the alias",
    ),
    "catalog-model": Rule(
        "the model catalog's row names the model that the endpoint serves (an endpoint need not have a row)",
        "tenants choose by what is not true",
        "write the model that is served",
    ),
    "catalog-context": Rule(
        "its context is the engine's `--max-model-len`",
        "tenants' longer requests are refused",
        "write the engine's number",
    ),
    "catalog-cost": Rule(
        "its prices are those that LiteLLM counts",
        "tenants reckon with other bills",
        "write LiteLLM's prices",
    ),
    "catalog-hardware": Rule(
        "the catalog's cells for GPU and backend say what the endpoint runs on",
        "tenants expect another speed",
        "write what the manifests say",
    ),
    "catalog-note": Rule(
        "a note below the catalog that begins with an alias speaks of the model that it serves",
        "tenants choose by what is not true",
        "make the note true, or remove it",
    ),
    "suppression": Rule(
        "`# stoker: ignore RULE: reason` names a rule, gives a reason, and matches a finding on its line or the line below",
        "nobody knows why a finding is ignored, or the comment hides a later one",
        "write the rule and the reason, or remove the comment",
        "warning",
    ),
}
