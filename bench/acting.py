"""Actors of `make bench-load`: users and programs, each with its own connection and clock."""

import asyncio
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.crowd import SERVERS, Member
from bench.questions import sign_in_form
from bench.seeding import server_name
from bench.wire import Connection, Request, ask_once
from portal.services.servers.grid import PAGE_SIZE

# The percentage of each action, for users in a browser and for programs with a key.
PEOPLE_DO = {
    "grid, first page": 22,
    "grid, another page": 13,
    "search": 14,
    "filter": 12,
    "health marks": 10,
    "server page": 13,
    "credentials form": 6,
    "credentials save": 6,
    "playground, list of tools": 4,
}
PROGRAMS_DO = {"JSON page of 50": 40, "status": 20, "needs of one server": 15, "values save": 25}
_SHARE_OF_PROGRAMS = 0.2
_HX = {"HX-Request": "true"}


@dataclass
class Tally:
    """The results: milliseconds from when each action was due, and errors."""

    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    reopened: int = 0

    @property
    def all(self) -> list[float]:
        """The times of all actions."""
        return [taken for times in self.times.values() for taken in times]


class Actor:
    """Acts at random times, `rate` times a second on average, even if the portal is slower."""

    actions: dict[str, int]
    headers: dict[str, str]

    def __init__(self, member: Member, port: int, echo: str) -> None:
        self.member, self.echo = member, echo
        self.chance = random.Random(member.number)  # the same in every run
        self.connection = Connection(port)

    async def act(self, rate: float, end: float, tally: Tally) -> None:
        """Act until `end` (monotonic seconds).

        An action that is due while another runs has to wait, and its time includes the wait.
        """
        names = list(self.actions)
        weights = list(self.actions.values())
        due = time.monotonic() + self.chance.expovariate(rate)
        before = self.connection.reopened
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            (name,) = self.chance.choices(names, weights)
            await self._do(name, due, tally)
            due += self.chance.expovariate(rate)
        tally.reopened += self.connection.reopened - before

    async def _do(self, name: str, due: float, tally: Tally) -> None:
        request, expect = self.request(name, self.chance.randrange(SERVERS))
        try:
            answer, _ = await self.connection.ask(request)
        except OSError as error:
            self.connection.close()
            tally.errors.append(f"{name}: {type(error).__name__} {error}")
            return
        if answer.status != expect:
            tally.errors.append(
                f"{name}: {request.method} {request.path[:80]} returned {answer.status}"
            )
        tally.times[name].append((time.monotonic() - due) * 1000)

    def request(self, name: str, choice: int) -> tuple[Request, int]:
        """Return the request of an action, and the expected status."""
        raise NotImplementedError


class Person(Actor):
    """A user in a browser, signed in with a password, with their own address."""

    actions = PEOPLE_DO
    csrf = ""

    async def sign_in(self) -> None:
        """Submit the sign-in form, and keep the session's cookie."""
        address = {
            "X-Forwarded-For": f"198.51.{self.member.number // 250}.{self.member.number % 250}"
        }
        cookie, token = await sign_in_form(self.connection.port)
        form = {"email": self.member.email, "password": self.member.password, "csrf_token": token}
        answer = await ask_once(
            self.connection.port, Request.form("/login", address | {"Cookie": cookie}, **form)
        )
        assert answer.status == 303, (
            f"{self.member.email} could not sign in: {answer.status} {answer.text[-500:]}"
        )
        self.headers = address | {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        page = await ask_once(self.connection.port, Request("/servers", self.headers))
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
        assert found is not None, f"no page for {self.member.email}: {page.status}"
        self.csrf = found[1]

    def request(self, name: str, choice: int) -> tuple[Request, int]:
        last = server_name(choice)
        asking = self.member.asking(choice)
        ids = ",".join(server_name((choice + n) % SERVERS) for n in range(PAGE_SIZE))
        if name == "credentials save":
            form = {
                "csrf_token": self.csrf,
                "value-TOKEN": f"value {choice}",
                "value-TOKEN__mode": "replace",
            }
            return Request.form(f"/credentials/{asking}", self.headers, **form), 303
        path, more = {
            "grid, first page": ("/servers", {}),
            "grid, another page": (f"/servers?cursor={last}~{last}", {}),
            "search": (f"/servers?q={choice // 10:04}", _HX),
            "filter": (
                f"/servers?transport={self.chance.choice(('sse', 'http'))}&health=healthy",
                _HX,
            ),
            "health marks": (f"/servers/health-badges?ids={ids}", _HX),
            "server page": (f"/servers/{self.member.server(choice)}", {}),
            "credentials form": (f"/credentials/{asking}", _HX),
            "playground, list of tools": (f"/playground?server={self.echo}", {}),
        }[name]
        return Request(path, self.headers | more), 200


class Program(Actor):
    """A program with its owner's API key."""

    actions = PROGRAMS_DO

    def __init__(self, member: Member, port: int, echo: str) -> None:
        super().__init__(member, port, echo)
        self.headers = {"Authorization": f"Bearer {member.key}"}

    def request(self, name: str, choice: int) -> tuple[Request, int]:
        path = f"/v1/mcp/server/{self.member.asking(choice)}/user-env-vars"
        if name == "values save":
            return (
                Request.json(
                    path, self.headers, json.dumps({"values": {"TOKEN": f"value {choice}"}})
                ),
                200,
            )
        if name == "JSON page of 50":
            path = "/v1/mcp/server?limit=50"
        elif name == "status":
            path = "/v1/mcp/user-env-vars/status"
        return Request(path, self.headers), 200


async def act_all(actors: Sequence[Actor], rate: float, seconds: float) -> Tally:
    """Run all actors at once, `rate` actions a second in total, a fifth of them by programs."""
    tally = Tally()
    end = time.monotonic() + seconds
    programs = sum(isinstance(actor, Program) for actor in actors)
    of_program = rate * _SHARE_OF_PROGRAMS / programs
    of_person = rate * (1 - _SHARE_OF_PROGRAMS) / (len(actors) - programs)
    await asyncio.gather(
        *(
            actor.act(of_program if isinstance(actor, Program) else of_person, end, tally)
            for actor in actors
        )
    )
    return tally
