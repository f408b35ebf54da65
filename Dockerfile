# The service's image: Python, libraries and the service's modules. How to run it: documentation/DEPLOYMENT.md
#
# Pinned to Python's minor version and Debian's release. Fixes within them come with every `docker compose build --pull`.
FROM python:3.12-slim-trixie AS libraries

WORKDIR /build
# A separate stage, so that a code change does not reinstall libraries.
COPY requirements*.txt requirements*.lock ./
# requirements-formats.lock reads EDF, BDF and DICOM too; -rhythm is for METHOD=rhythm, -dask for workers. A lock names versions and hashes,
# so that every build installs the same files; a .txt takes the newest.
ARG REQUIREMENTS=requirements.lock
# Wheels only: a library without one fails here, so no compiler is needed.
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install \
        --no-cache-dir --disable-pip-version-check --only-binary :all: --requirement "${REQUIREMENTS}"


FROM python:3.12-slim-trixie

LABEL org.opencontainers.image.title="Central ECG anonymizer" \
      org.opencontainers.image.licenses="MIT"

# The ids are fixed because host folders must belong to them. pip is removed: nothing is installed from here on.
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
# Operators' commands (documentation/OPERATIONS.md).
COPY scripts/__init__.py scripts/state.py scripts/report.py scripts/check_audit_log.py scripts/verify_output.py scripts/dpia.py scripts/
# `state.py erase` erases a person from a heartbeat ledger too.
COPY scripts/heartbeat/ scripts/heartbeat/
# Compiled now, because the file system is read-only later. A checkout made under a strict umask must be readable too.
RUN python -m compileall -q . && python service/report/templates.py && chmod -R a+rX,go-w .

USER 10001:10001
STOPSIGNAL SIGTERM

# Asks the running service's /readyz at STATUS_ADDRESS; if that is empty, checks all connections itself.
# Unhealthy means that windows wait; the service retries by itself and needs no restart.
HEALTHCHECK --interval=30s --timeout=30s --start-period=30s --retries=3 \
    CMD ["python", "central_anonymizer.py", "--health"]

# Without a shell, so that SIGTERM reaches the program.
ENTRYPOINT ["python", "central_anonymizer.py"]
