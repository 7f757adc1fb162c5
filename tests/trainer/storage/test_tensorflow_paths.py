import numpy as np
import pytest
import tensorflow as tf

from trainer.storage.tensorflow_paths import path_for_tensorflow


@pytest.mark.parametrize("name", ["plain, a", "photos [2023]", "what? *", "back\\slash"])
def test_models_and_checkpoints_are_read_from_folders_of_any_name(tmp_path, name):
    folder = tmp_path / name
    module = tf.Module()
    module.variable = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(folder / "model"))
    prefix = tf.train.Checkpoint(variable=module.variable).write(str(folder / "last"))
    with path_for_tensorflow(str(folder / "model")) as path:
        model = tf.saved_model.load(path)
    np.testing.assert_array_equal(model.variable, [1, 2])
    with path_for_tensorflow(prefix) as path:
        assert any(name.startswith("variable") for name, _ in tf.train.list_variables(path))
        module.variable.assign([0.0, 0.0])
        tf.train.Checkpoint(variable=module.variable).read(path).assert_consumed()
    np.testing.assert_array_equal(module.variable, [1, 2])
