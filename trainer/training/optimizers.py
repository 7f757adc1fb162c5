"""Optimizers as one operation for each variable.

Keras writes a rule as several operations, each of which goes through memory. TensorFlow has one kernel for a whole
rule. With Adam and the million weights of a default head, that saved about 2 ms of a step, on two busy cores;
`benchmarks.training` measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_MOMENTUM = 0.9
_DECAY = 0.9


class Optimizer(tf.Module):
    """The rules and the defaults of Keras, except that `sgd` has a momentum of 0.9.

    Attributes:
      iterations: int64, the number of updates so far.
      slots: the variables that the rule keeps: a list for each trained variable.
    """

    # The names of the variables that the rule keeps for each trained variable.
    _num_slots = 0

    def __init__(self, learning_rate: float, variables: Sequence[tf.Variable]):
        super().__init__(name="optimizer")
        self._learning_rate = learning_rate
        self._variables = list(variables)
        self.iterations = tf.Variable(0, dtype=tf.int64, name="iterations")
        self.slots = [[tf.Variable(tf.zeros_like(variable)) for _ in range(self._num_slots)] for variable in variables]

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Updates the variables; `gradients` are in the same order."""
        count = tf.cast(self.iterations.assign_add(1), tf.float32)
        for variable, slots, gradient in zip(self._variables, self.slots, gradients, strict=True):
            self._update(variable, slots, gradient, count)

    def _update(self, variable: tf.Variable, slots: list[tf.Variable], gradient: tf.Tensor, count: tf.Tensor) -> None:
        raise NotImplementedError


class Adam(Optimizer):
    """`keras.optimizers.Adam`."""

    _num_slots = 2

    def _update(self, variable: tf.Variable, slots: list[tf.Variable], gradient: tf.Tensor, count: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=slots[0].handle,
            v=slots[1].handle,
            beta1_power=tf.pow(_BETA_1, count),
            beta2_power=tf.pow(_BETA_2, count),
            lr=self._learning_rate,
            beta1=_BETA_1,
            beta2=_BETA_2,
            epsilon=_EPSILON,
            grad=gradient,
        )


class AdamW(Adam):
    """`keras.optimizers.AdamW` without decay of biases. Before a step, kernels shrink by learning rate x decay."""

    def __init__(self, learning_rate: float, variables: Sequence[tf.Variable], *, weight_decay: float):
        super().__init__(learning_rate, variables)
        self._kept_share = 1.0 - learning_rate * weight_decay

    def _update(self, variable: tf.Variable, slots: list[tf.Variable], gradient: tf.Tensor, count: tf.Tensor) -> None:
        if variable.shape.rank > 1:
            variable.assign(variable * self._kept_share)
        super()._update(variable, slots, gradient, count)


class Sgd(Optimizer):
    """`keras.optimizers.SGD(momentum=0.9)`."""

    _num_slots = 1

    def _update(self, variable: tf.Variable, slots: list[tf.Variable], gradient: tf.Tensor, count: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle, accum=slots[0].handle, lr=self._learning_rate, grad=gradient, momentum=_MOMENTUM
        )


class RmsProp(Optimizer):
    """`keras.optimizers.RMSprop`."""

    _num_slots = 2

    def _update(self, variable: tf.Variable, slots: list[tf.Variable], gradient: tf.Tensor, count: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=slots[0].handle,
            mom=slots[1].handle,
            lr=self._learning_rate,
            rho=_DECAY,
            momentum=0.0,
            epsilon=_EPSILON,
            grad=gradient,
        )


def make_optimizer(
    name: str, variables: Sequence[tf.Variable], *, learning_rate: float, weight_decay: float
) -> Optimizer:
    """The optimizer with a name of the options. Only adamw uses `weight_decay`."""
    if name == "adamw":
        return AdamW(learning_rate, variables, weight_decay=weight_decay)
    rules: dict[str, Callable[[float, Sequence[tf.Variable]], Optimizer]] = {
        "adam": Adam,
        "sgd": Sgd,
        "rmsprop": RmsProp,
    }
    return rules[name](learning_rate, variables)
