"""Servers to compare the sidecar with: each answers every request with the same small JSON document."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

BODY = json.dumps(
    {
        "token": "e" * 600,
        "token_type": "Bearer",
        "expires_at": 1_900_000_000.0,
        "expires_in": 3600,
        "generation": 1,
        "start": "0123abcd",
        "status": "fresh",
    }
)

UVICORN = """
import asyncio, socket, sys, uvicorn
BODY = {body!r}.encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]

async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200, "headers": HEADERS}})
    await send({{"type": "http.response.body", "body": BODY}})

where = sys.argv[1]
uds = {{"uds": where}} if "/" in where else {{"host": "127.0.0.1", "port": int(where)}}
uvicorn.run(app, **uds, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="error")
"""

GO = """
package main

import ("net"; "net/http"; "os"; "strconv"; "strings")

func main() {{
	body := []byte({body})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {{
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}})
	network := "tcp"
	where := "127.0.0.1:" + os.Args[1]
	if strings.Contains(os.Args[1], "/") {{ network, where = "unix", os.Args[1] }}
	listener, err := net.Listen(network, where)
	if err != nil {{ panic(err) }}
	panic(http.Serve(listener, nil))
}}
"""

NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
    uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    server {{
        listen {listen};
        default_type application/json;
        location / {{ return 200 '{body}'; }}
    }}
}}
"""


def uvicorn(directory: Path) -> list[str]:
    """Return the command of a bare ASGI application; where to listen is appended."""
    program = directory / "asgi.py"
    program.write_text(UVICORN.format(body=BODY))
    return [sys.executable, str(program)]


def go(directory: Path) -> list[str] | None:
    """Return the command of a server on Go's net/http, or None without Go."""
    compiler = shutil.which("go")
    if compiler is None:
        return None
    source, program = directory / "server.go", directory / "go-server"
    source.write_text(GO.format(body=json.dumps(BODY)))
    settings = os.environ | {"GOCACHE": str(directory / "cache"), "GO111MODULE": "off", "GOFLAGS": ""}
    subprocess.run([compiler, "build", "-o", str(program), str(source)], check=True, env=settings)
    return [str(program)]


def nginx(directory: Path, listen: str) -> list[str] | None:
    """Return the command of an nginx that listens at *listen*, or None without nginx."""
    program = shutil.which("nginx")
    if program is None:
        return None
    settings = directory / f"nginx-{abs(hash(listen))}.conf"
    settings.write_text(NGINX.format(directory=directory, listen=listen, body=BODY))
    return [program, "-c", str(settings), "-p", str(directory)]
