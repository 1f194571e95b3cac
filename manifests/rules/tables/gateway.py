"""The rules of LiteLLM's entries."""

from manifests.rules.rule import Rule

RULES = {
    "served-name": Rule(
        "LiteLLM requests the engine's served name (`openai/<served name>`)",
        "every call through the gateway is a 404",
        "write the engine's `--served-model-name`",
    ),
    "api-base-host": Rule(
        "LiteLLM's `api_base` is the address of the endpoint's Service",
        "tenants reach no model, or another one",
        "write the Service's address",
    ),
    "api-base-port": Rule(
        "the port in `api_base` is a port of the Service",
        "connections are refused",
        "write the Service's port",
    ),
    "api-base-scheme": Rule(
        "`api_base` of a Service in the cluster begins with `http://`",
        "the handshake fails, because the engine does not use TLS",
        "write http://",
    ),
    "api-base-path": Rule(
        "`api_base` of an OpenAI-compatible engine ends in `/v1`",
        "LiteLLM appends the rest of the path, and every call is a 404",
        "write an address that ends in /v1",
    ),
    "api-key-missing": Rule(
        "LiteLLM has an `api_key` for an engine that requires one",
        "every call is refused",
        "add the engine's key",
    ),
    "cost-missing": Rule(
        "each model in LiteLLM has `input_cost_per_token`, and `output_cost_per_token` if it generates text",
        "calls cost $0, and budgets have no effect",
        "add the price in dollars per token",
    ),
    "cost-not-a-number": Rule(
        "prices are numbers to every YAML parser (in YAML 1.1, `5e-07` is a string)",
        "LiteLLM fails, or does not count the cost",
        "write the decimal form, like 0.0000005",
    ),
    "cost-zero": Rule(
        "the two prices of a model are both zero or both above zero",
        "budgets have no effect",
        "write a price, even a small one",
        "warning",
    ),
    "cost-order": Rule(
        "an input token does not cost more than an output token",
        "long prompts use up budgets",
        "swap the two prices",
        severity="warning",
    ),
    "mode": Rule(
        "`mode` in LiteLLM's `model_info` matches the kind of the endpoint",
        "LiteLLM's health check reports it as unhealthy",
        "write embedding, rerank, completion or chat",
    ),
    "cost-implausible": Rule(
        "a price per token is below $0.001",
        "the number is probably a price per million tokens, and budgets are used up immediately",
        "divide it by a million",
    ),
    "alias-duplicate": Rule(
        "several entries of one alias serve the same model, or have `order` or `weight`",
        "LiteLLM spreads the calls over different models",
        "keep one of the entries",
    ),
    "alias-unknown": Rule(
        "fallbacks, `model_group_alias` and lists of allowed models name aliases that exist",
        "the call that needs the fallback fails",
        "write an alias of `model_list`",
    ),
    "alias-without-endpoint": Rule(
        "each alias that points to the serving namespace has a Service there",
        "calls to the alias fail",
        "name a Service that exists, or remove the alias",
    ),
    "endpoint-without-alias": Rule(
        "each endpoint has an alias in LiteLLM",
        "tenants cannot reach it",
        "add an entry to `model_list`",
    ),
}
