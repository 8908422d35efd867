"""Moto's server as a process of its own: `python -m aioidempotency._cli.server`.

It listens on a free loopback port, prints the port, and ends when its standard input does: the
parent holds the other end, so the server ends however the parent does.

Moto does not lock its tables, so two conditional writes could both win; the lock around its
application makes them atomic. Werkzeug closes every connection after one answer; the handler here
keeps it open.
"""

import io
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.exceptions import InternalServerError
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def main() -> None:
    """Serve until standard input ends."""
    application = one_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=KeepAliveHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    # The parent reads one line; whatever is printed later must not fill the pipe.
    sys.stdout = sys.stderr
    sys.stdin.buffer.read()


def one_at_a_time(application: "WSGIApplication") -> "WSGIApplication":
    """Wrap an application so that it works on one request only, up to the end of its answer."""
    lock = threading.Lock()

    def locked(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with lock:
            response = Response.from_app(application, environ, buffered=True)
        return response(environ, start_response)

    return locked


class KeepAliveHandler(MotoRequestHandler):
    """Answers with a length, and leaves the connection open."""

    protocol_version = "HTTP/1.1"
    # The head and the body leave in one segment, without waiting for an acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1

    def run_wsgi(self) -> None:
        """Answer one request."""
        environ = self.make_environ()
        length = int(environ.get("CONTENT_LENGTH") or 0)
        # Read before taking the lock: a slow sender must not hold up the others.
        environ["wsgi.input"] = io.BytesIO(self.rfile.read(length))
        self._send(self._answer(environ))

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log no request."""

    def _answer(self, environ: "WSGIEnvironment") -> Response:
        try:
            return Response.from_app(self.server.app, environ, buffered=True)
        except Exception as error:  # noqa: BLE001 - a fault of the engine is its answer
            self.log_error("%r", error)
            return Response.force_type(InternalServerError().get_response())

    def _send(self, response: Response) -> None:
        body = response.get_data()
        self.send_response(response.status_code)
        for name, value in response.headers:
            if name.lower() not in {"connection", "content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


if __name__ == "__main__":
    main()
