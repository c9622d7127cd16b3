"""What the examples of `docs/sources.md` find on a machine: secrets in files, programs that print tokens."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from token_keeper.testing import mint

ETC: Final = "/etc/token-keeper"
PODS: Final = "/var/run/secrets"
SECRETS: Final = {
    f"{ETC}/backend-key": "backend key",
    f"{ETC}/vault-secret-id": "84896a0c-1347-aa90-a4f6-aca8b7558780",
    f"{PODS}/kubernetes.io/serviceaccount/token": mint(expires_at=2e9, aud=["vault"], sub="app"),
    "/run/vault-agent/token": "hvs.CAESIAgent",
    f"{ETC}/keycloak-secret": "key cloak: 100 % +&=é",
    f"{ETC}/keycloak-refresh-token": "kc-1",
    f"{ETC}/auth0-secret": "auth0 secret",
    f"{ETC}/auth0-refresh-token": "v1.auth0-1",
    f"{ETC}/entra-secret": "~entra.secret~",
    f"{PODS}/azure/tokens/azure-identity-token": mint(expires_at=2e9, aud="api://AzureADTokenExchange"),
    f"{PODS}/tokens/google": mint(expires_at=2e9, aud="google"),
    f"{ETC}/google-client-secret": "GOCSPX-secret",
    f"{ETC}/google-refresh-token": "1//google-1",
    f"{ETC}/twilio-function-key": "function key",
    "/run/flex/sso-token": "flex sso token",
    f"{ETC}/issuer-key": "issuer key",
    f"{ETC}/client-secret": "client secret",
    f"{ETC}/mail-refresh-token": "mail-1",
    f"{ETC}/store.key": base64.b64encode(bytes(range(32))).decode(),
    "/run/app/incoming.token": "incoming.token",
    f"{PODS}/tokens/app": mint(expires_at=2e9, aud=["api.example"]),
}
"""What stands in the files that the page names, but for the private keys."""


@dataclass(frozen=True, slots=True)
class Program:
    """One that the page runs: with which arguments and environment, and what it prints for *token*."""

    path: str
    arguments: str
    token: str
    prints: str
    environ: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The program, as a branch of a shell script."""
        wanted = "".join(f' && [ "${name}" = "{value}" ]' for name, value in self.environ)
        return (
            f"if [ \"$*\" = '{self.arguments}' ]{wanted}; then\ncat <<'END'\n{self.prints}\nEND\nexit\nfi\n"
        )


def _program(path: str, arguments: str, token: str, prints: object, **environ: str) -> Program:
    text = prints if isinstance(prints, str) else json.dumps(prints)
    return Program(f"/usr/local/bin/{path}", arguments, token, text, tuple(environ.items()))


LATER: Final = "2099-12-31T23:59:59Z"
PROGRAMS: Final = {
    "eks": _program(
        "aws",
        "eks get-token --cluster-name prod",
        "k8s-aws-v1.aHR0cHM6Ly9zdHM",
        {
            "kind": "ExecCredential",
            "apiVersion": "client.authentication.k8s.io/v1beta1",
            "spec": {},
            "status": {"expirationTimestamp": LATER, "token": "k8s-aws-v1.aHR0cHM6Ly9zdHM"},
        },
        AWS_PROFILE="deploy",
    ),
    "codeartifact": _program(
        "aws",
        "codeartifact get-authorization-token --domain example --output json",
        "codeartifact-token",
        {"authorizationToken": "codeartifact-token", "expiration": "2099-12-31T23:59:59+01:00"},
    ),
    "aws": _program(
        "aws",
        "configure export-credentials --format process",
        "FwoGZXIvYXdzEXAMPLE",
        {
            "Version": 1,
            "AccessKeyId": "ASIAEXAMPLE",
            "SecretAccessKey": "secret",
            "SessionToken": "FwoGZXIvYXdzEXAMPLE",
            "Expiration": LATER,
        },
    ),
    "gcloud": _program(
        "gcloud",
        "config config-helper --format=json",
        "ya29.a0-gcloud",
        {
            "configuration": {"active_configuration": "default"},
            "credential": {"access_token": "ya29.a0-gcloud", "id_token": "a.b.c", "token_expiry": LATER},
        },
    ),
    "azure": _program(
        "az",
        "account get-access-token --resource https://management.azure.com/ --output json",
        "azure-token",
        {
            "accessToken": "azure-token",
            "expiresOn": "2099-12-31 23:59:59.000000",
            "expires_on": 4_102_444_799,
            "subscription": "0",
            "tenant": "1",
            "tokenType": "Bearer",
        },
    ),
    "script": _program("issue-token", "--for app", "script-token", "script-token", ISSUER_KEY="issuer key"),
}
"""The programs, by the name of the token on the page."""

KEYS: Final = ("okta", "entra", "google", "github-app", "partner")
"""The private keys, in PEM."""


def secret(name: str) -> str:
    """Return what stands in the one file whose path ends with *name*."""
    (text,) = (text for path, text in SECRETS.items() if path.endswith(name))
    return text


def write_files(root: Path, private_key: str) -> None:
    """Put every file that the pages name below *root*. *private_key* is PEM, for whoever signs."""
    texts = {**SECRETS, **{f"{ETC}/{name}.pem": private_key for name in KEYS}}
    for path, text in texts.items():
        file = _at(root, path)
        file.touch(mode=0o600)
        file.write_text(f"{text}\n")
    scripts: defaultdict[str, str] = defaultdict(lambda: "#!/bin/sh\n")
    for program in PROGRAMS.values():
        scripts[program.path] += program.text
    for path, text in scripts.items():
        file = _at(root, path)
        file.write_text(f"{text}echo 'usage: not so' >&2\nexit 2\n")
        file.chmod(0o700)
    (root / "var/lib").mkdir(mode=0o700)


def _at(root: Path, path: str) -> Path:
    file = root / path[1:]
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return file
