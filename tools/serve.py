"""Serves the built book on this machine: ``python tools/serve.py [PORT]``."""

import gzip
import io
import sys
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"


TEXT = {".css", ".html", ".js", ".svg"}


@lru_cache(maxsize=64)
def compressed(path: Path, changed: int) -> bytes:
    """A file as it was at the time ``changed``, compressed once."""
    return gzip.compress(path.read_bytes(), 6)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log line for each, and texts compressed, as hosts of web pages do."""

    def send_head(self) -> io.IOBase | None:
        """Headers of the answer; returns what its body is read from."""
        path = Path(self.translate_path(self.path))
        if path.suffix not in TEXT or not path.is_file() or "gzip" not in self.headers.get("Accept-Encoding", ""):
            return super().send_head()
        body = compressed(path, path.stat().st_mtime_ns)
        self.send_response(200)
        for name, value in (("Content-Type", self.guess_type(path)), ("Content-Encoding", "gzip"),
                            ("Content-Length", str(len(body))), ("Cache-Control", "no-cache")):
            self.send_header(name, value)
        self.end_headers()
        return io.BytesIO(body)

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
