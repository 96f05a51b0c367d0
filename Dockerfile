# One image for every process: `marketplace serve`, `marketplace work`, `marketplace migrate`. It has no engines of its own:
# DATABASE_URL and VALKEY_URL name them.
FROM python:3.13-slim AS build
RUN python -m venv /srv/venv && python -m venv /build/venv
WORKDIR /build
COPY requirements.lock requirements-build.lock ./
RUN /srv/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock \
    && /build/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.lock
COPY . .
RUN /build/venv/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /build/wheel . \
    && /srv/venv/bin/pip install --no-cache-dir --no-deps /build/wheel/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /srv/data --create-home marketplace \
    && install --directory --owner=marketplace --mode=700 /srv/journal
COPY --from=build /srv/venv /srv/venv
ENV PATH=/srv/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MARKETPLACE_DATA=/srv/data \
    MARKETPLACE_JOURNAL=/srv/journal \
    MARKETPLACE_HOST=0.0.0.0
USER marketplace
WORKDIR /srv/data
EXPOSE 8000
CMD ["marketplace", "serve"]
