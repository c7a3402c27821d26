"""The process of a job: `python -m edgeq.jobs.worker FOLDER`. Says how far it is, and how it ended."""

from __future__ import annotations

import faulthandler
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jobs import shelf
from edgeq.jobs.job import Failure, Job
from edgeq.jobs.process import yield_to_others
from edgeq.jobs.teller import Teller
from edgeq.jsonable import from_json, to_json

SPARE_BYTES = 1 << 16  # kept on the disk, so that on a full one there is room for the reason
NICE = 10  # steps that work gives way by whose speed is not what is measured


def main() -> None:
    """Do the work of the job's folder."""
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGTERM, _terminate)
    faulthandler.enable()  # what ends without a word leaves its place in the log
    try:
        _do(folder)
    except KeyboardInterrupt:
        return  # whoever cancelled it has noted that
    except Exception as error:
        _note(folder, failure_of(error))
    finally:
        (folder / shelf.SPARE).unlink(missing_ok=True)


def _do(folder: Path) -> None:
    from edgeq.jobs.work import MEASURING, kind

    job = from_json(Job, shelf.load(folder / shelf.JOB), folder / shelf.JOB)
    work = kind(job.kind)
    if job.kind not in MEASURING:
        yield_to_others(NICE)
    with suppress(OSError):
        (folder / shelf.SPARE).write_bytes(bytes(SPARE_BYTES))
    with Teller(folder / shelf.EVENTS) as teller:
        result = work(job.request, teller)
    write_json(folder / shelf.RESULT, to_json(result))


def failure_of(error: Exception) -> Failure:
    """What a person is told of it."""
    if isinstance(error, EdgeqError):
        return Failure(error.what, error.where, error.hint)
    if isinstance(error, MemoryError):
        return Failure("out of memory", hint="Close other programs, or choose a smaller model or fewer threads")
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return Failure(f"this needs a package that is not installed: {package}", hint="`edgeq doctor` says which")
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, OSError) and error.strerror:
        return Failure(f"the system says: {error.strerror}", error.filename and str(error.filename), trace=trace)
    what = f"unexpected {type(error).__name__}: {error}"
    return Failure(what, hint="A fault of edgeq's: please report it with the trace", trace=trace)


def _note(folder: Path, failure: Failure) -> None:
    (folder / shelf.SPARE).unlink(missing_ok=True)
    with suppress(EdgeqError):
        write_json(folder / shelf.ERROR, to_json(failure))
        return
    print(failure.trace or failure.what, file=sys.stderr)


def _terminate(*_: object) -> NoReturn:
    """Leave as after Ctrl-C: what is half-written is removed on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
