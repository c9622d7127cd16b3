"""The decisions of examples/twilio-js, alone: tests/js/session.test.mjs, run by Node's own test runner."""

import shutil
import subprocess

import pytest
from npm_client import JS


def test_the_sessions_decisions_keep_their_rules():
    if shutil.which("node") is None:
        pytest.skip("node is not installed")

    run = subprocess.run(
        ["node", "--test", "--test-reporter=tap", str(JS / "session.test.mjs")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    assert "\n# fail 0\n" in run.stdout
