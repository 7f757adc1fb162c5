# The containers of the cloud: workers that embed (targets worker, worker-gpu) and the trainer (target trainer).
#
#   docker build --target worker  -t europe-docker.pkg.dev/PROJECT/REPO/hugs-worker:1 .
#   docker build --target trainer -t europe-docker.pkg.dev/PROJECT/REPO/hugs-trainer:1 .
#
# Push them, and name them in the recipe: dataflow.image (with weights_in_image: true) and vertex.image (with
# trainer_in_image: true). Workers refuse a job of other code than theirs, so build again after every change.
#
# --build-arg WEIGHTS=imagenet (default), random, or weights/FILE: a file in the folder weights/ beside this one. In
# the image it lies at /opt/hugs/weights/FILE; give that path as --weights to the job as well.

FROM scratch AS source
COPY README.md pyproject.toml setup.py requirements.lock /
COPY configs /configs
COPY preprocess /preprocess
COPY pipelines /pipelines
COPY trainer /trainer
COPY cloud /cloud


# The entry point is that of Beam's image, which starts the worker.
FROM apache/beam_python3.11_sdk:2.77.0 AS worker
ARG WEIGHTS=imagenet
ENV HUGS_CACHE_DIR=/opt/hugs/cache KERAS_HOME=/opt/hugs/keras
WORKDIR /opt/hugs
COPY --from=source / /tmp/hugs/
# The versions of requirements.lock. Its checksums cannot stay: with any, pip wants one of the project itself as well.
RUN sed -E '/^ +--hash/d; s/ *\\$//' /tmp/hugs/requirements.lock > /tmp/hugs/pins.txt \
    && pip install --no-cache-dir -c /tmp/hugs/pins.txt '/tmp/hugs[pipeline,openvino]' \
    && rm -r /tmp/hugs
# The folder weights/ is there only if you make it; README.md because COPY wants at least one file.
COPY README.md weights* /opt/hugs/weights/
# Readable for whatever user the cluster runs workers as.
RUN python -m preprocess.bake --weights "$WEIGHTS" \
    && chmod -R a+rX /opt/hugs


# For dataflow.gpu. Never built nor run by us: there was neither a Docker daemon nor such a worker. Dataflow puts the
# driver at /usr/local/nvidia; CUDA comes with TensorFlow.
FROM worker AS worker-gpu
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
RUN version="$(python -c 'import importlib.metadata as m; print(m.version("tensorflow"))')" \
    && pip install --no-cache-dir "tensorflow[and-cuda]==$version"


FROM python:3.11-slim AS trainer
ARG WEIGHTS=imagenet
ENV KERAS_HOME=/opt/hugs/keras
WORKDIR /opt/hugs
COPY --from=source / /tmp/hugs/
RUN sed -E '/^ +--hash/d; s/ *\\$//' /tmp/hugs/requirements.lock > /tmp/hugs/pins.txt \
    && pip install --no-cache-dir -c /tmp/hugs/pins.txt '/tmp/hugs[train]' \
    && rm -r /tmp/hugs
COPY README.md weights* /opt/hugs/weights/
# The exported model contains the network.
RUN python -m preprocess.bake --weights "$WEIGHTS" --weights_only
ENTRYPOINT ["python", "-m", "trainer.task"]
