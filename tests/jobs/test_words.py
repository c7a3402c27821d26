"""What is said of a job that did not do its work."""

from __future__ import annotations

import pytest

from edgeq.jobs import words
from edgeq.jobs.job import Failure, Job, Look

JOB = Job("20260101-000000-export-ab12", "export", {}, "Export: m to onnx", "2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("state", "failure", "said"),
    [
        ("cancelled", None, ("Cancelled", "Press s")),
        ("interrupted", None, (f"It stopped: {words.GONE}", "Press s")),
        (
            "failed",
            Failure("not enough room", "/home/ada", "Free space"),
            ("not enough room (/home/ada)", "Free space"),
        ),
        ("failed", Failure("not enough room", None, None), ("not enough room", "")),
    ],
)
def test_the_end_of_a_job_says_why_and_the_way_out(state, failure, said):
    assert words.ended(Look(JOB, state, failure=failure), "Press s") == said
