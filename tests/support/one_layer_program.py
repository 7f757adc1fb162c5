"""`trainer.task` for records of mean colours, whose network is one layer and done in no time.

python -m tests.support.one_layer_program TASK_FLAGS...
"""

import sys

from configs.program import run_program


def main(_argv=None):
    import keras

    import trainer.export.saved_model
    from preprocess.images.decode import IMAGE_SIZE
    from trainer import task

    model = keras.Sequential([keras.layers.Input((IMAGE_SIZE, IMAGE_SIZE, 3)), keras.layers.GlobalAveragePooling2D()])
    trainer.export.saved_model.load_keras_backbone = lambda spec: (model, spec_identity(spec))
    return task.main(sys.argv[1:])


def spec_identity(spec):
    from preprocess.images.decode import IMAGE_DEFINITION
    from preprocess.records.backbone_identity import BackboneIdentity

    return BackboneIdentity(
        architecture=spec.architecture,
        weights="random",
        seed=0,
        weights_digest="sha256:" + "0" * 64,
        embedding_size=3,
        image_definition=IMAGE_DEFINITION,
    )


if __name__ == "__main__":
    run_program(main)
