"""`trainer.task` without the network of the records, for tests of anything but the model: it takes embeddings alone.

python -m tests.support.head_program TASK_FLAGS...
"""

import sys

from configs.program import run_program


def main(_argv=None):
    import trainer.export.saved_model
    from trainer import task

    trainer.export.saved_model.load_backbone_of_records = lambda identity, weights: None
    return task.main(sys.argv[1:])


if __name__ == "__main__":
    run_program(main)
