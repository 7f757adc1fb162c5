"""The head of an exported model alone, from embeddings to scores, for programs that embed by themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise
from trainer.export.classifier import load_saved_model


def load_head(model_dir: str, *, embedding_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Loads a model, keeps its head, and lets its network go, so that only one copy of the network is in memory.

    Args:
      model_dir: the folder of the model, local or in a bucket.
      embedding_size: numbers in an embedding of its network.

    Returns:
      A function that may be called in several threads: embeddings, float32 [n, embedding_size], to scores, float32
      [n, num_labels]. These are the operations of the exported model itself.

    Raises:
      InputError: the folder holds no complete model.
    """
    tf = import_tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with without_tensorflow_noise():
        # A signature works only as long as its model exists.
        model = load_saved_model(model_dir)
        signature = model.signatures["embeddings"]
        frozen = convert_variables_to_constants_v2(signature)
        scores = frozen.outputs[sorted(signature.structured_outputs).index("scores")].name
        part = tf.compat.v1.graph_util.extract_sub_graph(frozen.graph.as_graph_def(), [scores.partition(":")[0]])
        embeddings_name = frozen.inputs[0].name

        def head(embeddings: object) -> object:
            return tf.graph_util.import_graph_def(
                part, input_map={embeddings_name: embeddings}, return_elements=[scores], name="head"
            )[0]

        function = tf.compat.v1.wrap_function(head, [tf.TensorSpec([None, embedding_size], tf.float32)])
        # The first call optimizes the graph.
        function(tf.zeros([1, embedding_size]))

    def scores_of(embeddings: np.ndarray) -> np.ndarray:
        return function(tf.constant(embeddings, tf.float32)).numpy()

    return scores_of
