# CPU:  docker build -t stereopsis .
# CUDA: docker build -t stereopsis --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# Run:  docker run --rm -it -v "$PWD:/work" stereopsis demo
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=all
RUN apt-get update \
    && apt-get install --yes --no-install-recommends default-jre-headless \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/stereopsis
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY recipes recipes
RUN torch="$(grep --extended-regexp '^torch==' constraints.txt | cut -d+ -f1)" \
    && pip install --no-cache-dir --index-url "$TORCH_INDEX" "$torch" \
    && pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]"
RUN useradd --create-home reader
USER reader
WORKDIR /work
ENTRYPOINT ["stereopsis"]
CMD ["--help"]
