"""A stand-in for a scheduler: it answers every request with its node's name, until it is asked to end."""

import http.server
import signal
import sys


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (sys.argv[3] + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
Server((sys.argv[1], int(sys.argv[2])), Answer).serve_forever()
