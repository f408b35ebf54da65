"""Builds the image and runs it as a hospital would: `make image`, `make test-containers`. Needs a container engine, unlike `make test`.

`image` needs Python alone. `try` also loads ECG into the database, with what `requirements.lock` brings. What was not fetched from a
registry, such as a base made on this machine, is named at the end: then the run says less.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from service.version import VERSION

ROOT = Path(__file__).resolve().parent.parent

#: Below the repository, since an engine may see no other folder of this machine.
WORK = ROOT / "build" / "containers"

#: Not the name in the compose file: an installation on this machine must not notice.
PROJECT = "ecg-anonymizer-test"

IMAGE = "ecg-anonymizer"
NEW = f"{IMAGE}:{VERSION}"
BEFORE = f"{IMAGE}:before"

#: The user in the image.
USER = "10001:10001"

#: How the service is shut in, as the compose file does.
SHUT_IN = ("--read-only", "--tmpfs", "/tmp:mode=1777,size=64m", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")

SAMPLE_ROWS = 648_000
SAMPLE_START, SAMPLE_END = "2025-11-03T14:30:00Z", "2025-11-03T14:35:00Z"
EARLIER_START, EARLIER_END = "2025-11-03T13:30:00Z", "2025-11-03T13:31:00Z"

#: How long anything may take to come about, in seconds; an engine that copies whole layers is slow.
PATIENCE_S = 240

#: A container must have ended by itself before the engine kills it, in seconds.
STOP_LIMIT_S = 15

HOW_TO_GET_ONE = """❌ No container engine answers, so nothing was built or run.
   Debian, Ubuntu: apt-get install docker.io, and Compose 2.30 or later as docker's plugin (https://docs.docker.com/compose/install/linux/)
   or podman with podman-compose. Then start it: systemctl start docker. An engine elsewhere on this machine: DOCKER_HOST=unix:///PATH"""


class Failed(Exception):
    """A step did not do what it must; the text says what was asked and got."""


@dataclass(frozen=True)
class Engine:
    """A container engine that answers.

    Args:
        program: `docker` or `podman`.
        compose: The command of its Compose; empty if it has none.
        version: What it says of itself.
        has_bridge: Whether containers can have networks of their own. Else they share this machine's.
    """

    program: str
    compose: tuple[str, ...]
    version: str
    has_bridge: bool

    def run(self, *arguments: str, is_good: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the engine.

        Raises:
            Failed: It ended with an error, and `is_good` says that it must not.
        """
        return _run([self.program, *arguments], is_good=is_good)

    @property
    def network(self) -> tuple[str, ...]:
        """Options for a build or a container that needs a network."""
        return () if self.has_bridge else ("--network", "host")


def main(arguments: list[str]) -> int:
    """Build the image, or build it and try it out; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m testbed.containers", description=__doc__)
    parser.add_argument("what", choices=["image", "try"])
    parser.add_argument(
        "--before", metavar="COMMIT", help="the version to upgrade from (default: the newest older tag, else 20 commits ago)"
    )
    options = parser.parse_args(arguments)
    engine = find_engine()
    if engine is None:
        sys.stderr.write(HOW_TO_GET_ONE + "\n")
        return 1
    print(f"Engine: {engine.version}")
    try:
        build(engine, ROOT, NEW)
        if options.what == "try":
            try_out(engine, options.before)
    except Failed as failure:
        sys.stderr.write(f"❌ {failure}\n")
        return 1
    return 0


def find_engine() -> Engine | None:
    """Return docker, or else podman, if one answers."""
    for program in ("docker", "podman"):
        if not shutil.which(program):
            continue
        answer = _run([program, "version", "--format", "{{.Server.Version}}"], is_good=False)
        if answer.returncode == 0 and answer.stdout.strip():
            networks = _run([program, "network", "ls", "--format", "{{.Name}}"], is_good=False).stdout.split()
            compose = _compose_of(program)
            named = _run([*compose, "version", "--short"]).stdout.strip() if compose else "none"
            version = f"{program} {answer.stdout.strip()}, Compose {named}"
            return Engine(program, compose, version, has_bridge=bool({"bridge", "podman"} & set(networks)))
    return None


def _compose_of(program: str) -> tuple[str, ...]:
    for command in ((program, "compose"), (f"{program}-compose",)):
        if shutil.which(command[0]) and _run([*command, "version"], is_good=False).returncode == 0:
            return command
    return ()


def build(engine: Engine, folder: Path, tag: str) -> None:
    """Build the Dockerfile of a folder."""
    labels = {"version": VERSION, "revision": _git("rev-parse", "HEAD")} if tag == NEW else {}
    label_options = [word for name, text in labels.items() for word in ("--label", f"org.opencontainers.image.{name}={text}")]
    docker_format = ["--format", "docker"] if engine.program == "podman" else []
    began = time.monotonic()
    engine.run("build", *docker_format, *engine.network, *label_options, "--tag", tag, str(folder))
    size = int(engine.run("image", "inspect", "--format", "{{.Size}}", tag).stdout)
    _done(f"{tag} is built in {time.monotonic() - began:.0f} s, {size / 1e6:.0f} MB")


def try_out(engine: Engine, before: str | None) -> None:
    """Run what is built in every way that the pages describe.

    Raises:
        Failed: Something did not do what it must. What was started is taken away all the same.
    """
    if not engine.compose:
        raise Failed(f"{engine.version}: the compose file needs Docker Compose 2.30 or later")
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    commit = before or _older_version()
    _unpack(commit, WORK / "before")
    build(engine, WORK / "before", BEFORE)
    try_alone(engine)
    stack = Stack(engine, WORK / "project")
    try:
        try_together(stack, commit)
    except Failed:
        print(stack.compose("logs", "--tail", "40", is_good=False).stdout)
        raise
    finally:
        stack.compose("--profile", "backfill", "down", "--volumes", "--timeout", str(STOP_LIMIT_S), is_good=False)
    _nothing_is_left(engine)
    _say_what_was_not_real(engine)


# A container by itself.


def try_alone(engine: Engine) -> None:
    """Try the image without a database."""
    said = engine.run("run", "--rm", "--network", "none", *SHUT_IN, NEW, "--version").stdout.strip()
    _must(said.startswith(f"ECG anonymizer {VERSION}"), f"--version says {said}")
    _done(f"--version: {said}")
    user = engine.run("image", "inspect", "--format", "{{.Config.User}}", NEW).stdout.strip()
    _must(user == USER, f"the image's user is {user}")
    pip = engine.run("run", "--rm", "--network", "none", "--entrypoint", "python", NEW, "-m", "pip", is_good=False)
    _must(pip.returncode != 0, "the image holds pip")
    _nothing_can_be_written(engine)
    _no_settings_are_a_sentence(engine)
    _demo(engine)
    _wrong_owners_are_a_sentence(engine)


def _nothing_can_be_written(engine: Engine) -> None:
    places = ("/app/x", "/opt/venv/x", "/data/x", "/x")
    attempt = f"import os\nfor place in {places}:\n try: open(place, 'w'); print(place)\n except OSError: pass"
    for options, allowed in ((SHUT_IN, []), ((), ["/data/x"])):
        written = engine.run(
            "run", "--rm", "--network", "none", *options, "--entrypoint", "python", NEW, "-c", attempt
        ).stdout.split()
        _must(written == allowed, f"the service's user could write {written}")
    _done("read-only file system: nothing can be written; without it, only /data")


def _no_settings_are_a_sentence(engine: Engine) -> None:
    ended = engine.run("run", "--rm", "--network", "none", *SHUT_IN, NEW, is_good=False)
    _must(
        ended.returncode == 78 and ".env file not found" in ended.stderr, f"without settings: {ended.returncode} {ended.stderr}"
    )
    _done("without settings: exit code 78 and the remedy")


def _demo(engine: Engine) -> None:
    output = _folder_of_the_user(engine, "demo-output")
    ended = engine.run(*_demo_command(output, _folder_of_the_user(engine, "demo-state")))
    _must(
        f"{SAMPLE_ROWS} rows read = {SAMPLE_ROWS} released + 0 withheld" in ended.stdout + ended.stderr,
        ended.stdout + ended.stderr,
    )
    count = "import pathlib; print(sum(len(f.read_bytes().splitlines()) - 1 for f in pathlib.Path('/data/output').iterdir()))"
    rows = int(_python(engine, output, count))
    _must(rows == SAMPLE_ROWS, f"the CSV files hold {rows} rows")
    _done(f"demo: {rows:,} rows of the sample released to CSV, without a network")


def _demo_command(output: Path, state: Path) -> list[str]:
    settings = {"INPUT_FILE": "/input/ecg.parquet", "OUTPUT_TO_INFLUX": "false", "OUTPUT_TO_CSV": "true"}
    variables = [word for name, text in settings.items() for word in ("--env", f"{name}={text}")]
    sample = ROOT / "examples" / "mitbih" / "six_records.parquet"
    mounts = ["--volume", f"{sample}:/input/ecg.parquet:ro", "--volume", f"{output}:/data/output"]
    # The image's own /data/state would be part of the read-only file system. Not a tmpfs: Podman gives it no owner.
    mounts += ["--volume", f"{state}:/data/state"]
    return ["run", "--rm", "--network", "none", *SHUT_IN, *variables, *mounts, NEW]


def _wrong_owners_are_a_sentence(engine: Engine) -> None:
    wrong = WORK / "wrong-owner"
    wrong.mkdir(mode=0o755)
    right = _folder_of_the_user(engine, "right-owner")
    for name, command in (
        ("CSV_OUTPUT_DIR", _demo_command(wrong, right)),
        ("STATE_DIR", _demo_command(right, wrong)),
    ):
        ended = engine.run(*command, is_good=False)
        _must(ended.returncode == 78 and f"{name} /data/" in ended.stderr, f"wrong owner: {ended.returncode} {ended.stderr}")
    _done("folders of another owner: exit code 78, each named with its setting")


def _folder_of_the_user(engine: Engine, name: str) -> Path:
    """Return a new folder that belongs to the image's user, whoever we are."""
    folder = WORK / name
    folder.mkdir()
    own = ("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "chown", "--volume", f"{folder}:/folder")
    engine.run(*own, NEW, USER, "/folder")
    return folder


def _python(engine: Engine, output: Path, program: str) -> str:
    mount = ("--volume", f"{output}:/data/output:ro")
    return engine.run("run", "--rm", "--network", "none", *mount, "--entrypoint", "python", NEW, "-c", program).stdout


# With the compose file and a database.


class Stack:
    """The compose file in a folder of its own, with a `.env` and an output folder.

    Args:
        engine: What runs it.
        folder: Where to put it.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.influx_port, self.status_port = _free_port(), _free_port()
        folder.mkdir()
        shutil.copy(ROOT / "docker-compose.yml", folder)
        self.settings = {
            "ANONYMIZER_VERSION": "before",
            "DOCKER_INFLUXDB_INIT_USERNAME": "admin",
            "DOCKER_INFLUXDB_INIT_PASSWORD": secrets.token_hex(16),
            "DOCKER_INFLUXDB_INIT_RETENTION": "0",
            "INFLUXDB_PORT": str(self.influx_port),
            "STATUS_PORT": str(self.status_port),
            "STATUS_TOKEN": secrets.token_hex(16),
            "INFLUX_ORG": "ward",
            "INFLUX_TOKEN": "",
            "INFLUX_OUTPUT_TOKEN": "",
            "PSEUDONYMIZE_SOURCE_ID": "true",
            "PSEUDONYM_SALT": secrets.token_hex(32),
            "QUERY_START_TIME": SAMPLE_START,
        }
        self.save()

    @property
    def url(self) -> str:
        """The database, for programs on this machine."""
        return f"http://127.0.0.1:{self.influx_port}"

    def save(self) -> None:
        """Write `.env`, and what a machine without networks of their own for containers needs."""
        env = self.folder / ".env"
        env.write_text("".join(f"{name}={text}\n" for name, text in self.settings.items()), encoding="utf-8")
        env.chmod(0o600)
        if not self.engine.has_bridge:
            (self.folder / "docker-compose.override.yml").write_text(self._on_the_hosts_network(), encoding="utf-8")

    def compose(self, *arguments: str, is_good: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of Compose."""
        return _run([*self.engine.compose, "--project-name", PROJECT, *arguments], is_good=is_good, cwd=str(self.folder))

    def influx(self, *arguments: str) -> str:
        """Run InfluxDB's own command line where its administrator's token is."""
        host = ("--host", f"http://localhost:{8086 if self.engine.has_bridge else self.influx_port}")
        return self.compose("exec", "-T", "influxdb", "influx", *arguments, *host).stdout

    def state(self, name: str) -> dict[str, object]:
        """Return what the engine knows of a service's container."""
        (container,) = self.compose("ps", "--all", "--quiet", name).stdout.split()
        loaded: dict[str, object] = json.loads(self.engine.run("inspect", "--format", "{{json .State}}", container).stdout)
        return loaded

    def health(self) -> int:
        """Return the exit code of the health check, asked in the container."""
        return self.compose("exec", "-T", "anonymizer", "python", "central_anonymizer.py", "--health", is_good=False).returncode

    def _on_the_hosts_network(self) -> str:
        influx, status = f"127.0.0.1:{self.influx_port}", f"127.0.0.1:{self.status_port}"
        ours = f"network_mode: host\n    extra_hosts: ['influxdb:127.0.0.1']\n    environment:\n      INFLUX_URL: http://influxdb:{self.influx_port}\n"
        return (
            f"services:\n  anonymizer:\n    ports: !reset []\n    {ours}      STATUS_ADDRESS: {status}\n  backfill:\n    {ours}"
            f"  influxdb:\n    ports: !reset []\n    network_mode: host\n    environment:\n      INFLUXD_HTTP_BIND_ADDRESS: {influx}\n"
            f"    healthcheck:\n      test: [CMD, influx, ping, --host, 'http://localhost:{self.influx_port}']\n"
        )


def try_together(stack: Stack, commit: str) -> None:
    """Follow the page from the first start to an upgrade."""
    from testbed.influxdb_api import InfluxApi
    from testbed.replay import Wearers, load, load_sample_ecg

    missing = stack.compose("up", "--detach", "--no-build", "anonymizer", is_good=False)
    _must(missing.returncode != 0, "Compose made the output folder for root")
    stack.compose("down", "--volumes", is_good=False)
    _folder_of_the_user(stack.engine, "project/output")
    stack.compose("up", "--detach", "--wait", "influxdb")
    tokens = _buckets_and_tokens(stack)
    _done("compose: a missing output folder is refused; the database is healthy, bucket and tokens are made as on the page")

    reader = InfluxApi(stack.url, org="ward", token=tokens["read both"])
    writer = InfluxApi(stack.url, org="ward", token=tokens["write raw"])
    load_sample_ecg(writer, "raw_data")
    checked = stack.compose("run", "--rm", "anonymizer", "--check", "--connect")
    _must("everything can be reached" in checked.stdout + checked.stderr, checked.stdout + checked.stderr)
    stack.compose("up", "--detach", "--wait", "--no-build")

    def released() -> int:
        return reader.count("anonymized-data", measurement="ecg_anonymized")

    _until(lambda: released() == SAMPLE_ROWS, lambda: f"{released()} of {SAMPLE_ROWS} rows are in the output bucket")
    _done(f"compose up --wait: healthy; {SAMPLE_ROWS:,} rows from bucket to bucket, by the version before ({commit[:12]})")
    _health_follows_the_database(stack)
    _backfill_waits_for_its_turn(stack)
    _stops_as_asked(stack)

    earlier = Wearers(6)
    load(writer, "raw_data", earlier, start_ns=_ns(EARLIER_START), end_ns=_ns(EARLIER_END))
    _backfill(stack)
    expected = SAMPLE_ROWS + reader.count("raw_data", start=EARLIER_START, stop=EARLIER_END)
    _must(released() == expected, f"after the backfill {released()} rows are out, not {expected}")
    _done(f"backfill: {expected - SAMPLE_ROWS:,} rows of an earlier minute, exit code 0")

    stack.settings["ANONYMIZER_VERSION"] = VERSION
    stack.save()
    stack.compose("run", "--rm", "anonymizer", "--check", "--connect")
    start_s = int(time.time()) // 5 * 5
    load(writer, "raw_data", earlier, start_ns=start_s * 10**9, end_ns=(start_s + 20) * 10**9)
    expected += reader.count("raw_data", start=str(start_s), stop=str(start_s + 60))
    stack.compose("up", "--detach", "--wait", "--no-build")
    _until(lambda: released() == expected, lambda: f"after the upgrade {released()} of {expected} rows are out")
    _stops_as_asked(stack)
    _agrees(stack, tokens["read both"], EARLIER_START)
    _done(
        f"upgrade to {VERSION} with the state of the version before: it goes on, {expected:,} rows, nothing lost, nothing twice"
    )


def _buckets_and_tokens(stack: Stack) -> dict[str, str]:
    stack.influx("bucket", "create", "--org", "ward", "--name", "anonymized-data", "--retention", "0")
    ids = {name: _id_of_bucket(stack, name) for name in ("raw_data", "anonymized-data")}
    wanted = {
        "read raw": ["--read-bucket", ids["raw_data"]],
        "write anonymized": ["--write-bucket", ids["anonymized-data"]],
        "write raw": ["--write-bucket", ids["raw_data"]],
        "read both": ["--read-bucket", ids["raw_data"], "--read-bucket", ids["anonymized-data"]],
    }
    tokens = {
        name: str(json.loads(stack.influx("auth", "create", "--org", "ward", "--description", name, *rights, "--json"))["token"])
        for name, rights in wanted.items()
    }
    stack.settings |= {"INFLUX_TOKEN": tokens["read raw"], "INFLUX_OUTPUT_TOKEN": tokens["write anonymized"]}
    stack.save()
    return tokens


def _id_of_bucket(stack: Stack, name: str) -> str:
    return stack.influx("bucket", "list", "--org", "ward", "--name", name, "--hide-headers").split("\t")[0].strip()


def _health_follows_the_database(stack: Stack) -> None:
    _must(stack.health() == 0, "--health fails though data flow")
    stack.compose("stop", "influxdb")
    _until(lambda: stack.health() == 1, lambda: "--health passes without a database")
    stack.compose("start", "influxdb")
    _until(lambda: stack.health() == 0, lambda: "--health fails though the database is back")
    _done("health: fails while the database is stopped, passes again without a restart")


def _backfill_waits_for_its_turn(stack: Stack) -> None:
    ended = stack.compose("run", "--rm", "backfill", is_good=False)
    _must(ended.returncode == 75, f"a backfill beside the stream ended with {ended.returncode}")
    _done("backfill beside the running stream: exit code 75")


def _backfill(stack: Stack) -> None:
    span = ("-e", f"QUERY_START_TIME={EARLIER_START}", "-e", f"QUERY_END_TIME={EARLIER_END}")
    stack.compose("run", "--rm", *span, "backfill")


def _stops_as_asked(stack: Stack) -> None:
    began = time.monotonic()
    stack.compose("stop", "anonymizer")
    took_s = time.monotonic() - began
    state = stack.state("anonymizer")
    _must(state["ExitCode"] == 0 and took_s < STOP_LIMIT_S, f"SIGTERM: exit code {state['ExitCode']} after {took_s:.1f} s")
    _done(f"SIGTERM: exit code 0 after {took_s:.1f} s")


def _agrees(stack: Stack, token: str, start: str) -> None:
    """Let `state.py verify` compare journal, raw bucket and output bucket; the service is stopped."""
    audit = ("run", "--rm", "--no-deps", "-e", f"INFLUX_VERIFY_TOKEN={token}", "--entrypoint", "python", "anonymizer")
    found = stack.compose(*audit, "scripts/state.py", "verify", "--start", start, is_good=False)
    _must(found.returncode == 0, found.stdout + found.stderr)


def _nothing_is_left(engine: Engine) -> None:
    label = f"label=com.docker.compose.project={PROJECT}"
    left = (
        engine.run("ps", "--all", "--quiet", "--filter", label).stdout
        + engine.run("volume", "ls", "--quiet", "--filter", label).stdout
    )
    _must(not left.strip(), f"down left {left}")
    engine.run("image", "rm", BEFORE)
    _done("compose down: no container and no volume is left")


def _say_what_was_not_real(engine: Engine) -> None:
    base = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)[-1]
    database = re.findall(r"image: (influxdb:\S+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))[0]
    for image in (base, database):
        found = engine.run("image", "inspect", "--format", "{{json .RepoDigests}}", image, is_good=False).stdout.strip()
        if found in ("", "[]", "null"):
            print(f"⚠️ {image} was not fetched from a registry but made on this machine: the run says nothing about the real one")
    if not engine.has_bridge:
        print(
            "⚠️ This engine has no networks of its own: containers shared this machine's, so published ports and names were not tried"
        )
    print("Everything was done as it must.")


# What the steps are made of.


def _older_version() -> str:
    head = _git("rev-parse", "HEAD")
    tags = [
        tag
        for tag in _git("tag", "--merged", "HEAD", "--sort=-creatordate", "v*").split()
        if _git("rev-list", "-n1", tag) != head
    ]
    if tags:
        return _git("rev-parse", f"{tags[0]}^{{commit}}")
    return _git("rev-list", "--first-parent", "--max-count=21", "HEAD").split()[-1]


def _unpack(commit: str, folder: Path) -> None:
    folder.mkdir()
    archive = folder.with_suffix(".tar")
    _git("archive", "--output", str(archive), commit)
    shutil.unpack_archive(archive, folder, filter="data")
    archive.unlink()


def _git(*arguments: str) -> str:
    return _run(["git", *arguments], cwd=str(ROOT)).stdout.strip()


def _run(command: list[str], *, is_good: bool = True, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", cwd=cwd, check=False)
    if is_good and done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done


def _until(is_so: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end_s:
            raise Failed(f"after {PATIENCE_S} s: {otherwise()}")
        time.sleep(1)


def _must(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise Failed(otherwise)


def _done(sentence: str) -> None:
    print(f"✅ {sentence}", flush=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp()) * 10**9


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
