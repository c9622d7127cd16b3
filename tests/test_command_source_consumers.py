"""One script serves botocore, or the Kubernetes client, and us: what they read, `CommandSource` reads."""

from __future__ import annotations

import json

from botocore.credentials import ProcessProvider
from fetching import fetch
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.config.kube_config import ConfigNode
from scripting import script

from token_keeper.sources import CommandSource

EXPIRES = "2030-01-02T03:04:05Z"
EXPIRES_AT = 1_893_553_445.0


def test_botocore_and_we_read_the_same_credential_process(tmp_path):
    credentials = {
        "Version": 1,
        "AccessKeyId": "AKIAEXAMPLE",
        "SecretAccessKey": "s3cr3t",
        "SessionToken": "session-1",
        "Expiration": EXPIRES,
    }
    run = script(tmp_path, f"echo '{json.dumps(credentials)}'")
    theirs = ProcessProvider("default", lambda: {"profiles": {"default": {"credential_process": run}}}).load()
    ours = fetch(CommandSource([run]))

    assert theirs is not None
    assert ours.secret.reveal() == theirs.get_frozen_credentials().token == "session-1"
    assert ours.expires_at == theirs._expiry_time.timestamp() == EXPIRES_AT


def test_the_kubernetes_client_and_we_read_the_same_exec_plugin(tmp_path):
    # As real plugins do: the answer has the version that it was asked in.
    body = (
        'version=$(echo "$KUBERNETES_EXEC_INFO" | sed \'s/.*"apiVersion": *"\\([^"]*\\)".*/\\1/\')\n'
        'printf \'{"apiVersion": "%s", "kind": "ExecCredential", "status": '
        f'{{"token": "k8s-1", "expirationTimestamp": "{EXPIRES}"}}}}\' "$version"'
    )
    run = script(tmp_path, body)
    config = ConfigNode("exec", {"command": run, "apiVersion": "client.authentication.k8s.io/v1"})
    theirs = ExecProvider(config, str(tmp_path)).run()
    ours = fetch(CommandSource([run], format="exec_credential"))

    assert ours.secret.reveal() == theirs["token"] == "k8s-1"
    assert theirs["expirationTimestamp"] == EXPIRES
    assert ours.expires_at == EXPIRES_AT
