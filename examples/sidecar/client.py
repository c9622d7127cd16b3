"""Call an API with a token of the sidecar: the standard library is enough.

    TOKEN_KEEPER_SOCKET=/run/token-keeper/api.sock API_URL=https://api.example/things python client.py chat

A token is asked for at each use and never stored: the sidecar always has a valid one. If the
API denies it, that is reported, and the answer to the report is another one.
"""

import http.client
import json
import os
import socket
import sys
import urllib.error
import urllib.request

BY = "client.py"
"""A denial withholds the token from whoever reports it; others are not disturbed."""


class Sidecar(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float = 40) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def ask(self, method: str, target: str, document: object = None) -> dict[str, object]:
        """Return the answer as a document; 503, no usable token in time, raises."""
        body = None if document is None else json.dumps(document)
        self.request(method, target, body, {"Content-Type": "application/json"} if body else {})
        answer = self.getresponse()
        found = json.loads(answer.read() or "{}")
        if answer.status not in {200, 204}:
            raise RuntimeError(f"{answer.status}: {found.get('title')}: {found.get('detail')}")
        return found


def call_api(url: str, token: str) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - Ours.
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def main(name: str) -> None:
    sidecar = Sidecar(os.environ.get("TOKEN_KEEPER_SOCKET", "/run/token-keeper/api.sock"))
    url = os.environ["API_URL"]
    held = sidecar.ask("GET", f"/v1/tokens/{name}?by={BY}&wait=30")
    status = call_api(url, str(held["token"]))
    if status == http.client.UNAUTHORIZED:
        report = {"generation": held["generation"], "start": held["start"], "by": BY, "code": status}
        held = sidecar.ask("POST", f"/v1/tokens/{name}/denied?wait=10", report)
        print("denied:", held["verdict"])
        status = call_api(url, str(held["token"]))
    if status == http.client.OK:
        # Ends the recovery after a denial; without one it changes nothing.
        sidecar.ask("POST", f"/v1/tokens/{name}/accepted", {"generation": held["generation"], "by": BY})
    print("the API answered", status, "to generation", held["generation"])
    sidecar.close()


if __name__ == "__main__":
    main(sys.argv[1])
