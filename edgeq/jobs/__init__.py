"""Long work in processes of its own: started, watched, paused, resumed and found again, also by another window.

A job is a folder in `home()/jobs`: what is asked (`job.json`), how far it is (`events.jsonl`), how it ended
(`result.json` or `error.json`). What holds the truth is the folder and the process, never the window that looks at it.
"""

from edgeq.jobs.control import at_work, cancel, forget, look, pause, resume, start
from edgeq.jobs.job import Job, Look, State
from edgeq.jobs.shelf import all_jobs, find_job

__all__ = [
    "Job",
    "Look",
    "State",
    "all_jobs",
    "at_work",
    "cancel",
    "find_job",
    "forget",
    "look",
    "pause",
    "resume",
    "start",
]
