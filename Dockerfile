# The service on CPUs. /bundles, of the registry and the list of erased users, is mounted, a token comes from the environment:
#   docker build --tag mgoe --build-arg TORCH_INDEX=URL --build-arg VERSION=0.1.0 .
# URL is the package index of PyTorch's CPU builds (https://pytorch.org/get-started); without it the image has the CUDA build.
#   docker run --publish 127.0.0.1:8000:8000 --env MGOE_TOKEN --volume mgoe-bundles:/bundles:ro --volume mgoe-state:/state mgoe
FROM python:3.11-slim AS build
RUN python -m venv /opt/mgoe
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG TORCH_INDEX
# before the source, so that this layer is kept when only the source changes
RUN /opt/mgoe/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
# the version, which is in the repository's tags and not in these files
ARG VERSION
RUN SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MGOE=$VERSION /opt/mgoe/bin/pip install '.[serve]'

FROM python:3.11-slim
COPY --from=build /opt/mgoe /opt/mgoe
RUN useradd --system --uid 10001 --no-create-home mgoe && install --directory --owner mgoe /bundles /state /kernels
ENV PATH=/opt/mgoe/bin:$PATH OMP_NUM_THREADS=1 NUMBA_CACHE_DIR=/kernels
USER mgoe
VOLUME ["/bundles", "/state", "/kernels"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["mgoe"]
CMD ["serve", "/bundles/registry/current", "--host", "0.0.0.0", "--port", "8000", "--state", "/state"]
