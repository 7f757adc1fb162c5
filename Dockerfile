# The containers of the cloud: workers that embed (targets worker, worker-gpu), the trainer (target trainer), and the
# server of a trained model (target server).
#
#   docker build --target worker  -t europe-docker.pkg.dev/PROJECT/REPO/hugs-worker:1 .
#   docker build --target trainer -t europe-docker.pkg.dev/PROJECT/REPO/hugs-trainer:1 .
#   docker build --target server  -t europe-docker.pkg.dev/PROJECT/REPO/hugs-server:1 .
#
# Push them, and name them in the recipe: dataflow.image (with weights_in_image: true), vertex.image (with
# trainer_in_image: true) and deploy.image (with server_in_image: true). Workers refuse a job of other code than theirs,
# so build again after every change.
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
COPY requirements-worker.lock requirements-worker-gpu.lock requirements-trainer.lock requirements-server.lock /
COPY configs /configs
COPY preprocess /preprocess
COPY pipelines /pipelines
COPY trainer /trainer
COPY serving /serving
COPY insight /insight
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


# hugs serve. The network is in the image, so that a container starts in seconds; a model brings its head. It listens on
# all addresses of the container, which has no others; Vertex AI names port, routes and model by variables. Elsewhere:
#   docker run --read-only --tmpfs /tmp -p 8080:8080 -v "$PWD/data/training/model:/model:ro" hugs-server:1 --model_dir /model
FROM python:${PYTHON}-slim AS server
ARG BACKBONE=inception_v3
ARG WEIGHTS=imagenet
ENV HUGS_CACHE_DIR=/opt/hugs/cache KERAS_HOME=/opt/hugs/keras
WORKDIR /opt/hugs
COPY --from=source / /tmp/hugs/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/hugs/requirements-server.lock \
    && pip install --no-cache-dir --no-deps --no-build-isolation /tmp/hugs \
    && pip check \
    && rm -r /tmp/hugs
COPY README.md weights* /opt/hugs/weights/
RUN python -m preprocess.bake --backbone "$BACKBONE" --weights "$WEIGHTS" \
    && chmod -R a+rX /opt/hugs
# Requests come from strangers.
USER nobody
EXPOSE 8080
ENTRYPOINT ["python", "-m", "serving.serve", "--host", "0.0.0.0"]
