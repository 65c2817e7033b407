"""Real servers, run inside a pod: gRPC on 50051, WebSocket on 8765, HTTP/2 without TLS (nginx) on 8082."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from websockets.sync.server import serve

NGINX = """
daemon off; worker_processes 1; pid {0}/pid; error_log stderr;
events {{ worker_connections 2048; }}
http {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f;
  uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; keepalive_requests 1000000;
  server {{ listen 8082 http2; listen [::]:8082 http2; location / {{ return 200 "$remote_addr\\n"; }} }}
}}
"""


def main() -> None:
    calls = grpc.method_handlers_generic_handler(
        "test.Echo",
        {
            "Say": grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.peer().encode() + b" " + request
            ),
            "Chat": grpc.stream_stream_rpc_method_handler(
                lambda requests, _: (request.upper() for request in requests)
            ),
            "Secret": grpc.unary_unary_rpc_method_handler(lambda _request, _: b"leaked"),
        },
    )
    rpc = grpc.server(ThreadPoolExecutor(300))
    rpc.add_generic_rpc_handlers((calls,))
    rpc.add_insecure_port("[::]:50051")
    rpc.start()
    home = Path(tempfile.mkdtemp())
    (home / "nginx.conf").write_text(NGINX.format(home))
    nginx = subprocess.Popen(["nginx", "-c", str(home / "nginx.conf")])

    def echo(connection: object) -> None:
        for message in connection:  # type: ignore[attr-defined]
            connection.send(f"{connection.remote_address[0]} {message}")  # type: ignore[attr-defined]

    with serve(echo, "", 8765) as websocket:
        print("ready", flush=True)
        try:
            websocket.serve_forever()
        finally:
            nginx.kill()


if __name__ == "__main__":
    sys.exit(main())
