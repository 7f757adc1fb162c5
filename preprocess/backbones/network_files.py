"""Networks that come from a file or a folder: a frozen graph, a SavedModel or TF Hub module, a `.keras` file.

Each becomes a Keras model of one layer that runs a constant graph (`backbones.graph_network`), so the engines, the
caches and the exports know no difference. A frozen graph and a SavedModel hold operations of TensorFlow and no Python;
a `.keras` file is read in Keras's safe mode, which refuses code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Iterator
from typing import Any

from configs.errors import InputError, cause_in_one_line
from preprocess.backbones.graph_network import find_input, graph_model, known_graph
from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise
from preprocess.backbones.weights_files import local_copy
from preprocess.images.definition import SCALING_WORDS, ImageDefinition
from preprocess.storage.base import Storage, is_file
from preprocess.storage.digests import digest_of_file
from preprocess.storage.router import UriStorage
from preprocess.storage.scratch import scratch_folder
from preprocess.storage.uris import has_scheme

FROZEN_GRAPH = "frozen_graph"
SAVED_MODEL = "saved_model"
KERAS_MODEL = "keras_model"
NETWORK_FILES = (FROZEN_GRAPH, SAVED_MODEL, KERAS_MODEL)
"""What the identity of a network from a file names as its architecture."""

_HUB_HANDLES = ("https://tfhub.dev/", "https://www.kaggle.com/models/")
_GRAPH_OF_SAVED_MODEL = "saved_model.pb"
# The output of TF Hub modules of TensorFlow 1, which have others for each layer.
_HUB_OUTPUT = "default"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """A network that was read.

    Attributes:
      model: the Keras model, scaled pixels, float32 [n, size, size, 3], to float32 [n, m].
      image: how images become its input.
      digest: "sha256:" and the hex digest of the file or of the files of the folder.
      input_tensor: the tensor that takes the pixels.
      output_tensor: the tensor that holds the embeddings.
    """

    model: Any
    image: ImageDefinition
    digest: str
    input_tensor: str | None
    output_tensor: str | None


def kind_of(path: str) -> str | None:
    """Which of `NETWORK_FILES` a path names; None if it looks like a name and not like a path."""
    if path.startswith(_HUB_HANDLES) or os.path.isdir(path):
        return SAVED_MODEL
    if path.endswith(".keras"):
        return KERAS_MODEL
    if os.path.exists(path) or os.sep in path or path.endswith(".pb"):
        return FROZEN_GRAPH
    return None


def check_network_file(path: str, storage: Storage | None = None) -> None:
    """Finds out whether there is such a file or folder.

    Raises:
      InputError: there is none, or it lies where it cannot be read.
    """
    if path.startswith(_HUB_HANDLES):
        _cached_module(path)
    elif os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, _GRAPH_OF_SAVED_MODEL)):
            raise InputError(
                f"backbone: the folder {path!r} holds no SavedModel (there is no {_GRAPH_OF_SAVED_MODEL})."
            )
    elif os.path.basename(path) == _GRAPH_OF_SAVED_MODEL:
        raise InputError(f"backbone: {path!r} is a part of a SavedModel. Pass its folder, {os.path.dirname(path)!r}.")
    elif has_scheme(path):
        try:
            found = path.startswith("gs://") and is_file(storage or UriStorage(), path)
        except OSError as error:
            raise InputError(f"backbone: {path!r} cannot be read ({cause_in_one_line(error)}).") from error
        if not found:
            raise InputError(
                f"backbone: there is no file {path!r}. Pass a local path, or a frozen graph or .keras file in gs://; a "
                "folder is read from a local disk only."
            )
    elif not os.path.isfile(path):
        raise InputError(
            f"backbone: there is no file or folder {path!r}. Pass a frozen graph (.pb), the folder of a SavedModel or "
            "TF Hub module, a .keras file, or one of the names that `hugs backbones` lists."
        )


def _cached_module(handle: str) -> str:
    """The folder of a TF Hub module that was downloaded before: TF Hub names it by the SHA-1 of the handle."""
    cache = os.environ.get("TFHUB_CACHE_DIR")
    folder = os.path.join(cache or "", hashlib.sha1(handle.encode()).hexdigest())
    if not cache or not os.path.isfile(os.path.join(folder, _GRAPH_OF_SAVED_MODEL)):
        lies = f"is not in {cache} (TFHUB_CACHE_DIR)" if cache else "could only be in TFHUB_CACHE_DIR, which is not set"
        raise InputError(
            f"backbone: {handle} {lies}, and it is not downloaded here. Download and unpack it, and pass the folder."
        )
    return folder


@contextlib.contextmanager
def network_file_copy(path: str, storage: Storage | None = None) -> Iterator[str]:
    """The path of the file or folder on this machine, for as long as the `with` block.

    Raises:
      InputError: it cannot be read.
    """
    if path.startswith(_HUB_HANDLES):
        yield _cached_module(path)
    elif os.path.isdir(path):
        yield path
    else:
        with local_copy(path, storage) as copy:
            yield copy


@contextlib.contextmanager
def packed_network(path: str, storage: Storage | None = None) -> Iterator[str]:
    """As `network_file_copy`, but a folder becomes one file, always of the same bytes."""
    with network_file_copy(path, storage) as local:
        if not os.path.isdir(local):
            yield local
            return
        with scratch_folder() as folder:
            packed = os.path.join(folder, f"{os.path.basename(os.path.abspath(local))}.zip")
            with zipfile.ZipFile(packed, "w") as archive:
                for name in _files_of(local):
                    with open(os.path.join(local, name), "rb") as stream:
                        archive.writestr(zipfile.ZipInfo(name), stream.read())
            yield packed


def _files_of(folder: str) -> list[str]:
    found = []
    for parent, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in names]
    return sorted(found)


def digest_of_network(path: str) -> str:
    """The digest of a file, or of the names and contents of the files of a folder: 64 hex digits."""
    if not os.path.isdir(path):
        return digest_of_file(path)
    digest = hashlib.sha256()
    for name in _files_of(path):
        digest.update(f"{name}\0{digest_of_file(os.path.join(path, name))}\n".encode())
    return digest.hexdigest()


def read_network_file(
    path: str,
    kind: str,
    *,
    input_tensor: str | None,
    output_tensor: str | None,
    image_size: int | None,
    scaling: str | None,
    named: str,
    classes: bool = False,
) -> NetworkFile:
    """Reads a network. It takes seconds.

    Args:
      path: a local file or folder, or the file of a folder that `packed_network` made.
      kind: one of `NETWORK_FILES`.
      input_tensor: takes the pixels; None for what the file says. Likewise the others.
      output_tensor: holds the embeddings.
      image_size: side of the input.
      scaling: of the pixels.
      named: what the user called it, for messages.
      classes: whether the probabilities of its classes are wanted, not the embeddings.

    Raises:
      InputError: the file is none of its kind, cannot be a backbone, or does not say what is needed.
    """
    if kind == SAVED_MODEL and not os.path.isdir(path):
        with scratch_folder() as folder:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
            return read_network_file(
                folder,
                kind,
                input_tensor=input_tensor,
                output_tensor=output_tensor,
                image_size=image_size,
                scaling=scaling,
                named=named,
                classes=classes,
            )
    import_tensorflow()
    where = repr(named)
    known = None
    embeddings: str | None
    said_input: str | None
    with without_tensorflow_noise():
        if kind == FROZEN_GRAPH:
            graph = _read_graph(path, where)
            known = known_graph(graph)
            if known is not None:
                input_tensor = input_tensor or known.input_tensor
                output_tensor = output_tensor or (known.classes_tensor if classes else known.output_tensor)
                scaling = scaling or known.scaling
            pixels, size = find_input(graph, input_tensor, where=where)
            size = (known.size if known is not None else None) or size
            if output_tensor is not None and ":" not in output_tensor:
                output_tensor = f"{output_tensor}:0"
            said_input, said_output, embeddings = pixels, output_tensor, output_tensor
        else:
            read = _read_saved_model if kind == SAVED_MODEL else _read_keras
            graph, (said_input, said_output), (pixels, embeddings), size = read(
                path, input_tensor, output_tensor, where
            )
        if image_size is None and size is None:
            raise InputError(f"--image_size: {where} does not say which size of images it takes. Pass it.")
        if scaling is None:
            raise InputError(
                f"--scaling: {where} does not say how it wants pixels. Pass how it was trained: {SCALING_WORDS}."
            )
        image = ImageDefinition(size=image_size or size or 0, scaling=scaling)
        model = graph_model(graph, input_tensor=pixels, output_tensor=embeddings, size=image.size, where=where)
    return NetworkFile(
        model=model,
        image=image,
        digest=f"sha256:{digest_of_network(path)}",
        input_tensor=said_input,
        output_tensor=said_output,
    )


def _read_graph(path: str, where: str) -> Any:
    with open(path, "rb") as stream:
        return parse_graph(stream.read(), where)


def parse_graph(data: bytes, where: str) -> Any:
    """Reads a frozen graph: a serialized `tf.GraphDef`. Nothing of it is run.

    Args:
      data: the content of the file.
      where: what the user called the file, for messages.

    Raises:
      InputError: it is no such graph.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        graph = tf.compat.v1.GraphDef.FromString(data)
    except DecodeError:
        graph = tf.compat.v1.GraphDef()
    if not graph.node or not all(node.name and node.op for node in graph.node):
        kind = "a pickle, which could run code" if data[:1] == b"\x80" else "no frozen graph (a serialized tf.GraphDef)"
        raise InputError(f"backbone: {where} is {kind}. Nothing of it was run.")
    return graph


def _read_saved_model(
    path: str, input_tensor: str | None, output_tensor: str | None, where: str
) -> tuple[Any, tuple[str, str], tuple[str, str], int | None]:
    """The graph, input and output as the user calls them, both as the graph calls them, and the size of the input."""
    import tensorflow as tf

    try:
        try:
            loaded = tf.saved_model.load(path)
        except ValueError:
            # Several graphs, as in TF Hub's modules of TensorFlow 1: the one without tags is for inference.
            loaded = tf.saved_model.load(path, tags=[])
    except Exception as error:  # OSError, RuntimeError, tf.errors.OpError and others.
        raise InputError(f"backbone: {where} cannot be read as a SavedModel ({cause_in_one_line(error)}).") from error
    signatures = dict(getattr(loaded, "signatures", {}))
    for name in ("serving_default", "image_feature_vector", "default", *signatures):
        if name in signatures:
            function = signatures[name]
            break
    else:
        raise InputError(f"backbone: {where} has no signature, so nothing says what it takes and gives.")
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise InputError(
            f"backbone: {where} has {len(inputs)} inputs ({', '.join(sorted(inputs))}), and a backbone has one, "
            "the pixels."
        )
    ((key, spec),) = inputs.items()
    if input_tensor not in (None, key):
        raise InputError(f"--input_tensor: {where} has no input {input_tensor!r}; its only input is {key!r}.")
    outputs = function.structured_outputs
    if output_tensor is None:
        output_tensor = next(iter(outputs)) if len(outputs) == 1 else _HUB_OUTPUT
    if output_tensor not in outputs:
        listed = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(outputs.items()))
        raise InputError(f"--output_tensor: {where} has no output {output_tensor!r}. Those that fit are {listed}.")
    position = sorted(outputs).index(output_tensor)
    graph, tensors, size = _frozen(function, position, spec, where)
    return graph, (key, output_tensor), tensors, size


def _read_keras(
    path: str, input_tensor: str | None, output_tensor: str | None, where: str
) -> tuple[Any, tuple[str, str], tuple[str, str], int | None]:
    """As `_read_saved_model`."""
    import keras
    import tensorflow as tf

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, Keras and TensorFlow each raise their own.
        raise InputError(f"backbone: {where} cannot be read by Keras ({cause_in_one_line(error)}).") from error
    if len(model.inputs) != 1:
        raise InputError(
            f"backbone: {where} has {len(model.inputs)} inputs "
            f"({', '.join(tensor.name for tensor in model.inputs)}), and a backbone has one, the pixels."
        )
    if output_tensor is not None:
        layers = {layer.name: layer for layer in model.layers}
        if output_tensor not in layers:
            raise InputError(
                f"--output_tensor: {where} has no layer {output_tensor!r}. Its last ones are "
                f"{', '.join([*layers][-5:])}."
            )
        model = keras.Model(model.inputs, layers[output_tensor].output)
    if input_tensor is not None and input_tensor != model.inputs[0].name:
        raise InputError(
            f"--input_tensor: {where} has no input {input_tensor!r}; its only input is {model.inputs[0].name!r}."
        )
    if len(model.outputs) != 1:
        raise InputError(
            f"--output_tensor: {where} has {len(model.outputs)} outputs. Name the layer of the embeddings."
        )
    output_tensor = output_tensor or model.outputs[0]._keras_history.operation.name
    shape = model.inputs[0].shape
    spec = tf.TensorSpec([None, *shape[1:]], model.inputs[0].dtype, name="pixels")
    function = tf.function(lambda pixels: model(pixels, training=False), autograph=False).get_concrete_function(spec)
    graph, tensors, size = _frozen(function, 0, spec, where)
    return graph, (model.inputs[0].name, output_tensor), tensors, size


def _frozen(function: Any, position: int, spec: Any, where: str) -> tuple[Any, tuple[str, str], int | None]:
    """The graph of a function with its variables as constants, the names of its input and output, and the size."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if spec.shape.rank != 4 or spec.shape[3] not in (3, None):
        raise InputError(
            f"backbone: the input of {where} is {spec.dtype.name} {spec.shape}, and a backbone takes pixels, "
            "[n, height, width, 3]."
        )
    try:
        frozen = convert_variables_to_constants_v2(function)
    except Exception as error:  # ValueError and others, for tables and other state.
        raise InputError(f"backbone: {where} has a state that is no constant ({cause_in_one_line(error)}).") from error
    sides = spec.shape[1:3]
    size = sides[0] if sides[0] == sides[1] else None
    output = frozen.outputs[position].name
    return frozen.graph.as_graph_def(), (frozen.inputs[0].name, output), size
