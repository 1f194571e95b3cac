"""A real Kubernetes API server with RBAC and its etcd, on loopback, for the tests of the chart's rights.

The binaries come from the directory that KUBEBUILDER_ASSETS names, as `setup-envtest` lays them out; nothing here
downloads them.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from kubernetes.aio.client import ApiClient, Configuration

from sandbox.process import free_port

Object = dict[str, Any]

_PLURALS = {
    "ConfigMap": "api/v1/namespaces/{}/configmaps",
    "Pod": "api/v1/namespaces/{}/pods",
    "StatefulSet": "apis/apps/v1/namespaces/{}/statefulsets",
    "Ingress": "apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "NetworkPolicy": "apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "ServiceAccount": "api/v1/namespaces/{}/serviceaccounts",
    "Secret": "api/v1/namespaces/{}/secrets",
    "Service": "api/v1/namespaces/{}/services",
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "Role": "apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ClusterRole": "apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ValidatingAdmissionPolicy": "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "CustomResourceDefinition": "apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "Application": "apis/argoproj.io/v1alpha1/namespaces/{}/applications",
}


def assets() -> Path | None:
    """The directory with the binaries, if there is one."""
    directory = Path(os.environ.get("KUBEBUILDER_ASSETS", ""))
    return directory if all((directory / name).is_file() for name in ("etcd", "kube-apiserver")) else None


class ApiServer:
    """An API server, and actions of its administrator: create and delete objects, issue tokens."""

    def __init__(self, url: str, admin: str, http: httpx.AsyncClient) -> None:
        self.url, self._admin, self._http = url, admin, http

    async def _ask(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        response = await self._http.request(
            method,
            f"{self.url}/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self._admin}", "Content-Type": kind},
        )
        answer: Object = response.json()
        assert response.is_success, f"{method} {path}: {answer.get('message')}"
        return answer

    async def create(self, manifest: Object) -> None:
        path = _PLURALS[manifest["kind"]].format(manifest["metadata"].get("namespace"))
        await self._ask("POST", path, manifest)

    async def serves(self, version: str) -> bool:
        """Return whether the server serves this `apiVersion`."""
        path = f"apis/{version}" if "/" in version else f"api/{version}"
        headers = {"Authorization": f"Bearer {self._admin}"}
        return (await self._http.get(f"{self.url}/{path}", headers=headers)).is_success

    async def dry_run(self, manifest: Object) -> None:
        """Apply the object as a dry run; the AssertionError contains the fields that the schema does not allow."""
        path = _PLURALS[manifest["kind"]].format(manifest["metadata"].get("namespace"))
        query = "fieldManager=helm&dryRun=All&force=true"
        await self._ask(
            "PATCH", f"{path}/{manifest['metadata']['name']}?{query}", manifest, kind="application/apply-patch+yaml"
        )

    async def report(self, pod: Object, status: Object) -> None:
        """Set a pod's status, as the kubelet does."""
        path = f"{_PLURALS['Pod'].format(pod['metadata']['namespace'])}/{pod['metadata']['name']}/status"
        await self._ask("PATCH", path, {"status": status}, kind="application/merge-patch+json")

    async def delete(self, manifest: Object) -> None:
        path = _PLURALS[manifest["kind"]].format(manifest["metadata"].get("namespace"))
        await self._ask("DELETE", f"{path}/{manifest['metadata']['name']}?gracePeriodSeconds=0")

    async def replace(self, manifest: Object) -> None:
        path = _PLURALS[manifest["kind"]].format(manifest["metadata"].get("namespace"))
        await self._ask("PUT", f"{path}/{manifest['metadata']['name']}", manifest)

    async def namespace(self, name: str) -> None:
        await self._ask("POST", "api/v1/namespaces", {"metadata": {"name": name}})

    @asynccontextmanager
    async def account(self, namespace: str, name: str) -> AsyncIterator[ApiClient]:
        """A client with a token of this ServiceAccount, as the kubelet mounts it."""
        path = f"api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token = (await self._ask("POST", path, {"spec": {"expirationSeconds": 3600}}))["status"]["token"]
        configuration = Configuration(host=self.url, api_key={"BearerToken": f"Bearer {token}"})
        configuration.verify_ssl = False
        async with ApiClient(configuration) as client:
            yield client


@asynccontextmanager
async def api_server(binaries: Path, directory: Path) -> AsyncIterator[ApiServer]:
    admin = secrets.token_urlsafe(24)
    (directory / "tokens.csv").write_text(f'{admin},admin,admin,"system:masters"\n')
    key = directory / "account.key"
    await _run("openssl", "genrsa", "-out", str(key), "2048")
    etcd, peer, port = free_port(), free_port(), free_port()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            _process(
                directory / "etcd.log",
                binaries / "etcd",
                f"--data-dir={directory / 'etcd'}",
                f"--listen-client-urls=http://127.0.0.1:{etcd}",
                f"--advertise-client-urls=http://127.0.0.1:{etcd}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
            )
        )
        await stack.enter_async_context(
            _process(
                directory / "apiserver.log",
                binaries / "kube-apiserver",
                f"--etcd-servers=http://127.0.0.1:{etcd}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--cert-dir={directory / 'certificates'}",
                f"--token-auth-file={directory / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
                "--disable-admission-plugins=ServiceAccount",
            )
        )
        http = await stack.enter_async_context(httpx.AsyncClient(verify=False, trust_env=False, timeout=30))  # noqa: S501
        await _ready(http, f"https://127.0.0.1:{port}", admin, directory / "apiserver.log")
        yield ApiServer(f"https://127.0.0.1:{port}", admin, http)


async def _ready(http: httpx.AsyncClient, url: str, admin: str, log: Path) -> None:
    try:
        async with asyncio.timeout(90):
            while True:
                try:
                    answer = await http.get(f"{url}/readyz", headers={"Authorization": f"Bearer {admin}"})
                    if answer.is_success:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"kube-apiserver is not ready: {log.read_text()[-2000:]}") from None


@asynccontextmanager
async def _process(log: Path, *command: object) -> AsyncIterator[None]:
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=file, stderr=file)
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, command
