# Every wheel is fetched or built once, checked against the hashes of requirements.lock; the second stage of the
# installation takes from those wheels only what the product needs to run, without the tools for tests.
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Set it to build from a mirror: docker build --build-arg PIP_INDEX_URL=…
ARG PIP_INDEX_URL
WORKDIR /src
COPY requirements.lock ./
RUN pip wheel --require-hashes -r requirements.lock -w /wheels
COPY pyproject.toml README.md ./
COPY app app
COPY migrations migrations
COPY simulator simulator
RUN pip wheel --no-index --find-links /wheels --no-deps -w /wheels . \
 && python -m venv /opt/shouwang \
 && /opt/shouwang/bin/pip install --no-index --find-links /wheels 'shouwang[aliyun]'

FROM python:3.11-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/shouwang shouwang \
 && install -d -o shouwang -g shouwang -m 0700 /var/lib/shouwang \
 && install -d -o 1883 -g 1883 -m 0700 /mosquitto/auth
COPY --from=build /opt/shouwang /opt/shouwang
ENV PATH=/opt/shouwang/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SHOUWANG_HTTP_HOST=0.0.0.0 \
    SHOUWANG_DATA_DIR=/var/lib/shouwang
WORKDIR /var/lib/shouwang
VOLUME /var/lib/shouwang
USER shouwang
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", \
  "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ.get('SHOUWANG_HTTP_PORT', '8000') + '/healthz', timeout=4)"]
# Ends on SIGTERM: stops taking messages, commits and acknowledges what it holds, closes the streams.
CMD ["shouwang", "serve"]
