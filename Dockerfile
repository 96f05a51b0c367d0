# One image for every process: `marketplace serve`, `marketplace work`, `marketplace migrate`.
FROM python:3.13-slim AS build
RUN python -m venv /srv/venv
WORKDIR /build
COPY requirements.lock .
RUN /srv/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY . .
RUN /srv/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

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
