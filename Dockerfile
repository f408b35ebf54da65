# The service as an image: Python, its libraries, the service's own modules, and nothing else. How to run it: documentation/DEPLOYMENT.md
#
# Pinned to Python's minor version and Debian's release. Fixes within them come with every `docker compose build --pull`.
FROM python:3.12-slim-trixie AS libraries

WORKDIR /build
# Alone, so that a change of the code does not install the libraries again.
COPY requirements*.txt requirements*.lock ./
# requirements-formats.lock reads EDF, BDF and DICOM too; -rhythm is for METHOD=rhythm, -dask for workers. A lock names versions and hashes,
# so that every build installs the same files; a .txt takes the newest.
ARG REQUIREMENTS=requirements.lock
# Wheels only: a library that would have to be compiled fails here, and no compiler is ever needed.
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install \
        --no-cache-dir --disable-pip-version-check --only-binary :all: --requirement "${REQUIREMENTS}"


FROM python:3.12-slim-trixie

LABEL org.opencontainers.image.title="Central ECG anonymizer" \
      org.opencontainers.image.licenses="MIT"

# The numbers are fixed because folders on the host must belong to them. pip goes: nothing is installed from here on.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip \
    && groupadd --gid 10001 anonymizer \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin anonymizer \
    && install -d -o 10001 -g 10001 -m 0750 /data /data/state /data/output

ENV PATH="/opt/venv/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE="1" \
    PYTHONUTF8="1" \
    STATE_DIR="/data/state" \
    CSV_OUTPUT_DIR="/data/output" \
    STATUS_ADDRESS="127.0.0.1:9464"

COPY --from=libraries /opt/venv /opt/venv

WORKDIR /app
COPY LICENSE central_anonymizer.py ./
COPY anonymizer/ anonymizer/
COPY detection/ detection/
COPY recognition/ recognition/
COPY disk/ disk/
COPY inputs/ inputs/
COPY operations/ operations/
COPY outputs/ outputs/
COPY service/ service/
COPY transport/ transport/
# Tell what was released, and do what only a person may decide (documentation/OPERATIONS.md).
COPY scripts/state.py scripts/report.py scripts/
# Compiled once, because nothing may be written later. A checkout made under a strict umask must be readable by the user too.
RUN python -m compileall -q . && chmod -R a+rX,go-w .

USER 10001:10001
STOPSIGNAL SIGTERM

# The running service knows best: this asks its /readyz at STATUS_ADDRESS, or reaches for everything by itself where that is empty.
# Unhealthy means that windows wait; the service keeps trying by itself, and nothing has to be restarted.
HEALTHCHECK --interval=30s --timeout=30s --start-period=30s --retries=3 \
    CMD ["python", "central_anonymizer.py", "--health"]

# Without a shell in between, so that SIGTERM reaches the program.
ENTRYPOINT ["python", "central_anonymizer.py"]
