# The containers of the cloud: workers that embed (targets worker, worker-gpu) and the trainer (target trainer).
#
#   docker build --target worker  -t europe-docker.pkg.dev/PROJECT/REPO/hugs-worker:1 .
#   docker build --target trainer -t europe-docker.pkg.dev/PROJECT/REPO/hugs-trainer:1 .
#
# Push them, and name them in the recipe: dataflow.image (with weights_in_image: true) and vertex.image (with
# trainer_in_image: true). Workers refuse a job of other code than theirs, so build again after every change.
#
# --build-arg BACKBONE=inception_v3 (default), or another name that `hugs backbones` lists, or weights/FILE for a network
# from a file.
#
# --build-arg WEIGHTS=imagenet (default), random, or weights/FILE: a file in the folder weights/ beside this one. In
# the image it lies at /opt/hugs/weights/FILE; give that path as --weights to the job as well.
#
# --build-arg PYTHON=3.11 (default), 3.12 or 3.13: for workers, the version that starts the jobs, which Beam asks for.

ARG PYTHON=3.11

FROM scratch AS source
COPY LICENSE README.md pyproject.toml setup.py /
COPY requirements-worker.lock requirements-worker-gpu.lock requirements-trainer.lock /
COPY configs /configs
COPY preprocess /preprocess
COPY pipelines /pipelines
COPY trainer /trainer
COPY cloud /cloud
COPY commands /commands


# The entry point is that of Beam's image, which starts the worker.
FROM apache/beam_python${PYTHON}_sdk:2.77.0 AS worker
ARG BACKBONE=inception_v3
ARG WEIGHTS=imagenet
ENV HUGS_CACHE_DIR=/opt/hugs/cache KERAS_HOME=/opt/hugs/keras
WORKDIR /opt/hugs
COPY --from=source / /tmp/hugs/
# A lock is installed as it is: nothing is resolved, and what comes as source is built with the setuptools that is there.
RUN pip install --no-cache-dir --no-deps --no-build-isolation --require-hashes -r /tmp/hugs/requirements-worker.lock \
    && pip install --no-cache-dir --no-deps --no-build-isolation /tmp/hugs \
    && rm -r /tmp/hugs
# The folder weights/ is there only if you make it; README.md because COPY wants at least one file.
COPY README.md weights* /opt/hugs/weights/
# Readable for whatever user the cluster runs workers as.
RUN python -m preprocess.bake --backbone "$BACKBONE" --weights "$WEIGHTS" \
    && chmod -R a+rX /opt/hugs


# For dataflow.gpu. Never built nor run by us: there was neither a Docker daemon nor such a worker. Dataflow puts the
# driver at /usr/local/nvidia; CUDA comes with JAX. The second bake keeps the network in the form that JAX needs.
FROM worker AS worker-gpu
ARG WEIGHTS=imagenet
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
COPY --from=source /requirements-worker-gpu.lock /tmp/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements-worker-gpu.lock \
    && rm /tmp/requirements-worker-gpu.lock
RUN python -m preprocess.bake --weights "$WEIGHTS" --gpu \
    && chmod -R a+rX /opt/hugs


FROM python:${PYTHON}-slim AS trainer
ARG BACKBONE=inception_v3
ARG WEIGHTS=imagenet
ENV KERAS_HOME=/opt/hugs/keras
WORKDIR /opt/hugs
COPY --from=source / /tmp/hugs/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/hugs/requirements-trainer.lock \
    && pip install --no-cache-dir --no-deps --no-build-isolation /tmp/hugs \
    && pip check \
    && rm -r /tmp/hugs
COPY README.md weights* /opt/hugs/weights/
# The exported model contains the network.
RUN python -m preprocess.bake --backbone "$BACKBONE" --weights "$WEIGHTS" --weights_only
ENTRYPOINT ["python", "-m", "trainer.task"]
