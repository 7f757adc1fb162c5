"""A hostile worker on a machine whose kernel filters nothing."""

from preprocess.images import confinement
from preprocess.images.decode_worker import serve
from tests.support.hostile_worker import decode

if __name__ == "__main__":
    confinement._ARCHITECTURES = {}
    serve(decode)
