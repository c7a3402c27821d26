"""What the screens share: the journey, and what was read along it (device, model, plan), each read once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeq import journey as journeys
from edgeq.journey import Journey, Step

if TYPE_CHECKING:
    from edgeq.device.spec import Device
    from edgeq.jobs import Job
    from edgeq.model.spec import ModelSpec
    from edgeq.plan.candidate import Candidate
    from edgeq.plan.plan import Plan
    from edgeq.plan.request import Request
    from edgeq.tui.chatting import Chatting

DEFAULT_CONTEXT = 8192


class Road:
    """The journey and what belongs to it. The methods that read block: call them from a worker thread."""

    def __init__(self, journey: Journey) -> None:
        self.journey = journey
        self.chatting: Chatting | None = None
        self._device: tuple[str, Device] | None = None
        self._spec: tuple[str, ModelSpec] | None = None
        self._plan: tuple[tuple[str, str, Request], Plan] | None = None

    def become(self, journey: Journey) -> None:
        """Take the journey on from here, and keep it.

        Raises:
            EdgeqError: the place can't be written.
        """
        if journey != self.journey:
            self.journey = journey
            if self.chatting is not None and not journey.artifacts:  # of another model or scheme
                self.close()
            journeys.save(journey)

    def talk(self, chatting: Chatting) -> None:
        """Have this chat, which goes on while another step is shown, and end any other."""
        if chatting is not self.chatting:
            self.close()
            self.chatting = chatting

    def close(self) -> None:
        """End what runs for this window alone: the chat."""
        if self.chatting is not None:
            self.chatting.talk.close()
            self.chatting = None

    def at(self, step: Step) -> None:
        self.become(replace(self.journey, step=step))

    def device(self, *, refresh: bool = False) -> Device:
        """Raises:
        EdgeqError: no such device.
        """
        from edgeq.device import load_device

        name = self.journey.device
        if refresh or self._device is None or self._device[0] != name:
            self._device = (name, load_device(name))
        return self._device[1]

    def spec(self) -> ModelSpec:
        """The chosen model; there must be one.

        Raises:
            EdgeqError: it can't be read.
        """
        from edgeq.model.read import read_model

        name = self.journey.model or ""
        if self._spec is None or self._spec[0] != name:
            self._spec = (name, read_model(name))
        return self._spec[1]

    def request(self) -> Request:
        """What is asked of the plan: as chosen, else the defaults for this model."""
        from edgeq.plan import Request

        return self.journey.request or Request(context=min(DEFAULT_CONTEXT, self.spec().max_positions))

    def plan(self, request: Request | None = None) -> Plan:
        """The plan for the journey's device and model.

        Raises:
            EdgeqError: a value that makes no sense, no such model or device.
        """
        from edgeq.plan import make_plan

        device, spec, asked = self.device(), self.spec(), request or self.request()
        key = (self.journey.device, self.journey.model or "", asked)
        known = self._plan
        if known is None or known[0] != key:  # what another thread puts there meanwhile is its own answer
            known = self._plan = (key, make_plan(device, spec, asked))
        return known[1]

    def candidate(self) -> Candidate | None:
        """The chosen candidate of the plan, else the recommended one."""
        plan = self.plan()
        here = self.journey
        found = (c for c in plan.candidates if (c.scheme.name, c.target) == (here.scheme, here.target))
        return next(found, plan.recommended)

    def job(self, step: Step) -> Job | None:
        """The latest job of a step, if its folder is still there."""
        from edgeq.jobs import find_job

        job_id = self.journey.jobs.get(step)
        return None if job_id is None else find_job(job_id)
