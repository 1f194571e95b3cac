"""The chart in helm/stoker: it grants exactly the rights in use, and its defaults are safe."""

import base64
import re
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import stamina
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError
from ruamel.yaml import YAML

from bot.clients.rights import Right, rights
from bot.embedded import _binary
from bot.settings.config import Config
from bot.settings.environment import Settings
from tests.helm.chart import BENCH, CHART, FULL, MINIMAL, ROOT, Object, of_kind, pods, render

helm = pytest.importorskip("helm_python", reason="Helm's library has wheels for Linux on x86-64 alone")


def rights_in_roles(objects: list[Object]) -> set[Right]:
    """The rights of the Roles and ClusterRoles, without the explanations."""
    granted_rights = set()
    for role in (*of_kind(objects, "Role"), *of_kind(objects, "ClusterRole")):
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        for name in rule.get("resourceNames", [""]):
                            granted_rights.add(Right(verb, resource, group, role["metadata"].get("namespace"), name))
    return granted_rights


def rights_in_use(config: Config) -> set[Right]:
    return {Right(r.verb, r.resource, r.group, r.namespace, r.name) for r in rights(config)}


@pytest.mark.parametrize("values", [MINIMAL, FULL], ids=["minimal", "full"])
def test_helm_lint_has_no_findings(values: Object) -> None:
    """Helm's strict lint has no warning and no error for the chart."""
    report = helm.lint(CHART, values, strict=True)
    assert [m for m in report["messages"] if m["severity"] > 1] == []
    assert report["errors"] == []


def test_the_example_for_argo_cd_installs() -> None:
    """The values of the catalog group's Application are accepted by the chart and by the bot."""
    values = helm.values_from_yaml((ROOT / "helm/argocd/platform/stoker/values.yaml").read_text(encoding="utf-8"))
    assert of_kind(render(values), "ExternalSecret")
    Config.model_validate(values["config"])


def test_the_values_of_the_guide_install() -> None:
    """The values in docs/install.md are accepted by the chart unchanged, and by the bot that it starts."""
    guide = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    values = helm.values_from_yaml(example)
    report = helm.lint(CHART, values, strict=True)
    assert [m for m in report["messages"] if m["severity"] > 1] == []
    (address,) = re.findall(r"^    (ingress: .*)$", guide, re.MULTILINE)
    assert of_kind(render(values | helm.values_from_yaml(address)), "Ingress")
    objects = render(values)
    (configmap,) = (item for item in of_kind(objects, "ConfigMap") if "stoker.yaml" in item["data"])
    config = Config.model_validate(YAML(typ="safe").load(configmap["data"]["stoker.yaml"]))
    assert config.slack.channel
    (bot,) = of_kind(objects, "Deployment")
    (container,) = bot["spec"]["template"]["spec"]["containers"]
    assert {variable["name"].lower() for variable in container["env"]} <= Settings.model_fields.keys()
    in_secret = re.findall(r"--from-(?:literal|file)=(\w+)=", guide)
    environment = {variable["name"]: variable["value"] for variable in container["env"]} | dict.fromkeys(
        in_secret, "set"
    )
    Settings.model_validate({name.lower(): value for name, value in environment.items() if name != "STOKER_CONFIG"})


ELSEWHERE = {
    "platform": {"namespace": "models"},
    "argocd": {"namespace": "gitops"},
    "vllm": {"api_key": {"namespace": "models", "name": "engine-key", "field": "key"}},
    "litellm": {"master_key": {"namespace": "models", "name": "gateway", "field": "master"}},
}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"staging": {"mode": "auto"}},
        {"staging": {"mode": "off"}},
        {"staging": {"mode": False}},
        {"bench": BENCH},
        ELSEWHERE,
        ELSEWHERE | {"bench": BENCH},
    ],
    ids=[
        "as it comes",
        "staging",
        "staging off",
        "staging off as YAML 1.1 reads it",
        "benchmarks",
        "other namespaces",
        "benchmarks in other namespaces",
    ],
)
def test_the_chart_grants_exactly_the_rights_in_use(config: dict[str, Any]) -> None:
    """Each right in use is in a Role of its namespace, and there is no other right."""
    values = MINIMAL | {"config": MINIMAL["config"] | config}
    assert rights_in_roles(render(values)) == rights_in_use(Config.model_validate(values["config"]))


def test_each_role_is_bound_to_the_bots_account_alone() -> None:
    """Every Role has a binding in its namespace, to one ServiceAccount of the release's namespace."""
    objects = render(MINIMAL)
    bindings = of_kind(objects, "RoleBinding") + of_kind(objects, "ClusterRoleBinding")
    roles = of_kind(objects, "Role") + of_kind(objects, "ClusterRole")
    assert {b["metadata"].get("namespace") for b in bindings} == {r["metadata"].get("namespace") for r in roles}
    account = {"kind": "ServiceAccount", "name": "stoker", "namespace": "stoker"}
    assert all(binding["subjects"] == [account] for binding in bindings)


@pytest.mark.parametrize("values", [MINIMAL, FULL], ids=["minimal", "full"])
def test_no_pod_has_more_privileges_than_it_needs(values: Object) -> None:
    """A pod has no root user, writable root file system, capabilities or ServiceAccount token; every container has limits."""
    for spec in pods(render(values)):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "a Service named stoker would set STOKER_PORT to tcp://…"
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["runAsNonRoot"]
            assert context["runAsUser"] >= 10000
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_no_secret_is_in_the_environment() -> None:
    """Secrets are files: an environment is inherited, dumped and shown by kubectl describe."""
    (bot,) = of_kind(render(FULL), "Deployment")
    container = bot["spec"]["template"]["spec"]["containers"][0]
    assert "envFrom" not in container
    secret = {name.upper() for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert not secret & {variable["name"] for variable in container["env"]}
    assert any(mount["name"] == "secrets" and mount["readOnly"] for mount in container["volumeMounts"])


def test_the_bot_reads_the_settings_that_the_chart_writes() -> None:
    """Every variable that the chart sets is a setting, and the file that it writes is a valid policy."""
    objects = render(FULL)
    (bot,) = of_kind(objects, "Deployment")
    variables = {v["name"].lower() for v in bot["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables <= Settings.model_fields.keys()
    (policy,) = [c for c in of_kind(objects, "ConfigMap") if "stoker.yaml" in c["data"]]
    written_policy = helm.values_from_yaml(policy["data"]["stoker.yaml"])
    assert Config.model_validate(written_policy).slack.channel == "C0123456789"


def test_redis_never_evicts_a_lease() -> None:
    """The chart's server appends every write to a file and evicts nothing."""
    (redis,) = [c for c in of_kind(render(MINIMAL), "ConfigMap") if "redis.conf" in c["data"]]
    lines = redis["data"]["redis.conf"].splitlines()
    assert {"appendonly yes", "maxmemory-policy noeviction"} <= set(lines)


def test_only_the_connections_that_the_bot_needs_are_open() -> None:
    """One policy denies everything for each pod of the release. The bot reaches no private address except in named namespaces."""
    policies = {p["metadata"]["name"]: p["spec"] for p in of_kind(render(MINIMAL), "NetworkPolicy")}
    deny = policies["stoker-default-deny"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny
    assert "egress" not in deny
    internet = [to["ipBlock"] for rule in policies["stoker"]["egress"] for to in rule["to"] if "ipBlock" in to]
    assert any("10.0.0.0/8" in block.get("except", ()) for block in internet)
    assert policies["stoker-redis"].get("egress") is None


@pytest.mark.parametrize("values", [MINIMAL, FULL], ids=["minimal", "full"])
@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("169.254.169.254", 80),
        ("169.254.169.254", 443),
        ("169.254.169.253", 53),
        ("fd00:ec2::254", 443),
        ("::ffff:169.254.169.254", 443),
        ("64:ff9b::a9fe:a9fe", 443),
        ("fe80::1", 443),
        ("168.63.129.16", 443),
        ("100.100.100.200", 443),
        ("192.0.0.192", 443),
        ("10.0.0.1", 443),
        ("10.96.0.1", 443),
        ("172.20.3.4", 443),
        ("192.168.1.1", 443),
        ("100.64.0.1", 443),
        ("127.0.0.1", 443),
        ("10.0.0.1", 6443),
        ("140.82.112.3", 22),
        ("140.82.112.3", 80),
        ("140.82.112.3", 6443),
    ],
)
def test_an_unnamed_address_is_closed(values: Object, address: str, port: int) -> None:
    """These are private, link-local, shared and mapped addresses, the metadata of clouds, and ports other than HTTPS."""
    assert not reaches(render(values), address, port)


def test_named_addresses_are_open() -> None:
    """Public addresses are open over HTTPS. Values open the API server, a private GitHub and other addresses."""
    assert reaches(render(MINIMAL), "140.82.112.3", 443)
    assert reaches(render(MINIMAL), "2606:50c0:8000::154", 443)
    opened = MINIMAL | {
        "networkPolicy": {
            "apiServer": {"cidrs": ["10.0.0.2/32", "fd00::2/128"]},
            "internet": {"alsoPrivate": ["10.1.2.3/32"]},
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}], "ports": [{"port": 6379}]}],
        }
    }
    objects = render(opened)
    assert reaches(objects, "10.0.0.2", 6443)
    assert reaches(objects, "fd00::2", 443)
    assert reaches(objects, "10.1.2.3", 443)
    assert reaches(objects, "10.9.0.1", 6379)
    assert not reaches(objects, "10.0.0.3", 6443)
    assert not reaches(objects, "10.1.2.3", 6443)


def reaches(objects: list[Object], address: str, port: int) -> bool:
    """Return whether a rule of the bot's own policy allows this address; selectors of pods and namespaces are not addresses."""
    policies = {p["metadata"]["name"]: p["spec"] for p in of_kind(objects, "NetworkPolicy")}
    ip = ip_address(address)

    def covers(block: Object) -> bool:
        network = ip_network(block["cidr"])
        inside = ip.version == network.version and ip in network
        return inside and not any(ip in ip_network(exception) for exception in block.get("except", ()))

    return any(
        any(covers(to["ipBlock"]) for to in rule["to"] if "ipBlock" in to)
        and port in [allowed["port"] for allowed in rule.get("ports", ())]
        for rule in policies["stoker"]["egress"]
    )


def test_redis_requires_a_password_by_default() -> None:
    """The password is random, or comes from an existing Secret; the bot reads it from a file."""
    objects = render(MINIMAL)
    (secret,) = of_kind(objects, "Secret")
    password = base64.b64decode(secret["data"]["REDIS_PASSWORD"]).decode()
    assert len(password) == 32
    assert of_kind(render(MINIMAL), "Secret")[0]["data"] != secret["data"]
    assert mounted_password(objects) == {secret["metadata"]["name"]}
    (config,) = [c for c in of_kind(objects, "ConfigMap") if "redis.conf" in c["data"]]
    assert "include /run/redis/auth.conf" in config["data"]["redis.conf"].splitlines()
    assert "protected-mode no" not in config["data"]["redis.conf"]

    named = render(MINIMAL | {"redis": {"passwordSecret": "ours"}})
    assert of_kind(named, "Secret") == []
    assert mounted_password(named) == {"ours"}


def mounted_password(objects: list[Object]) -> set[str]:
    """The Secrets whose REDIS_PASSWORD the bot and the server mount."""
    volumes = [volume for spec in pods(objects) for volume in spec.get("volumes", ())]
    sources = [
        source.get("secret", {}) for volume in volumes for source in volume.get("projected", {}).get("sources", ())
    ]
    plain = [volume["secret"] | {"name": volume["secret"]["secretName"]} for volume in volumes if "secret" in volume]
    return {item["name"] for item in (*sources, *plain) if "REDIS_PASSWORD" in str(item.get("items"))}


def test_metrics_and_traces_are_allowed_if_they_have_a_target() -> None:
    """An address in the monitoring namespace opens that namespace; without one it is closed."""
    elsewhere = MINIMAL | {"env": MINIMAL["env"] | {"PROMETHEUS_URL": "http://prometheus.monitoring.svc:9090"}}

    def open_namespaces(values: Object) -> list[str]:
        policies = {p["metadata"]["name"]: p["spec"] for p in of_kind(render(values), "NetworkPolicy")}
        peers = [to for rule in policies["stoker"]["egress"] for to in rule["to"] if "namespaceSelector" in to]
        return [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in peers]

    assert "monitoring" not in open_namespaces(MINIMAL)
    assert "monitoring" in open_namespaces(elsewhere)


def test_slack_can_reach_a_bot_without_redis() -> None:
    """The bot is not ready then, but Slack's `/gpu down` must still reach it."""
    services = {service["metadata"]["name"]: service["spec"] for service in of_kind(render(MINIMAL), "Service")}
    assert services["stoker"]["publishNotReadyAddresses"] is True


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"replica": 2}, "replica"),
        ({"env": {"GITHUB_REPOSITORY": "acme/llm-platform", "GITHUB_TOKEN": "x"}}, "GITHUB_TOKEN"),
        ({"env": {"GITHUB_REPOSITORY": "nowhere"}}, "GITHUB_REPOSITORY"),
        ({"config": {"slack": {"channel": "#gpu-ops"}}}, "channel"),
        ({"config": {"slack": {"channel": ""}}}, "config.slack.channel"),
        ({"redis": {"enabled": False}}, "redis.url"),
        ({"redis": {"enabled": False, "url": "http://redis"}}, "url"),
        ({"ingress": {"enabled": True}}, "ingress.host"),
        ({"image": {"digest": "latest"}}, "digest"),
    ],
)
def test_wrong_values_are_refused_by_name(wrong: Object, key: str) -> None:
    """An invalid value stops the installation, and the message names it."""
    with pytest.raises(helm.HelmError, match=key):
        render(MINIMAL | wrong)


def test_any_password_of_redis_gets_into_its_configuration(tmp_path: Path) -> None:
    """The command before the server starts writes the password so that the server reads the value of the Secret."""
    password = "a\"b\\c $(d) 'e' %s"
    (tmp_path / "REDIS_PASSWORD").write_text(f"{password}\n", encoding="utf-8")
    (redis,) = (pod for pod in pods(render(FULL)) if "/etc/redis" in str(pod))
    script: str = redis["containers"][0]["args"][0].split("exec ")[0]
    script = script.replace("/etc/redis/secrets", str(tmp_path)).replace("/run/redis", str(tmp_path))
    subprocess.run(["sh", "-c", script], check=True)
    config, socket = tmp_path / "auth.conf", tmp_path / "s"
    server = [_binary(), str(config), "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)]
    with subprocess.Popen(server, stdout=subprocess.DEVNULL) as process:
        try:
            for attempt in stamina.retry_context(on=(ConnectionError, RedisError), timeout=30):
                with attempt:
                    Redis(unix_socket_path=str(socket), password=password).ping()
            with pytest.raises(AuthenticationError):
                Redis(unix_socket_path=str(socket), password="another").ping()
        finally:
            process.terminate()
