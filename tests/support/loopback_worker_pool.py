"""A pool that starts Beam workers on demand, as `apache_beam.runners.worker.worker_pool_main` does, on loopback alone.

python loopback_worker_pool.py: prints its port, and serves until its standard input is closed.

Workers are processes of the first `python` on PATH. Beam's own program listens on every interface.
"""

import sys

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.utils import thread_pool_executor

server = grpc.server(thread_pool_executor.shared_unbounded_instance())
pool = BeamFnExternalWorkerPoolServicer(use_process=True)
beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
for process in pool._worker_processes.values():
    process.kill()
server.stop(0)
