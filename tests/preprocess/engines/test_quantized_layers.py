"""Layers in 8 bits, on networks of a few operations."""

import numpy as np
import pytest

pytest.importorskip("openvino")

from openvino import opset13

from preprocess.engines.openvino_import import import_openvino
from preprocess.engines.quantized_layers import find_layers, find_tensors, quantize_tensors, quantize_weights


def weights(*shape, seed=0):
    return np.random.RandomState(seed).normal(0, 1, shape).astype(np.float32)


def conv(data, channels_in, channels_out=4, size=1, seed=0):
    return opset13.convolution(
        data, weights(channels_out, channels_in, size, size, seed=seed), [1, 1], [0, 0], [0, 0], [1, 1]
    )


def max_pool(data):
    return opset13.max_pool(data, [1, 1], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)


def pad(data, value):
    ends = np.array([0, 0, 1, 1])
    return opset13.pad(data, ends, ends, "constant", np.float32(value))


def network_of(output, *parameters):
    return import_openvino().Model([output], list(parameters))


def run(network, *inputs):
    return import_openvino().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(list(inputs))[0]


def names_of(groups):
    return [sorted(tensor.output.get_node().get_friendly_name() for tensor in group) for group in groups]


def named(node, name):
    node.set_friendly_name(name)
    return node


def test_what_is_joined_and_then_read_gets_one_range():
    pixels = opset13.parameter([1, 3, 8, 8])
    a, b, c = (named(opset13.relu(conv(pixels, 3, seed=seed)), name) for seed, name in enumerate("abc"))
    joined = opset13.concat([a, max_pool(b)], axis=1)
    # `b` is read by a layer of its own, too, and `c` is joined to the two by another operation.
    read = [conv(joined, 8), conv(b, 4), conv(opset13.concat([pad(joined, 0), pad(c, 0)], axis=1), 12)]
    alone = named(opset13.relu(conv(pixels, 3, seed=4)), "alone")
    read.append(conv(alone, 4))
    network = network_of(opset13.concat([opset13.reduce_mean(one, [1, 2, 3], True) for one in read], 1), pixels)
    layers = [
        layer
        for layer in find_layers(network)
        if layer.data.get_source_output().get_node().get_name() != pixels.get_name()
    ]
    assert len(layers) == 4
    assert sorted(names_of(find_tensors(layers))) == [["a", "b", "c"], ["alone"]]


@pytest.mark.parametrize(("value", "expected"), [(0, "before"), (1, "padded")])
def test_only_a_pad_of_zeros_passes_values_on(value, expected):
    pixels = named(opset13.parameter([1, 3, 8, 8]), "before")
    network = network_of(conv(named(pad(pixels, value), "padded"), 3), pixels)
    assert names_of(find_tensors(find_layers(network))) == [[expected]]


def test_other_readers_of_a_tensor_get_it_as_it_is():
    pixels = opset13.parameter([1, 4, 8, 8])
    tensor = opset13.relu(pixels)
    network = network_of(opset13.add(conv(tensor, 4), tensor), pixels)
    (group,) = find_tensors(find_layers(network))
    quantize_tensors(group, 0, 1)
    add = network.get_results()[0].input_value(0).get_node()
    assert add.input_value(1).get_node().get_type_name() == "Relu"
    assert add.input_value(0).get_node().input_value(0).get_node().get_type_name() == "FakeQuantize"


@pytest.mark.parametrize(("low", "high"), [(-0.3, 5.1), (0.2, 5.1), (-7.0, -0.1), (-1e-3, 3.0), (0.0, 0.0)])
def test_zero_is_a_level_and_no_value_in_the_range_moves_by_more_than_a_step(low, high):
    pixels = opset13.parameter([1, 3, 1, 101])
    network = network_of(conv(pixels, 3), pixels)
    (layer,) = find_layers(network)
    quantize_tensors(find_tensors([layer])[0], low, high)
    values = np.linspace(min(low, 0), max(high, 0), 303, dtype=np.float32).reshape(1, 3, 1, 101)
    step = (max(high, 0) - min(low, 0)) / 255
    network = network_of(layer.data.get_source_output(), pixels)
    # Of floats, zero is as exact as their arithmetic.
    np.testing.assert_allclose(run(network, np.zeros_like(values)), 0, atol=1e-4 * step)
    rounded = run(network, values)
    assert np.abs(rounded - values).max() <= step + 1e-6
    assert len(np.unique(rounded)) <= 256


LAYERS = {
    "convolution": ([2, 6, 5, 5], lambda data: conv(data, 6, 4, size=3)),
    "depthwise": (
        [2, 6, 5, 5],
        lambda data: opset13.group_convolution(data, weights(6, 2, 1, 3, 3), [1, 1], [0, 0], [0, 0], [1, 1]),
    ),
    "groups": (
        [2, 6, 5, 5],
        lambda data: opset13.group_convolution(data, weights(2, 5, 3, 3, 3), [1, 1], [0, 0], [0, 0], [1, 1]),
    ),
    "dense": ([7, 6], lambda data: opset13.matmul(data, weights(6, 4), False, False)),
    "dense, transposed": ([2, 7, 6], lambda data: opset13.matmul(data, weights(4, 6), False, True)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_of_8_bits_change_no_mean_of_the_outputs(kind):
    shape, make = LAYERS[kind]
    data = opset13.parameter(shape)
    network = network_of(make(data), data)
    # Each channel has a mean of its own; without borders, the correction is exact.
    axis = 1 if len(shape) == 4 else len(shape) - 1
    means = np.linspace(-3, 9, shape[axis])
    values = np.moveaxis(
        np.broadcast_to(means, [size for at, size in enumerate(shape) if at != axis] + [shape[axis]]), -1, axis
    )
    values = values.astype(np.float32)
    expected = run(network, values)
    (layer,) = find_layers(network)
    assert layer.input_channel_axis == axis
    quantize_weights(layer, means)
    network.validate_nodes_and_infer_types()
    found = run(network, values)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    uncorrected = run(network_of(layer.node.output(0), data), values)
    assert np.abs(uncorrected - expected).max() > 10 * np.abs(found - expected).max()


def test_weights_that_are_all_zero_stay_so():
    data = opset13.parameter([1, 3, 4, 4])
    network = network_of(
        opset13.convolution(data, np.zeros((2, 3, 1, 1), np.float32), [1, 1], [0, 0], [0, 0], [1, 1]), data
    )
    (layer,) = find_layers(network)
    quantize_weights(layer, np.ones(3))
    assert not run(network, np.ones((1, 3, 4, 4), np.float32)).any()


def test_layers_without_weights_of_their_own_are_left_alone():
    data = opset13.parameter([1, 5, 5])
    network = network_of(opset13.matmul(opset13.matmul(data, data, True, False), data, False, True), data)
    assert find_layers(network) == []


def test_the_tiniest_weights_keep_their_signs():
    data = opset13.parameter([1, 4])
    network = network_of(opset13.matmul(data, np.float32([[1.9e-43], [-1.9e-43], [1e-43], [0]]), False, False), data)
    (layer,) = find_layers(network)
    quantize_weights(layer, np.zeros(4))
    integers = layer.node.input_value(1).get_node().input_value(0).get_node().input_value(0).get_node().get_data()
    assert np.sign(integers).ravel().tolist() == [1, -1, 1, 0]
