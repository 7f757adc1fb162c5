"""The peer of `benchmarks.serving`: an exported model behind the plainest server that there is.

    python -m benchmarks.tensorflow_server MODEL_DIR

It loads the SavedModel with TensorFlow, and answers each request by one call of its signature, in a thread of the
request, with `http.server` of Python. It prints its port.
"""

from __future__ import annotations

import http.server
import json
import sys
from typing import Any


def main() -> None:
    """Runs the server until it is ended."""
    import tensorflow as tf

    model = tf.saved_model.load(sys.argv[1])
    images = model.signatures["images"]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            photo = self.rfile.read(int(self.headers["Content-Length"]))
            answer = images(image_bytes=tf.constant([photo]))
            body = json.dumps(
                {"label": answer["label"].numpy()[0].decode(), "scores": answer["scores"].numpy()[0].tolist()}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
