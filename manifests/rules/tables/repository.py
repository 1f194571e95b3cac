"""The rules of the repository: of any file, and of the pages and lists about its endpoints."""

from manifests.rules.rule import Rule

RULES = {
    "yaml": Rule(
        "every manifest that the check reads is valid YAML",
        "Argo CD cannot render the Application, and the file is not checked",
        "fix the syntax at the line",
    ),
    "schema": Rule(
        "objects have API versions, fields, types and values that Kubernetes, Argo CD, kustomize and LiteLLM accept",
        "the object is refused, or the misspelled field is ignored",
        "write the field as in the API reference",
    ),
    "duplicate-key": Rule(
        "no mapping has a key twice",
        "one of the values is ignored, or the file is refused",
        "remove one of them",
    ),
    "portal-alias": Rule(
        "the key portal offers aliases that exist in LiteLLM, each once",
        "people create keys for an alias that does not exist",
        "remove it from the list",
    ),
    "secret-in-git": Rule(
        "no manifest contains a key in plain text",
        "everybody who can read the repository has the key",
        "read the key from a Secret, and revoke this key",
    ),
    "not-checked": Rule(
        "the check understands everything that routes to an endpoint",
        "faults there are not found",
        "check it by hand",
        "note",
    ),
    "manual-apps-missing": Rule(
        "each manual-sync Application is in the word list `manual_apps`",
        "a script that waits for the platform never ends",
        "add the word",
    ),
    "manual-apps-surplus": Rule(
        "no automated Application is in `manual_apps`", "scripts do not wait for it", "remove the word"
    ),
    "manual-apps-unknown": Rule(
        "each word of `manual_apps` is an Application",
        "the word has no effect",
        "remove it",
    ),
    "manual-table-missing": Rule(
        "the table of manual syncs lists each manual-sync endpoint",
        "people who bring the platform up forget it",
        "add its row",
    ),
    "manual-table-surplus": Rule(
        "the table of manual syncs lists no endpoint that syncs automatically",
        "people sync it unnecessarily",
        "remove the row",
    ),
    "catalog-alias": Rule(
        "each row of the model catalog has an alias that exists in LiteLLM",
        "tenants call an alias that does not exist",
        "remove the row, or add the alias",
    ),
    "catalog-model": Rule(
        "the model catalog's row names the model that the endpoint serves (an endpoint need not have a row)",
        "tenants choose a model based on wrong information",
        "write the model that is served",
    ),
    "catalog-context": Rule(
        "the context in the row is the engine's `--max-model-len`",
        "tenants' longer requests are refused",
        "write the engine's number",
    ),
    "catalog-cost": Rule(
        "the prices in the row are those in LiteLLM",
        "tenants expect different bills",
        "write LiteLLM's prices",
    ),
    "catalog-hardware": Rule(
        "the catalog's cells for GPU and backend match the manifests",
        "tenants expect a different speed",
        "write the values of the manifests",
    ),
    "catalog-note": Rule(
        "a note below the catalog that begins with an alias describes the model that the alias serves",
        "tenants choose a model based on wrong information",
        "correct the note, or remove it",
    ),
    "suppression": Rule(
        "`# stoker: ignore RULE: reason` names a rule, gives a reason, and matches a finding on its line or the line below",
        "a finding is ignored without a reason, or the comment hides a later one",
        "write the rule and the reason, or remove the comment",
        "warning",
    ),
}
