# understudy on a CPU: docker build -f docker/cpu.Dockerfile -t understudy:cpu .
# docker run --rm --network none -v "$PWD:/work" understudy:cpu demo
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 1000 user
WORKDIR /opt/understudy
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src ./src
RUN torch=$(grep '^torch==' constraints.txt) \
    && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$torch" \
    && pip install --no-cache-dir --constraint constraints.txt '.[provenance]' \
    && rm -rf /opt/understudy

USER user
WORKDIR /work
ENTRYPOINT ["understudy"]
CMD ["--help"]
