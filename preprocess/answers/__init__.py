"""From embeddings to answers: the head of a classifier without TensorFlow, and the table of its answers."""
