# understudy on an NVIDIA GPU: docker build -f docker/cuda.Dockerfile -t understudy:cuda .
# docker run --rm --gpus all -v "$PWD:/work" -v understudy:/home/user/.cache understudy:cuda doctor
FROM python:3.11-slim-bookworm

# torch.compile needs a C compiler at run time.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user
WORKDIR /opt/understudy
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src ./src
# The CUDA build of PyTorch brings its own CUDA libraries; the driver is the host's.
RUN torch=$(grep '^torch==' constraints.txt) \
    && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cu130 "$torch" \
    && pip install --no-cache-dir --constraint constraints.txt '.[provenance]' \
    && rm -rf /opt/understudy

USER user
WORKDIR /work
ENTRYPOINT ["understudy"]
CMD ["--help"]
