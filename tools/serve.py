"""Serves the built book on this machine: ``python tools/serve.py [PORT]``."""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log line for each."""

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def open_server(port: int, folder: Path = HTML) -> ThreadingHTTPServer:
    """A server of ``folder`` on ``port`` of 127.0.0.1, or on the next of twenty that is free."""
    ThreadingHTTPServer.allow_reuse_address = False  # a port in use must count as taken
    for candidate in range(port, port + 20):
        try:
            return ThreadingHTTPServer(("127.0.0.1", candidate), partial(Quiet, directory=folder))
        except OSError:
            continue
    sys.exit(f"no free port from {port} to {port + 19}: make serve PORT=...")


def main() -> None:
    """``make serve``: prints the address and serves until interrupted."""
    if not (HTML / "index.html").exists():
        sys.exit("there is no built book yet: run `make book` first")
    port = sys.argv[1] if len(sys.argv) > 1 else "8000"
    if not (port.isdecimal() and 1 <= int(port) <= 65515):
        sys.exit(f"PORT={port}: expected a whole number from 1 to 65515")
    server = open_server(int(port))
    print(f"the book is at http://127.0.0.1:{server.server_port}/ (stop with Ctrl-C)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
