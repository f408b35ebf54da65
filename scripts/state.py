"""Look into STATE_DIR, and do what only a person may decide: forget an output that still lacks rows, or accept a gap in the journal.

Reads `.env` for STATE_DIR, or takes --state-dir. Stop the service first. Nothing here reads or prints data.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from dotenv import dotenv_values

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.errors import JournalDamaged
from anonymizer.windows import NANOSECONDS
from service import exit_codes
from service.arguments import Parser
from service.instance_lock import AnotherInstance, InstanceLock
from service.journal import Journal
from service.logs import make_printable
from service.set_aside import SetAside
from service.settings import DECLARED


def show(folder: Path) -> int:
    """Print what was released, where the stream is, and how far each output is."""
    journal = Journal(folder, data_set=None)
    totals, position_ns, spooled = journal.totals(), journal.stream_position_ns(), journal.spooled()
    print(f"STATE_DIR  {folder}")
    print(f"released   {totals.released} rows of {totals.read} read")
    for interval in journal.released_intervals():
        print(f"           {_moment(interval.start_ns)} - {_moment(interval.end_ns)}")
    print(f"stream     {'never started' if position_ns is None else 'at ' + _moment(position_ns)}")
    print(f"spool      {len(spooled)} chunks, {sum(spooled.values())} bytes wait for outputs")
    for one in journal.standings():
        print(f"output     {one.name}: {one.taken} rows taken, {one.set_aside} set aside, {one.pending} pending")
    for kept in SetAside(folder / "set_aside").all():
        print(f"set aside  {kept.batch.batch_id}, {len(kept.batch)} rows, refused by {kept.output}: {kept.reason}")
    journal.close()
    return exit_codes.DONE


def drop_output(folder: Path, name: str) -> int:
    """Forget an output, and the rows that wait for it."""
    journal = Journal(folder, data_set=None)
    known = {one.name: one for one in journal.standings()}
    if name not in known:
        print(f"There is no output {name!r}; there are: {', '.join(known) or 'none'}")
        return exit_codes.USAGE
    journal.drop_output(name)
    print(f"Output {name} is forgotten; {known[name].pending} released rows will never reach it from here.")
    journal.close()
    return exit_codes.DONE


def accept_gap(folder: Path) -> int:
    """Mark everything the fence knows and the journal does not as released."""
    journal = Journal(folder, data_set=None, accepting_gap=True)
    print("Everything that the fence knows counts as released now. Of what the old journal knew beyond that, nothing is known:")
    for interval in journal.released_intervals():
        print(f"  {_moment(interval.start_ns)} - {_moment(interval.end_ns)} will not be released again")
    journal.close()
    return exit_codes.DONE


def main(arguments: list[str]) -> int:
    """Do what was asked; return the exit code."""
    make_printable(sys.stdout)
    options = _parse(arguments)
    folder = Path(options.state_dir or _state_dir_of(Path(options.env_file)))
    if not folder.is_dir():
        print(f"There is no STATE_DIR {folder}; name it with --state-dir, or the .env that does with --env-file")
        return exit_codes.USAGE
    try:
        # Held until the process ends: nobody may work here meanwhile.
        _lock = InstanceLock(folder)
        if options.command == "show":
            return show(folder)
        if options.command == "drop-output":
            return drop_output(folder, options.name)
        return accept_gap(folder)
    except AnotherInstance as error:
        print(error)
        return exit_codes.ANOTHER_INSTANCE
    except JournalDamaged as error:
        print(error)
        return exit_codes.CONFIGURATION


def _state_dir_of(env_file: Path) -> str:
    values = dotenv_values(env_file, interpolate=False, encoding="utf-8-sig") if env_file.is_file() else {}
    return values.get("STATE_DIR") or str(DECLARED["STATE_DIR"].metadata["default"])


def _moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // NANOSECONDS, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-file", metavar="PATH", default=".env", help="where STATE_DIR is set (default: .env)")
    parser.add_argument("--state-dir", metavar="FOLDER", help="the folder itself")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    commands.add_parser("show", help="what was released, and how far each output is")
    drop = commands.add_parser("drop-output", help="forget an output that was turned off while rows wait for it")
    drop.add_argument("name", metavar="NAME", help="as the message or `show` names it")
    commands.add_parser("accept-gap", help="never release again what the fence knows and the journal does not")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
