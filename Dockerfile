# The segnet command on a processor:
#   docker build -t segnet .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" segnet prepare sample
# torch for processors alone makes a much smaller image: --build-arg TORCH_INDEX=URL, with the URL that pytorch.org names for CPUs.
FROM python:3.12-slim

# The compiler builds the kernel of the 3×3 convolutions at its first use; without it prediction is a third as fast.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX=""
WORKDIR /src
COPY requirements.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} $(grep -E '^torch' requirements.txt) \
    && pip install --no-cache-dir --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY segnet segnet
RUN pip install --no-cache-dir --no-deps .

# HOME and the cache can be written by any user, so that --user works.
RUN useradd --create-home segnet && mkdir -p /work /home/segnet/.cache && chmod -R a+rwX /home/segnet /work
ENV HOME=/home/segnet
USER segnet
WORKDIR /work
ENTRYPOINT ["segnet"]
CMD ["--help"]
